"""The verdict, case by case: what decides it, and what users of other networks were surprised by."""

from __future__ import annotations

import json
from typing import Any

import pytest

from podplane.model.pod_info import PodInfo
from podplane.policy.ends import End, ends_of
from podplane.policy.index import PolicyIndex
from podplane.policy.match import Decision, Flow, Reason, RuleId, Verdict, verdict
from podplane.policy.name_servers import PATH, name_servers
from tests.unit.policy.cluster import Object, ask, end, index_of, namespace, pod, policy

WEB, DB, CLIENT = {"app": "web"}, {"app": "db"}, {"app": "client"}
DENY_ALL = {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
OUTSIDE = "192.0.2.1"


def pods(**ports: list[Object]) -> list[Object]:
    """Three pods on two nodes, each with an address of each family."""
    return [
        namespace("shop", team="shop"),
        namespace("other", team="other"),
        pod("shop/client", CLIENT, "10.244.1.2,fd00:1::2", "node1", ports.get("client")),
        pod("shop/web", WEB, "10.244.2.2,fd00:2::2", "node2", ports.get("web")),
        pod("other/db", DB, "10.244.2.3,fd00:2::3", "node2", ports.get("db")),
    ]


def cluster(*policies: Object, **ports: list[Object]) -> PolicyIndex:
    return index_of([*pods(**ports), *policies])


def to_web(**rule: Any) -> Object:
    return policy("shop/web", podSelector={"matchLabels": WEB}, ingress=[rule])


def from_client(**rule: Any) -> Object:
    return policy("shop/client", podSelector={"matchLabels": CLIENT}, egress=[rule], policyTypes=["Egress"])


def test_without_policies_everything_passes() -> None:
    found = ask(cluster(), "shop/client", "shop/web")
    assert found == Verdict(Decision("egress", Reason.NOT_SELECTED), Decision("ingress", Reason.NOT_SELECTED))
    assert found.allowed
    assert found.by == "no policy selects it for egress; no policy selects it for ingress"


def test_the_rule_that_allows_is_named() -> None:
    others = policy("shop/a", podSelector={}, ingress=[{"ports": [{"port": 1}]}])
    rules = policy("shop/web", podSelector={"matchLabels": WEB}, ingress=[{"ports": [{"port": 1}]}, {"ports": [{"port": 80}]}])
    found = ask(cluster(others, rules), "shop/client", "shop/web")
    rule = RuleId("shop/web", "ingress", 2)
    assert found.ingress == Decision("ingress", Reason.RULE, ("shop/a", "shop/web"), rule)
    assert found.ingress.by == "shop/web ingress rule 2"


def test_a_default_deny_names_all_policies_that_made_it() -> None:
    policies = [policy(f"shop/{name}", podSelector={}) for name in "ba"]
    found = ask(cluster(*policies), "shop/client", "shop/web")
    assert not found.allowed
    assert found.by == "default deny by shop/a, shop/b"


def test_a_default_deny_by_many_policies_names_some() -> None:
    policies = [policy(f"shop/p{number:04}", podSelector={}) for number in range(1007)]
    found = ask(cluster(*policies), "shop/client", "shop/web")
    assert found.by == "default deny by shop/p0000, shop/p0001, shop/p0002, shop/p0003, shop/p0004 and 1,002 more"


def test_both_directions_have_to_allow_it() -> None:
    deny = policy("shop/deny", **DENY_ALL)
    allow_in, allow_out = to_web(**{"from": [{"podSelector": {}}]}), from_client(to=[{"podSelector": {}}])
    assert ask(cluster(deny, allow_in), "shop/client", "shop/web").by == "default deny by shop/deny"
    assert not ask(cluster(deny, allow_out), "shop/client", "shop/web").allowed
    found = ask(cluster(deny, allow_in, allow_out), "shop/client", "shop/web")
    assert found.allowed
    assert found.by == "shop/client egress rule 1; shop/web ingress rule 1"
    assert not ask(cluster(deny, allow_in, allow_out), "shop/web", "shop/client").allowed


def test_policies_of_other_namespaces_select_nothing_here() -> None:
    assert ask(cluster(policy("other/deny", **DENY_ALL)), "shop/client", "shop/web").allowed


def test_a_pod_reaches_itself() -> None:
    found = ask(cluster(policy("shop/deny", **DENY_ALL)), "shop/web", "shop/web")
    assert found.allowed
    assert found.by == "a pod reaches itself"


@pytest.mark.parametrize("version", [4, 6])
def test_a_node_reaches_its_own_pods_and_no_others(version: int) -> None:
    """N13: probes of the kubelet pass, whatever the port and family; the same from another node doesn't."""
    index = cluster(policy("shop/deny", **DENY_ALL), policy("other/deny", **DENY_ALL))
    for port, protocol in ((80, "TCP"), (53, "UDP"), (None, "ICMP")):
        found = ask(index, "node2", "shop/web", port, protocol, version)
        assert (found.allowed, found.by) == (True, "a node reaches its own pods")
        assert ask(index, "node1", "shop/web", port, protocol, version).by == "default deny by shop/deny"


def test_a_pod_reaches_its_own_node_by_its_egress_policies_only() -> None:
    index = cluster(policy("shop/deny", **DENY_ALL))
    assert ask(index, "shop/web", "node2").by == "default deny by shop/deny"
    block = {"ipBlock": {"cidr": "192.168.1.10/32"}}
    assert ask(cluster(from_client(to=[block])), "shop/client", "node1").by == "shop/client egress rule 1"
    assert ask(cluster(from_client(to=[{"podSelector": {}}])), "shop/client", "node1").by == "default deny by shop/client"


def test_a_pod_on_a_host_network_is_its_node() -> None:
    """No selector has it, its node's address does, and on its own node it reaches everybody."""
    objects = [
        *pods(),
        to_web(**{"from": [{"namespaceSelector": {}}]}),
        pod("shop/agent", WEB, "192.168.1.11", hostNetwork=True),
    ]
    index = index_of(objects)
    assert index.pod("shop/agent") is None
    agent = PodInfo.from_json(json.dumps(objects[-1]).encode())
    (on_node1,) = ends_of(agent)
    assert on_node1 == End("192.168.1.11", node="node1")
    web = end(index, "shop/web")
    assert not verdict(Flow(on_node1, web, "TCP", 80), index).allowed
    assert verdict(Flow(End("192.168.1.12", node="node2"), web, "TCP", 80), index).allowed
    assert verdict(Flow(web, on_node1, "TCP", 80), index) == Verdict(Decision("egress", Reason.NOT_SELECTED))
    index = index_of([*objects, to_web(**{"from": [{"ipBlock": {"cidr": "192.168.1.11/32"}}]})])
    assert verdict(Flow(on_node1, web, "TCP", 80), index).allowed


def test_nodes_and_addresses_outside_are_under_no_policy() -> None:
    found = ask(cluster(), "node1", OUTSIDE)
    assert found == Verdict()
    assert found.allowed
    assert found.by == "no policy is about nodes and addresses outside"


@pytest.mark.parametrize(
    ("peer", "who"),
    [
        ({"podSelector": {}}, {"shop/client"}),
        ({"podSelector": {"matchLabels": DB}}, set()),
        ({"namespaceSelector": {}}, {"shop/client", "other/db"}),
        ({"namespaceSelector": {"matchLabels": {"team": "other"}}}, {"other/db"}),
        ({"namespaceSelector": {}, "podSelector": {"matchLabels": DB}}, {"other/db"}),
        ({"namespaceSelector": {"matchLabels": {"team": "other"}}, "podSelector": {"matchLabels": CLIENT}}, set()),
        ({"ipBlock": {"cidr": "0.0.0.0/0"}}, {"shop/client", "other/db", "node1", OUTSIDE}),
        ({"ipBlock": {"cidr": "10.244.0.0/16"}}, {"shop/client", "other/db"}),
        ({"ipBlock": {"cidr": "10.244.0.0/16", "except": ["10.244.2.0/24"]}}, {"shop/client"}),
        ({"ipBlock": {"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8", "192.168.0.0/16"]}}, {OUTSIDE}),
        ({"ipBlock": {"cidr": "::/0"}}, set()),
    ],
)
def test_peers(peer: Object, who: set[str]) -> None:
    index = cluster(to_web(**{"from": [peer]}))
    assert {one for one in ("shop/client", "other/db", "node1", OUTSIDE) if ask(index, one, "shop/web").allowed} == who


