"""Of the rules that may cover another one none is left out, and few others are looked at."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from podplane.model.policy import EVERYTHING, NetworkPolicy, PodSelector, PolicyMetadata, PolicyPort, PolicyRule
from podplane.policy.covering import covers
from podplane.policy.wide_rules import WideRules
from tests.policed import select

numbers = st.tuples(*[st.sampled_from((1, 2, 3, 63, 64, 130, 65535))] * 2).map(lambda both: (min(both), max(both)))
ports = st.builds(PolicyPort, st.sampled_from(("TCP", "UDP")), st.one_of(st.none(), st.just("http"), numbers))
peers = st.sampled_from((PodSelector("a"), PodSelector("a", select(app="x"))))
rules = st.builds(
    PolicyRule,
    st.one_of(st.none(), st.lists(peers, max_size=2).map(tuple)),
    st.one_of(st.none(), st.lists(ports, max_size=3).map(tuple)),
)


def of(rules: list[PolicyRule]) -> WideRules:
    policies = [NetworkPolicy(PolicyMetadata(f"p{n}", "a"), EVERYTHING, (rule,)) for n, rule in enumerate(rules)]
    return WideRules(policies, "ingress")


@given(st.lists(rules, max_size=6), rules)
def test_no_rule_that_covers_another_one_is_left_out(wide: list[PolicyRule], narrow: PolicyRule) -> None:
    found = [policy.metadata.name for policy, _, _ in of(wide).candidates(narrow)]
    assert found == sorted(set(found))
    assert {f"p{n}" for n, one in enumerate(wide) if covers(one, narrow)} <= set(found)


def test_rules_of_other_ports_are_not_looked_at() -> None:
    many = [PolicyRule(None, (PolicyPort("TCP", (number, number)),)) for number in range(1, 100)]
    everything = PolicyRule(None, (PolicyPort("TCP"),))
    found = [(policy.metadata.name, number) for policy, number, _ in of([*many, everything]).candidates(many[7])]
    assert found == [("p7", 1), ("p99", 1)]


def test_ranges_far_from_the_port_are_not_looked_at() -> None:
    many = [PolicyRule(None, (PolicyPort("TCP", (number, number + 1)),)) for number in range(1, 60_000, 500)]
    wide = PolicyRule(None, (PolicyPort("TCP", (1, 50_000)),))
    single = PolicyRule(None, (PolicyPort("TCP", (3501, 3501)),))
    for narrow in (many[7], single):
        found = [policy.metadata.name for policy, _, _ in of([*many, wide]).candidates(narrow)]
        assert found == ["p7", "p120"]
