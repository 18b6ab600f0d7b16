"""Which protocols and ports are allowed from one end to another: what `match.verdict` says of each, all at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from podplane.model.pod_info import PodInfo
from podplane.model.policy import PROTOCOLS, Direction, PolicyPort, PolicyRule
from podplane.policy.ends import End
from podplane.policy.match import Policies, is_own_node, matches_peer
from podplane.policy.tiers import allowed

LAST_PORT = 65535


class Ports(NamedTuple):
    """Ports from `first` to `last` of a protocol."""

    protocol: str
    first: int
    last: int

    def __str__(self) -> str:
        if (self.first, self.last) == (1, LAST_PORT):
            return self.protocol
        return f"{self.protocol} {self.first}" + (f"-{self.last}" if self.last > self.first else "")


class Reach(NamedTuple):
    """Disjoint ranges of ports, in the order of protocols and numbers, and whether all `others` are, too: protocols without ports."""

    ports: tuple[Ports, ...] = ()
    others: bool = False

    @property
    def is_everything(self) -> bool:
        """Is every protocol and every port allowed?"""
        return self == EVERYTHING

    @property
    def is_nothing(self) -> bool:
        """Is none?"""
        return self == NOTHING

    def has(self, protocol: str, port: int | None) -> bool:
        """Is this port (None: of a protocol that has none) among them?"""
        if port is None:
            return self.others
        return any(one.protocol == protocol and one.first <= port <= one.last for one in self.ports)

    def __or__(self, other: Reach) -> Reach:
        return Reach(tuple(_joined((*self.ports, *other.ports))), self.others or other.others)

    def __and__(self, other: Reach) -> Reach:
        both = (_common(one, two) for one in self.ports for two in other.ports if one.protocol == two.protocol)
        return Reach(tuple(_joined(one for one in both if one.first <= one.last)), self.others and other.others)

    def __invert__(self) -> Reach:
        return Reach(tuple(_between(self.ports)), not self.others)

    def __str__(self) -> str:
        if self.is_everything:
            return "everything"
        if self.others:
            return f"everything but {~self}"
        return ", ".join(map(str, self.ports)) or "nothing"


EVERYTHING, NOTHING = Reach(tuple(Ports(protocol, 1, LAST_PORT) for protocol in PROTOCOLS), True), Reach()


def reach(source: End, destination: End, policies: Policies) -> Reach:
    """What is allowed from one end to the other."""
    return side("egress", source, destination, policies) & side("ingress", source, destination, policies)


def side(direction: Direction, source: End, destination: End, policies: Policies) -> Reach:
    """What one direction of the pod at its end allows; everything of an end that no policy can select."""
    subject, other = (source, destination) if direction == "egress" else (destination, source)
    if not subject.is_under_policies or subject.path == other.path or (direction == "ingress" and is_own_node(other, subject)):
        return EVERYTHING
    under = policies.policies_of(subject.path)

    def of_rule(rule: PolicyRule) -> Reach:
        return ports_of(rule, destination.pod) if matches_peer(rule, other, policies) else NOTHING

    return allowed(under, direction, of_rule, EVERYTHING) if under else EVERYTHING


def ports_of(rule: PolicyRule, destination: PodInfo | None) -> Reach:
    """The ports of a rule on the pod that flows go to (None: it is no pod)."""
    if rule.ports is None:
        return EVERYTHING
    return Reach(tuple(_joined(found for one in rule.ports for found in _numbers(one, destination))))


def _numbers(one: PolicyPort, destination: PodInfo | None) -> Iterator[Ports]:
    if one.port is None:
        yield Ports(one.protocol, 1, LAST_PORT)
    elif not isinstance(one.port, str):
        yield Ports(one.protocol, *one.port)
    elif destination is not None:
        named = destination.ports.named
        yield from (Ports(one.protocol, n.port, n.port) for n in named if (n.name, n.protocol) == (one.port, one.protocol))


def _between(ports: tuple[Ports, ...]) -> Iterator[Ports]:
    """The ports that are in none of these ranges."""
    for protocol in PROTOCOLS:
        first = 1
        for one in ports:
            if one.protocol == protocol:
                if first < one.first:
                    yield Ports(protocol, first, one.first - 1)
                first = one.last + 1
        if first <= LAST_PORT:
            yield Ports(protocol, first, LAST_PORT)


def _common(one: Ports, two: Ports) -> Ports:
    return Ports(one.protocol, max(one.first, two.first), min(one.last, two.last))


def _joined(ports: Iterable[Ports]) -> Iterator[Ports]:
    """The same ports in ranges that neither overlap nor touch."""
    before: Ports | None = None
    for one in sorted(ports, key=_order):
        if before is not None and before.protocol == one.protocol and one.first <= before.last + 1:
            before = before._replace(last=max(before.last, one.last))
            continue
        if before is not None:
            yield before
        before = one
    if before is not None:
        yield before


def _order(ports: Ports) -> tuple[int, int]:
    return PROTOCOLS.index(ports.protocol), ports.first
