"""What an edit changes is the difference of all verdicts before it and after it."""

from __future__ import annotations

import itertools
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from podplane.model.objects import Node
from podplane.model.pod_info import NamespaceInfo, PodInfo
from podplane.model.policy import NetworkPolicy
from podplane.policy.difference import MANY_GROUPS, Difference, differences
from podplane.policy.edits import Edit, tried
from podplane.policy.ends import End
from podplane.policy.gap import gap
from podplane.policy.index import PolicyIndex
from podplane.policy.match import Flow, verdict
from podplane.policy.name_servers import PATH, name_servers
from podplane.policy.owners import owner
from podplane.policy.parties import Party, of_nodes, of_pods
from podplane.policy.told import told
from tests.unit.policy import objects
from tests.unit.policy.cluster import Object, index_of, namespace, pod, policy
from tests.unit.policy.generated import pod as pod_info

NODES = [
    msgspec.convert(
        {
            "metadata": {"name": name},
            "spec": {"podCIDRs": [f"10.244.{number}.0/24", f"fd00:{number}::/64"]},
            "status": {
                "addresses": [{"type": "InternalIP", "address": ip} for ip in (f"192.168.1.1{number}", f"fd00:f::{number}")]
            },
        },
        Node,
    )
    for number, name in ((1, "node1"), (2, "node2"))
]
ASKED = [("TCP", 79), ("TCP", 80), ("TCP", 81), ("UDP", 80), ("UDP", 53), ("SCTP", 82), ("ICMP", None)]
DNS = name_servers(("10.96.0.10", "fd00:96::a"))


def edit(document: Object, *, gone: bool = False) -> Edit:
    kind: Any = {"NetworkPolicy": NetworkPolicy, "Namespace": NamespaceInfo, "Pod": PodInfo}[document["kind"]]
    found = kind.from_json(json.dumps(document))
    return Edit(kind, found.metadata.path, None if gone else found)


@st.composite
def edits(draw: st.DrawFn, found: list[Object]) -> Edit:
    match draw(st.sampled_from(["put", "delete", "namespace", "pod"])):
        case "namespace":
            return edit(namespace(draw(st.sampled_from(objects.NAMESPACES)), **draw(objects.labels)))
        case "pod":
            one = draw(st.sampled_from([one for one in found if one["kind"] == "Pod"]))
            return edit({**one, "metadata": {**one["metadata"], "labels": draw(objects.labels)}})
        case "delete":
            return edit(policy(f"{draw(st.sampled_from(objects.NAMESPACES))}/n{draw(st.integers(0, 3))}"), gone=True)
    path = f"{draw(st.sampled_from(objects.NAMESPACES))}/n{draw(st.integers(0, 3))}"
    return edit(policy(path, **draw(objects.specs)))


def said(found: list[Difference]) -> dict[tuple[str, str, int], Difference]:
    """By the names of both parties and the IP version."""
    all_of_them: dict[tuple[str, str, int], Difference] = {}
    for one in found:
        pairs = list(one.pairs(each=True))
        assert len(pairs) == one.flows(each=True) > 0
        assert len(list(one.pairs())) == one.flows() > 0
        for pair, version in itertools.product(pairs, (one.version,) if one.version else (4, 6)):
            assert (*pair, version) not in all_of_them
            all_of_them[*pair, version] = one
    return all_of_them


def verdicts(found: list[Party], index: PolicyIndex) -> dict[tuple[str, str, int], list[bool]]:
    """Of each pair of ends of one family, those on all ports that matter."""
    ends = {one.name: [end if end.pod else End(end.ip, node=one.node) for end in one.ends] for one in found}
    pairs = ((one, other, a, b) for one in found for other in found for a in ends[one.name] for b in ends[other.name])
    return {
        (one.name, other.name, 6 if ":" in a.ip else 4): [verdict(Flow(a, b, *asked), index).allowed for asked in ASKED]
        for one, other, a, b in pairs
        if one is not other and (":" in a.ip) is (":" in b.ip) and one.path != PATH
    }


@given(st.data())
def test_it_is_the_difference_of_all_verdicts(data: st.DataObject) -> None:
    made = data.draw(objects.clusters())
    index = index_of(made)
    index.set_pod(PATH, DNS)
    tries = data.draw(st.lists(edits(made), min_size=1, max_size=2, unique_by=lambda one: (one.kind, one.path)))
    pods = [*(PodInfo.from_json(json.dumps(one)) for one in made if one["kind"] == "Pod"), DNS]
    nodes = NODES[: data.draw(st.integers(1, 2))]
    found = [*of_pods(pods), *of_nodes(nodes)]
    before = verdicts(found, index)
    differing = said(differences(index, pods, nodes, tries))
    assert verdicts(found, index) == before
    with tried(index, tries):
        after = verdicts(found, index)
    known = {party.name for party in found}
    for pair in before:
        one = differing.pop(pair, None)
        if one is None:
            assert before[pair] == after[pair], pair
        else:
            assert [one.before.has(*asked) for asked in ASKED] == before[pair]
            assert [one.after.has(*asked) for asked in ASKED] == after[pair]
            assert one.before != one.after
    assert all({source, destination} - known for source, destination, _ in differing)
    _check_gaps(list(differing.values()))


