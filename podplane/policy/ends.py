"""The ends of flows: pods, nodes, and addresses of neither."""

from __future__ import annotations

import functools
import socket
from collections.abc import Iterable, Iterator

import msgspec

from podplane.model.objects import Node
from podplane.model.pod_info import PodInfo
from podplane.policy.name_servers import PATH as NAME_SERVERS
from podplane.state.value import PARSED, canonical, network_of


class End(msgspec.Struct, frozen=True):
    """One end of a flow, by the address that its packets have there.

    `pod` has that address: a pod with a network of its own, or the name servers. `node` is the name of the node that has it: of pods on
    its network, too, which are that node to policies. An address of neither is somewhere outside.
    """

    ip: str
    pod: PodInfo | None = None
    node: str = ""

    @property
    def path(self) -> str:
        """`namespace/name` of the pod; "" when it is none."""
        return "" if self.pod is None else self.pod.metadata.path

    @property
    def is_under_policies(self) -> bool:
        """Can policies select it?"""
        return self.pod is not None and self.path != NAME_SERVERS

    @property
    def text(self) -> str:
        """How people call it."""
        if self.path == NAME_SERVERS:
            return "the cluster's DNS"
        return self.path or (f"node {self.node}" if self.node else self.ip)


class Ends:
    """The ends in a cluster, by address."""

    def __init__(self, pods: Iterable[PodInfo], nodes: Iterable[Node]) -> None:
        self._ends: dict[str, End] = {}
        for node in nodes:
            for ip in node_ips(node):
                self._ends[ip] = End(ip, node=node.metadata.name)
        for pod in pods:
            if not pod.host_network and not pod.has_ended:
                self._ends |= {ip: End(ip, pod) for ip in pod.ips}

    def at(self, ip: str) -> End:
        """What has an address (in its canonical text)."""
        return self._ends.get(ip) or End(ip)


def ends_of(pod: PodInfo) -> list[End]:
    """A pod's ends, one for each of its addresses; on a host network they are the node's."""
    if pod.host_network:
        return [End(ip, node=pod.node) for ip in pod.ips]
    return [End(ip, pod) for ip in pod.ips]


def node_ips(node: Node) -> Iterator[str]:
    """Its own addresses in their canonical text, and those that it has on the bridge of its pods: the first of each block."""
    for one in node.internal_ips:
        yield canonical(one)
    yield from map(_on_bridge, node.spec.pod_cidrs)


@functools.lru_cache(PARSED)
def _on_bridge(block: str) -> str:
    first = network_of(block).network_address
    return socket.inet_ntoa((int(first) + 1).to_bytes(4, "big")) if first.version == 4 else str(first + 1)
