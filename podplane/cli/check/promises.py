"""What is promised, which probes prove it, and what their answers mean. Pure: no packet is sent here.

A party is somebody who can probe and be probed: a pod, a node, or the host outside. Each runs a small server that answers a connection
with its own name and the source address that it saw; so a probe shows at once who was reached and whether anybody
translated an address on the way.
"""

from __future__ import annotations

import enum
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, cycle, islice, permutations, product
from types import MappingProxyType
from typing import Any

EVERY_PAIR_UP_TO = 100
"""Up to so many pods every ordered pair is probed; above, every ordered pair of nodes and every pod."""
EVERY_NODE_UP_TO = 32
"""Up to so many nodes every ordered pair of them is tried with packets of full size; above, each with those that are 1, 2, 4, 8, … behind
it, in both directions."""
EVERY_WAY_UP_TO = 100
"""Up to so many nodes pods of every ordered pair of them are tried; above, of each with those that are 1, 2, 4, 8, … behind it."""
CHOICES = 8
"""So many pods of a node are looked at for one that policies let another one reach."""

REACH, NO_NAT, UNIQUE, SAME_PORT, LOCALHOST, NODE_TO_POD, POD_TO_NODE, OUTSIDE, FULL_SIZE = (
    "pod-to-pod",
    "no-nat",
    "unique-addresses",
    "same-port",
    "localhost",
    "node-to-pod",
    "pod-to-node",
    "outside",
    "full-size",
)
PROMISES: Mapping[str, str] = {
    REACH: "every pod reaches every other pod directly (ICMP, TCP)",
    NO_NAT: "the receiver sees the sender's pod address",
    UNIQUE: "pod addresses are unique in the cluster",
    SAME_PORT: "two pods serve the same port",
    LOCALHOST: "containers of one pod talk over localhost",
    NODE_TO_POD: "every node reaches every pod",
    POD_TO_NODE: "pods reach their node and the other nodes, with their own address unless a tunnel is between",
    OUTSIDE: "pods reach outside, which sees their node's address",
    FULL_SIZE: "full-size packets pass unfragmented",
}


@dataclass(slots=True)
class Party:
    """Somebody who takes part: `port` is where its server answers, `mtu` that of its interface in bytes.

    One that does not `ping` may not: its container has given up CAP_NET_RAW. It answers pings as others do. `datagrams` says whether its
    server answers those, too.
    """

    name: str
    kind: str
    node: str
    ips: tuple[str, ...]
    port: int = 0
    mtu: int = 1500
    pings: bool = True
    datagrams: bool = False


May = Callable[..., bool]
"""Do policies let a party reach another one, by TCP or the protocol that is named third?"""


@dataclass(frozen=True, slots=True)
class Probe:
    """One packet exchange: `seen` is the source address that the target must report ("" when it can't report), or it is `or_seen`.

    Probes that are asked again and again differ by `turn`.
    """

    promise: str
    source: str
    target: str
    protocol: str
    ip: str
    port: int = 0
    size: int = 0
    seen: str = ""
    answered_by: str = ""
    turn: int = 0
    or_seen: str = ""


class Fate(enum.Flag):
    """What became of what one party sent another one under policies."""

    PASSED = enum.auto()
    STOPPED = enum.auto()
    BROKEN = enum.auto()
    """It passed and was to be stopped, or the other way round."""


@dataclass(slots=True)
class Verdict:
    """One promise: how much proved it (a probe, an address, an even choice), each failure in words, and what policies denied, so that it
    was not tried: how much, by what denies it. `not_tried` says why nobody could try it here.

    `stopped` is how much of what proved it was denied, was tried all the same, and did not pass; `untold` how much did not pass that would
    have got no answer either if it had. `pairs` says of source and target what
    they are let by policies, as far as that was tried.
    """

    promise: str
    proved: int = 0
    failures: list[str] = field(default_factory=list)
    denied: Counter[str] = field(default_factory=Counter)
    not_tried: str = ""
    stopped: int = 0
    untold: int = 0
    pairs: dict[tuple[str, str], Fate] = field(default_factory=dict)

    @property
    def tried(self) -> int:
        """What was to be proved."""
        return self.proved + len(self.failures)

    @property
    def ok(self) -> bool:
        """Kept, and shown at least once, unless policies deny all of it, or nobody could try it."""
        return not self.failures and (self.proved > 0 or self.is_denied or bool(self.not_tried))

    @property
    def is_denied(self) -> bool:
        """Was nothing of it tried, as policies deny it?"""
        return not self.tried and bool(self.denied)


