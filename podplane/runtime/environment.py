"""The environment of a container: variables from everywhere that a pod's spec can take them, and Services. Pure.

Order, as kubelet's: Services first, then `envFrom` in its order, then `env`, in which `$(NAME)` stands for what is known until then.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from podplane.model import quantity
from podplane.model.pod import Container, EnvFromSource, EnvVarSource, Pod, ResourceFieldSelector
from podplane.model.service import Service

Source = tuple[str, str]
"""(resource, name) of a ConfigMap or Secret in the pod's namespace."""
CONFIG_MAPS, SECRETS = "configmaps", "secrets"
REFERENCE = re.compile(r"\$\$|\$\(([^)]+)\)")
NAME = re.compile(r"[^=\x00-\x20\x7f-\U0010ffff]+")
SUBSCRIPT = re.compile(r"metadata\.(labels|annotations)\['([^']*)'\]")


class ConfigError(Exception):
    """The container can't be made of what there is; one line that says what is missing."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What a pod's node knows of it beside its spec: addresses, what the node can give, sources by (resource, name), Services."""

    ips: Sequence[str]
    host_ips: Sequence[str]
    allocatable: Mapping[str, str]
    sources: Mapping[Source, Mapping[str, Any] | None]
    services: Sequence[Service] = ()


def sources_of(container: Container) -> Iterator[Source]:
    """The sources that a container's environment needs."""
    for whole in container.env_from:
        for resource, reference in ((CONFIG_MAPS, whole.config_map_ref), (SECRETS, whole.secret_ref)):
            if reference is not None:
                yield resource, reference.name
    for variable in container.env:
        source = variable.value_from or EnvVarSource()
        for resource, key in ((CONFIG_MAPS, source.config_map_key_ref), (SECRETS, source.secret_key_ref)):
            if key is not None:
                yield resource, key.name


def variables(pod: Pod, container: Container, facts: Facts) -> dict[str, str]:
    """All variables. ConfigError when one can't be had."""
    found: dict[str, str] = {}
    for service in facts.services:
        if pod.spec.enable_service_links or (service.metadata.namespace, service.metadata.name) == ("default", "kubernetes"):
            found.update(service_variables(service))
    for whole in container.env_from:
        found.update(_whole(whole, facts))
    for variable in container.env:
        if variable.value_from is None:
            found[variable.name] = expand(variable.value, found)
        elif (value := _value(pod, container, variable.value_from, facts)) is not None:
            found[variable.name] = value
    return found


def expand(text: str, known: Mapping[str, str]) -> str:
    """`$(NAME)` replaced by what is known; `$$` stands for one `$`; what isn't known stays (third_party/forked/golang/expansion)."""
    return REFERENCE.sub(lambda m: "$" if m[1] is None else known.get(m[1], m[0]), text)


def expand_all(words: Iterable[str], known: Mapping[str, str]) -> list[str]:
    """Each word expanded."""
    return [expand(word, known) for word in words]


def texts(source: Mapping[str, Any], resource: str) -> dict[str, str]:
    """The values of a ConfigMap or Secret as text."""
    return {key: value.decode("utf-8", "surrogateescape") for key, value in contents(source, resource).items()}


def contents(source: Mapping[str, Any], resource: str) -> dict[str, bytes]:
    """The values of a ConfigMap or Secret as bytes."""
    binary = source.get("data" if resource == SECRETS else "binaryData") or {}
    plain = {} if resource == SECRETS else source.get("data") or {}
    return {key: value.encode() for key, value in plain.items()} | {k: base64.b64decode(v) for k, v in binary.items()}


def _whole(whole: EnvFromSource, facts: Facts) -> dict[str, str]:
    for resource, reference in ((CONFIG_MAPS, whole.config_map_ref), (SECRETS, whole.secret_ref)):
        if reference is None:
            continue
        source = facts.sources.get((resource, reference.name))
        if source is not None:
            return {whole.prefix + k: v for k, v in texts(source, resource).items() if NAME.fullmatch(whole.prefix + k)}
        if not reference.optional:
            raise ConfigError(not_found(resource, reference.name))
    return {}


def not_found(resource: str, name: str) -> str:
    """That a source is missing."""
    return f'{resource.removesuffix("s")} "{name}" not found'


