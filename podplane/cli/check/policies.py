"""What is promised of policies, which probes prove it, and what their answers mean. Pure.

What of the other promises policies deny is not tried (`permitted`); here it is. What reaches pods that a policy selects, and what they
send, is as the verdict (`policy.match`) on each says: what is allowed passes, and what is denied does not. A connection that is refused has
passed: nobody listens there.

What gets no answer was denied, or nobody is there who would answer. So each end to which something is denied is asked by somebody who is
allowed to, if need be by a node, which no policy selects (`controls`); where nobody gets an answer the two were not told apart (`untold`).
"""

from __future__ import annotations

import errno
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import replace
from typing import Any

from podplane.cli.check.policed import Around, Way
from podplane.cli.check.promises import Fate, Party, Probe, Verdict, family, same_family
from podplane.cli.policy.cluster import Cluster
from podplane.model.policy import PolicyPort
from podplane.policy import match
from podplane.policy.ends import End
from podplane.policy.match import Flow

POLICIES = "policies"
PROMISES: Mapping[str, str] = {POLICIES: "policies let pass what they allow, and nothing else"}
PORTS = 2
"""At so many ports that its policies name a pod is tried, besides the one where it surely answers."""
OPEN, UDP, ICMP = "open", "udp", "icmp"
PROTOCOLS: Mapping[str, str] = {OPEN: "TCP", UDP: "UDP", ICMP: "ICMP"}
REFUSED = os.strerror(errno.ECONNREFUSED)
Judged = Mapping[Probe, match.Verdict]


def plan(ways: Iterable[Way], paths: Mapping[str, str], cluster: Cluster, *, ping: bool = True) -> Judged:
    """Probes for these ways, with the verdict on each. `paths` are those of pods, by their names here.

    Without `ping` none is of ICMP, of which NetworkPolicy says nothing: networks differ in it.
    """
    judged: dict[Probe, match.Verdict] = {}
    for way in ways:
        for ip in way.target.ips:
            begin = _end(way.source, same_family(way.source.ips, ip), paths, cluster)
            end = _end(way.target, ip, paths, cluster)
            for protocol, port in _tried(way, begin, end, cluster) if begin.ip else ():
                if ping or protocol != ICMP:
                    probe = Probe(POLICIES, way.source.name, way.target.name, protocol, ip, port)
                    judged[probe] = match.verdict(Flow(begin, end, PROTOCOLS[protocol], port or None), cluster.index)
    return judged


def controls(judged: Judged, around: Around, cluster: Cluster) -> Judged:
    """Probes from nodes to the ends to which all is denied, with the verdict: from a pod's own node, which always may (Kubernetes'
    NetworkPolicy); to nodes and the world outside from the node of who is denied."""
    asked = {_end_of(probe) for probe, said in judged.items() if said.allowed}
    parties = {party.name: party for party in (*around.pods, *around.nodes, *around.outside)}
    nodes = {node.node: node for node in around.nodes}
    found: dict[Probe, match.Verdict] = {}
    for probe in judged:
        if _end_of(probe) in asked:
            continue
        target = parties[probe.target]
        node = nodes.get(target.node if target.kind == "pod" else parties[probe.source].node)
        if node is not None and (node.pings or probe.protocol != ICMP) and (ip := same_family(node.ips, probe.ip)):
            begin, end = (_end(one, at, around.paths, cluster) for one, at in ((node, ip), (target, probe.ip)))
            flow = Flow(begin, end, PROTOCOLS[probe.protocol], probe.port or None)
            found[replace(probe, source=node.name)] = match.verdict(flow, cluster.index)
    return found


def untold(judged: Judged, answers: Mapping[Probe, Mapping[str, Any]]) -> Set[Probe]:
    """Those that are denied and did not pass, but at whose ends nobody who is allowed got an answer either."""
    answered = {_end_of(probe) for probe, said in judged.items() if said.allowed and _passed(answers.get(probe) or {})}
    return {probe for probe, said in judged.items() if not said.allowed and _end_of(probe) not in answered}


def _end_of(probe: Probe) -> tuple[str, str, int]:
    return probe.ip, probe.protocol, probe.port


