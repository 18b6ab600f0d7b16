"""The resources that are served: one row each, with its validation. A literal table."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from podplane.apiserver.problems import Problem
from podplane.model.config import UNDERLAY_MAC
from podplane.model.objects import Namespace, Node, Pod

Object = dict[str, Any]
SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class Resource:
    """One kind: its names, its scope, what its fields may be, and by which fields it can be selected.

    `model` is what agents read it as. `check` looks at a whole object, before it is created and after it was changed; `fixed` are
    paths that no change may touch.
    """

    plural: str
    singular: str
    kind: str
    namespaced: bool
    short_names: tuple[str, ...]
    check: Callable[[Object], None]
    model: type[msgspec.Struct]
    fields: frozenset[str] = frozenset({"metadata.name", "metadata.namespace"})
    fixed: tuple[tuple[str, ...], ...] = ()
    version: str = "v1"
    verbs: tuple[str, ...] = ("create", "delete", "get", "list", "patch", "update", "watch")


def _invalid(kind: str, name: str, path: str, why: str) -> Problem:
    return Problem("Invalid", f'{kind} "{name}" is invalid: {path}: {why}')


def _mapping(object_: Object, kind: str, path: str) -> Object:
    found = object_.get(path, {})
    if not isinstance(found, dict):
        raise _invalid(kind, object_["metadata"]["name"], path, "must be an object")
    return found


def _check_metadata(object_: Object, kind: str) -> None:
    """Labels and annotations map strings to strings."""
    metadata = object_["metadata"]
    if metadata.get("finalizers"):
        raise _invalid(kind, metadata["name"], "metadata.finalizers", "finalizers are not served yet")
    for field in ("labels", "annotations"):
        found = metadata.get(field, {})
        if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
            raise _invalid(kind, metadata["name"], f"metadata.{field}", "must map strings to strings")


def check_node(node: Object) -> None:
    """Node: blocks are networks, addresses are addresses."""
    _check_metadata(node, "Node")
    name = node["metadata"]["name"]
    mac = node["metadata"].get("annotations", {}).get(UNDERLAY_MAC)
    if mac is not None and not MAC.fullmatch(mac):
        raise _invalid("Node", name, f"metadata.annotations[{UNDERLAY_MAC}]", f"{mac!r} is no MAC address")
    blocks = _mapping(node, "Node", "spec").get("podCIDRs", [])
    found = _mapping(node, "Node", "status").get("addresses", [])
    path = "spec.podCIDRs"
    try:
        for block in blocks:
            ipaddress.ip_network(block)
        path = "status.addresses"
        for address in found:
            if address["type"] == "InternalIP":
                ipaddress.ip_address(address["address"])
    except (KeyError, TypeError, ValueError) as error:
        raise _invalid("Node", name, path, str(error)) from None


def check_namespace(namespace: Object) -> None:
    """Namespace: its name is a label (it becomes part of DNS names)."""
    _check_metadata(namespace, "Namespace")
    _mapping(namespace, "Namespace", "spec")
    name = namespace["metadata"]["name"]
    if len(name) > 63 or not LABEL.fullmatch(name):
        raise _invalid("Namespace", name, "metadata.name", "must be at most 63 lower-case letters, digits and dashes")


RESTART_POLICIES = ("Always", "OnFailure", "Never")


def check_pod(pod: Object) -> None:
    """Pod: at least one container; names apart; commands are lists of strings."""
    _check_metadata(pod, "Pod")
    name = pod["metadata"]["name"]
    spec = _mapping(pod, "Pod", "spec")
    ips = _mapping(pod, "Pod", "status").get("podIPs", [])
    try:
        for entry in ips:
            ipaddress.ip_address(entry["ip"])
    except (KeyError, TypeError, ValueError) as error:
        raise _invalid("Pod", name, "status.podIPs", str(error)) from None
    if spec.get("initContainers"):
        raise _invalid("Pod", name, "spec.initContainers", "a lab does not run init containers yet")
    for field in ("nodeName", "hostname"):
        if not isinstance(spec.get(field, ""), str):
            raise _invalid("Pod", name, f"spec.{field}", "must be a string")
    containers = spec.get("containers")
    if not isinstance(containers, list) or not containers:
        raise _invalid("Pod", name, "spec.containers", "Required value")
    seen: set[str] = set()
    for i, container in enumerate(containers):
        path = f"spec.containers[{i}]"
        if not isinstance(container, dict):
            raise _invalid("Pod", name, path, "must be an object")
        _check_container(name, path, container)
        if container["name"] in seen:
            raise _invalid("Pod", name, f"{path}.name", f"Duplicate value: {container['name']!r}")
        seen.add(container["name"])
    policy = spec.get("restartPolicy", "Always")
    if policy not in RESTART_POLICIES:
        raise _invalid("Pod", name, "spec.restartPolicy", f"Unsupported value: {policy!r}: {', '.join(RESTART_POLICIES)}")
    grace = spec.get("terminationGracePeriodSeconds", 30)
    if not isinstance(grace, int) or grace < 0:
        raise _invalid("Pod", name, "spec.terminationGracePeriodSeconds", "must be a number of seconds")


def _check_container(pod: str, path: str, container: Object) -> None:
    name = container.get("name")
    if not isinstance(name, str) or not LABEL.fullmatch(name) or len(name) > 63:
        raise _invalid("Pod", pod, f"{path}.name", "must be at most 63 lower-case letters, digits and dashes")
    if not isinstance(container.get("image", ""), str):
        raise _invalid("Pod", pod, f"{path}.image", "must be a string")
    for key in ("command", "args"):
        words = container.get(key, [])
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            raise _invalid("Pod", pod, f"{path}.{key}", "must be a list of strings")
    variables = container.get("env") or []
    if not isinstance(variables, list):
        raise _invalid("Pod", pod, f"{path}.env", "must be a list")
    for variable in variables:
        if not isinstance(variable, dict) or not isinstance(variable.get("name"), str):
            raise _invalid("Pod", pod, f"{path}.env", "must be a list of objects with a name")
        if not isinstance(variable.get("value", ""), str):
            raise _invalid("Pod", pod, f"{path}.env", f"the value of {variable['name']} must be a string")


POD_FIELDS = frozenset(
    {"metadata.name", "metadata.namespace", "spec.nodeName", "status.phase", "status.podIP", "spec.restartPolicy"}
)
POD_FIXED = (("spec", "nodeName"), ("spec", "containers"), ("spec", "restartPolicy"), ("spec", "hostNetwork"))
RESOURCES: tuple[Resource, ...] = (
    Resource("namespaces", "namespace", "Namespace", False, ("ns",), check_namespace, Namespace),
    Resource("nodes", "node", "Node", False, ("no",), check_node, Node, fixed=(("spec", "podCIDRs"), ("spec", "podCIDR"))),
    Resource("pods", "pod", "Pod", True, ("po",), check_pod, Pod, POD_FIELDS, fixed=POD_FIXED),
)
BY_PLURAL = {resource.plural: resource for resource in RESOURCES}


def check_object(resource: Resource, object_: Object) -> None:
    """Problem unless every agent can read the object, and it makes sense."""
    resource.check(object_)
    try:
        msgspec.convert(object_, resource.model)
    except msgspec.ValidationError as error:
        why, _, path = str(error).partition(" - at `$.")
        raise _invalid(resource.kind, object_["metadata"]["name"], path.rstrip("`") or "object", why) from None


def check_name(resource: Resource, name: object) -> str:
    """The name, if it can be one of an object. Problem otherwise."""
    if not isinstance(name, str) or not SUBDOMAIN.fullmatch(name) or len(name) > 253:
        why = "must be at most 253 lower-case letters, digits, dashes and dots"
        raise _invalid(resource.kind, str(name), "metadata.name", why)
    return name


def check_fixed(resource: Resource, old: Object, new: Object) -> None:
    """Problem when a change touches what a resource doesn't let change once it is set."""
    for path in resource.fixed:
        before, after = _at(old, path), _at(new, path)
        if before and before != after:
            raise _invalid(resource.kind, new["metadata"]["name"], ".".join(path), "field is immutable")


def _at(object_: Any, path: tuple[str, ...]) -> Any:
    for part in path:
        object_ = object_.get(part) if isinstance(object_, dict) else None
    return object_
