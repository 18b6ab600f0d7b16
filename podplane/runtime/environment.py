"""The environment of a container: variables from everywhere that a pod's spec can take them, and Services. Pure.

Order, as kubelet's: Services first, then `envFrom` in its order, then `env`, in which `$(NAME)` stands for what is known until then.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import msgspec

from podplane.model import quantity
from podplane.model.pod import Container, EnvFromSource, EnvVarSource, Pod, ResourceFieldSelector
from podplane.model.service import Service

Source = tuple[str, str]
"""(resource, name) of a ConfigMap or Secret in the pod's namespace."""
CONFIG_MAPS, SECRETS = "configmaps", "secrets"
REFERENCE = re.compile(r"\$\$|\$\(([^)]+)\)")
NAME = re.compile(r"[^=\x00-\x20\x7f-\U0010ffff]+")
SUBSCRIPT = re.compile(r"metadata\.(labels|annotations)\['([^']*)'\]")


MAX_STRING, MAX_STRINGS = 128 * 1024, 2 * 1024 * 1024
"""Bytes of one argument or variable with the NUL at its end, and of all of them (execve(2): MAX_ARG_STRLEN, a fourth of RLIMIT_STACK)."""


class ConfigError(Exception):
    """The container can't be made of what there is; one line that says what is missing."""

    reason: ClassVar[str] = "CreateContainerConfigError"


class TextError(ConfigError):
    """No program can be started with this text."""

    reason = "CreateContainerError"


class TooLongError(TextError):
    """It is too much."""


class Facts(msgspec.Struct, frozen=True):
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


def services_of(services: Mapping[str, Service], namespace: str) -> list[Service]:
    """Those that a pod of a namespace has variables of (kubelet, getServiceEnvVarMap)."""
    own = [service for service in services.values() if service.metadata.namespace == namespace]
    kubernetes = services.get("default/kubernetes")
    return [*own, *([kubernetes] if kubernetes is not None and kubernetes not in own else [])]


def variables(pod: Pod, container: Container, facts: Facts) -> dict[str, str]:
    """All variables. ConfigError when one can't be had, TooLongError when the kernel would take no program with them."""
    found: dict[str, str] = {}
    room = _Room()
    for name, value in _given(pod, container, facts, found):
        room.take(f"{name}={value}", f"environment variable {name}")
        found[name] = value
    return found


def _given(pod: Pod, container: Container, facts: Facts, known: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """One variable after the other, some more than once; `known` are those before it."""
    for service in facts.services:
        if pod.spec.enable_service_links or (service.metadata.namespace, service.metadata.name) == ("default", "kubernetes"):
            yield from service_variables(service).items()
    for whole in container.env_from:
        yield from _whole(whole, facts).items()
    for variable in container.env:
        if variable.value_from is None:
            yield variable.name, expand(variable.value, known, f"environment variable {variable.name}")
        elif variable.value_from == EnvVarSource():
            raise ConfigError(f"environment variable {variable.name}: its source is of a kind that a lab doesn't have")
        elif (value := _value(pod, container, variable.value_from, facts)) is not None:
            yield variable.name, value


class _Room:
    """What is left for the strings of a new program; what was overwritten took its part, so that the work is bounded, too."""

    def __init__(self) -> None:
        self.left = MAX_STRINGS

    def take(self, text: str, what: str) -> None:
        """TextError when it can't be passed to a program; TooLongError when it is too long, or is one too many."""
        if "\0" in text:
            raise TextError(f"{what} contains a NUL character, with which a string ends (execve)")
        size = len(text.encode("utf-8", "surrogateescape")) + 1
        if size > MAX_STRING:
            raise _too_long(what)
        self.left -= size
        if self.left < 0:
            raise TooLongError(f"argument list too long: with {what} it is more than {MAX_STRINGS} bytes")


def _too_long(what: str) -> TooLongError:
    return TooLongError(f"argument list too long: {what} is more than {MAX_STRING - 1} bytes")


def expand(text: str, known: Mapping[str, str], what: str = "an expanded text") -> str:
    """`$(NAME)` replaced by what is known; `$$` stands for one `$`; what isn't known stays (third_party/forked/golang/expansion).

    TooLongError, before the text is built, when no program could take it: each variable may double the one before it.
    """
    last = text.rfind(")") + 1  # no reference ends behind it: so none is looked for to the end of the text, again and again
    parts: list[str] = []
    at = size = 0
    for match in REFERENCE.finditer(text, 0, last):
        new = "$" if match[1] is None else known.get(match[1], match[0])
        size += match.start() - at + len(new)
        if size >= MAX_STRING:
            raise _too_long(what)
        parts += text[at : match.start()], new
        at = match.end()
    return "".join((*parts, text[at:last], text[last:].replace("$$", "$")))


def expand_all(words: Iterable[str], known: Mapping[str, str]) -> list[str]:
    """Each word of a command expanded. TooLongError when the kernel would not take them."""
    found: list[str] = []
    room = _Room()
    for number, word in enumerate(words):
        what = f"word {number} of the command"
        found.append(expand(word, known, what))
        room.take(found[-1], what)
    return found


def texts(source: Mapping[str, Any], resource: str) -> dict[str, str]:
    """The values of a ConfigMap or Secret as text."""
    return {key: value.decode("utf-8", "surrogateescape") for key, value in contents(source, resource).items()}


def contents(source: Mapping[str, Any], resource: str) -> dict[str, bytes]:
    """The values of a ConfigMap or Secret as bytes."""
    binary = source.get("data" if resource == SECRETS else "binaryData") or {}
    plain = {} if resource == SECRETS else source.get("data") or {}
    return {key: value.encode() for key, value in plain.items()} | {k: base64.b64decode(v) for k, v in binary.items()}


def _text(source: Mapping[str, Any], resource: str, key: str) -> str | None:
    """One value as text; the others are not decoded, since each of many variables may take one."""
    binary = source.get("data" if resource == SECRETS else "binaryData") or {}
    if key in binary:
        return base64.b64decode(binary[key]).decode("utf-8", "surrogateescape")
    return None if resource == SECRETS else (source.get("data") or {}).get(key)


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
        value = _text(there, resource, reference.key) if there is not None else None
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
