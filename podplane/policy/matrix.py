"""Who reaches whom, of many ends at once: what `match.verdict` says of each pair, for one port or for all of them.

Ends are bits of an integer. Each distinct peer, rule and group of policies is looked at once, whatever the number of pods under them; so
the price is that of the policies and of the table, not of a verdict for each of its cells.
"""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol

from podplane.model.cluster_policy import NODES, Policy
from podplane.model.pod_info import NamedPort, PodInfo
from podplane.model.policy import PROTOCOLS, Direction, IPBlock, Peer, PodSelector, PolicyPort, PolicyRule
from podplane.policy.ends import End
from podplane.policy.match import Policies, in_block, is_port
from podplane.policy.reach import LAST_PORT
from podplane.policy.tiers import allowed

Bits = int
"""A set of ends, by their places in a sequence."""
OTHER_PROTOCOLS = ("", None)
"""What stands for every protocol that no rule can name."""
Question = tuple[str, int | None]
"""Protocol and port."""
Group = tuple[str, ...]
"""Policies that select the same pods, by path."""


class Members(Policies, Protocol):
    """What a matrix asks of the index."""

    def members(self, selector: PodSelector) -> Iterable[PodInfo]:
        """The pods of a selector."""


class Row(NamedTuple):
    """To which ends everything is allowed from one end, and to which something is."""

    everything: Bits
    something: Bits


class Matrix(NamedTuple):
    """A row for each end, and its kind: no policy tells ends of one kind apart, but that a pod reaches itself."""

    rows: list[Row]
    kinds: list[Hashable]


def matrix(ends: Sequence[End], policies: Members, asked: Question | None = None) -> Matrix:
    """Who reaches whom. `asked` is the only port that matters; None asks for all ports and protocols."""
    table = _Table(ends, policies)
    if asked is not None:
        rows = [Row(bits, bits) for bits in table.rows(asked)]
    else:
        rows = [Row(bits, bits) for bits in table.rows(OTHER_PROTOCOLS)]
        for question in table.questions():
            rows = [Row(row.everything & b, row.something | b) for row, b in zip(rows, table.rows(question), strict=True)]
    return Matrix(rows, list(table.kinds()))