def _check_gaps(found: list[Difference]) -> None:
    for one in found:
        for more, less in ((one.before, one.after), (one.after, one.before)):
            ports = gap(more, less)
            for protocol, port in ASKED:
                among = any(p.protocol == protocol and port and p.first <= port <= p.last for p in ports.ports)
                assert (among is not ports.is_rest) is (more.has(protocol, port) and not less.has(protocol, port))


CLUSTER = [
    namespace("default"),
    namespace("shop", team="shop"),
    pod("default/client", {"app": "client"}, "10.244.1.2"),
    pod("default/web-7d4b9c-aaaaa", {"app": "web", "pod-template-hash": "7d4b9c"}, "10.244.1.3"),
    pod("default/web-7d4b9c-bbbbb", {"app": "web", "pod-template-hash": "7d4b9c"}, "10.244.2.3", "node2"),
    pod("shop/cart", {"app": "cart"}, "10.244.2.4", "node2"),
]
FROM_CLIENT = [{"from": [{"podSelector": {"matchLabels": {"app": "client"}}}], "ports": [{"port": 8080}]}]


def sentences(*edits: Edit, objects: list[Object] = CLUSTER, nodes: int = 2, each: bool = False) -> list[str]:
    index = index_of(objects)
    pods = [PodInfo.from_json(json.dumps(one)) for one in objects if one["kind"] == "Pod"]
    return [one.sentence() for one in told(differences(index, pods, NODES[:nodes], edits), each=each)]


def test_pods_of_a_deployment_are_named_together() -> None:
    web = policy("default/web", podSelector={"matchLabels": {"app": "web"}}, ingress=FROM_CLIENT)
    assert sentences(edit(web)) == [
        "5 flows would be denied that were allowed: default/client → default/web-* (2 pods) (all but TCP 8080), "
        "default/web-* (2 pods) → default/web-* (2 pods), shop/cart → default/web-* (2 pods), 2 nodes → default/web-* (2 pods), "
        "other addresses outside → default/web-* (2 pods)"
    ]
    (said,) = sentences(edit(web, gone=True), objects=[*CLUSTER, web])
    assert said.startswith(
        "5 flows would be allowed that were denied: default/client → default/web-* (2 pods) (all but TCP 8080), "
    )


def test_one_port_and_another_are_named() -> None:
    web = policy("default/web", podSelector={"matchLabels": {"app": "web"}}, ingress=FROM_CLIENT)
    dns = [{**FROM_CLIENT[0], "ports": [{"port": 53, "protocol": "UDP"}]}]
    other = policy("default/web", podSelector={"matchLabels": {"app": "web"}}, ingress=dns)
    assert sentences(edit(other), objects=[*CLUSTER, web]) == [
        "1 flow would be denied that was allowed: default/client → default/web-* (2 pods):8080",
        "1 flow would be allowed that was denied: default/client → default/web-* (2 pods):53/udp",
    ]


def test_a_label_of_a_namespace_that_a_rule_names_changes_flows() -> None:
    rule = {"from": [{"namespaceSelector": {"matchLabels": {"team": "shop"}}}]}
    client = policy("default/client", podSelector={"matchLabels": {"app": "client"}}, ingress=[rule])
    assert sentences(edit(namespace("shop", team="other")), objects=[*CLUSTER, client]) == [
        "1 flow would be denied that was allowed: shop/cart → default/client"
    ]
    assert sentences(edit(namespace("shop", team="shop", more="x")), objects=[*CLUSTER, client]) == []
    assert sentences(edit(client), objects=[*CLUSTER, client]) == []


def test_a_node_always_reaches_its_own_pods() -> None:
    deny = policy("default/deny", podSelector={})
    one_node = [one for one in CLUSTER if one["kind"] != "Pod" or one["spec"]["nodeName"] == "node1"]
    assert "node" not in sentences(edit(deny), objects=one_node, nodes=1)[0]
    (said,) = sentences(edit(deny), objects=one_node)
    assert "node node2 → default/client" in said
    assert "node1" not in said
    web = policy("default/deny", podSelector={"matchLabels": {"app": "web"}})
    assert "2 nodes → default/web-* (2 pods)" in sentences(edit(web))[0]


