"""Policies that are right and unlike any that people write by hand: packets fare as these say."""

from __future__ import annotations

from podplane.model.policy import EVERYTHING, IPBlock, PodSelector, PolicyPort, PolicyRule
from tests.policed import FakePoliced, info, namespace, policy, select
from tests.unit.policy.test_packets import A1, A2, B1, B2, own_values

NOBODY = PolicyRule((PodSelector("b", select(app="nobody")),))


def test_a_selector_of_a_thousand_labels_selects_what_has_them_all() -> None:
    cluster = FakePoliced()
    labels = {f"l{number}": "x" for number in range(1000)}
    cluster.put(info(*A1, labels), info(*A2, {**labels, "l999": "y"}), policy("many", select(**labels), []))
    assert not cluster.passes(B1, A1) and cluster.passes(B1, A2)
    cluster.put(policy("many", EVERYTHING, [PolicyRule((PodSelector("a", select(**labels)),))]))
    assert cluster.passes(A1, A2) and not cluster.passes(A2, A1)


def test_a_policy_with_ten_thousand_networks_is_about_just_these() -> None:
    cluster = FakePoliced()
    blocks = [IPBlock(f"10.{number // 256}.{number % 256}.0/24") for number in range(10_000)]
    cluster.put(policy("many", EVERYTHING, [PolicyRule(tuple(blocks))]))
    assert not cluster.passes(B2, A1), "the last one is 10.39.15.0/24"
    cluster.put(policy("many", EVERYTHING, [PolicyRule((*blocks[1:], IPBlock("10.244.2.0/24")))]))
    assert cluster.passes(B2, A1) and not cluster.passes(B1, A2)


def test_excepts_that_overlap_and_blocks_within_blocks() -> None:
    cluster = FakePoliced()
    excepts = ("10.244.0.0/16", "10.244.1.0/24", "10.244.2.0/23")
    cluster.put(policy("holes", EVERYTHING, [PolicyRule((IPBlock("10.0.0.0/8", excepts), IPBlock("::/0", ("fd00::/8",))))]))
    assert not any(cluster.passes(B2, A1, version) for version in (4, 6))
    again = PolicyRule((IPBlock("10.0.0.0/8", excepts), IPBlock("10.244.2.0/24"), IPBlock("10.244.0.0/16")))
    cluster.put(policy("holes", EVERYTHING, [again]))
    assert cluster.passes(B2, A1) and not cluster.passes(B2, A1, 6), "what one block leaves out, another one may have"


def test_two_hundred_policies_on_one_pod_add_up_and_leave_nothing_behind() -> None:
    cluster = FakePoliced()
    before = own_values(cluster, 1)
    many = [policy(f"p{port}", EVERYTHING, [PolicyRule(None, (PolicyPort("TCP", (port, port)),))]) for port in range(100, 300)]
    cluster.put(*many)
    assert [cluster.passes(B1, A1, port=port) for port in (99, 100, 299, 300)] == [False, True, True, False]
    cluster.remove(*many[1:])
    assert [cluster.passes(B1, A1, port=port) for port in (100, 299)] == [True, False]
    cluster.remove(many[0])
    assert cluster.passes(B1, A1, port=99) and own_values(cluster, 1) == before


def test_a_policy_that_comes_and_goes_is_in_force_exactly_while_it_is_there() -> None:
    cluster = FakePoliced()
    deny = policy("flap", EVERYTHING, [NOBODY])
    before = own_values(cluster, 1)
    for _ in range(8):
        cluster.put(deny)
        assert not cluster.passes(B1, A1)
        cluster.remove(deny)
        assert cluster.passes(B1, A1)
    assert own_values(cluster, 1) == before


def test_a_namespace_that_goes_while_policies_of_it_come() -> None:
    cluster = FakePoliced()
    team = policy("team", EVERYTHING, [PolicyRule((PodSelector(select(team="b")),))])
    cluster.put(team)
    assert cluster.passes(B1, A1) and not cluster.passes(A2, A1)
    cluster.remove(namespace("b"))
    cluster.put(policy("late", EVERYTHING, [], namespace="b"))
    assert not cluster.passes(B1, A1), "its labels are gone with it"
    assert not cluster.passes(A1, B1), "pods that are left of it are under its policies as long as these are there"
    cluster.put(namespace("b", {"team": "b"}))
    assert cluster.passes(B1, A1)
