"""What is promised of policies, which probes prove it, and what their answers mean. Pure.

What of the other promises policies deny is not tried (`permitted`). What reaches pods that a policy selects is as the verdict
(`policy.match`) on each connection says: it is tried from and to some other pods, and from their own node. One that is refused has passed:
nobody listens there.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from podplane.cli.check.promises import Party, Probe, Verdict, family, same_family
from podplane.cli.policy.cluster import Cluster
from podplane.model.policy import PolicyPort
from podplane.policy import match
from podplane.policy.ends import End
from podplane.policy.match import Flow

POLICIES = "policies"
PROMISES: Mapping[str, str] = {POLICIES: "policies let pass what they allow, and nothing else"}
OTHERS, PORTS = 2, 2
"""To and from so many other pods each pod is tried that a policy selects, unless every pair is asked for; at so many ports that its
policies name, besides the one where it surely answers."""
OPEN = "open"
REFUSED = os.strerror(errno.ECONNREFUSED)
Judged = Mapping[Probe, match.Verdict]


def plan(pods: Sequence[Party], nodes: Sequence[Party], paths: Mapping[str, str], cluster: Cluster, everything: bool) -> Judged:
    """Probes from and to pods that a policy selects, with the verdict on each. `paths` are those of the pods, by their names here."""
    own = {node.node: node for node in nodes}
    judged: dict[Probe, match.Verdict] = {}
    for turn, pod in enumerate(one for one in pods if cluster.index.policies_of(paths[one.name])):
        others = [one for one in (*pods[turn:], *pods[:turn]) if one is not pod]
        for other in others if everything else others[:OTHERS]:
            judged |= _between(pod, other, paths, cluster)
            judged |= _between(other, pod, paths, cluster)
        if pod.node in own:
            judged |= _between(own[pod.node], pod, paths, cluster)
    return judged


def _between(source: Party, target: Party, paths: Mapping[str, str], cluster: Cluster) -> Iterator[tuple[Probe, match.Verdict]]:
    for ip in target.ips:
        begin = _end(source, same_family(source.ips, ip), paths, cluster)
        end = _end(target, ip, paths, cluster)
        for port in dict.fromkeys((target.port, *_named_by_policies(begin, end, cluster))) if begin.ip else ():
            probe = Probe(POLICIES, source.name, target.name, OPEN, ip, port)
            yield probe, match.verdict(Flow(begin, end, "TCP", port), cluster.index)


def _end(party: Party, ip: str, paths: Mapping[str, str], cluster: Cluster) -> End:
    if party.kind == "pod":
        return End(ip, cluster.pods.get(paths[party.name]))
    return End(ip, node=party.node)


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


def verdict(judged: Judged, answers: Mapping[Probe, Mapping[str, Any]]) -> Verdict:
    """The promise, by what became of the probes."""
    found = Verdict(POLICIES)
    for probe, said in judged.items():
        failure = judge(probe, said, answers.get(probe))
        if failure:
            found.failures.append(failure)
        else:
            found.proved += 1
    return found


def judge(probe: Probe, said: match.Verdict, answer: Mapping[str, Any] | None) -> str:
    """ "" when a connection became what the verdict says; else what became of it."""
    port = f"[{probe.ip}]:{probe.port}" if family(probe.ip) == 6 else f"{probe.ip}:{probe.port}"
    what = f"{probe.source} → {probe.target} {port}"
    if answer is None:
        return f"{what}: no result from {probe.source}"
    error = str(answer.get("error") or "")
    passed = bool(answer.get("ok")) or error == REFUSED
    if passed == said.allowed:
        return ""
    if said.allowed:
        return f"{what}: it is allowed ({said.by}), and got {error or 'no answer'}"
    return f"{what}: it is denied ({said.by}), and passed"