HasTunnel = Callable[[str, str], bool | None]
"""(node, other node) → are pods of the other one reached through a tunnel? None: nobody says."""
Largest = Callable[[str, str], int]
"""(node, other node) → the largest packet of a pod to one of the other node, in bytes, as far as the nodes know."""
UNKNOWN = 1 << 16


def family(ip: str) -> int:
    """4 or 6."""
    return 6 if ":" in ip else 4


def same_family(ips: Iterable[str], ip: str) -> str:
    """The first of `ips` in the family of `ip`, or ""."""
    return next((candidate for candidate in ips if family(candidate) == family(ip)), "")


def anybody(source: Party, target: Party, protocol: str = "TCP") -> bool:
    """Where there are no policies."""
    return True


def pairs(pods: Sequence[Party], everything: bool, may: May = anybody) -> Iterator[tuple[Party, Party]]:
    """Ordered pairs of pods: all of them, or one for each ordered pair of nodes (of very many nodes, of some pairs) such that every pod
    takes part. Of a few pods of each node one is chosen that policies let the other one reach, if there is one."""
    if everything:
        yield from ((a, b) for a in pods for b in pods if a is not b)
        return
    by_node: dict[str, list[Party]] = defaultdict(list)
    for pod in pods:
        by_node[pod.node].append(pod)
    turns = {node: cycle(members) for node, members in by_node.items()}
    seen: set[str] = set()
    ways = chain(((node, node) for node in by_node), node_pairs(list(by_node), False, EVERY_WAY_UP_TO))
    for a, b in ways:
        source, target = next(turns[a]), next(turns[b])
        for _ in range(CHOICES):
            if source is not target and may(source, target):
                break
            target = next(turns[b])
        if source is not target:
            seen |= {source.name, target.name}
            yield source, target
    first = {node: members[0] for node, members in by_node.items()}
    for pod in pods:
        if pod.name not in seen:
            other = next(p for node, p in first.items() if node != pod.node or p is not pod)
            yield pod, other


