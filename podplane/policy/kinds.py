"""Ends that no policy tells apart, in time that goes by their number and that of the policies, not by the product of both."""

from __future__ import annotations

import ipaddress
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence

from podplane.model.cluster_policy import NODES, Policy
from podplane.model.pod_info import Labels
from podplane.model.policy import IPBlock, Peer, PodSelector, PolicyRule
from podplane.policy.ends import End
from podplane.policy.index import PolicyIndex

Tick = Callable[[], object]
"""Called every few microseconds: it may raise, or let others have a turn."""
Labelled = tuple[str, Labels]
"""Namespace and labels: pods that have the same are under the same policies, and members of the same selectors."""
OF_NO_POD: Labelled = "", Labels({})


def kinds(ends: Sequence[End], index: PolicyIndex, tick: Tick) -> list[Hashable]:
    """Of each end what policies can tell of it: those that select it, the peers that it is among, the ports that they name.

    Two ends of one kind fare alike with every other end, but that a pod reaches itself and a node its own pods.
    """
    under = _under(ends, index, tick)
    rules = list(_rules(under.values()))
    peers = {peer: number for number, peer in enumerate({peer: None for rule in rules for peer in rule.peers or ()})}
    names = {port.port for rule in rules for port in rule.ports or ()}
    by_labels = _by_labels(peers, index, tick)
    by_address = _by_address([end.ip for end in ends], peers, tick)
    of_nodes = _of_nodes(peers, index, tick)
    nodes = {end.node for end in ends if end.node}
    found: list[Hashable] = []
    for place, end in enumerate(ends):
        alike = _labelled(end, index)
        group = tuple(policy.metadata.path for policy in under.get(alike, ())) if end.is_under_policies else ()
        members = tuple(by_labels.get(alike, ()))
        named = tuple(one for one in (end.pod.ports.named if end.pod else ()) if one.name in names)
        node = end.pod.node if end.pod is not None and end.pod.node in nodes else end.node
        addressed = (*by_address.get(place, ()), *of_nodes.get(end.ip, ()))
        found.append((group, members, addressed, named, node, end.pod is None))
    return found


def _labelled(end: End, index: PolicyIndex) -> Labelled:
    pod = index.pod(end.path)
    return OF_NO_POD if pod is None else (pod.metadata.namespace, pod.metadata.labels)


def _under(ends: Iterable[End], index: PolicyIndex, tick: Tick) -> dict[Labelled, tuple[Policy, ...]]:
    found: dict[Labelled, tuple[Policy, ...]] = {}
    for end in ends:
        alike = _labelled(end, index)
        if end.is_under_policies and alike not in found:
            found[alike] = index.policies_of(end.path)
            tick()
    return found


def _rules(groups: Iterable[Iterable[Policy]]) -> Iterator[PolicyRule]:
    for policy in {policy.metadata.path: policy for group in groups for policy in group}.values():
        yield from (*(policy.ingress or ()), *(policy.egress or ()))


def _by_labels(peers: dict[Peer, int], index: PolicyIndex, tick: Tick) -> dict[Labelled, dict[int, None]]:
    """The selectors that pods with these labels are members of, by number."""
    found: defaultdict[Labelled, dict[int, None]] = defaultdict(dict)
    for peer, number in peers.items():
        if isinstance(peer, PodSelector):
            for pod in index.members(peer):
                found[pod.metadata.namespace, pod.metadata.labels][number] = None
            tick()
    return found


def _of_nodes(peers: dict[Peer, int], index: PolicyIndex, tick: Tick) -> dict[str, list[int]]:
    """The selectors of nodes that an address is meant by, by number."""
    found: defaultdict[str, list[int]] = defaultdict(list)
    for peer, number in peers.items():
        if isinstance(peer, PodSelector) and peer.namespaces == NODES:
            for node in index.members(peer):
                for ip in node.ips:
                    found[ip].append(number)
            tick()
    return found


def _by_address(ips: Sequence[str], peers: dict[Peer, int], tick: Tick) -> dict[int, list[int]]:
    """The blocks that the address at each place is in, by number."""
    found: defaultdict[int, list[int]] = defaultdict(list)
    ordered: dict[int, list[tuple[int, int]]] = {4: [], 6: []}
    for place, ip in enumerate(map(ipaddress.ip_address, ips)):
        ordered[ip.version].append((int(ip), place))
    for among in ordered.values():
        among.sort()
    for peer, number in peers.items():
        if isinstance(peer, IPBlock):
            within = set(_within(peer.cidr, ordered))
            for part in peer.excepts if within else ():
                within.difference_update(_within(part, ordered))
            for place in within:
                found[place].append(number)
            tick()
    return found


def _within(cidr: str, ordered: dict[int, list[tuple[int, int]]]) -> Iterator[int]:
    """The places of the addresses in a network."""
    network = ipaddress.ip_network(cidr)
    among = ordered[network.version]
    begin = bisect_left(among, int(network.network_address), key=_number)
    end = bisect_right(among, int(network.broadcast_address), key=_number)
    return (place for _, place in among[begin:end])


def _number(address: tuple[int, int]) -> int:
    return address[0]
