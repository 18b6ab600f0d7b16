"""What is promised of Services, which probes prove it, and what their answers mean. Pure.

The check makes six Services of its own, whose endpoints are pods that say who they are and whom they see:

    spread    up to four pods, a load balancer       sticky    the same pods, a client keeps its own
    local     the same, for each node its own pods   itself    one pod alone            nobody    none
    each      the same, without an address of its own: each endpoint has a name

Those of the users are in `check.users`.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from podplane.cli.check.promises import May, Party, Probe, Verdict, anybody, family, judge, same_family

Object = dict[str, Any]
Address = tuple[str, int]
"""IP and port."""
SERVICES, SPREAD, STICKY, SOURCE, HAIRPIN, REFUSED, FROM_OUTSIDE = (
    "services",
    "service-spread",
    "service-affinity",
    "service-source",
    "service-hairpin",
    "service-refused",
    "service-from-outside",
)
PROMISES: Mapping[str, str] = {
    SERVICES: "every Service is reached from pods and nodes",
    SPREAD: "a Service spreads connections evenly over its endpoints",
    STICKY: "with session affinity a client keeps its endpoint",
    SOURCE: "a Service's endpoints see their client's own address",
    HAIRPIN: "a pod reaches itself through its Service",
    REFUSED: "a Service without endpoints refuses at once",
    FROM_OUTSIDE: "node ports and load balancers are reached from outside, with policy Local under the client's own address",
}
ENDPOINTS, CONNECTIONS, RETURNS = 4, 120, 8
"""How many pods are endpoints of the check's own Services; connections to see that they spread; and that a client comes back."""
UNLIKELY = {1: 23.9, 2: 27.6, 3: 30.7}
"""By degrees of freedom, the chi-squared that a fair choice exceeds once in a million times."""
NAMES = ("spread", "sticky", "local", "itself", "nobody", "each")
TCP = "tcp"


@dataclass(frozen=True, slots=True)
class Vip:
    """One way to a port of a Service."""

    service: str
    ip: str
    port: int


@dataclass(frozen=True, slots=True)
class Own:
    """The check's Services: their cluster IPs, node ports and load balancer addresses by name, and their endpoints.

    `node_ips` are the addresses of each node that serve node ports.
    """

    vips: Mapping[str, Sequence[Vip]]
    balanced: Mapping[str, Sequence[Vip]]
    node_ports: Mapping[str, int]
    endpoints: Sequence[Party]
    node_ips: Mapping[str, Sequence[str]]


def endpoints_of(pods: Sequence[Party]) -> list[Party]:
    """The pods that are endpoints: of as many nodes as there are, and all of the families that most pods have; each address once."""
    families = Counter(frozenset(map(family, pod.ips)) for pod in pods)
    usual = max(families, key=lambda found: families[found], default=frozenset())
    by_node: dict[str, list[Party]] = defaultdict(list)
    taken: set[str] = set()
    for pod in (pod for pod in pods if frozenset(map(family, pod.ips)) == usual and taken.isdisjoint(pod.ips)):
        taken.update(pod.ips)
        by_node[pod.node].append(pod)
    rounds = (own[i] for i in range(ENDPOINTS) for own in by_node.values() if i < len(own))
    return list(islice(rounds, ENDPOINTS))


