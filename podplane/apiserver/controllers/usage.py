"""What the pods of each node use: requested resources, ports of the host, who controls them. Kept current by observing writes."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterator
from fractions import Fraction

import msgspec

from podplane.controllers.objects import Object, controller_of
from podplane.model import quantity
from podplane.model.phases import ENDED

PODS = "pods"
HostPort = tuple[str, str, int]
"""(host IP, protocol, port)."""
ANY_IP = ("", "0.0.0.0", "::")


class NodeUsage(msgspec.Struct):
    """What is used of one node."""

    requested: Counter[str] = msgspec.field(default_factory=Counter)
    ports: Counter[HostPort] = msgspec.field(default_factory=Counter)
    owners: Counter[str] = msgspec.field(default_factory=Counter)


class Usage:
    """What is used of all nodes, by name."""

    def __init__(self) -> None:
        self._nodes: dict[str, NodeUsage] = {}

    def of(self, node: str) -> NodeUsage:
        """What is used of a node."""
        return self._nodes.get(node) or NodeUsage()

    def observe(self, old: Object | None, new: Object | None) -> None:
        """A write of a pod."""
        for pod, sign in ((old, -1), (new, 1)):
            if pod is not None and pod["spec"].get("nodeName") and pod.get("status", {}).get("phase") not in ENDED:
                self._add(pod, sign)

    def _add(self, pod: Object, sign: int) -> None:
        name = pod["spec"]["nodeName"]
        usage = self._nodes.setdefault(name, NodeUsage())
        for resource, amount in requests_of(pod["spec"]).items():
            usage.requested[resource] += sign * amount
        for port in host_ports(pod["spec"]):
            usage.ports[port] += sign
        owner = controller_of(pod)
        if owner is not None:
            usage.owners[owner["uid"]] += sign
        if not usage.requested[PODS]:
            del self._nodes[name]


def requests_of(spec: Object) -> dict[str, int]:
    """What a pod asks for, in thousandths: its containers together, or what an init container needs before (PodRequests)."""
    total: Counter[str] = Counter()
    for container in spec["containers"]:
        total.update(_asked(container))
    sidecars: Counter[str] = Counter()
    peak: dict[str, int] = {}
    for container in spec.get("initContainers", ()):
        asked = _asked(container)
        if container.get("restartPolicy") == "Always":
            sidecars.update(asked)
            asked = dict(sidecars)
        else:
            asked = {name: asked.get(name, 0) + sidecars[name] for name in {*asked, *sidecars}}
        for name, amount in asked.items():
            peak[name] = max(peak.get(name, 0), amount)
    total.update(sidecars)
    found = {name: max(total[name], peak.get(name, 0)) for name in {*total, *peak}}
    found |= _asked(spec)  # what the pod says itself counts instead (KEP-2837)
    for name, amount in spec.get("overhead", {}).items():
        found[name] = found.get(name, 0) + thousandths(amount)
    return {**found, PODS: 1000}


def _asked(asker: Object) -> dict[str, int]:
    """What a container, or a pod as a whole, asks for itself."""
    resources = asker.get("resources", {})
    wanted = {**resources.get("limits", {}), **resources.get("requests", {})}
    return {name: thousandths(amount) for name, amount in wanted.items()}


@functools.lru_cache(1024)
def thousandths(amount: str | int | float) -> int:
    """A quantity in thousandths, rounded up."""
    return -int(-quantity.parse(amount) * Fraction(1000) // 1)


def host_ports(spec: Object) -> Iterator[HostPort]:
    """The ports of its node that a pod wants."""
    for container in (*spec["containers"], *spec.get("initContainers", ())):
        for port in container.get("ports", ()):
            if port.get("hostPort"):
                yield port.get("hostIP", ""), port.get("protocol", "TCP"), port["hostPort"]


def collides(port: HostPort, used: HostPort) -> bool:
    """Can both not be had of one node?"""
    return port[1:] == used[1:] and (port[0] == used[0] or port[0] in ANY_IP or used[0] in ANY_IP)
