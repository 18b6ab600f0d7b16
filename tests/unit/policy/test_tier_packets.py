"""ClusterNetworkPolicies of a cluster on the fake kernel: which packets pass, and what of it changes as they and labels come and go."""

from __future__ import annotations

import itertools

import pytest

from podplane.model.pod_info import NamedPort, Ports
from podplane.model.policy import EVERYTHING, Action, Direction, IPBlock, PodSelector, PolicyPort, PolicyRule
from podplane.policy.tables import TABLE
from podplane.state.nft import NftValue
from podplane.trace.trace import Delivered, Dropped
from tests.fake_cluster import node_ip, outside_ip, pod_ip
from tests.policed import ALL_PODS, FakePoliced, cluster_policy, info, namespace, policy, select

A1, B1, A2 = (1, 1), (1, 2), (2, 1)
"""Pods: of namespace a and b on node 1, of a on node 2."""
OF_A, OF_B = PodSelector(select(team="a")), PodSelector(select(team="b"))


def rule(action: Action, *peers: PodSelector | IPBlock, ports: tuple[PolicyPort, ...] | None = None) -> PolicyRule:
    return PolicyRule(peers or (ALL_PODS,), ports, action)


def own_values(cluster: FakePoliced, number: int) -> set[str]:
    values = cluster.namespaces[f"node{number}"].objects.nft.values()
    return {str(v) for v in values if isinstance(v, NftValue) and (v.family, v.table) == TABLE}


@pytest.mark.parametrize("direction", ["ingress", "egress"])
def test_each_combination_of_tiers(direction: Direction) -> None:
    """N17, as packets: all of 2⁴ combinations, one after the other on one cluster."""
    cluster = FakePoliced()
    # A2 sends to A1: both directions are of namespace a, on different nodes.
    chosen = [
        cluster_policy("deny", "Admin", 5, OF_A, **{direction: [rule("Deny")]}),
        cluster_policy("pass", "Admin", 3, OF_A, **{direction: [rule("Pass")]}),
        policy("np", EVERYTHING, **{direction: [PolicyRule()]}),
        cluster_policy("base", "Baseline", 1, OF_A, **{direction: [rule("Deny")]}),
    ]
    for deny, passes, allows, baseline in itertools.product([False, True], repeat=4):
        wanted = (deny, passes, allows, baseline)
        cluster.remove(*(one for one, is_there in zip(chosen, wanted, strict=True) if not is_there))
        cluster.put(*(one for one, is_there in zip(chosen, wanted, strict=True) if is_there))
        expected = not (deny and not passes) and (allows or not baseline)
        assert cluster.passes(A2, A1) is cluster.passes(A2, A1, 6) is expected, wanted
        assert cluster.passes(B1, A1) is (expected or direction == "egress"), wanted
        assert cluster.passes(A1, B1) is (expected or direction == "ingress"), wanted


def test_it_leaves_nothing_behind() -> None:
    cluster = FakePoliced()
    before = own_values(cluster, 1)
    guard = cluster_policy("guard", ingress=[rule("Deny", OF_B), rule("Pass")], egress=[rule("Accept", IPBlock("10.0.0.0/8"))])
    base = cluster_policy("base", "Baseline", egress=[rule("Deny")])
    cluster.put(guard, base, policy("np", EVERYTHING, []))
    assert not cluster.passes(B1, A1) and not cluster.passes(A2, A1)
    cluster.remove(guard, base, policy("np", EVERYTHING))
    assert own_values(cluster, 1) == before
    assert cluster.passes(B1, A1)


def test_rules_are_about_ports_nodes_and_networks() -> None:
    cluster = FakePoliced()
    second = PodSelector("nodes:", select(role="second"))
    egress = [rule("Deny", second), rule("Deny", IPBlock(f"{outside_ip()}/32"), ports=(PolicyPort("UDP", (53, 60)),))]
    cluster.put(cluster_policy("p", subjects=OF_A, egress=egress), info(*B1, ports=Ports((NamedPort("http", "TCP", 80),))))

    def sent(destination: object, port: int = 80, **more: object) -> bool:
        end = cluster.from_pod(*A1, destination, port, **more).end  # type: ignore[arg-type]  # as `from_pod` has it
        assert isinstance(end, Delivered | Dropped)
        return isinstance(end, Delivered)

    assert sent(node_ip(1)) and not sent(node_ip(2)) and not sent(node_ip(2, 6))
    assert sent(outside_ip(), 53) and not sent(outside_ip(), 53, protocol="udp") and sent(outside_ip(), 61, protocol="udp")
    http = tuple(PolicyPort(protocol, "http") for protocol in ("TCP", "UDP", "SCTP"))
    cluster.put(cluster_policy("p", ingress=[rule("Deny", ports=http)]))
    assert not cluster.passes(A1, B1, port=80) and cluster.passes(A1, B1, port=81) and cluster.passes(A1, A2, port=80)


def test_who_is_under_it_goes_by_the_labels_of_its_namespace() -> None:
    cluster = FakePoliced()
    cluster.put(cluster_policy("p", subjects=PodSelector(select(tier="closed")), ingress=[rule("Deny")]))
    assert cluster.passes(B1, A1)
    cluster.put(namespace("a", {"tier": "closed"}))
    assert not cluster.passes(B1, A1) and cluster.passes(A1, B1)
    cluster.put(namespace("a"))
    assert cluster.passes(B1, A1)


def test_pods_of_a_namespace_that_is_not_known_wait() -> None:
    cluster = FakePoliced()
    cluster.put(cluster_policy("p", subjects=PodSelector(select(tier="closed")), ingress=[rule("Deny")]))
    cluster.remove(namespace("a"))
    assert not cluster.passes(B1, A1) and not cluster.passes(A1, B1), "its labels may put it under the policy"
    cluster.put(namespace("a"))
    assert cluster.passes(B1, A1) and cluster.passes(A1, B1)
    cluster.remove(cluster_policy("p"), namespace("a"))
    assert cluster.passes(B1, A1)


@pytest.mark.parametrize("version", [4, 6])
def test_a_pod_reaches_itself_whatever_they_say(version: int) -> None:
    cluster = FakePoliced()
    cluster.put(cluster_policy("p", ingress=[rule("Deny")], egress=[rule("Deny", IPBlock("0.0.0.0/0"), IPBlock("::/0"))]))
    assert isinstance(cluster.from_pod(*A1, pod_ip(*A1, version)).end, Delivered)
    assert isinstance(cluster.send("node1", pod_ip(1, 0, version), pod_ip(*A1, version)).end, Delivered), "its node probes it"
    assert not cluster.passes(A1, B1, version) and not cluster.passes(B1, A1, version)


def test_a_new_agent_writes_nothing() -> None:
    cluster = FakePoliced()
    cluster.put(
        cluster_policy("p", ingress=[rule("Deny", OF_B), rule("Pass")]), cluster_policy("q", "Baseline", ingress=[rule("Deny")])
    )
    assert cluster.restart(1) == 0
    assert not cluster.passes(B1, A1)
