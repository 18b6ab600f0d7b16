"""Policies of a check of a cluster: made, waited for, proved, and taken away again, some at a time, each of another pod.

What they are to let pass says the same verdict as in a lab (`check.policies`), together with those that users have in the namespace. A
network that does not enforce policies breaks the promise.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from podplane.cli.check import policies
from podplane.cli.check.cluster.place import POLICIES, Place
from podplane.cli.check.cluster.pods import PARTY, PORT_NAME
from podplane.cli.check.patience import patient
from podplane.cli.check.policed import Around, Way, every_way
from podplane.cli.check.policies import Judged
from podplane.cli.check.promises import Party, Probe, Verdict, family
from podplane.cli.check.questions import DENIED_SECONDS, PROBE_SECONDS, Answers, Ask
from podplane.cli.policy import cluster
from podplane.cli.policy.cluster import Cluster
from podplane.cli.waiting import Waiting
from podplane.runtime.probe import USUAL_PORT

MOST_PODS = 8
"""So many pods take part, of as many nodes as there are."""
WAIT_SECONDS, POLL_SECONDS = 15.0, 0.3
"""For policies to be in force."""
BASIC = ("deny", "one-client")
UNENFORCED = "does this network enforce NetworkPolicies?"
OTHER_PORT = USUAL_PORT + 1
Object = dict[str, Any]


def specs(client: str, ips: Sequence[str], namespace: str) -> dict[str, Object]:
    """What policies say beside whom they select, by name. `client` is a pod's label, and `ips` are its addresses."""
    one = {"podSelector": {"matchLabels": {PARTY: client}}}
    blocks = [
        {"cidr": "::/0", "except": [f"{ip}/128"]} if family(ip) == 6 else {"cidr": "0.0.0.0/0", "except": [f"{ip}/32"]}
        for ip in ips
    ]
    rules: dict[str, list[Object]] = {
        "deny": [],
        "one-client": [{"from": [one], "ports": [_port(USUAL_PORT)]}],
        "all-but-one": [{"from": [{"ipBlock": block} for block in blocks]}],
        "named-port": [{"ports": [_port(PORT_NAME)]}],
        "range-of-ports": [{"from": [one], "ports": [{**_port(USUAL_PORT - 9), "endPort": USUAL_PORT}]}],
        "another-port": [{"ports": [_port(OTHER_PORT)]}],
        "own-namespace": [{"from": [_namespace(namespace)]}],
        "another-namespace": [{"from": [_namespace("kube-system")]}],
    }
    found: dict[str, Object] = {name: {"policyTypes": ["Ingress"], "ingress": own} for name, own in rules.items()}
    found["deny-egress"] = {"policyTypes": ["Egress"], "egress": []}
    found["egress-to-one"] = {"policyTypes": ["Egress"], "egress": [{"to": [one], "ports": [_port(USUAL_PORT)]}]}
    return found


def _port(port: int | str) -> Object:
    return {"protocol": "TCP", "port": port}


def _namespace(name: str) -> Object:
    return {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}}


def rounds(pods: Sequence[Party], labels: Mapping[str, str], namespace: str, *, deep: bool) -> Iterator[list[Object]]:
    """The policies of one round after the other: the first pod is the client, and each other one is selected by one policy at a time."""
    client, *targets = pods
    wanted = [(name, spec) for name, spec in specs(labels[client.name], client.ips, namespace).items() if deep or name in BASIC]
    for start in range(0, len(wanted), len(targets)):
        pairs = zip(wanted[start : start + len(targets)], targets, strict=False)
        yield [
            _policy(name, {**spec, "podSelector": {"matchLabels": {PARTY: labels[pod.name]}}}) for (name, spec), pod in pairs
        ]


def _policy(name: str, spec: Object) -> Object:
    return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": f"check-{name}"}, "spec": spec}


def chosen(pods: Sequence[Party]) -> list[Party]:
    """Some pods, of each node in turn."""
    by_node: dict[str, list[Party]] = defaultdict(list)
    for pod in pods:
        by_node[pod.node].append(pod)
    turns = (own[i] for i in range(MOST_PODS) for own in by_node.values() if i < len(own))
    return list(islice(turns, MOST_PODS))