def test_a_peer_with_both_selectors_is_one_and_two_peers_are_two() -> None:
    """The dash before `podSelector` in a list of peers makes the difference that nobody sees."""
    spaces, here = {"namespaceSelector": {"matchLabels": {"team": "other"}}}, {"podSelector": {"matchLabels": CLIENT}}
    assert not ask(cluster(to_web(**{"from": [spaces | here]})), "shop/client", "shop/web").allowed
    assert not ask(cluster(to_web(**{"from": [spaces | here]})), "other/db", "shop/web").allowed
    assert ask(cluster(to_web(**{"from": [spaces, here]})), "shop/client", "shop/web").allowed
    assert ask(cluster(to_web(**{"from": [spaces, here]})), "other/db", "shop/web").allowed


def test_an_address_that_one_block_leaves_out_and_another_has_is_allowed() -> None:
    """The conformance suite has this case."""
    blocks = [{"cidr": "10.244.1.0/24", "except": ["10.244.1.2/32"]}, {"cidr": "10.244.1.2/32"}]
    assert not ask(cluster(to_web(**{"from": [{"ipBlock": blocks[0]}]})), "shop/client", "shop/web").allowed
    assert ask(cluster(to_web(**{"from": [{"ipBlock": one} for one in blocks]})), "shop/client", "shop/web").allowed


