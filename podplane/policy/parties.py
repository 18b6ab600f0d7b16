"""Whose flows are compared: pods by what made them, nodes, and addresses outside that policies name."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import NamedTuple

from podplane.model.cluster_policy import Policy
from podplane.model.objects import Node
from podplane.model.pod_info import PodInfo
from podplane.model.policy import IPBlock
from podplane.policy.ends import End, ends_of
from podplane.policy.name_servers import PATH as NAME_SERVERS
from podplane.policy.owners import alike, owner
from podplane.state.value import IPNetwork

OUTSIDE = "other addresses outside"
SOMEWHERE = ("192.0.2.1", "198.51.100.1", "203.0.113.1"), ("2001:db8::1", "2001:db8:ffff::1", "3fff::1")
"""Addresses that nobody has (RFC 5737, 3849, 9637): of these, the first that no policy names stands for all that none names."""
MAX_BLOCKS = 32
"""The widest blocks of policies that stand for addresses outside."""


class Party(NamedTuple):
    """One end of flows with all its addresses, one a family at most; `group` and `namespace` are who is named together with it.

    `node` is the node that a pod is on, and of a node its name. `blocks`, of addresses outside, are all that policies name: one that is in
    several of them is of the smallest.
    """

    name: str
    ends: tuple[End, ...]
    group: str
    namespace: str = ""
    node: str = ""
    blocks: frozenset[IPNetwork] = frozenset()

    @property
    def path(self) -> str:
        """Of a pod."""
        return self.ends[0].path


def of_pods(pods: Iterable[PodInfo]) -> Iterator[Party]:
    """Those that have a network of their own and an address; the name servers among them."""
    for pod in pods:
        ends = tuple({":" in end.ip: end for end in reversed(ends_of(pod))}.values())
        if ends and not pod.host_network and not pod.has_ended:
            group = "" if pod.metadata.path == NAME_SERVERS else owner(pod)
            if group == pod.metadata.name:
                group = alike(pod)
            yield Party(ends[0].text, ends, group, pod.metadata.namespace, pod.node)


def of_nodes(nodes: Iterable[Node]) -> Iterator[Party]:
    """Nodes, with the pods on their network. Their ends are those that other nodes' pods see: its own ones a node always reaches."""
    for node in nodes:
        ips = {":" in ip: ip for ip in reversed(node.internal_ips)}.values()
        name = node.metadata.name
        if ips:
            yield Party(f"node {name}", tuple(End(ip) for ip in ips), "nodes", node=name)


def outside(policies: Iterable[Policy], nodes: Sequence[Node]) -> Iterator[Party]:
    """An address of each block that these policies name and that has none of the cluster; and one that is in none of them."""
    own = [ipaddress.ip_network(cidr) for node in nodes for cidr in (*node.spec.pod_cidrs, *node.internal_ips)]
    blocks = {text: ipaddress.ip_network(text) for policy in policies for text in _named(policy)}
    widest = sorted(blocks.values(), key=lambda one: (one.prefixlen - one.max_prefixlen, str(one)))
    named = (one for one in widest if one.prefixlen and not any(_overlap(one, other) for other in own))
    all_blocks = frozenset(blocks.values())
    for one in islice(named, MAX_BLOCKS):
        yield Party(str(one), (End(str(one.network_address)),), str(one), blocks=all_blocks)
    found = (next((ip for ip in ips if not _is_in(ip, blocks)), None) for ips in SOMEWHERE)
    if ends := tuple(End(ip) for ip in found if ip is not None):
        yield Party(OUTSIDE, ends, OUTSIDE, blocks=all_blocks)


def _named(policy: Policy) -> Iterator[str]:
    for rule in (*(policy.ingress or ()), *(policy.egress or ())):
        for peer in rule.peers or ():
            if isinstance(peer, IPBlock):
                yield from (peer.cidr, *peer.excepts)


def _overlap(one: IPNetwork, other: IPNetwork) -> bool:
    return one.version == other.version and one.overlaps(other)


def _is_in(ip: str, blocks: Mapping[str, IPNetwork]) -> bool:
    address = ipaddress.ip_address(ip)
    return any(one.prefixlen and one.version == address.version and address in one for one in blocks.values())
