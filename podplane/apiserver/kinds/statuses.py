"""What a status may say: the rules for writes of `/status` (core, apps, batch, networking: validation.go, Validate…StatusUpdate)."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

import msgspec

from podplane.apiserver.kinds import names
from podplane.apiserver.kinds.addresses import check_ip
from podplane.apiserver.problems import Cause
from podplane.model import quantity

Object = dict[str, Any]
ACTIVE, TERMINATING = "Active", "Terminating"
IP_MODES = ("Proxy", "VIP")
COUNTED = frozenset(
    {"pods", "services", "replicationcontrollers", "secrets", "configmaps", "persistentvolumeclaims", "resourcequotas"}
)
"""Resources of which there are only whole ones, beside extended ones."""
SYSTEM_CONDITIONS = ("PodScheduled", "Ready", "Initialized")


def _counts(status: Object, *fields: str) -> Iterator[Cause]:
    for field in fields:
        if (number := status.get(field) or 0) < 0:
            yield Cause.invalid(f"status.{field}", number, "must be greater than or equal to 0")


def _no_more_than(status: Object, most: str, *fields: str, said: str = "") -> Iterator[Cause]:
    for field in fields:
        if (number := status.get(field) or 0) > (status.get(most) or 0):
            yield Cause.invalid(f"status.{field}", number, f"cannot be greater than {said or f'status.{most}'}")


def _collisions(status: Object, old: Object | None) -> Iterator[Cause]:
    before = (old or {}).get("status", {}).get("collisionCount")
    if before is not None and (status.get("collisionCount") or 0) < before:
        yield Cause.invalid("status.collisionCount", status.get("collisionCount") or 0, "cannot be decremented")


def check_deployment(deployment: Object, old: Object | None) -> Iterator[Cause]:
    """Deployment."""
    status = deployment.get("status", {})
    parts = ("updatedReplicas", "readyReplicas", "availableReplicas")
    others = ("unavailableReplicas", "terminatingReplicas", "collisionCount")
    yield from _counts(status, "observedGeneration", "replicas", *parts, *others)
    yield from _no_more_than(status, "replicas", *parts)
    yield from _no_more_than(status, "readyReplicas", "availableReplicas", said="readyReplicas")
    yield from _collisions(status, old)


def check_replica_set(replica_set: Object, _: Object | None) -> Iterator[Cause]:
    """ReplicaSet."""
    status = replica_set.get("status", {})
    parts = ("fullyLabeledReplicas", "readyReplicas", "availableReplicas")
    yield from _counts(status, "replicas", *parts, "observedGeneration", "terminatingReplicas")
    yield from _no_more_than(status, "replicas", *parts)
    yield from _no_more_than(status, "readyReplicas", "availableReplicas", said="readyReplicas")


def check_stateful_set(stateful_set: Object, old: Object | None) -> Iterator[Cause]:
    """StatefulSet."""
    status = stateful_set.get("status", {})
    parts = ("readyReplicas", "currentReplicas", "updatedReplicas", "availableReplicas")
    yield from _counts(status, "replicas", *parts, "observedGeneration", "collisionCount")
    yield from _no_more_than(status, "replicas", *parts)
    yield from _no_more_than(status, "readyReplicas", "availableReplicas")
    yield from _collisions(status, old)


def check_daemon_set(daemon_set: Object, old: Object | None) -> Iterator[Cause]:
    """DaemonSet."""
    status = daemon_set.get("status", {})
    numbers = ("numberMisscheduled", "numberReady", "numberAvailable", "numberUnavailable")
    scheduled = ("currentNumberScheduled", "desiredNumberScheduled", "updatedNumberScheduled")
    yield from _counts(status, *scheduled, *numbers, "observedGeneration", "collisionCount")
    yield from _collisions(status, old)


def complete_namespace(namespace: Object, _: Object | None) -> None:
    """Namespace (SetDefaults_NamespaceStatus)."""
    status = namespace.setdefault("status", {})
    status["phase"] = status.get("phase") or ACTIVE


def check_namespace(namespace: Object, _: Object | None) -> Iterator[Cause]:
    """Namespace: its phase is said by its deletion."""
    phase = namespace.get("status", {}).get("phase", "")
    if "deletionTimestamp" not in namespace["metadata"]:
        if phase != ACTIVE:
            yield Cause.invalid("status.Phase", phase, "may only be 'Active' if `deletionTimestamp` is empty")
    elif phase != TERMINATING:
        yield Cause.invalid("status.Phase", phase, "may only be 'Terminating' if `deletionTimestamp` is not empty")


def complete_node(node: Object, _: Object | None = None) -> None:
    """Node (SetDefaults_NodeStatus)."""
    status = node.get("status", {})
    if "capacity" in status and "allocatable" not in status:
        status["allocatable"] = dict(status["capacity"])


def _resources(amounts: Object, path: str) -> Iterator[Cause]:
    """Amounts of resources: none is negative, and what is counted is whole (ValidateResourceQuantityValue)."""
    for name, text in amounts.items():
        amount = quantity.parse(text)
        if amount < 0:
            yield Cause.invalid(f"{path}.{name}", text, "must be greater than or equal to 0")
        is_counted = name in COUNTED or ("/" in name and "kubernetes.io/" not in name)
        if is_counted and amount.denominator != 1:
            yield Cause.invalid(f"{path}.{name}", text, "must be an integer")


def check_node(node: Object, _: Object | None) -> Iterator[Cause]:
    """Node: amounts of resources; addresses are addresses, each once."""
    for field in ("capacity", "allocatable"):
        yield from _resources(node.get("status", {}).get(field, {}), f"status.{field}")
    seen: set[frozenset[tuple[str, Any]]] = set()
    for i, address in enumerate(node.get("status", {}).get("addresses", ())):
        if address.get("type") in ("InternalIP", "ExternalIP"):
            yield from check_ip(address.get("address", ""), f"status.addresses[{i}].address")
        fields = frozenset(address.items())
        if fields in seen:
            yield Cause.duplicate(f"status.addresses[{i}]", address)
        seen.add(fields)


def complete_pod(pod: Object, old: Object | None) -> None:
    """Pod: `podIP` is the first of `podIPs`, and wins where they differ; its class, and observed generations, that nobody
    says stay (Convert_v1_PodStatus_To_core_PodStatus; podStatusStrategy, PrepareForUpdate)."""
    status, before = pod.setdefault("status", {}), (old or {}).get("status", {})
    ips = status.get("podIPs") or []
    if status.get("podIP") and (not ips or ips[0].get("ip") != status["podIP"]):
        status["podIPs"] = [{"ip": status["podIP"]}]
    elif ips:
        status["podIP"] = ips[0].get("ip", "")
    if before.get("qosClass"):
        status["qosClass"] = status.get("qosClass") or before["qosClass"]
    _keep_generation(status, before)
    known: dict[str, deque[Object]] = {}
    for condition in before.get("conditions", ()):
        known.setdefault(condition.get("type", ""), deque()).append(condition)
    for condition in status.get("conditions", ()):
        if same := known.get(condition.get("type", "")):
            _keep_generation(condition, same.popleft())


def _keep_generation(new: Object, old: Object) -> None:
    if not new.get("observedGeneration") and old.get("observedGeneration"):
        new["observedGeneration"] = old["observedGeneration"]


def check_pod(pod: Object, old: Object | None) -> Iterator[Cause]:
    """Pod."""
    status, before = pod.get("status", {}), (old or {}).get("status", {})
    for i, condition in enumerate(status.get("conditions", ())):
        kind = condition.get("type", "")
        if kind not in SYSTEM_CONDITIONS and not names.QUALIFIED_PATTERN.fullmatch(kind):
            yield Cause.invalid(f"status.conditions[{i}].Type", kind, names.NAME_PART)
    yield from _counts(status, "observedGeneration")
    if before.get("qosClass") and status.get("qosClass") != before["qosClass"]:
        yield Cause.immutable("status.qosClass", status.get("qosClass"))
    nominated = status.get("nominatedNodeName")
    if nominated and nominated != before.get("nominatedNodeName"):
        if why := names.SUBDOMAIN(nominated):
            yield Cause.invalid("status.nominatedNodeName", nominated, why)
        if pod["spec"].get("nodeName"):
            yield Cause.forbidden("status.nominatedNodeName", "may not be set on pods that are already bound to a node")
    yield from _pod_ips(status, before, "podIPs")
    if status.get("hostIPs") and status["hostIPs"][0].get("ip") != status.get("hostIP"):
        yield Cause.invalid("status.hostIPs[0].ip", status["hostIPs"][0].get("ip"), "must be equal to `hostIP`")
    yield from _pod_ips(status, before, "hostIPs")


def _pod_ips(status: Object, before: Object, field: str) -> Iterator[Cause]:
    """Addresses, one of each family at most; what stood there before may stay."""
    ips = [one.get("ip", "") for one in status.get(field, ())]
    known = [one.get("ip", "") for one in before.get(field, ())]
    stood = set(known)
    wrong = [cause for i, ip in enumerate(ips) if ip not in stood for cause in check_ip(ip, f"status.{field}[{i}]")]
    yield from wrong
    if len(ips) > 1 and not wrong and ips != known:
        versions = [":" in ip for ip in ips]
        if len(versions) > len(set(versions)):
            yield Cause.invalid(f"status.{field}", status[field], "may specify no more than one IP for each IP family")


def check_ingress(ingress: Object, old: Object | None) -> Iterator[Cause]:
    """Ingress: where it is reached."""
    path = "status.loadBalancer.ingress"
    before = (old or {}).get("status", {}).get("loadBalancer", {}).get("ingress", ())
    known = {msgspec.json.encode(one, order="deterministic") for one in before}
    for i, one in enumerate(ingress.get("status", {}).get("loadBalancer", {}).get("ingress", ())):
        if msgspec.json.encode(one, order="deterministic") not in known:
            yield from check_ingress_point(one, f"{path}[{i}]")


def complete_service(service: Object, _: Object | None = None) -> None:
    """Service: how an address of a load balancer is reached."""
    balancer = service.setdefault("status", {}).setdefault("loadBalancer", {})
    for one in balancer.get("ingress", ()) if service["spec"].get("type") == "LoadBalancer" else ():
        if one.get("ip"):
            one.setdefault("ipMode", "VIP")


def check_service(service: Object, old: Object | None) -> Iterator[Cause]:
    """Service: where a load balancer says that it is reached (ValidateLoadBalancerStatus)."""
    path, balancer = "status.loadBalancer.ingress", service.get("status", {}).get("loadBalancer", {})
    if old is not None and old.get("status", {}).get("loadBalancer", {}) == balancer:
        return
    if balancer.get("ingress") and service["spec"].get("type") != "LoadBalancer":
        yield Cause.forbidden(path, "may only be used when `spec.type` is 'LoadBalancer'")
        return
    for i, one in enumerate(balancer.get("ingress", ())):
        mode = one.get("ipMode")
        if mode is not None and not one.get("ip"):
            yield Cause.forbidden(f"{path}[{i}].ipMode", "may not be specified when `ip` is not set")
        elif mode is not None and mode not in IP_MODES:
            yield Cause.unsupported(f"{path}[{i}].ipMode", mode, IP_MODES)
        yield from check_ingress_point(one, f"{path}[{i}]")


def check_ingress_point(point: Object, where: str) -> Iterator[Cause]:
    """An address or a name at which a load balancer is reached."""
    ip, hostname = point.get("ip"), point.get("hostname")
    if ip:
        yield from check_ip(ip, f"{where}.ip")
    if hostname and (why := names.SUBDOMAIN(hostname)):
        yield Cause.invalid(f"{where}.hostname", hostname, why)
    elif hostname and not any(check_ip(hostname, "")):
        yield Cause.invalid(f"{where}.hostname", hostname, "must be a DNS name, not an IP address")