def plan(
    pods: Sequence[Party],
    nodes: Sequence[Party],
    outside: Party | None,
    everything: bool,
    may: May = anybody,
    has_tunnel: HasTunnel = lambda source, target: False,
    largest: Largest = lambda source, target: UNKNOWN,
    external_ips: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> list[Probe]:
    """All probes between these parties; where some are chosen, those that policies permit come first.

    `external_ips` are the addresses of nodes, by name, that the world outside sees, of those that have such.
    """
    probes: list[Probe] = []
    for source, target in pairs(pods, everything, may):
        for ip in target.ips:
            if source.pings:
                probes.append(Probe(REACH, source.name, target.name, "icmp", ip))
            probes.append(_connect(NO_NAT, source, target, ip, same_family(source.ips, ip)))
    probes += _between_nodes_and_pods(pods, nodes, everything, has_tunnel)
    probes += _full_size([pod for pod in pods if pod.pings], everything, may, largest)
    if outside is not None:
        by_name = {node.node: node for node in nodes}
        for pod in pods:
            own = by_name.get(pod.node)
            ips = (*external_ips.get(own.node, ()), *own.ips) if own else ()
            probes += [_connect(OUTSIDE, pod, outside, ip, same_family(ips, ip)) for ip in (outside.ips if own else ())]
    return list(dict.fromkeys(probes))


def _connect(promise: str, source: Party, target: Party, ip: str, seen: str) -> Probe:
    return Probe(promise, source.name, target.name, "tcp", ip, target.port, seen=seen, answered_by=target.name)


def _between_nodes_and_pods(
    pods: Sequence[Party], nodes: Sequence[Party], everything: bool, has_tunnel: HasTunnel
) -> Iterator[Probe]:
    """Every node → every pod, or each pod from its own node and from one other, in turn; and the ways back.

    Where nodes reach each other's pods through a tunnel, the network between them knows no pods, so a node sees the address of the pod's.
    Where nobody says what is between, it may see either.
    """
    turns = cycle(nodes)
    for pod in pods if nodes else ():
        own = [node for node in nodes if node.node == pod.node]
        chosen = nodes if everything else [*own, next(turns)]
        for node in chosen:
            for ip in pod.ips:
                yield Probe(NODE_TO_POD, node.name, pod.name, "icmp", ip)
                yield Probe(NODE_TO_POD, node.name, pod.name, "tcp", ip, pod.port, answered_by=pod.name)
            tunnel = has_tunnel(pod.node, node.node)
            sources = own[0].ips if own and tunnel else pod.ips
            others = own[0].ips if own and tunnel is None else ()
            for ip in node.ips:
                probe = _connect(POD_TO_NODE, pod, node, ip, same_family(sources, ip))
                yield replace(probe, or_seen=same_family(others, ip))


def _full_size(pods: Sequence[Party], everything: bool, may: May, largest: Largest) -> Iterator[Probe]:
    """One packet as large as can be with "don't fragment", for each ordered pair of nodes, or of some of them, and on each node.

    Answers may be fragmented: the way back is that of the pair in the other order.
    """
    by_node: dict[str, list[Party]] = defaultdict(list)
    for pod in pods:
        by_node[pod.node].append(pod)
    ways = list(node_pairs(list(by_node), everything))
    ways += [(node, node) for node, members in by_node.items() if len(members) > 1]
    for one, other in ways:
        source, target = _first_pair(by_node[one], by_node[other], may)
        size = min(source.mtu, target.mtu, largest(one, other) if one != other else UNKNOWN)
        for ip in target.ips:
            yield Probe(FULL_SIZE, source.name, target.name, "icmp", ip, size=size)


def node_pairs(nodes: Sequence[str], everything: bool, limit: int = EVERY_NODE_UP_TO) -> Iterator[tuple[str, str]]:
    """Ordered pairs of nodes: all of them, or, of many, so many that each is tried with some others, near and far, in both directions."""
    count = len(nodes)
    if everything or count <= limit:
        yield from permutations(nodes, 2)
        return
    distances = [1 << i for i in range(count.bit_length()) if 1 << i <= count // 2]
    pairs = ((nodes[i], nodes[(i + distance) % count]) for i in range(count) for distance in distances)
    yield from dict.fromkeys(chain.from_iterable(((one, other), (other, one)) for one, other in pairs))


def _first_pair(sources: Sequence[Party], targets: Sequence[Party], may: May) -> tuple[Party, Party]:
    """Of some pairs the first that policies permit, or else the first."""
    some = product(islice(sources, CHOICES), islice(targets, CHOICES))
    found = [pair for pair in some if pair[0] is not pair[1]]
    return next((pair for pair in found if may(*pair, "ICMP")), found[0])


def judge(probe: Probe, answer: Mapping[str, Any] | None) -> str:
    """ "" when the answer keeps the promise; else the pair, the expected and the seen."""
    what = f"{probe.source} → {probe.target} {probe.ip} {probe.protocol}"
    if probe.size:
        what += f" {probe.size} bytes"
    if answer is None:
        return f"{what}: no result from {probe.source}"
    if not answer.get("ok"):
        return f"{what}: expected an answer, got {answer.get('error') or 'none'}"
    seen = answer.get("seen") or {}
    if probe.answered_by and seen.get("name") != probe.answered_by:
        return f"{what}: expected an answer of {probe.answered_by}, {seen.get('name')} answered"
    if probe.seen and seen.get("source") not in (probe.seen, probe.or_seen or probe.seen):
        return f"{what}: expected source {probe.seen}, {probe.target} saw {seen.get('source')}"
    return ""


def uniqueness(pods: Iterable[Party], found: Mapping[str, Iterable[str]]) -> Verdict:
    """No address twice: neither in the API nor on the interfaces that the pods themselves found (`found`)."""
    verdict = Verdict(UNIQUE)
    pods = list(pods)
    claims = Counter(ip for pod in pods for ip in pod.ips)
    for pod in pods:
        own = set(found.get(pod.name, ()))
        for ip in pod.ips:
            if claims[ip] > 1:
                verdict.failures.append(f"{pod.name}: address {ip} belongs to {', '.join(p.name for p in pods if ip in p.ips)}")
            elif ip not in own:
                verdict.failures.append(
                    f"{pod.name}: expected address {ip} on its interfaces, found {', '.join(sorted(own)) or 'none'}"
                )
            else:
                verdict.proved += 1
    return verdict


def same_port(pods: Iterable[Party], reached: Mapping[str, int], hidden: Mapping[str, str] = MappingProxyType({})) -> Verdict:
    """At least two pods serve one port, each reached there by its own name (`reached`: pod → connections that did). Those that policies
    hide from all who asked, by what denies them, prove nothing."""
    verdict = Verdict(SAME_PORT, denied=Counter(hidden.values()))
    by_port: dict[int, list[str]] = defaultdict(list)
    for pod in pods:
        if pod.name not in hidden:
            by_port[pod.port].append(pod.name)
    port, names = max(by_port.items(), key=lambda item: len(item[1]), default=(0, []))
    verdict.proved = sum(1 for name in names if reached.get(name))
    if len(names) < 2 and not hidden:
        verdict.failures.append(f"no two pods could serve one port (port {port}: {', '.join(names) or 'nobody'})")
    verdict.failures += [f"{name} serves port {port}, but no probe reached it there" for name in names if not reached.get(name)]
    return verdict
