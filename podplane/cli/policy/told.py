"""What nodes say that they denied, as lines and as documents. Pure."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from podplane.cli.tables import plain
from podplane.model.answers import DeniedFlow, DeniedFlows, Party
from podplane.model.words import counted
from podplane.policy.tables import BY_RULE, FOREIGN, GATE, IN, OUT, TOLD_A_SECOND

DIRECTION = {IN: "ingress", OUT: "egress", BY_RULE[IN]: "ingress", BY_RULE[OUT]: "egress"}
OTHERS = {
    GATE: "no pod has this address, or another one, or its policies are not in place yet",
    FOREIGN: "not an address of a pod of this node",
}
NAMES = {"icmp": "ICMP", "icmpv6": "ICMPv6"}
POLICIES_SHOWN = 6


@dataclass(frozen=True, slots=True)
class Told:
    """Equal packets that a node denied, and when the first and the last one came."""

    node: str
    flow: DeniedFlow
    packets: int
    first: datetime.datetime
    last: datetime.datetime

    def is_about(self, namespace: str) -> bool:
        """Is a pod or Service of this namespace at either end?"""
        return any(
            one.kind in ("pod", "service") and one.name.partition("/")[0] == namespace
            for one in (self.flow.source, self.flow.destination)
        )

    def text(self) -> str:
        """One line."""
        flow = self.flow
        protocol = flow.protocol if not flow.protocol.isdecimal() else f"protocol {flow.protocol}"
        what = f"{protocol.upper()} {flow.port}" if flow.port else NAMES.get(protocol, protocol)
        times = "" if self.packets == 1 else f" ({counted(self.packets, 'packet')})"
        ends = f"{_party(flow.source)} → {_party(flow.destination)}"
        return plain(f"{self.last:%H:%M:%S}  {ends}, {what}: {why(flow)}{times}")

    def document(self) -> dict[str, Any]:
        """For programs."""
        flow = self.flow
        return {
            "time": self.last.isoformat(timespec="milliseconds"),
            "firstTime": self.first.isoformat(timespec="milliseconds"),
            "node": self.node,
            "from": _party_document(flow.source),
            "to": _party_document(flow.destination),
            "protocol": flow.protocol,
            "port": flow.port or None,
            "direction": DIRECTION.get(flow.reason),
            "by": why(flow),
            "policies": list(flow.policies),
            "packets": self.packets,
            "check": flow.in_check,
        }


def why(flow: DeniedFlow) -> str:
    """Which policies deny it, as `podplane policy verdict` says it."""
    direction = DIRECTION.get(flow.reason)
    if direction is None:
        return OTHERS.get(flow.reason, flow.reason)
    more = len(flow.policies) - POLICIES_SHOWN
    names = ", ".join(flow.policies[:POLICIES_SHOWN]) + (f" and {more:,} more" if more > 0 else "")
    if flow.reason in BY_RULE.values():
        return f"{direction}: a rule that denies, of {names}" if names else f"{direction}: a rule denied it"
    return f"{direction}: default deny by {names}" if names else f"{direction}: no policy allowed it"


class Merged:
    """What several nodes say, again and again: each packet counts once."""

    def __init__(self, nodes: Iterable[str]) -> None:
        self.after: dict[str, int] = dict.fromkeys(nodes, 0)
        """Of each node the last change that was seen."""
        self._seen: dict[str, dict[int, int]] = {}
        self._more: dict[str, int] = {}

    def take(self, answers: Mapping[str, DeniedFlows], now: datetime.datetime) -> tuple[list[Told], int]:
        """What is new, the oldest first, and how many more packets were dropped that nobody told apart."""
        found: list[Told] = []
        more = 0
        for node, answer in answers.items():
            if answer.change < self.after[node]:  # its agent was started again, and counts anew
                self._seen.pop(node, None)
                self._more.pop(node, None)
            before = self._seen.get(node, {})
            self._seen[node] = before | {one.number: one.packets for one in answer.flows}
            found += [_told(node, one, one.packets - before.get(one.number, 0), now) for one in answer.flows]
            untold = answer.dropped - answer.told
            more += max(0, untold - self._more.get(node, 0))
            self._more[node], self.after[node] = untold, answer.change
        return sorted(found, key=lambda one: one.last), more


def more_text(more: int, namespace: str) -> str:
    """How much there was besides."""
    which = "" if not namespace else ", of any namespace"
    limit = f"a node tells apart {TOLD_A_SECOND} a second for each direction"
    return f"… and {counted(more, 'more packet')}{which} ({limit})"


def checks_text(lines: int) -> str:
    """How much `podplane check` tried."""
    return f"… and {counted(lines, 'line')} of what was sent while `podplane check` ran (--checks shows what)"


def _told(node: str, flow: DeniedFlow, packets: int, now: datetime.datetime) -> Told:
    first, last = (now - datetime.timedelta(seconds=age) for age in (flow.first_age, flow.last_age))
    return Told(node, flow, packets, first, last)


def _party(one: Party) -> str:
    match one.kind:
        case "pod" | "dns":
            return one.name
        case "node":
            return f"node {one.name}"
        case "service":
            return f"Service {one.name}"
    return one.address


def _party_document(one: Party) -> dict[str, str]:
    return {"address": one.address} | ({one.kind: one.name} if one.kind else {})
