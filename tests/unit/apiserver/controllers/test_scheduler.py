"""The scheduler: which nodes are out and what is said about it, which of the others is best, and when it is tried again."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from podplane.apiserver.controllers.neighbours import Neighbours
from podplane.apiserver.controllers.placement import fits_node
from podplane.apiserver.controllers.usage import Usage, requests_of
from tests.unit.apiserver.controllers.cluster import APPS, Cluster, workload
from tests.unit.apiserver.test_server import CONTAINER, PODS, Object

NODES = "/api/v1/nodes"
HOST, ZONE = "kubernetes.io/hostname", "topology.kubernetes.io/zone"
REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
GPU = {"key": "gpu", "value": "yes", "effect": "NoSchedule"}


@pytest.fixture
async def cluster() -> Cluster:
    """Two nodes in zone a, one in zone b."""
    made = await Cluster(nodes=0).begin()
    for name, zone in (("node1", "a"), ("node2", "a"), ("node3", "b")):
        await made.add_node(name, {ZONE: zone, "memory": "32", "disk": "ssd" if zone == "a" else "hdd"})
    return made


async def place(cluster: Cluster, name: str, labels: dict[str, str] | None = None, **spec: Any) -> str:
    """Where a new pod goes, or why it goes nowhere."""
    await cluster.pod(name, labels=labels, **spec)
    await cluster.settle()
    return await where(cluster, name)


async def where(cluster: Cluster, name: str) -> str:
    pod = await cluster("GET", f"{PODS}/{name}")
    if pod["spec"].get("nodeName"):
        return str(pod["spec"]["nodeName"])
    (condition,) = pod["status"]["conditions"]
    assert (condition["type"], condition["status"], condition["reason"]) == ("PodScheduled", "False", "Unschedulable")
    return str(condition["message"])


def node_affinity(*expressions: Object) -> Object:
    return {"nodeAffinity": {REQUIRED: {"nodeSelectorTerms": [{"matchExpressions": list(expressions)}]}}}


def near(kind: str, app: str, key: str = HOST, **more: Any) -> Object:
    """Affinity or anti-affinity to the pods of an app."""
    return {kind: {REQUIRED: [{"topologyKey": key, "labelSelector": {"matchLabels": {"app": app}}, **more}]}}


def container(ports: tuple[Object, ...] = (), **requests: str) -> Object:
    return {**CONTAINER, "ports": list(ports), "resources": {"requests": requests}}


# Filters.


@pytest.mark.parametrize(
    ("operator", "key", "values", "nodes"),
    [
        ("In", "disk", ["ssd", "nvme"], {"node1", "node2"}),
        ("NotIn", "disk", ["ssd"], {"node3"}),
        ("NotIn", "unknown", ["ssd"], {"node1", "node2", "node3"}),
        ("Exists", "disk", [], {"node1", "node2", "node3"}),
        ("DoesNotExist", "disk", [], set()),
        ("Gt", "memory", ["31"], {"node1", "node2", "node3"}),
        ("Gt", "memory", ["32"], set()),
        ("Lt", "memory", ["33"], {"node1", "node2", "node3"}),
        ("Gt", "disk", ["1"], set()),
    ],
)
async def test_node_affinity_chooses_by_its_operator(
    cluster: Cluster, operator: str, key: str, values: list[str], nodes: set[str]
) -> None:
    affinity = node_affinity({"key": key, "operator": operator} | ({"values": values} if values else {}))
    places = {
        await place(cluster, f"p{n}", affinity=affinity | near("podAntiAffinity", "x"), labels={"app": "x"}) for n in range(3)
    }
    assert {name for name in places if name.startswith("node")} == nodes


async def test_each_reason_is_counted_and_told_by_node(cluster: Cluster) -> None:
    await cluster("PATCH", f"{NODES}/node1", {"spec": {"unschedulable": True}})
    await cluster("PATCH", f"{NODES}/node2", {"spec": {"taints": [GPU]}})
    assert await place(cluster, "p", nodeSelector={"disk": "none"}) == (
        "0/3 nodes are available: 1 node(s) didn't match Pod's node affinity/selector, 1 node(s) had untolerated taint {gpu: yes}, "
        "1 node(s) were unschedulable. By node: node1: node(s) were unschedulable; "
        "node2: node(s) had untolerated taint {gpu: yes}; node3: node(s) didn't match Pod's node affinity/selector."
    )


async def test_every_resource_that_a_node_lacks_is_told(cluster: Cluster) -> None:
    text = await place(cluster, "p", containers=[container(cpu="5", memory="9Gi")])
    assert text == "0/3 nodes are available: 3 Insufficient cpu, 3 Insufficient memory."
    assert await place(cluster, "q", containers=[container(**{"example.com/gpu": "1"})]) == (
        "0/3 nodes are available: 3 Insufficient example.com/gpu."
    )


async def test_without_nodes_it_says_so() -> None:
    cluster = await Cluster(nodes=0).begin()
    assert await place(cluster, "p") == "no nodes available to schedule pods"


@pytest.mark.parametrize(
    ("toleration", "fits"),
    [
        ({"key": "gpu", "operator": "Equal", "value": "yes", "effect": "NoSchedule"}, True),
        ({"key": "gpu", "value": "yes"}, True),
        ({"key": "gpu", "operator": "Exists"}, True),
        ({"operator": "Exists"}, True),
        ({"key": "gpu", "value": "no"}, False),
        ({"key": "gpu", "operator": "Exists", "effect": "NoExecute"}, False),
        ({"key": "cpu", "operator": "Exists"}, False),
    ],
)
async def test_a_taint_wants_its_toleration(toleration: Object, fits: bool) -> None:
    cluster = await Cluster(nodes=0).begin()
    await cluster.add_node("node1", taints=[GPU])
    text = await place(cluster, "p", tolerations=[toleration])
    assert text == ("node1" if fits else "0/1 nodes are available: 1 node(s) had untolerated taint {gpu: yes}.")


async def test_a_node_that_is_not_ready_takes_only_who_tolerates_it() -> None:
    cluster = await Cluster(nodes=1).begin()
    await cluster("PATCH", f"{NODES}/node1/status", {"status": {"conditions": [{"type": "Ready", "status": "False"}]}})
    taint = "node.kubernetes.io/not-ready"
    assert await place(cluster, "p") == f"0/1 nodes are available: 1 node(s) had untolerated taint {{{taint}: }}."
    assert await place(cluster, "agent", tolerations=[{"operator": "Exists"}]) == "node1"


async def test_ports_of_the_host_are_had_once_for_each_address_and_protocol() -> None:
    cluster = await Cluster(nodes=1).begin()

    async def with_port(name: str, **port: Any) -> str:
        return await place(cluster, name, containers=[container(({"containerPort": 80, "hostPort": 80, **port},))])

    taken = "0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports."
    assert await with_port("a", hostIP="127.0.0.1") == "node1"
    assert await with_port("b", hostIP="127.0.0.2") == "node1"
    assert await with_port("c") == taken
    assert await with_port("d", protocol="UDP") == "node1"
    assert await with_port("e", hostIP="127.0.0.3", protocol="UDP") == taken


SIDECAR = {**container(cpu="1"), "name": "side", "restartPolicy": "Always"}


@pytest.mark.parametrize(
    ("spec", "cpu"),
    [
        ({"containers": [container(cpu="1"), container(cpu="500m")]}, 1500),
        ({"containers": [container(cpu="1")], "initContainers": [container(cpu="3")]}, 3000),
        ({"containers": [container(cpu="2")], "initContainers": [SIDECAR]}, 3000),
        ({"containers": [container(cpu="1")], "initContainers": [SIDECAR, container(cpu="2")]}, 3000),
        ({"containers": [container(cpu="1")], "initContainers": [container(cpu="3"), SIDECAR]}, 3000),
        ({"containers": [container(cpu="1")], "overhead": {"cpu": "250m"}}, 1250),
        ({"containers": [{**CONTAINER, "resources": {"limits": {"cpu": "2"}}}]}, 2000),
        ({"containers": [container(cpu="0.0001")]}, 1),
        ({"containers": [container(cpu="1")], "resources": {"requests": {"cpu": "3"}}, "overhead": {"cpu": "250m"}}, 3250),
    ],
)
def test_what_a_pod_asks_for(spec: Object, cpu: int) -> None:
    assert requests_of(spec) == {"cpu": cpu, "pods": 1000}


async def test_a_node_takes_no_more_pods_than_it_says(cluster: Cluster) -> None:
    few = {"status": {"allocatable": {"cpu": "4", "memory": "8Gi", "pods": "1"}}}
    for name in ("node1", "node2", "node3"):
        await cluster("PATCH", f"{NODES}/{name}/status", few)
    assert {await place(cluster, f"p{n}") for n in range(3)} == {"node1", "node2", "node3"}
    assert await place(cluster, "more") == "0/3 nodes are available: 3 Too many pods."


# Others.


async def test_those_that_want_each_other_start_somewhere_and_stay_together(cluster: Cluster) -> None:
    together = near("podAffinity", "web", ZONE)
    assert await place(cluster, "lone", affinity=together) == (
        "0/3 nodes are available: 3 node(s) didn't match pod affinity rules."
    )
    first = await place(cluster, "first", {"app": "web"}, affinity=together, nodeSelector={"disk": "hdd"})
    assert first == "node3"
    assert [await place(cluster, f"p{n}", {"app": "web"}, affinity=together) for n in range(2)] == ["node3", "node3"]


async def test_the_first_of_those_that_want_each_other_needs_a_domain_too(cluster: Cluster) -> None:
    rack = near("podAffinity", "web", "rack")
    text = await place(cluster, "p", {"app": "web"}, affinity=rack)
    assert text == "0/3 nodes are available: 3 node(s) didn't match pod affinity rules."
    await cluster("PATCH", f"{NODES}/node2", {"metadata": {"labels": {"rack": "r1"}}})
    await cluster.settle()
    assert await where(cluster, "p") == "node2"


async def test_one_pod_has_to_match_all_terms(cluster: Cluster) -> None:
    await place(cluster, "web", {"app": "web"}, nodeSelector={HOST: "node1"})
    await place(cluster, "db", {"tier": "db"}, nodeSelector={HOST: "node1"})
    terms = [{"topologyKey": HOST, "labelSelector": {"matchLabels": one}} for one in ({"app": "web"}, {"tier": "db"})]
    affinity = {"podAffinity": {REQUIRED: terms}}
    assert "3 node(s) didn't match pod affinity rules" in await place(cluster, "p", affinity=affinity)
    await place(cluster, "both", {"app": "web", "tier": "db"}, nodeSelector={HOST: "node2"})
    assert await where(cluster, "p") == "node2"


async def test_anti_affinity_holds_in_both_directions(cluster: Cluster) -> None:
    assert await place(cluster, "shy", {"app": "shy"}, affinity=near("podAntiAffinity", "loud", ZONE)) == "node1"
    assert await place(cluster, "loud", {"app": "loud"}) == "node3"
    assert await place(cluster, "loud2", {"app": "loud"}, nodeSelector={"disk": "ssd"}) == (
        "0/3 nodes are available: 1 node(s) didn't match Pod's node affinity/selector, "
        "2 node(s) didn't satisfy existing pods anti-affinity rules. "
        "By node: node1: node(s) didn't satisfy existing pods anti-affinity rules; "
        "node2: node(s) didn't satisfy existing pods anti-affinity rules; "
        "node3: node(s) didn't match Pod's node affinity/selector."
    )
    text = await place(cluster, "shy2", affinity=near("podAntiAffinity", "loud", ZONE), nodeSelector={"disk": "hdd"})
    assert "1 node(s) didn't match pod anti-affinity rules" in text


async def test_who_is_leaving_is_still_there_for_those_that_shun_it() -> None:
    cluster = await Cluster(nodes=1).begin()
    alone = near("podAntiAffinity", "web")
    assert await place(cluster, "old", {"app": "web"}, affinity=alone) == "node1"
    await cluster("DELETE", f"{PODS}/old")
    assert "anti-affinity rules" in await place(cluster, "new", {"app": "web"}, affinity=alone)
    await cluster("DELETE", f"{PODS}/old", {"gracePeriodSeconds": 0})
    await cluster.settle()
    assert await where(cluster, "new") == "node1"


@pytest.mark.parametrize(
    ("term", "shuns"),
    [
        ({}, False),
        ({"namespaces": ["other"]}, True),
        ({"namespaceSelector": {}}, True),
        ({"namespaceSelector": {"matchLabels": {"team": "red"}}}, True),
        ({"namespaceSelector": {"matchLabels": {"team": "blue"}}}, False),
        ({"matchLabelKeys": ["version"]}, False),
        ({"namespaces": ["other"], "matchLabelKeys": ["version"]}, False),
        ({"namespaces": ["other"], "mismatchLabelKeys": ["version"]}, True),
        ({"namespaces": ["other"], "mismatchLabelKeys": ["app"]}, False),
    ],
)
async def test_terms_reach_other_namespaces_and_compare_labels(term: Object, shuns: bool) -> None:
    cluster = await Cluster(nodes=1).begin()
    await cluster("POST", "/api/v1/namespaces", {"metadata": {"name": "other", "labels": {"team": "red"}}})
    await cluster.settle()
    await cluster.pod("there", "other", {"app": "web", "version": "1"})
    await cluster.settle()
    text = await place(cluster, "p", {"app": "web", "version": "2"}, affinity=near("podAntiAffinity", "web", **term))
    assert ("anti-affinity" in text) is shuns


# Spread.


def spread(key: str, **more: Any) -> Object:
    constraint = {"topologyKey": key, "maxSkew": 1, "whenUnsatisfiable": "DoNotSchedule"}
    return {**constraint, "labelSelector": {"matchLabels": {"app": "web"}}, **more}


async def test_a_spread_keeps_its_skew(cluster: Cluster) -> None:
    for number in range(6):
        await place(cluster, f"p{number}", {"app": "web"}, topologySpreadConstraints=[spread(ZONE)])
    zones = Counter("b" if pod["spec"]["nodeName"] == "node3" else "a" for pod in await cluster.pods())
    assert zones == {"a": 3, "b": 3}
    text = await place(cluster, "q", {"app": "web"}, topologySpreadConstraints=[spread("rack")])
    assert text == ("0/3 nodes are available: 3 node(s) didn't match pod topology spread constraints (missing required label).")


async def test_a_spread_wants_so_many_domains(cluster: Cluster) -> None:
    constraints = [spread(ZONE, minDomains=3)]
    places = [await place(cluster, f"p{n}", {"app": "web"}, topologySpreadConstraints=constraints) for n in range(3)]
    assert set(places[:2]) == {"node1", "node3"}
    assert places[2] == "0/3 nodes are available: 3 node(s) didn't match pod topology spread constraints."
    await cluster.add_node("node4", {ZONE: "c"})
    await cluster.settle()
    assert await where(cluster, "p2") == "node4"


async def test_a_spread_counts_its_own_version_only(cluster: Cluster) -> None:
    for number in range(2):
        await place(cluster, f"old{number}", {"app": "web", "version": "1"}, nodeSelector={"disk": "hdd"})
    constraints = [spread(ZONE, matchLabelKeys=["version"])]
    new = [
        await place(cluster, f"new{n}", {"app": "web", "version": "2"}, topologySpreadConstraints=constraints) for n in range(4)
    ]
    assert Counter(name == "node3" for name in new) == {True: 2, False: 2}


@pytest.mark.parametrize(("policy", "fits"), [({}, True), ({"nodeAffinityPolicy": "Ignore"}, False)])
async def test_nodes_that_a_pod_may_not_go_to_are_no_domains(cluster: Cluster, policy: Object, fits: bool) -> None:
    constraints, chosen = [spread(ZONE, **policy)], {"disk": "ssd"}
    await place(cluster, "first", {"app": "web"}, topologySpreadConstraints=constraints, nodeSelector=chosen)
    second = await place(cluster, "second", {"app": "web"}, topologySpreadConstraints=constraints, nodeSelector=chosen)
    assert second.startswith("node") is fits


@pytest.mark.parametrize(("policy", "fits"), [({}, False), ({"nodeTaintsPolicy": "Honor"}, True)])
async def test_tainted_nodes_are_no_domains_if_taints_are_honored(cluster: Cluster, policy: Object, fits: bool) -> None:
    await cluster("PATCH", f"{NODES}/node3", {"spec": {"taints": [GPU]}})
    constraints = [spread(ZONE, **policy)]
    await place(cluster, "first", {"app": "web"}, topologySpreadConstraints=constraints)
    second = await place(cluster, "second", {"app": "web"}, topologySpreadConstraints=constraints)
    assert second.startswith("node") is fits


async def test_a_soft_spread_prefers_and_never_refuses(cluster: Cluster) -> None:
    await cluster.add_node("node4")  # without a zone: the worst of all
    constraints = [spread(ZONE, whenUnsatisfiable="ScheduleAnyway")]
    places = [await place(cluster, f"p{n}", {"app": "web"}, topologySpreadConstraints=constraints) for n in range(4)]
    assert Counter("ab"[name == "node3"] for name in places) == {"a": 2, "b": 2}
    assert "node4" not in places


# The best.


@pytest.mark.parametrize("replicas", [2, 3, 6, 12, 24])
async def test_replicas_are_spread_over_nodes_and_zones(replicas: int) -> None:
    cluster = await Cluster(nodes=0).begin()
    for number in range(6):
        await cluster.add_node(f"node{number}", {ZONE: "aaabbb"[number]})
    await cluster("POST", f"{APPS}/replicasets", workload("web", replicas))
    await cluster.settle()
    nodes = Counter(pod["spec"]["nodeName"] for pod in await cluster.pods())
    zones = Counter("aaabbb"[int(name[-1])] for name in nodes.elements())
    assert max(nodes.values()) - min(nodes[f"node{n}"] for n in range(6)) <= 1
    assert zones["a"] - zones["b"] in (0, 1)


async def test_preferences_weigh(cluster: Cluster) -> None:
    preferred = [{"weight": 100, "preference": {"matchExpressions": [{"key": "disk", "operator": "In", "values": ["hdd"]}]}}]
    affinity = {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": preferred}}
    assert await place(cluster, "fond", {"app": "web"}, affinity=affinity) == "node3"
    for kind, expected in (("podAffinity", "node3"), ("podAntiAffinity", "node1")):
        term = {"topologyKey": ZONE, "labelSelector": {"matchLabels": {"app": "web"}}}
        weighted = [{"weight": 50, "podAffinityTerm": term}]
        affinity = {kind: {"preferredDuringSchedulingIgnoredDuringExecution": weighted}}
        assert await place(cluster, kind.lower(), affinity=affinity) == expected
    await cluster("PATCH", f"{NODES}/node2", {"spec": {"taints": [{"key": "old", "effect": "PreferNoSchedule"}]}})
    places = [await place(cluster, f"p{number}") for number in range(4)]
    assert "node2" not in places


# When.


async def test_what_did_not_fit_is_tried_again_when_something_changed(cluster: Cluster) -> None:
    whole = [container(cpu="4")]
    places = [await place(cluster, f"p{number}", containers=whole) for number in range(4)]
    assert places[3] == "0/3 nodes are available: 3 Insufficient cpu."
    await cluster.end("p1", "Succeeded")
    assert await where(cluster, "p3") == places[1]
    assert "Insufficient" in await place(cluster, "p4", containers=whole)
    await cluster.add_node("node4")
    await cluster.settle()
    assert await where(cluster, "p4") == "node4"


async def test_the_same_reason_is_told_once(cluster: Cluster) -> None:
    await place(cluster, "p", containers=[container(cpu="5")])
    before = await cluster("GET", f"{PODS}/p")
    for number in range(3):
        await place(cluster, f"other{number}")
    await cluster("PATCH", f"{NODES}/node1", {"metadata": {"labels": {"new": "label"}}})
    await cluster.settle()
    events = [
        e for e in (await cluster("GET", "/api/v1/namespaces/default/events"))["items"] if e["reason"] == "FailedScheduling"
    ]
    assert [(e["message"], e["count"]) for e in events] == [("0/3 nodes are available: 3 Insufficient cpu.", 1)]
    assert (await cluster("GET", f"{PODS}/p")) == before


async def test_a_gated_pod_waits_and_says_so(cluster: Cluster) -> None:
    await cluster.pod("p", schedulingGates=[{"name": "example.com/quota"}])
    await cluster.settle()
    pod = await cluster("GET", f"{PODS}/p")
    assert [(c["type"], c["status"], c["reason"]) for c in pod["status"]["conditions"]] == [
        ("PodScheduled", "False", "SchedulingGated")
    ]
    assert await cluster.events("FailedScheduling") == []
    await cluster("PATCH", f"{PODS}/p", {"spec": {"schedulingGates": None}})
    await cluster.settle()
    pod = await cluster("GET", f"{PODS}/p")
    assert pod["spec"]["nodeName"] == "node1"
    assert [(c["type"], c["status"], c.get("reason")) for c in pod["status"]["conditions"]] == [("PodScheduled", "True", None)]


async def test_another_schedulers_pods_are_left_alone(cluster: Cluster) -> None:
    await cluster.pod("p", schedulerName="mine")
    await cluster.settle()
    pod = await cluster("GET", f"{PODS}/p")
    assert ("nodeName" in pod["spec"], pod["status"].get("conditions", [])) == (False, [])


# Laws.

LABELS = st.sampled_from([{"app": "web"}, {"app": "db"}, {}])
PLACES = st.fixed_dictionaries(
    {},
    optional={
        "nodeSelector": st.sampled_from([{"disk": "ssd"}, {ZONE: "b"}, {"disk": "none"}]),
        "tolerations": st.just([{"key": "gpu", "operator": "Exists"}]),
        "containers": st.sampled_from(
            [[container(cpu="1500m")], [container(({"containerPort": 80, "hostPort": 80},), memory="1Gi")]]
        ),
        "affinity": st.sampled_from(
            [near("podAntiAffinity", "web"), near("podAntiAffinity", "db", ZONE), near("podAffinity", "web", ZONE)]
        ),
        "topologySpreadConstraints": st.sampled_from([[spread(HOST)], [spread(ZONE)]]),
    },
)
STEPS = st.one_of(
    st.tuples(st.just("new"), LABELS, PLACES),
    st.tuples(st.sampled_from(["delete", "kill", "end"]), st.integers(0, 9), st.none()),
    st.tuples(st.sampled_from(["taint", "cordon", "free"]), st.integers(1, 3), st.none()),
)


async def act(cluster: Cluster, number: int, what: str, which: Any, spec: Any) -> None:
    pods = await cluster.pods()
    if what == "new":
        await cluster.pod(f"p{number}", labels=which, **spec)
    elif what in ("taint", "cordon", "free"):
        change = {
            "taint": {"taints": [GPU]},
            "cordon": {"unschedulable": True},
            "free": {"taints": None, "unschedulable": None},
        }
        await cluster("PATCH", f"{NODES}/node{which}", {"spec": change[what]})
    elif pods and what == "end":
        await cluster.set_status(pods[which % len(pods)], "Succeeded", False)
    elif pods:
        body = {"gracePeriodSeconds": 0} if what == "kill" else None
        await cluster("DELETE", f"{PODS}/{pods[which % len(pods)]['metadata']['name']}", body)


@settings(max_examples=80, deadline=None)
@given(st.lists(STEPS, max_size=18))
def test_no_pod_goes_where_it_may_not_and_the_books_are_right(steps: list[tuple[str, Any, Any]]) -> None:
    """Whatever happens: each binding was allowed at that moment, nothing that fits waits, and what is used was kept account of."""

    async def play() -> None:
        cluster = await Cluster(nodes=0).begin()
        for name, zone in (("node1", "a"), ("node2", "a"), ("node3", "b")):
            await cluster.add_node(name, {ZONE: zone, "disk": "ssd" if zone == "a" else "hdd"})
        for number, (what, which, spec) in enumerate(steps):
            before = {pod["metadata"]["name"] for pod in await cluster.pods() if pod["spec"].get("nodeName")}
            await act(cluster, number, what, which, spec)
            await cluster.settle()
            pods = await cluster.pods()
            fresh = [pod for pod in pods if pod["spec"].get("nodeName") and pod["metadata"]["name"] not in before]
            if len(fresh) == 1:  # of several, one may have come for the other's sake
                assert_allowed(cluster, fresh[0])
            assert_accounts(cluster, pods)
            version = cluster.server._records.hub.version
            cluster.manager.begin()
            await cluster.settle()
            assert cluster.server._records.hub.version == version, "what could go somewhere was not tried"

    asyncio.run(play())


def assert_allowed(cluster: Cluster, pod: Object) -> None:
    """Where it is now, it could go: neither its own terms are broken, nor those of others."""
    node = cluster.view.get("nodes", ("", pod["spec"]["nodeName"]))
    assert node is not None
    alone = {**pod, "metadata": {**pod["metadata"], "uid": "new"}}
    assert fits_node(pod["spec"], node) == ""
    used = cluster.view.usage(node["metadata"]["name"]).requested
    assert used["cpu"] <= 4000
    assert used["memory"] <= 8 * 2**30 * 1000
    others = [p for p in cluster.view.on_node(node["metadata"]["name"]) if p["metadata"]["uid"] != pod["metadata"]["uid"]]
    living = [p for p in others if p["status"].get("phase") not in ("Succeeded", "Failed")]
    ports = [p for p in (pod, *living) if p["spec"]["containers"][0].get("ports")]
    assert len(ports) <= 1 or pod not in ports
    for term in pod["spec"].get("affinity", {}).get("podAntiAffinity", {}).get(REQUIRED, ()):
        chosen = Neighbours(cluster.view, alone).company(term)[node["metadata"]["labels"][term["topologyKey"]]]
        itself = pod["metadata"].get("labels", {}).items() >= term["labelSelector"]["matchLabels"].items()
        assert chosen == itself


def assert_accounts(cluster: Cluster, pods: list[Object]) -> None:
    """What the view says is used is what the pods use that are there."""
    fresh = Usage()
    for pod in pods:
        fresh.observe(None, pod)
    for number in range(1, 4):
        kept, counted = cluster.view.usage(f"node{number}"), fresh.of(f"node{number}")
        assert (+kept.requested, +kept.ports, +kept.owners) == (counted.requested, counted.ports, counted.owners)


async def test_a_pod_that_has_ended_gets_no_node() -> None:
    cluster = await Cluster(nodes=0).begin()
    await cluster.pod("over")
    (pod,) = await cluster.pods()
    await cluster.set_status(pod, "Succeeded", False)
    await cluster.add_node("node1")
    await cluster.settle()
    assert [pod["spec"].get("nodeName", "") for pod in await cluster.pods()] == [""]