def prove(
    place: Place, pods: Sequence[Party], nodes: Sequence[Party], node_objects: Sequence[Object], ask: Ask, *, deep: bool
) -> Verdict:
    """Make policies, round by round, and judge what they let pass; none is left."""
    some, verdict = chosen(pods), Verdict(policies.POLICIES)
    if len(some) < 2:
        return verdict
    paths = {pod.name: f"{place.namespace}/{pod.name}" for pod in some}
    around = Around(some, nodes, (), paths)
    reached, passed = _reached(some, nodes, ask), list[bool]()
    for wanted in rounds(some, _labels(place), place.namespace, deep=deep):
        for one in wanted:
            place.create(POLICIES, one)
        now = view(place, node_objects)
        judged = certain(policies.plan(ways(around, now), paths, now, ping=False), some)
        judged = {probe: said for probe, said in judged.items() if (probe.source, probe.ip, probe.protocol) in reached}
        answers = _in_force(judged, ask)
        place.remove(POLICIES)
        found = policies.verdict(judged, answers)
        verdict.proved += found.proved
        verdict.stopped += found.stopped
        verdict.failures += found.failures
        passed += [bool(answers.get(probe, {}).get("ok")) for probe, said in judged.items() if not said.allowed]
    if passed and all(passed):
        verdict.failures.insert(0, f"nothing is denied of {len(passed)} connections that are to be: {UNENFORCED}")
    return verdict


def ways(around: Around, now: Cluster) -> Iterator[Way]:
    """Between all pods, and from the own node of each: what reaches nodes, and from other nodes, networks see with other addresses."""
    nodes = {node.name: node.node for node in around.nodes}
    for way in every_way(around, now):
        if way.target.kind == "pod" and nodes.get(way.source.name, way.target.node) == way.target.node:
            yield way


def _reached(pods: Sequence[Party], nodes: Sequence[Party], ask: Ask) -> set[tuple[str, str, str]]:
    """Who reaches which address of these pods by which protocol without policies of the check: of others nothing can be said."""
    by = (policies.OPEN, policies.UDP)
    found = [(one, pod, ip, how) for pod in pods for one in (*pods, *nodes) if one is not pod for ip in pod.ips for how in by]
    probes = [Probe(policies.POLICIES, one.name, pod.name, how, ip, pod.port) for one, pod, ip, how in found]
    return {(one.source, one.ip, one.protocol) for one, answer in ask(probes, PROBE_SECONDS).items() if answer.get("ok")}


def _labels(place: Place) -> dict[str, str]:
    """The labels by which pods are chosen, by their names."""
    return {one["metadata"]["name"]: one["metadata"]["labels"].get(PARTY, "") for one in place.objects("pods")}


def view(place: Place, node_objects: Sequence[Object]) -> Cluster:
    """What there is in the namespace, and all policies that are about it."""
    metadata = {"name": place.namespace, "labels": {"kubernetes.io/metadata.name": place.namespace}}
    found = place.client.objects(POLICIES, place.namespace)
    return cluster.of(place.objects("pods"), [], node_objects, [{"metadata": metadata}], found)


def certain(judged: Judged, pods: Sequence[Party]) -> Judged:
    """Without denied connections to ports where nobody listens: some networks refuse what they deny, and so does a kernel there."""
    ports = {pod.name: pod.port for pod in pods}
    return {probe: said for probe, said in judged.items() if said.allowed or probe.port == ports[probe.target]}


def _in_force(judged: Judged, ask: Ask) -> Answers:
    """What became of all probes, once it is as it should be or nobody waits any longer."""
    end, waiting, answers, todo = time.monotonic() + patient(WAIT_SECONDS), Waiting(), Answers(), list(judged)
    while True:
        answers |= ask([one for one in todo if judged[one].allowed], PROBE_SECONDS)
        answers |= {
            probe: denied(answer)
            for probe, answer in ask([one for one in todo if not judged[one].allowed], DENIED_SECONDS).items()
        }
        todo = [probe for probe in todo if policies.judge(probe, judged[probe], answers.get(probe))]
        if not todo or time.monotonic() > end:
            return answers
        waiting.look(lambda: "the policies of the check to be in force")
        time.sleep(POLL_SECONDS)


def denied(answer: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a prober says of a connection that is to be denied, to a port where somebody listens: who refuses it has denied it."""
    return {**answer, "error": "denied"} if answer.get("error") == policies.REFUSED else answer
