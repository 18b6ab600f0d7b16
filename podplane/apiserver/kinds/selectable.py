"""Fields by which field selectors choose: those that each kind has, the values of absent ones, and how others are refused.

Sources: Kubernetes, AddFieldLabelConversionFunc (pkg/apis/*/v1/conversion.go) for names, ToSelectableFields (pkg/registry) for values;
the documentation, "Field Selectors", for ReplicaSets.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

Object = dict[str, Any]
Value = Callable[[Object], str]
NAME, NAMESPACE = "metadata.name", "metadata.namespace"
UNKNOWN = f'"{{}}" is not a known field selector: only "{NAME}", "{NAMESPACE}"'
UNSUPPORTED = "field label not supported: {}"


class Fields(msgspec.Struct, frozen=True):
    """The value of each field that can be selected by, as text, and the words that refuse any other."""

    values: Mapping[str, Value]
    refusal: str = UNSUPPORTED


def text(value: Any) -> str:
    """As Go prints it; nothing is an empty text."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value)


def at(object_: Object, path: tuple[str, ...], absent: str = "") -> str:
    """What stands at a path."""
    found: Any = object_
    for part in path:
        found = found.get(part) if isinstance(found, dict) else None
    return absent if found is None else text(found)


def field(path: str, absent: str = "") -> Value:
    """The value at a path, whose parts have dots between them; `absent` when there is none."""
    return functools.partial(at, path=tuple(path.split(".")), absent=absent)


def paths(*names: str) -> dict[str, Value]:
    """Fields that are called as their paths are, texts that are empty when they are absent."""
    return {name: field(name) for name in names}


def custom(namespaced: bool, names: Iterable[str]) -> Fields:
    """Of a custom resource: those that its definition names."""
    return Fields(paths(NAME, *((NAMESPACE,) if namespaced else ()), *names))


def _pod_ip(pod: Object) -> str:
    ips = pod.get("status", {}).get("podIPs")
    return text(ips[0].get("ip")) if ips else at(pod, ("status", "podIP"))


def _source(event: Object) -> str:
    return at(event, ("source", "component")) or at(event, ("reportingComponent",))


INVOLVED = ("kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath")
COMMON = Fields(paths(NAME, NAMESPACE), UNKNOWN)
PODS = Fields(
    paths(
        NAME,
        NAMESPACE,
        "spec.nodeName",
        "spec.restartPolicy",
        "spec.schedulerName",
        "spec.serviceAccountName",
        "status.phase",
        "status.nominatedNodeName",
    )
    | {
        "spec.host": field("spec.nodeName"),
        "spec.hostNetwork": field("spec.hostNetwork", "false"),
        "status.podIP": _pod_ip,
        "status.podIPs": lambda _: "",  # taken, and never filled in
    }
)
NODES = Fields(paths(NAME) | {"spec.unschedulable": field("spec.unschedulable", "false")})
NAMESPACES = Fields(paths(NAME, "status.phase"))
EVENTS = Fields(
    paths(NAME, NAMESPACE, *(f"involvedObject.{name}" for name in INVOLVED), "reason", "reportingComponent", "type")
    | {"source": _source}
)
SECRETS = Fields(paths(NAME, NAMESPACE, "type"))
SERVICES = Fields(paths(NAME, NAMESPACE, "spec.clusterIP", "spec.type"))
REPLICA_SETS = Fields(paths(NAME, NAMESPACE) | {"status.replicas": field("status.replicas", "0")}, UNKNOWN)
JOBS = Fields(
    paths(NAME, NAMESPACE) | {"status.successful": field("status.succeeded", "0")}, 'field label "{}" not supported for Job'
)