def _value(pod: Pod, container: Container, source: EnvVarSource, facts: Facts) -> str | None:
    if source.field_ref is not None:
        return field(pod, source.field_ref.field_path, facts)
    if source.resource_field_ref is not None:
        return resource_field(pod, container, source.resource_field_ref, facts)
    for resource, reference in ((CONFIG_MAPS, source.config_map_key_ref), (SECRETS, source.secret_key_ref)):
        if reference is None:
            continue
        there = facts.sources.get((resource, reference.name))
        if there is None and not reference.optional:
            raise ConfigError(not_found(resource, reference.name))
        value = texts(there, resource).get(reference.key) if there is not None else None
        if value is None and not reference.optional:
            kind = "ConfigMap" if resource == CONFIG_MAPS else "Secret"
            raise ConfigError(f"couldn't find key {reference.key} in {kind} {pod.metadata.namespace}/{reference.name}")
        return value
    return None


def field(pod: Pod, path: str, facts: Facts) -> str:
    """A field of the pod, as the downward API has it. ConfigError for one that it has not."""
    metadata, ips, host_ips = pod.metadata, facts.ips, facts.host_ips
    values: dict[str, str] = {
        "metadata.name": metadata.name,
        "metadata.namespace": metadata.namespace,
        "metadata.uid": metadata.uid,
        "metadata.labels": _lines(metadata.labels),
        "metadata.annotations": _lines(metadata.annotations),
        "spec.nodeName": pod.spec.node_name,
        "spec.serviceAccountName": pod.spec.service_account_name,
        "status.podIP": ips[0] if ips else "",
        "status.podIPs": ",".join(ips),
        "status.hostIP": host_ips[0] if host_ips else "",
        "status.hostIPs": ",".join(host_ips),
    }
    if (subscript := SUBSCRIPT.fullmatch(path)) is not None:
        return (metadata.labels if subscript[1] == "labels" else metadata.annotations).get(subscript[2], "")
    if path not in values:
        raise ConfigError(f"unsupported fieldPath: {path}")
    return values[path]


def _lines(pairs: Mapping[str, str]) -> str:
    """`key="value"` lines, as volumes show labels (pkg/fieldpath)."""
    escapes = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t", "\r": "\\r"})
    return "\n".join(f'{key}="{pairs[key].translate(escapes)}"' for key in sorted(pairs))


def resource_field(pod: Pod, container: Container, reference: ResourceFieldSelector, facts: Facts) -> str:
    """A limit or request in units of the divisor, rounded up; a limit that isn't set is what the node has."""
    if reference.container_name:
        everyone = (*pod.spec.init_containers, *pod.spec.containers)
        container = next((c for c in everyone if c.name == reference.container_name), container)
    kind, _, name = reference.resource.partition(".")
    given = container.resources.get(kind, {}).get(name)
    if given is None:
        given = facts.allocatable.get(name, "0") if kind == "limits" else "0"
    divisor = quantity.parse(reference.divisor) or 1
    return str(-int(-quantity.parse(given) // divisor))


def service_variables(service: Service) -> dict[str, str]:
    """What a Service adds to the environment of pods (kubelet, pkg/kubelet/envvars)."""
    ip, ports = service.spec.cluster_ip, service.spec.ports
    if not ports or ip in ("", "None"):
        return {}
    prefix = service.metadata.name.upper().replace("-", "_")
    found = {f"{prefix}_SERVICE_HOST": ip, f"{prefix}_SERVICE_PORT": str(ports[0].port)}
    host = f"[{ip}]" if ":" in ip else ip
    for number, port in enumerate(ports):
        protocol = port.protocol
        if port.name:
            found[f"{prefix}_SERVICE_PORT_{port.name.upper().replace('-', '_')}"] = str(port.port)
        url, at = f"{protocol.lower()}://{host}:{port.port}", f"{prefix}_PORT_{port.port}_{protocol}"
        if number == 0:
            found[f"{prefix}_PORT"] = url
        found |= {at: url, f"{at}_PROTO": protocol.lower(), f"{at}_PORT": str(port.port), f"{at}_ADDR": ip}
    return found
