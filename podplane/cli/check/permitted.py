"""Which probes policies deny: these are not tried, and break no promise. Pure.

The verdict (`policy.match`) says it of what a probe sends, and to a Service of the way to each endpoint behind it, for any of them may be
chosen. That packets are let pass or dropped as verdicts say is a promise of its own (`policies`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

from podplane.cli.check.names import PORT as DNS
from podplane.cli.check.names import Lookup
from podplane.cli.check.promises import Party, Probe, Verdict, family, same_family
from podplane.cli.check.services import FROM_OUTSIDE, REFUSED, Address
from podplane.cli.policy.cluster import Cluster
from podplane.policy import match
from podplane.policy.ends import End
from podplane.policy.match import Flow

PROTOCOLS = {"icmp": "ICMP", "udp": "UDP"}
"""All other probes are of TCP."""
T = TypeVar("T", Probe, Lookup)


class Permitted:
    """Verdicts on the probes of these parties, of which policies select the `judged` ones; `paths` are those of pods, by their names."""

    def __init__(
        self, cluster: Cluster, parties: Mapping[str, Party], paths: Mapping[str, str], judged: frozenset[str] = frozenset()
    ) -> None:
        self._cluster, self._parties, self._paths = cluster, parties, paths
        self._nodes = [party for party in parties.values() if party.kind == "node"]
        self._judged = judged & parties.keys()
        self._judged_ips = frozenset(ip for name in self._judged for ip in parties[name].ips)
        self._known: dict[tuple[str, str, str, int | None], str] = {}

    def denied_by(self, source: str, ip: str, protocol: str, port: int | None) -> str:
        """What denies one party a way to an address; "" when nothing does."""
        if source not in self._judged and ip not in self._judged_ips:
            return ""
        key = (source, ip, protocol, port)
        if key not in self._known:
            self._known[key] = self._denied(*key)
        return self._known[key]

    def probe_denied_by(self, probe: Probe, behind: Mapping[Address, Sequence[Address]] | None = None) -> str:
        """What denies a probe; `behind` are the endpoints of Services by address and port."""
        if probe.promise == REFUSED:
            return ""  # a node refuses before policies are asked
        protocol = PROTOCOLS.get(probe.protocol, "TCP")
        port = None if protocol == "ICMP" else probe.port
        ends = (behind or {}).get((probe.ip, probe.port))
        if ends is None:
            return self.denied_by(probe.source, probe.ip, protocol, port)
        found = (self.denied_by(probe.source, *_of(end, protocol)) for end in ends)
        return next(filter(None, (*found, *self._by_another_node(probe, ends))), "")

    def _by_another_node(self, probe: Probe, ends: Iterable[Address]) -> Iterable[str]:
        """From outside, an endpoint on another node sees the node that was asked, but for policy Local."""
        if probe.promise != FROM_OUTSIDE or probe.seen:
            return ()
        return (self.denied_by(node.name, ip, "TCP", port) for ip, port in ends for node in self._nodes if _has(node, ip))

    def lookup_denied_by(self, lookup: Lookup) -> str:
        """What denies a question about a name."""
        return self.denied_by(lookup.source, lookup.server, "TCP" if lookup.tcp else "UDP", DNS)

    def free(self, pods: Iterable[Party]) -> list[Party]:
        """Those that no policy selects."""
        return [pod for pod in pods if pod.name not in self._judged]

    def may(self, source: Party, target: Party, protocol: str = "TCP") -> bool:
        """Is nothing denied between two parties, to the port where the other one answers?"""
        port = None if protocol == "ICMP" else target.port
        return not any(self.denied_by(source.name, ip, protocol, port) for ip in target.ips)

    def _denied(self, source: str, ip: str, protocol: str, port: int | None) -> str:
        party = self._parties[source]
        if not (own := same_family(party.ips, ip)):
            return ""
        pod = self._cluster.pods.get(self._paths[source]) if party.kind == "pod" else None
        begin = End(own, pod, party.node if party.kind == "node" else "")
        said = match.verdict(Flow(begin, self._cluster.ends.at(ip), protocol, port), self._cluster.index)
        return next((one.by for one in (said.egress, said.ingress) if one is not None and not one.allowed), "")


def _of(end: Address, protocol: str) -> tuple[str, str, int]:
    return end[0], protocol, end[1]


def _has(node: Party, ip: str) -> bool:
    return any(family(one) == family(ip) for one in node.ips)


def parted(items: Iterable[T], denied_by: Callable[[T], str]) -> tuple[list[T], dict[T, str]]:
    """Those that policies permit, and the others with what denies them."""
    said = {item: denied_by(item) for item in items}
    return [item for item, by in said.items() if not by], {item: by for item, by in said.items() if by}


def note(verdicts: Iterable[Verdict], denied: Mapping[Probe, str] | Mapping[Lookup, str]) -> None:
    """Tell the promises what of them was not tried."""
    by_promise = {one.promise: one for one in verdicts}
    for item, by in denied.items():
        if item.promise in by_promise:
            by_promise[item.promise].denied[by] += 1
