"""Pods and what is made of their templates: defaults and rules (core/validation, apps/validation, as far as they concern a network)."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence, Set
from typing import Any

from podplane.apiserver.kinds import names
from podplane.apiserver.kinds.addresses import check_ip
from podplane.apiserver.kinds.pod_names import check_names
from podplane.apiserver.kinds.pod_resources import check_amounts, check_size, complete_pod_requests
from podplane.apiserver.problems import Cause

Object = dict[str, Any]


def complete_pod_spec(spec: Object) -> None:
    """Defaults that hang on other fields."""
    spec.setdefault("schedulerName", "default-scheduler")
    if "serviceAccount" in spec and "serviceAccountName" not in spec:
        spec["serviceAccountName"] = spec["serviceAccount"]
    elif "serviceAccountName" in spec:
        spec["serviceAccount"] = spec["serviceAccountName"]
    for container in [*spec.get("initContainers", ()), *spec.get("containers", ()), *spec.get("ephemeralContainers", ())]:
        container.setdefault("imagePullPolicy", pull_policy(container.get("image", "")))
        container.setdefault("resources", {})
    for volume in spec.get("volumes", ()):
        if volume.keys() <= {"name"}:
            volume["emptyDir"] = {}
        if "image" in volume:
            volume["image"].setdefault("pullPolicy", pull_policy(volume["image"].get("reference", "")))


DOMAIN = r"(?:[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+(?::\d+)?|[A-Za-z0-9-]+:\d+|localhost(?::\d+)?)"
PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
IMAGE = re.compile(
    rf"(?:{DOMAIN}/)?{PART}(?:/{PART})*(?::(\w[\w.-]{{0,127}}))?(@[A-Za-z0-9+._-]+:[0-9a-fA-F]{{32,}})?", re.ASCII
)
"""The reference of an image: its tag, and its digest (distribution, reference)."""


def pull_policy(image: str) -> str:
    """Always for the tag `latest`, said or not; a digest, another tag, or what is no reference stays what it is."""
    found = IMAGE.fullmatch(image)
    latest = found is not None and (found[1] == "latest" or not (found[1] or found[2]))
    return "Always" if latest else "IfNotPresent"


def complete_pod(pod: Object) -> None:
    """Defaults of a pod, and not of a template, which stays as it was written (SetDefaults_Pod)."""
    if "spec" in pod:
        spec = pod["spec"]
        complete_pod_spec(spec)
        spec.setdefault("enableServiceLinks", True)
        if spec.get("terminationGracePeriodSeconds", 0) < 0:
            spec["terminationGracePeriodSeconds"] = 1
        containers = (*spec.get("initContainers", ()), *spec.get("containers", ()))
        for container in containers:
            complete_requests(container)
        complete_pod_requests(spec)
        for port in (port for c in containers for port in c.get("ports", ()) if spec.get("hostNetwork")):
            if port.get("containerPort"):
                port.setdefault("hostPort", port["containerPort"])


def complete_requests(container: Object) -> None:
    """What is limited is requested, unless the container says how much of it."""
    limits = container["resources"].get("limits")
    if limits:
        container["resources"]["requests"] = {**limits, **container["resources"].get("requests", {})}


def check_pod(pod: Object, old: Object | None) -> Iterator[Cause]:
    """Pod."""
    spec = pod.get("spec", {})
    yield from check_pod_spec(spec, "spec")
    if old is None and spec.get("ephemeralContainers"):
        yield Cause.forbidden(
            "spec.ephemeralContainers", "cannot be set on create: `kubectl debug` adds them to a pod that is there"
        )
    if old is not None and old.get("spec") != spec:
        yield from _check_pod_change(old["spec"], spec)


def _check_pod_change(old: Object, new: Object) -> Iterator[Cause]:
    """A pod's spec stays, but for images, tolerations, its deadline, its gates, and a node's name that comes (validation.go)."""
    kept = dict(new)
    for field in ("activeDeadlineSeconds", "tolerations", "schedulingGates", "terminationGracePeriodSeconds"):
        kept.pop(field, None)
        if field in old:
            kept[field] = old[field]
    if not old.get("nodeName") and kept.get("nodeName"):
        kept.pop("nodeName")
    for kind in ("containers", "initContainers"):
        if len(old.get(kind, ())) == len(new.get(kind, ())) and kind in new:
            kept[kind] = [
                {**c, "image": o.get("image", ""), "imagePullPolicy": o.get("imagePullPolicy")}
                for c, o in zip(new[kind], old[kind], strict=True)
            ]
    if kept != old:
        changed = sorted(name for name in kept.keys() | old.keys() if kept.get(name) != old.get(name))
        yield Cause.forbidden(
            "spec",
            "pod updates may not change fields other than `spec.containers[*].image`, `spec.initContainers[*].image`, "
            "`spec.activeDeadlineSeconds`, `spec.tolerations` (only additions to existing tolerations) "
            f"and `spec.terminationGracePeriodSeconds`: changed are {', '.join(changed)}",
        )


def check_template(template: Object, path: str, policies: tuple[str, ...] = ("Always",)) -> Iterator[Cause]:
    """A PodTemplateSpec, whose pods restart by one of these policies."""
    yield from check_pod_spec(template.get("spec", {}), f"{path}.spec")
    yield from check_template_metadata(template, path, policies)


def check_template_metadata(template: Object, path: str, policies: tuple[str, ...] = ("Always",)) -> Iterator[Cause]:
    """Its labels and its restart policy alone."""
    yield from names.check_labels(template.get("metadata", {}).get("labels", {}), f"{path}.metadata.labels")
    policy = template.get("spec", {}).get("restartPolicy", "Always")
    if policy not in policies:
        yield Cause.unsupported(f"{path}.spec.restartPolicy", policy, policies)


def check_pod_spec(spec: Object, path: str) -> Iterator[Cause]:
    """At least one container; names apart; ports and addresses that can be."""
    containers = spec.get("containers", [])
    if not containers:
        yield Cause.required(f"{path}.containers")
    seen: set[str] = set()
    all_volumes = {volume.get("name") for volume in spec.get("volumes", ())}
    for kind in ("initContainers", "containers"):
        for i, container in enumerate(spec.get(kind, ())):
            where = f"{path}.{kind}[{i}]"
            yield from check_container(container, where, all_volumes)
            name = container.get("name", "")
            if name in seen:
                yield Cause.duplicate(f"{where}.name", name)
            seen.add(name)
    yield from _check_host_ports(containers, f"{path}.containers")
    volumes: set[str] = set()
    for i, volume in enumerate(spec.get("volumes", ())):
        if why := names.LABEL(volume.get("name", "")):
            yield Cause.invalid(f"{path}.volumes[{i}].name", volume.get("name", ""), why)
        if volume.get("name") in volumes:
            yield Cause.duplicate(f"{path}.volumes[{i}].name", volume.get("name"))
        volumes.add(volume.get("name", ""))
        yield from check_size(volume, f"{path}.volumes[{i}]")
    yield from check_amounts(spec.get("resources") or {}, f"{path}.resources")
    grace = spec.get("terminationGracePeriodSeconds", 0)
    if grace < 0:
        yield Cause.invalid(f"{path}.terminationGracePeriodSeconds", grace, "must be greater than or equal to 0")
    if "activeDeadlineSeconds" in spec and spec["activeDeadlineSeconds"] < 1:
        yield Cause.invalid(f"{path}.activeDeadlineSeconds", spec["activeDeadlineSeconds"], "must be between 1 and 2147483647")
    if spec.get("nodeName") and (why := names.SUBDOMAIN(spec["nodeName"])):
        yield Cause.invalid(f"{path}.nodeName", spec["nodeName"], why)
    yield from names.check_labels(spec.get("nodeSelector", {}), f"{path}.nodeSelector")
    for i, alias in enumerate(spec.get("hostAliases", ())):
        yield from check_ip(alias.get("ip", ""), f"{path}.hostAliases[{i}].ip")
    yield from check_names(spec, path)
    if spec.get("hostPID") and spec.get("shareProcessNamespace"):
        yield Cause.invalid(
            f"{path}.securityContext.shareProcessNamespace", True, "ShareProcessNamespace and HostPID cannot both be enabled"
        )


def _check_host_ports(containers: Sequence[Mapping[str, Any]], path: str) -> Iterator[Cause]:
    """A port of the node leads to one port of the pod (AccumulateUniqueHostPorts of Kubernetes' validation)."""
    seen: set[str] = set()
    for i, container in enumerate(containers):
        for j, port in enumerate(container.get("ports", ())):
            if port.get("hostPort"):
                key = f"{port.get('protocol', 'TCP')}/{port.get('hostIP', '')}/{port['hostPort']}"
                if key in seen:
                    yield Cause.duplicate(f"{path}[{i}].ports[{j}].hostPort", key)
                seen.add(key)


def check_container(container: Object, path: str, volumes: Set[Any]) -> Iterator[Cause]:
    name = container.get("name", "")
    if not name:
        if "name" in container:
            yield Cause.required(f"{path}.name")
    elif why := names.LABEL(name):
        yield Cause.invalid(f"{path}.name", name, why)
    if not container.get("image"):
        yield Cause.required(f"{path}.image")
    yield from check_amounts(container.get("resources") or {}, f"{path}.resources")
    known: set[str] = set()
    for i, port in enumerate(container.get("ports", ())):
        where = f"{path}.ports[{i}]"
        if "containerPort" in port:
            yield from names.check_port(port["containerPort"], f"{where}.containerPort")
        if port.get("hostPort"):
            yield from names.check_port(port["hostPort"], f"{where}.hostPort")
        if port.get("name"):
            if not names.PORT_NAME_PATTERN.fullmatch(port["name"]):
                yield from names.check_port(port["name"], f"{where}.name", named=True)
            if port["name"] in known:
                yield Cause.duplicate(f"{where}.name", port["name"])
            known.add(port["name"])
    for i, variable in enumerate(container.get("env", ())):
        if not names.ENV_PATTERN.fullmatch(variable.get("name", "x")):
            yield Cause.invalid(
                f"{path}.env[{i}].name", variable["name"], "must consist only of printable ASCII characters other than '='"
            )
        if variable.get("value") and variable.get("valueFrom"):
            yield Cause.invalid(f"{path}.env[{i}].valueFrom", "", "may not be specified when `value` is not empty")
    yield from _check_mounts(container.get("volumeMounts", ()), f"{path}.volumeMounts", volumes)
    for probe in ("livenessProbe", "readinessProbe", "startupProbe"):
        if probe in container:
            yield from _check_probe(container[probe], f"{path}.{probe}", only_one=probe != "readinessProbe")
    yield from _check_escalation(container.get("securityContext", {}), f"{path}.securityContext")


def _check_mounts(mounts: Sequence[Mapping[str, Any]], path: str, volumes: Collection[str]) -> Iterator[Cause]:
    """kubernetes, pkg/apis/core/validation (ValidateVolumeMounts)."""
    places: set[str] = set()
    for i, mount in enumerate(mounts):
        if mount.get("name") not in volumes:
            yield Cause(f"{path}[{i}].name", "FieldValueNotFound", f'Not found: "{mount.get("name", "")}"')
        place = mount.get("mountPath", "")
        if not place:
            yield Cause.required(f"{path}[{i}].mountPath")
        elif place in places:
            yield Cause.invalid(f"{path}[{i}].mountPath", place, "must be unique")
        places.add(place)
        if mount.get("subPath") and mount.get("subPathExpr"):
            yield Cause.invalid(
                f"{path}[{i}].subPathExpr", mount["subPathExpr"], "subPathExpr and subPath are mutually exclusive"
            )
        for name in ("subPath", "subPathExpr"):
            if (below := mount.get(name, "")).startswith("/"):
                yield Cause.invalid(f"{path}[{i}].{name}", below, "must be a relative path")
            elif ".." in below.split("/"):
                yield Cause.invalid(f"{path}[{i}].{name}", below, "must not contain '..'")


def _check_escalation(context: Object, path: str) -> Iterator[Cause]:
    """What has all privileges can't be kept from more of them (ValidateSecurityContext, which takes SYS_ADMIN by this name alone)."""
    if context.get("allowPrivilegeEscalation", True):
        return
    if context.get("privileged"):
        yield Cause.invalid(path, context, "cannot set `allowPrivilegeEscalation` to false and `privileged` to true")
    if "CAP_SYS_ADMIN" in context.get("capabilities", {}).get("add", ()):
        yield Cause.invalid(
            path, context, "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN"
        )


HANDLERS = ("exec", "httpGet", "tcpSocket", "grpc")


def _check_probe(probe: Object, path: str, only_one: bool) -> Iterator[Cause]:
    handlers = [handler for handler in HANDLERS if handler in probe]
    if not handlers:
        yield Cause.required(path, "must specify a handler type")
    for second in handlers[1:]:
        yield Cause.forbidden(f"{path}.{second}", "may not specify more than 1 handler type")
    for handler in ("httpGet", "tcpSocket", "grpc"):
        if "port" in probe.get(handler, {}):
            yield from names.check_port(probe[handler]["port"], f"{path}.{handler}.port", named=handler != "grpc")
    for field in ("initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"):
        if probe.get(field, 0) < 0:
            yield Cause.invalid(f"{path}.{field}", probe[field], "must be greater than or equal to 0")
    if only_one and probe.get("successThreshold", 1) != 1:
        yield Cause.invalid(f"{path}.successThreshold", probe["successThreshold"], "must be 1")