def manifests(
    endpoints: Sequence[Party], namespace: str, versions: Iterable[int], outside: str = "LoadBalancer"
) -> tuple[list[Object], list[Object]]:
    """The check's Services and their EndpointSlices. `outside` is the type of those that are reached from outside."""
    port = {"name": "probe", "port": 80, "protocol": "TCP"}
    services, slices = [], []
    balanced = {"type": outside}
    specs: dict[str, Object] = {
        "spread": balanced,
        "sticky": {"sessionAffinity": "ClientIP"},
        "local": balanced | {"externalTrafficPolicy": "Local"},
        "itself": {},
        "each": {"clusterIP": "None"},
        "nobody": {},
    }
    for name, spec in specs.items():
        whole = {"ports": [port], "ipFamilyPolicy": "PreferDualStack", **spec}
        services.append(
            {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": namespace}, "spec": whole}
        )
        own = {"itself": endpoints[:1], "nobody": []}.get(name, endpoints)
        for number, pod in enumerate(own):
            made = [_slice(name, f"{name}-{number}-ipv{version}", namespace, pod, version) for version in versions]
            if name == "each":
                for one in made:
                    one["endpoints"][0]["hostname"] = f"pod-{number}"
            slices += made
    return services, slices


def _slice(service: str, name: str, namespace: str, pod: Party, version: int) -> Object:
    """One endpoint: each may serve another port."""
    address = next(ip for ip in pod.ips if family(ip) == version)
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": name, "namespace": namespace, "labels": {"kubernetes.io/service-name": service}},
        "addressType": f"IPv{version}",
        "endpoints": [{"addresses": [address], "conditions": {"ready": True}, "nodeName": pod.node}],
        "ports": [{"name": "probe", "port": pod.port, "protocol": "TCP"}],
    }


def found(services: Sequence[Object], endpoints: Sequence[Party], node_ips: Mapping[str, Sequence[str]]) -> Own:
    """The check's Services, as the API has them."""
    by_name = {s["metadata"]["name"]: s for s in services}
    vips = {n: [Vip(n, ip, 80) for ip in s["spec"].get("clusterIPs", ())] for n, s in by_name.items()}
    balanced = {n: [Vip(n, one["ip"], 80) for one in ingress(s)] for n, s in by_name.items()}
    ports = {n: s["spec"]["ports"][0].get("nodePort", 0) for n, s in by_name.items()}
    return Own(vips, balanced, ports, endpoints, node_ips)


def behind(own: Own) -> dict[Address, list[Address]]:
    """The endpoints that a connection to an address and port may come to."""
    found: dict[Address, list[Address]] = {}
    for name, vips in own.vips.items():
        ends = {"itself": own.endpoints[:1], "nobody": ()}.get(name, own.endpoints)
        ports = [(ip, own.node_ports[name]) for ips in own.node_ips.values() for ip in ips if own.node_ports[name]]
        for ip, port in [*((vip.ip, vip.port) for vip in (*vips, *own.balanced[name])), *ports]:
            found[ip, port] = [(same_family(end.ips, ip), end.port) for end in ends]
    return found


def ingress(service: Object) -> list[Object]:
    """Where its load balancer is."""
    status: list[Object] = service.get("status", {}).get("loadBalancer", {}).get("ingress", [])
    return status


# Probes of the check's own Services.


def plan(own: Own, pods: Sequence[Party], nodes: Sequence[Party], outside: Party | None, may: May = anybody) -> list[Probe]:
    """All probes of the check's own Services; where some pods are chosen, those that policies let reach all endpoints."""
    probes: list[Probe] = []
    able = [pod for pod in pods if all(may(pod, end) for end in own.endpoints)] or pods
    for name in ("spread", "sticky", "itself"):
        for vip in own.vips[name]:
            probes += [_ask(SERVICES, source, vip) for source in (*pods, *nodes)]
    for node in nodes:
        probes += [_ask(SERVICES, node, Vip("spread", ip, own.node_ports["spread"])) for ip in own.node_ips[node.node]]
    for vip in own.vips["nobody"]:
        probes += [_ask(REFUSED, source, vip) for source in (*pods, *nodes)]
    for vip in own.vips["spread"]:
        probes += [_ask(SOURCE, pod, vip, seen=same_family(pod.ips, vip.ip)) for pod in pods]
        probes += [_ask(SPREAD, able[0], vip, turn=turn) for turn in range(CONNECTIONS)]
    for vip in own.vips["sticky"]:
        probes += [_ask(STICKY, source, vip, turn=turn) for source in (*able[:2], *nodes[:1]) for turn in range(RETURNS)]
    for vip in own.vips["itself"]:
        probes.append(_ask(HAIRPIN, own.endpoints[0], vip, answered_by=own.endpoints[0].name))
    return probes + (list(from_outside(own, nodes, outside)) if outside is not None else [])


