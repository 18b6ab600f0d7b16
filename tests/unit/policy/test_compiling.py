"""What rules come to in nf_tables, where packets don't show it."""

from __future__ import annotations

import ipaddress
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podplane.model.policy import (
    DIRECTIONS,
    EVERYTHING,
    Direction,
    IPBlock,
    NetworkPolicy,
    PodSelector,
    PolicyMetadata,
    PolicyPort,
    PolicyRule,
)
from podplane.policy import compiling
from podplane.policy.compiling import Group, Program, compile_policy, group
from podplane.policy.feature import KEPT_GROUPS, PolicyMemory
from podplane.policy.match import matches_peer, matches_port
from podplane.policy.networks import network, prefixes_of
from podplane.policy.peers import GroupSet, Opening
from podplane.state.nft import Chain, Set
from podplane.state.nft_members import Members
from tests.policed import policy, select
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


def test_of_policies_that_are_one_set_no_jump_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    rules = [PolicyRule((PodSelector("a", select(app="x")),), ports) for ports in ((PolicyPort("TCP", (80, 80)),), None)]
    programs = [compile_policy(policy(f"p{n}", EVERYTHING, [rules[n == 0]]), "ingress", (4, 6)) for n in range(50)]
    made = list[str]()
    monkeypatch.setattr(compiling, "jump", lambda name, make=compiling.jump: made.append(name) or make(name))
    found = group(programs, "in", (4, 6))
    assert len(found.together) == 49 and set(made) == {programs[0].chain, "deny"}
    assert found.policies == tuple(one.name for one in programs)


def test_what_many_policies_allow_is_one_set_as_long_as_each_pod_is_few_elements_of_it() -> None:
    """All ports of a group opened to one selector would be an element for each pod and port."""
    count, versions = 4 * compiling.MOST_PORTS, (4, 6)

    def of(number: int, peer: PodSelector) -> NetworkPolicy:
        rule = PolicyRule((peer,), (PolicyPort("TCP", (number, number)),))
        return NetworkPolicy(PolicyMetadata(f"p{number}", "a"), EVERYTHING, (rule,))

    alike = [of(1 + n, PEERS[0]) for n in range(count)]
    several = [of(1 + count + n, PodSelector(f"n{n}")) for n in range(count)]
    programs = [compile_policy(one, "ingress", versions) for one in (*alike, *several)]
    found = group(programs, "in", versions)
    assert found.peers is not None
    ports = Counter(one.selector for one in found.peers.openings)
    assert ports[PEERS[0]] == compiling.MOST_PORTS and len(ports) == 1 + count
    jumps = [rule.comment for rule in found.chain.rules if rule.comment.startswith("np/")]
    assert len(found.together) == compiling.MOST_PORTS + count
    assert sorted(jumps) == sorted(one.label for one in programs if one.name not in found.together)
    assert len(found.policies) == 2 * count


def test_the_group_of_many_policies_is_made_once_for_all_their_pods_and_anew_when_one_changes() -> None:
    memory = PolicyMemory()

    def programs(last: int) -> list[Program]:
        numbers = (*range(1, 20), last)
        rules = [PolicyRule(PEERS, (PolicyPort("TCP", (number, number)),)) for number in numbers]
        named = [policy(f"p{n}", EVERYTHING, [one]) for n, one in enumerate(rules)]
        return [memory.program(known.setdefault(one.metadata.name + repr(one), one), "ingress", (4,)) for one in named]

    known: dict[str, NetworkPolicy] = {}
    found = memory.group(programs(20), "in", (4,))
    assert memory.group(programs(20), "in", (4,)) is found
    assert memory.group(programs(20), "out", (4,)).chain != found.chain
    changed = memory.group(programs(21), "in", (4,))
    assert changed.chain.name != found.chain.name and changed == group(programs(21), "in", (4,))
    for number in range(30, 40):
        memory.group(programs(number), "in", (4,))
    assert len(memory._groups) == KEPT_GROUPS


def test_groups_of_few_policies_are_kept_as_long_as_their_policies_stay_what_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("podplane.policy.feature.KEPT_SMALL", 3)
    memory, known = PolicyMemory(), [policy(f"p{n}", EVERYTHING, [PolicyRule(PEERS, PORTS)]) for n in range(6)]

    def group_of(*policies: NetworkPolicy) -> Group:
        return memory.group([memory.program(one, "ingress", (4, 6)) for one in policies], "in", (4, 6))

    found = group_of(*known[:2])
    assert group_of(*known[:2]) is found and group_of(known[0]) != found
    assert found == group([compile_policy(one, "ingress", (4, 6)) for one in known[:2]], "in", (4, 6))
    for one in known:
        group_of(one)
        assert group_of(*known[:2]) is found, "what is asked for again and again stays"
    assert len(memory._small_groups) == 3
    changed = policy("p0", EVERYTHING, [PolicyRule(PEERS, PORTS[:1])])
    assert group_of(changed, known[1]).chain.name != found.chain.name


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(("TCP", "UDP")), st.integers(1, 3))))
def test_a_set_of_a_group_is_named_by_what_it_opens_in_whatever_order(openings: list[tuple[str, str, int]]) -> None:
    made = [Opening(PodSelector(namespace), protocol, number) for namespace, protocol, number in openings]
    one, other = GroupSet(made), GroupSet(reversed([*made, *made]))
    assert one == other and one.selectors == other.selectors
    for gone in set(made):
        assert GroupSet(set(made) - {gone}) != one


def test_however_many_blocks_a_rule_has_they_are_one_value_of_each_ip_version() -> None:
    """Ten thousand were forty thousand values of each pod: the agent's event loop stood still for seconds."""
    four = [IPBlock(f"20.{n // 16}.{n % 16 * 16}.0/20", (f"20.{n // 16}.{n % 16 * 16 + 3}.0/24",)) for n in range(1000)]
    rule = PolicyRule((*four, *(IPBlock(f"fd00:{n:x}::/32") for n in range(1, 100, 2))), PORTS)
    values = compile_policy(policy("p", EVERYTHING, [rule]), "ingress", (4, 6)).fragment.values()
    sets = {one.name: one for one in values if isinstance(one, Set) and one.interval}
    found = {sets[one.set].key: [str(each.key[0]) for each in one.elements()] for one in values if isinstance(one, Members)}
    assert len(values) < 12 and len(sets) == len(found) == 2
    for kind, version in ((("ipv4_addr",), 4), (("ipv6_addr",), 6)):
        assert found[kind] == [str(network(one, version)) for one in prefixes_of(rule.peers or (), version)]  # type: ignore[arg-type]
    assert found["ipv4_addr",][:4] == ["20.0.0.0/23", "20.0.2.0/24", "20.0.4.0/22", "20.0.8.0/21"]


@given(st.lists(st.tuples(st.integers(0, 255), st.integers(24, 32), st.integers(0, 255), st.integers(24, 32)), max_size=5))
def test_blocks_are_the_addresses_that_they_name_without_their_excepts(drawn: list[tuple[int, int, int, int]]) -> None:
    def of(number: int, length: int) -> ipaddress.IPv4Network:
        return ipaddress.IPv4Network((0xFFFFFF00 | number & -1 << 32 - length, length))

    blocks = [IPBlock(str(of(a, b)), (str(of(c, d)),)) for a, b, c, d in drawn]
    wanted = {ip for a, b, c, d in drawn for ip in of(a, b) if ip not in of(c, d)}
    assert [network(one, 4) for one in prefixes_of(blocks, 4)] == list(ipaddress.collapse_addresses(wanted))
