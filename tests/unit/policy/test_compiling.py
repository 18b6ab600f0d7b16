"""What rules come to in nf_tables, where packets don't show it."""

from __future__ import annotations

import pytest

from podplane.model.policy import (
    DIRECTIONS,
    EVERYTHING,
    Direction,
    NetworkPolicy,
    PodSelector,
    PolicyMetadata,
    PolicyPort,
    PolicyRule,
)
from podplane.policy.compiling import compile_policy
from podplane.policy.match import matches_peer, matches_port
from podplane.state.nft import Chain
from tests.unit.policy.cluster import end, index_of, pod

PEERS, PORTS = (PodSelector(EVERYTHING),), (PolicyPort("TCP", (80, 80)), PolicyPort("TCP", "http"))


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize(
    "rule", [PolicyRule((), None), PolicyRule(None, ()), PolicyRule((), PORTS), PolicyRule(PEERS, ()), PolicyRule((), ())]
)
def test_a_rule_with_no_peer_or_no_port_allows_nothing(direction: Direction, rule: PolicyRule) -> None:
    """What a later version of Kubernetes may know leaves such rules."""
    policy = NetworkPolicy(PolicyMetadata("p", "a"), EVERYTHING, (rule,), (rule,))
    chains = [value for value in compile_policy(policy, direction, (4, 6)).fragment.values() if isinstance(value, Chain)]
    assert [chain.rules for chain in chains] == [()]
    index = index_of([pod("a/one")])
    one = end(index, "a/one")
    assert not (matches_peer(rule, one, index) and matches_port(rule, "TCP", 80, one.pod))