class _Table:
    def __init__(self, ends: Sequence[End], policies: Members) -> None:
        self._ends, self._policies = ends, policies
        self.all = (1 << len(ends)) - 1
        self._places: defaultdict[str, Bits] = defaultdict(int)
        for place, end in enumerate(ends):
            self._places[end.path] |= 1 << place
        self._nodes: defaultdict[str, Bits] = defaultdict(int)
        for place, end in enumerate(ends):
            if end.node and end.pod is None:
                self._nodes[end.node] |= 1 << place
        self._under: list[Group] = []
        """Of each end the paths of the policies that select it."""
        self._policies_of: dict[Group, tuple[Policy, ...]] = {}
        for end in ends:
            under = policies.policies_of(end.path) if end.is_under_policies else ()
            group = tuple(policy.metadata.path for policy in under)
            self._under.append(group)
            self._policies_of[group] = under
        self._of_peer = functools.cache(self._peer)
        self._of_name = functools.cache(self._named)

    def questions(self) -> Iterator[Question]:
        """The first port of each range that a rule has: what several ranges have in common begins with one of these. Where rules deny,
        those after a range, too: what is left may begin there."""
        past = any(policy.tier != "NetworkPolicy" for under in self._policies_of.values() for policy in under)
        firsts: dict[str, set[int]] = {protocol: {1} for protocol in PROTOCOLS}
        numbers: defaultdict[tuple[str, str], set[int]] = defaultdict(set)
        for named in {named for end in self._ends if end.pod for named in end.pod.ports.named}:
            numbers[named.name, named.protocol].add(named.port)
        for one in {port for rule in self._rules() for port in rule.ports or ()}:
            if isinstance(one.port, tuple):
                firsts[one.protocol] |= {one.port[0], one.port[1] + 1 if past else one.port[0]}
            elif one.port is not None:
                firsts[one.protocol] |= {edge for n in numbers[one.port, one.protocol] for edge in (n, n + 1 if past else n)}
        for protocol, ports in firsts.items():
            yield from ((protocol, first) for first in sorted(ports) if first <= LAST_PORT)

    def kinds(self) -> Iterator[Hashable]:
        """Of each end what rules can tell of it: its policies, the peers that it is among, and ports that they name."""
        names = {port.port for rule in self._rules() for port in rule.ports or ()}
        among: list[Bits] = [0] * len(self._ends)
        for number, peer in enumerate({peer: None for rule in self._rules() for peer in rule.peers or ()}):
            for place in _places(self._of_peer(peer)):
                among[place] |= 1 << number
        for place, (end, group) in enumerate(zip(self._ends, self._under, strict=True)):
            named = tuple(one for one in (end.pod.ports.named if end.pod else ()) if one.name in names)
            node = end.pod.node if end.pod and self._nodes.get(end.pod.node) else end.node
            yield group, among[place], named, node, end.pod is None

    def _rules(self) -> Iterator[PolicyRule]:
        policies = {policy.metadata.path: policy for under in self._policies_of.values() for policy in under}
        for policy in policies.values():
            yield from (*(policy.ingress or ()), *(policy.egress or ()))

    def rows(self, question: Question) -> Iterator[Bits]:
        """For each end those that it reaches."""
        entering = functools.cache(lambda group, named: self._ingress(group, named, question))
        leaving = functools.cache(lambda group: self._egress(group, question))
        sources: defaultdict[Bits, Bits] = defaultdict(int)
        """By who may come in, the ends that let them."""
        for place, (end, group) in enumerate(zip(self._ends, self._under, strict=True)):
            own_node = self._nodes.get(end.pod.node, 0) if end.pod else 0
            sources[entering(group, end.pod.ports.named if end.pod else ()) | own_node] |= 1 << place
        for place, (end, group) in enumerate(zip(self._ends, self._under, strict=True)):
            let_in = sum(to for who, to in sources.items() if who >> place & 1)
            itself = self._places[end.path] if end.path else 0
            yield (leaving(group) & let_in) | itself

    def _ingress(self, group: Group, named: tuple[NamedPort, ...], question: Question) -> Bits:
        return self._allowed("ingress", group, lambda rule: self.all if _fits(rule, question, named) else 0)

    def _egress(self, group: Group, question: Question) -> Bits:
        def where(rule: PolicyRule) -> Bits:
            if rule.ports is None:
                return self.all
            return functools.reduce(int.__or__, (self._open(one, question) for one in rule.ports), 0)

        return self._allowed("egress", group, where)

    def _allowed(self, direction: Direction, group: Group, where: Callable[[PolicyRule], Bits]) -> Bits:
        """The peers that a direction allows."""
        return allowed(self._policies_of[group], direction, lambda rule: (w := where(rule)) and w & self._peers(rule), self.all)

    def _open(self, one: PolicyPort, question: Question) -> Bits:
        """The ends on which the port that is asked for is this one."""
        protocol, port = question
        if isinstance(one.port, str):
            return self._of_name(NamedPort(one.port, protocol, port)) if one.protocol == protocol and port is not None else 0
        return self.all if is_port(one, protocol, port, ()) else 0

    def _named(self, named: NamedPort) -> Bits:
        has = (1 << place for place, end in enumerate(self._ends) if end.pod and named in end.pod.ports.named)
        return sum(has)

    def _peers(self, rule: PolicyRule) -> Bits:
        if rule.peers is None:
            return self.all
        return functools.reduce(int.__or__, map(self._of_peer, rule.peers), 0)

    def _peer(self, peer: Peer) -> Bits:
        if isinstance(peer, IPBlock):
            return sum(1 << place for place, end in enumerate(self._ends) if in_block(peer, end.ip))
        if peer.namespaces == NODES:
            return sum(1 << place for place, end in enumerate(self._ends) if self._policies.has_address(peer, end.ip))
        return functools.reduce(int.__or__, (self._places.get(pod.metadata.path, 0) for pod in self._policies.members(peer)), 0)


def _fits(rule: PolicyRule, question: Question, named: tuple[NamedPort, ...]) -> bool:
    return rule.ports is None or any(is_port(one, *question, named) for one in rule.ports)


def _places(bits: Bits) -> Iterator[int]:
    while bits:
        place = (bits & -bits).bit_length() - 1
        yield place
        bits &= bits - 1