def _tried(way: Way, source: End, target: End, cluster: Cluster) -> Iterator[tuple[str, int]]:
    """Protocols and ports; of UDP only where somebody answers, and from the address that was asked: pods have one of each family."""
    ports = dict.fromkeys((way.target.port, *_named_by_policies(source, target, cluster)))
    yield from ((OPEN, port) for port in ports)
    if not way.briefly and way.target.kind == "pod" and way.target.datagrams:
        yield UDP, way.target.port
    if not way.briefly and way.source.pings:
        yield ICMP, 0


def _end(party: Party, ip: str, paths: Mapping[str, str], cluster: Cluster) -> End:
    if party.kind == "pod":
        return End(ip, cluster.pods.get(paths[party.name]))
    return End(ip, node=party.node if party.kind == "node" else "")


def _named_by_policies(source: End, target: End, cluster: Cluster) -> list[int]:
    """Some ports that policies of either end name for the way between them."""
    sides = ((source, "egress"), (target, "ingress"))
    rules = [
        rule
        for end, direction in sides
        for policy in (cluster.index.policies_of(end.path) if end.pod is not None else ())
        for rule in policy.rules(direction) or ()  # type: ignore[arg-type]  # one of the two
    ]
    found = [number for rule in rules for port in rule.ports or () if (number := _number(port, target))]
    return sorted(set(found))[:PORTS]


def _number(port: PolicyPort, target: End) -> int:
    """A number that is meant; 0 when there is none, or it is no TCP."""
    if port.protocol != "TCP" or port.port is None:
        return 0
    if isinstance(port.port, tuple):
        return port.port[0]
    named = target.pod.ports.named if target.pod is not None else ()
    return next((one.port for one in named if (one.name, one.protocol) == (port.port, "TCP")), 0)


def verdict(judged: Judged, answers: Mapping[Probe, Mapping[str, Any]], unclear: Set[Probe] = frozenset()) -> Verdict:
    """The promise, by what became of the probes; those that are `unclear` (`untold`) prove nothing."""
    found = Verdict(POLICIES)
    for probe, said in judged.items():
        if failure := judge(probe, said, answers.get(probe)):
            found.failures.append(failure)
        elif probe in unclear:
            found.untold += 1
        else:
            found.proved += 1
            found.stopped += not said.allowed
    return found


def fates(
    judged: Judged, answers: Mapping[Probe, Mapping[str, Any]], unclear: Set[Probe] = frozenset()
) -> dict[tuple[str, str], Fate]:
    """What became of all that was tried from one to another, by source and target."""
    found: defaultdict[tuple[str, str], Fate] = defaultdict(lambda: Fate(0))
    for probe, said in judged.items():
        is_broken = judge(probe, said, answers.get(probe))
        if probe in unclear and not is_broken:
            continue
        found[probe.source, probe.target] |= Fate.BROKEN if is_broken else Fate.PASSED if said.allowed else Fate.STOPPED
    return dict(found)


def unchanged(judged: Judged, now: Judged) -> Judged:
    """Those on which the verdict is the same after they were sent as before."""
    return {probe: said for probe, said in judged.items() if probe in now and now[probe].allowed == said.allowed}


def judge(probe: Probe, said: match.Verdict, answer: Mapping[str, Any] | None) -> str:
    """ "" when a probe became what the verdict says; else what became of it."""
    what = f"{probe.source} → {probe.target} {_written(probe)}"
    if answer is None:
        return f"{what}: no result from {probe.source}"
    if _passed(answer) == said.allowed:
        return ""
    if said.allowed:
        return f"{what}: it is allowed ({said.by}), and got {answer.get('error') or 'no answer'}"
    return f"{what}: it is denied ({said.by}), and passed"


def _passed(answer: Mapping[str, Any]) -> bool:
    return bool(answer.get("ok")) or answer.get("error") == REFUSED


def _written(probe: Probe) -> str:
    if probe.protocol == ICMP:
        return f"{probe.ip} icmp"
    end = f"[{probe.ip}]:{probe.port}" if family(probe.ip) == 6 else f"{probe.ip}:{probe.port}"
    return f"{end}/udp" if probe.protocol == UDP else end