def from_outside(own: Own, nodes: Sequence[Party], outside: Party) -> Iterator[Probe]:
    """From a party that is outside of these nodes."""
    for vip in own.balanced["spread"]:
        yield _ask(FROM_OUTSIDE, outside, vip)
    for vip in own.balanced["local"]:
        yield _ask(FROM_OUTSIDE, outside, vip, seen=same_family(outside.ips, vip.ip))
    here = {pod.node for pod in own.endpoints}
    for node in nodes:
        for ip in own.node_ips[node.node]:
            yield _ask(FROM_OUTSIDE, outside, Vip("spread", ip, own.node_ports["spread"]))
            if node.node in here:
                seen = same_family(outside.ips, ip)
                yield _ask(FROM_OUTSIDE, outside, Vip("local", ip, own.node_ports["local"]), seen=seen)


def _ask(promise: str, source: Party, vip: Vip, *, seen: str = "", answered_by: str = "", turn: int = 0) -> Probe:
    target = f"Service {vip.service}"
    return Probe(promise, source.name, target, TCP, vip.ip, vip.port, seen=seen, answered_by=answered_by, turn=turn)


# Answers.


def judge_probe(probe: Probe, answer: Mapping[str, Any] | None) -> str:
    """ "" when the answer keeps the promise. A pod that reaches itself is seen with its node's address."""
    if probe.promise == SOURCE and ((answer or {}).get("seen") or {}).get("name") == probe.source:
        return judge(replace(probe, seen=""), answer)
    if probe.promise != REFUSED:
        return judge(probe, answer)
    if answer is not None and answer.get("error") == "Connection refused":
        return ""
    got = "a connection" if answer and answer.get("ok") else (answer or {}).get("error") or "no result"
    return f"{probe.source} → {probe.target} {probe.ip}: expected to be refused, got {got}"


def verdicts(probes: Sequence[Probe], answers: Mapping[Probe, Mapping[str, Any]], endpoints: Sequence[Party]) -> list[Verdict]:
    """One for each promise, in the order of the table."""
    made = {promise: Verdict(promise) for promise in PROMISES}
    groups: dict[tuple[str, str, str], list[Probe]] = defaultdict(list)
    for probe in probes:
        if probe.promise in (SPREAD, STICKY):
            groups[probe.promise, probe.source, probe.ip].append(probe)
        failure = judge_probe(probe, answers.get(probe))
        verdict = made[probe.promise]
        if failure:
            verdict.failures.append(failure)
        else:
            verdict.proved += 1
    for (promise, source, ip), own in groups.items():
        names = Counter(str((answers.get(probe, {}).get("seen") or {}).get("name")) for probe in own)
        why = _uneven(names, [pod.name for pod in endpoints]) if promise == SPREAD else _moved(names)
        if why:
            made[promise].failures.append(f"{source} → Service {ip}: {why}")
        else:
            made[promise].proved += 1
    return list(made.values())


def _uneven(names: Counter[str], endpoints: Sequence[str]) -> str:
    """Why these can't be fair choices; "" when they may be."""
    expected = names.total() / len(endpoints)
    squares = sum((names[name] - expected) ** 2 / expected for name in endpoints)
    if len(endpoints) < 2 or squares <= UNLIKELY[len(endpoints) - 1]:
        return ""
    counts = ", ".join(f"{name} {names[name]}" for name in endpoints)
    return f"expected about {expected:.0f} of {names.total()} connections for each endpoint, got {counts}"


def _moved(names: Counter[str]) -> str:
    return f"expected one endpoint for all connections of a client, got {', '.join(sorted(names))}" if len(names) > 1 else ""