@pytest.mark.parametrize("version", [4, 6])
def test_blocks_are_of_their_own_family(version: int) -> None:
    """N11: what selects pods is the same for both families; a block is of one."""
    index = cluster(to_web(**{"from": [{"podSelector": {"matchLabels": CLIENT}}]}))
    assert ask(index, "shop/client", "shop/web", version=version).allowed
    for cidr, of in (("fd00:1::/64", 6), ("10.244.1.0/24", 4)):
        index = cluster(to_web(**{"from": [{"ipBlock": {"cidr": cidr}}]}))
        assert ask(index, "shop/client", "shop/web", version=version).allowed is (version == of)


@pytest.mark.parametrize(
    ("ports", "open_"),
    [
        ([], {("TCP", 79), ("TCP", 80), ("TCP", 90), ("UDP", 80), ("SCTP", 80), ("ICMP", None)}),
        ([{}], {("TCP", 79), ("TCP", 80), ("TCP", 90)}),
        ([{"protocol": "UDP"}], {("UDP", 80)}),
        ([{"port": 80}], {("TCP", 80)}),
        ([{"protocol": "SCTP", "port": 80}, {"port": 79}], {("SCTP", 80), ("TCP", 79)}),
        ([{"port": 80, "endPort": 90}], {("TCP", 80), ("TCP", 90)}),
        ([{"port": 80, "endPort": 89}], {("TCP", 80)}),
        ([{"port": "http"}], {("TCP", 90)}),
        ([{"port": "http", "protocol": "UDP"}], set()),
        ([{"port": "none"}], set()),
    ],
)
def test_ports(ports: list[Object], open_: set[tuple[str, int | None]]) -> None:
    index = cluster(to_web(ports=ports), web=[{"name": "http", "containerPort": 90}])
    asked = [("TCP", 79), ("TCP", 80), ("TCP", 90), ("UDP", 80), ("SCTP", 80), ("ICMP", None)]
    assert {
        (protocol, port) for protocol, port in asked if ask(index, "shop/client", "shop/web", port, protocol).allowed
    } == open_


def test_a_named_port_is_that_of_each_destination() -> None:
    """N7: never that of the source, nor one number for all."""
    ports = {
        "client": [{"name": "http", "containerPort": 666}],
        "web": [{"name": "http", "containerPort": 8080}],
        "db": [{"name": "http", "containerPort": 9090}],
    }
    named = [{"port": "http"}]
    for rules in (
        [from_client(ports=named)],
        [to_web(ports=named), policy("other/db", podSelector={}, ingress=[{"ports": named}])],
    ):
        index = cluster(*rules, **ports)
        found = {
            (to, port)
            for to in ("shop/web", "other/db")
            for port in (666, 8080, 9090)
            if ask(index, "shop/client", to, port).allowed
        }
        assert found == {("shop/web", 8080), ("other/db", 9090)}


def test_a_name_that_two_containers_have_is_both_ports() -> None:
    twice = [{"name": "http", "containerPort": 80}, {"name": "http", "containerPort": 81}]
    index = cluster(to_web(ports=[{"port": "http"}]), web=twice)
    assert [port for port in (79, 80, 81) if ask(index, "shop/client", "shop/web", port).allowed] == [80, 81]


def test_ports_of_what_is_no_pod_have_no_names() -> None:
    index = cluster(from_client(ports=[{"port": "http"}]), client=[{"name": "http", "containerPort": 80}])
    assert not ask(index, "shop/client", OUTSIDE).allowed
    assert not ask(index, "shop/client", "node1").allowed


def test_the_usual_rule_opens_the_clusters_dns_and_nothing_else_does() -> None:
    """N14: the name server of the node is no pod, and is one to policies."""
    to_dns = {
        "to": [
            {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}}}
            | {"podSelector": {"matchLabels": {"k8s-app": "kube-dns"}}}
        ],
        "ports": [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}],
    }
    kube_system = {
        "kind": "Namespace",
        "metadata": {"name": "kube-system", "labels": {"kubernetes.io/metadata.name": "kube-system"}},
    }
    deny = policy("shop/deny", **DENY_ALL)
    for rules, allowed in (([deny], False), ([deny, from_client(**to_dns)], True)):
        index = index_of([*pods(), kube_system, *rules])
        for ip in ("10.96.0.10", "fd00:96::a"):
            servers = name_servers((ip,))
            index.set_pod(PATH, servers)
            (dns,) = ends_of(servers)
            client = end(index, "shop/client", 6 if ":" in ip else 4)
            for protocol in ("UDP", "TCP"):
                assert verdict(Flow(client, dns, protocol, 53), index).allowed is allowed
            assert not verdict(Flow(client, dns, "TCP", 80), index).allowed


def test_the_clusters_dns_is_under_no_policy() -> None:
    kube_system = policy("kube-system/deny", **DENY_ALL)
    index = cluster(kube_system)
    servers = name_servers(("10.96.0.10",))
    index.set_pod(PATH, servers)
    (dns,) = ends_of(servers)
    found = verdict(Flow(end(index, "shop/client"), dns, "UDP", 53), index)
    assert found == Verdict(Decision("egress", Reason.NOT_SELECTED))
    assert index.policies_of(PATH) == ()
    deny = index.policy("kube-system/deny")
    assert deny is not None
    assert not index.selects(deny, PATH)
    assert [*index.selected(deny)] == []
