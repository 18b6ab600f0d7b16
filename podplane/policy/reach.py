"""Which protocols and ports are allowed from one end to another: what `match.verdict` says of each, all at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from podplane.model.pod_info import PodInfo
from podplane.model.policy import PROTOCOLS, Direction, PolicyPort, PolicyRule
from podplane.policy.ends import End
from podplane.policy.match import Policies, allows_peer, is_own_node

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
    """Everything, protocols without ports too (None); or disjoint ranges of ports, in the order of protocols and numbers."""

    ports: tuple[Ports, ...] | None = None

    @property
    def is_everything(self) -> bool:
        """Is every protocol and every port allowed?"""
        return self.ports is None

    @property
    def is_nothing(self) -> bool:
        """Is none?"""
        return self.ports == ()

    def has(self, protocol: str, port: int | None) -> bool:
        """Is this port (None: of a protocol that has none) among them?"""
        if self.ports is None:
            return True
        return port is not None and any(one.protocol == protocol and one.first <= port <= one.last for one in self.ports)

    def __or__(self, other: Reach) -> Reach:
        if self.ports is None or other.ports is None:
            return EVERYTHING
        return Reach(tuple(_joined((*self.ports, *other.ports))))

    def __and__(self, other: Reach) -> Reach:
        if self.ports is None or other.ports is None:
            return other if self.ports is None else self
        both = (_common(one, two) for one in self.ports for two in other.ports if one.protocol == two.protocol)
        return Reach(tuple(_joined(one for one in both if one.first <= one.last)))

    def __str__(self) -> str:
        if self.ports is None:
            return "everything"
        return ", ".join(map(str, self.ports)) or "nothing"


EVERYTHING, NOTHING = Reach(None), Reach(())


def reach(source: End, destination: End, policies: Policies) -> Reach:
    """What is allowed from one end to the other."""
    return side("egress", source, destination, policies) & side("ingress", source, destination, policies)


def side(direction: Direction, source: End, destination: End, policies: Policies) -> Reach:
    """What one direction of the pod at its end allows; everything of an end that no policy can select."""
    subject, other = (source, destination) if direction == "egress" else (destination, source)
    if not subject.is_under_policies or subject.path == other.path or (direction == "ingress" and is_own_node(other, subject)):
        return EVERYTHING
    speaking = [rules for policy in policies.policies_of(subject.path) if (rules := policy.rules(direction)) is not None]
    if not speaking:
        return EVERYTHING
    found = NOTHING
    for rule in (rule for rules in speaking for rule in rules):
        if allows_peer(rule, other, policies):
            found |= ports_of(rule, destination.pod)
    return found


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
