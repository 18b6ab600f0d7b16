"""The verdicts on all flows from one place to another, as values and as documents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from podplane.cli.policy.cluster import Cluster
from podplane.cli.policy.places import Arrival, Wanted, arrivals, service_of, sources
from podplane.lab.errors import LabError
from podplane.model.policy import Direction
from podplane.policy.ends import End
from podplane.policy.hints import hints
from podplane.policy.match import Decision, Flow, Verdict, verdict
from podplane.policy.matrix import OTHER_PROTOCOLS
from podplane.policy.reach import Reach, side

Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Side:
    """What one direction says: its subject, whether it allows the flow (of no port: all of it), by what; and what nearly allows it."""

    direction: Direction
    subject: str
    allowed: bool
    by: str
    reach: Reach | None
    """What it allows, if no port was asked for."""
    policies: tuple[str, ...]
    hints: tuple[str, ...]

    def document(self) -> Object:
        """For programs."""
        found: Object = {"pod": self.subject, "allowed": self.allowed, "by": self.by, "policies": list(self.policies)}
        if self.reach is not None:
            found |= ports_document(self.reach)
        return found | {"hints": list(self.hints)}


@dataclass(frozen=True, slots=True)
class Judged:
    """One flow, or if no port was asked for, all from one end to another."""

    source: End
    destination: End
    protocol: str
    port: int | None
    allowed: bool
    by: str
    reach: Reach | None
    sides: tuple[Side, ...]

    def document(self) -> Object:
        """For programs."""
        found: Object = {
            "source": {"address": self.source.ip, "pod": self.source.path, "node": self.source.node},
            "destination": {"address": self.destination.ip, "pod": self.destination.path, "node": self.destination.node},
            "allowed": self.allowed,
            "by": self.by,
        }
        found |= {"protocol": self.protocol, "port": self.port} if self.reach is None else ports_document(self.reach)
        return found | {one.direction: one.document() for one in self.sides}


@dataclass(frozen=True, slots=True)
class Judgement:
    """All that was asked for."""

    source: str
    destination: str
    service: str
    flows: tuple[Judged, ...]

    @property
    def allowed(self) -> bool:
        """Is everything allowed that was asked for? Of no port: is anything?"""
        return all(one.allowed or (one.reach is not None and not one.reach.is_nothing) for one in self.flows)

    def document(self) -> Object:
        """For programs."""
        return {
            "from": self.source,
            "to": self.destination,
            "service": self.service,
            "allowed": self.allowed,
            "flows": [one.document() for one in self.flows],
        }


def judge(cluster: Cluster, begin: Wanted, to: Wanted, slices: Sequence[Object]) -> Judgement:
    """Every flow there is between the two. LabError when there is none."""
    starts, found = sources(begin, cluster), arrivals(to, cluster, slices)
    pairs = [(one, arrival) for one in _of_each_family(starts) for arrival in found if _version(one) == _version(arrival.end)]
    if not pairs:
        raise LabError(f"{begin.text} and {to.text} have no addresses of the same family: nothing passes between them")
    flows = dict.fromkeys(pairs)
    return Judgement(begin.text, to.text, service_of(to, cluster), tuple(_judged(*pair, cluster) for pair in flows))


def ports_document(reach: Reach) -> Object:
    """What is allowed, for programs."""
    ports = [{"protocol": one.protocol, "port": one.first, "endPort": one.last} for one in reach.ports]
    others = {"otherProtocols": reach.others}
    return {"everything": reach.is_everything, "ports": [] if reach.is_everything else ports} | others


def _version(end: End) -> int:
    return 6 if ":" in end.ip else 4


def _of_each_family(ends: Sequence[End]) -> list[End]:
    """The first of each family: a node has more addresses, but opens flows from that one."""
    return list({_version(one): one for one in reversed(ends)}.values())[::-1]


def _judged(source: End, arrival: Arrival, cluster: Cluster) -> Judged:
    destination, index = arrival.end, cluster.index
    protocol, port = (arrival.protocol, arrival.port) if arrival.port is not None else OTHER_PROTOCOLS
    flow = Flow(source, destination, protocol, port)
    found = verdict(flow, index)
    decisions = [one for one in (found.egress, found.ingress) if one is not None]
    if arrival.port is not None:
        sides = tuple(_side(one, flow, cluster) for one in decisions)
        return Judged(source, destination, protocol, port, found.allowed, found.by, None, sides)
    egress, ingress = (side(direction, source, destination, index) for direction in ("egress", "ingress"))
    reaches = {"egress": egress, "ingress": ingress}
    both = egress & ingress
    parts = tuple(_whole(one, flow, reaches[one.direction]) for one in decisions)
    return Judged(source, destination, "", None, both.is_everything, _by(found, parts), both, parts)


def _by(found: Verdict, parts: Sequence[Side]) -> str:
    return "; ".join(dict.fromkeys(one.by for one in parts)) or found.by


def _side(decision: Decision, flow: Flow, cluster: Cluster) -> Side:
    subject = flow.source if decision.direction == "egress" else flow.destination
    near = tuple(hints(decision, flow, cluster.index))
    return Side(decision.direction, subject.path, decision.allowed, decision.by, None, decision.policies, near)


def _whole(decision: Decision, flow: Flow, reach: Reach) -> Side:
    """A direction as a whole: `decision` is that on what no rule with ports is about."""
    subject = flow.source if decision.direction == "egress" else flow.destination
    decided = bool(decision.policies) and not reach.is_nothing
    by = f"policies {', '.join(decision.policies)}" if decided else decision.by
    return Side(decision.direction, subject.path, reach.is_everything, by, reach, decision.policies, ())