def test_of_flows_from_nodes_to_each_pod_those_to_their_own_are_left_out() -> None:
    deny = policy("default/deny", podSelector={"matchLabels": {"app": "web"}})
    index, pods = index_of(CLUSTER), [PodInfo.from_json(json.dumps(one)) for one in CLUSTER if one["kind"] == "Pod"]
    (said,) = told(differences(index, pods, NODES, [edit(deny)]), each=True)
    assert [line for line in said.lines() if line.startswith("node ")] == [
        "node node1 → default/web-7d4b9c-bbbbb",
        "node node2 → default/web-7d4b9c-aaaaa",
    ]
    assert said.number == len(list(said.lines())) == 10


def test_what_a_pod_sends_to_its_own_node_may_be_denied() -> None:
    deny = policy("default/deny", podSelector={"matchLabels": {"app": "client"}}, policyTypes=["Egress"])
    assert "default/client → 2 nodes" in sentences(edit(deny))[0]


def test_flows_from_a_node_to_its_own_pods_alone_are_no_difference() -> None:
    blocks = [{"ipBlock": {"cidr": cidr}} for cidr in ("192.168.1.11/32", "fd00:f::1/128")]
    deny = policy("default/client", podSelector={"matchLabels": {"app": "client"}})
    from_node1 = policy("default/client", podSelector={"matchLabels": {"app": "client"}}, ingress=[{"from": blocks}])
    assert sentences(edit(from_node1), objects=[*CLUSTER, deny]) == []
    assert sentences(edit(from_node1), objects=[*CLUSTER, deny], each=True) == []


def test_blocks_stand_for_addresses_outside() -> None:
    rule = {"to": [{"ipBlock": {"cidr": "198.18.0.0/15", "except": ["198.19.0.0/16"]}}]}
    (said,) = sentences(edit(policy("shop/out", podSelector={}, policyTypes=["Egress"], egress=[rule])))
    assert "shop/cart → 198.19.0.0/16" in said
    assert "shop/cart → 198.18.0.0/15" not in said
    assert "shop/cart → other addresses outside" in said


def test_of_many_flows_some_are_named() -> None:
    many = [pod(f"default/p{n}", {}, f"10.244.1.{n + 10}") for n in range(20)]
    (said,) = sentences(edit(policy("default/deny", podSelector={})), objects=[namespace("default"), *many])
    assert said == (
        "3 flows would be denied that were allowed: 20 pods of default (no labels) → 20 pods of default (no labels), "
        "node node2 → 20 pods of default (no labels), other addresses outside → 20 pods of default (no labels)"
    )
    (said,) = sentences(edit(policy("default/deny", podSelector={})), objects=[namespace("default"), *many], each=True)
    assert said.startswith("420 flows would be denied that were allowed: default/p0 → default/p1, ")
    assert said.endswith("default/p0 → default/p5 and 415 more (`podplane policy diff -f FILE` shows all)")


@pytest.mark.parametrize(
    ("labels", "name"),
    [
        ([{"run": "echo", "x": "1"}, {"run": "echo", "x": "2"}, {"run": "echo"}], "3 pods of default (run=echo)"),
        ([{"run": "x", "app": "web"}] * 2, "2 pods of default (app=web)"),
        ([{"b": "2", "a": "1"}] * 2, "2 pods of default (a=1, b=2)"),
        ([{"app": f"a{n}"} for n in range(MANY_GROUPS + 1)], f"{MANY_GROUPS + 1} pods of default"),
    ],
)
def test_pods_that_nothing_made_are_named_together_by_what_they_share(labels: list[dict[str, str]], name: str) -> None:
    pods = [pod(f"default/p{n}", one, f"10.244.1.{n + 10}") for n, one in enumerate(labels)]
    found = [namespace("default"), *pods, pod("default/web", {"role": "web"}, "10.244.1.3")]
    web = policy("default/web", podSelector={"matchLabels": {"role": "web"}})
    (said,) = sentences(edit(web), objects=found)
    assert f": {name} → default/web, node node2 → default/web, " in said


@pytest.mark.parametrize(
    ("name", "labels", "said"),
    [
        ("web-7d4b9c-abcde", {"pod-template-hash": "7d4b9c"}, "web"),
        ("web-abcde", {"pod-template-hash": "7d4b9c"}, "web-abcde"),
        ("db-0", {"controller-revision-hash": "db-5"}, "db"),
        ("agent-x7k2p", {"controller-revision-hash": "5", "pod-template-generation": "1"}, "agent"),
        ("sum-of-all-x7k2p", {"batch.kubernetes.io/job-name": "sum-of-all"}, "sum-of-all"),
        ("db-0", {}, "db-0"),
    ],
)
def test_a_pod_is_named_by_what_made_it(name: str, labels: dict[str, str], said: str) -> None:
    assert owner(pod_info(f"default/{name}", labels)) == said
