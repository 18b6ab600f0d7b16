"""A rule that covers another one allows whatever that one allows."""

from __future__ import annotations

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from podplane.model.cluster_policy import NODES
from podplane.model.pod_info import PodInfo
from podplane.model.policy import IPBlock, LabelSelector, PodSelector, PolicyPort, PolicyRule, Requirement
from podplane.policy.covering import covers, has_peer, has_port, meet, selects_all_of
from podplane.policy.ends import End, ends_of
from podplane.policy.index import PolicyIndex
from podplane.policy.match import matches_peer, matches_port
from tests.unit.policy import generated

IN_X, IN_XY = Requirement("app", "In", ("x",)), Requirement("app", "In", ("x", "y"))
EXISTS, NOT_Z, NOT_YZ = (
    Requirement("app", "Exists"),
    Requirement("app", "NotIn", ("z",)),
    Requirement("app", "NotIn", ("y", "z")),
)
ABSENT, OTHER = Requirement("app", "DoesNotExist"), Requirement("tier", "In", ("x",))


def of(*requirements: Requirement) -> LabelSelector:
    return LabelSelector.of(requirements)


def ends(data: st.DataObject) -> tuple[PolicyIndex, list[PodInfo], list[End]]:
    """A few pods in an index, and all ends of flows there may be."""
    index = PolicyIndex()
    pods = data.draw(st.lists(generated.pods(), max_size=4, unique_by=lambda one: one.metadata.path))
    for name in generated.NAMESPACES:
        index.set_namespace(name, generated.namespace(name, data.draw(generated.labels)))
    for pod in pods:
        index.set_pod(pod.metadata.path, pod)
    return (
        index,
        pods,
        [*(end for pod in pods for end in ends_of(pod)), *map(End, (*generated.IPS, "192.0.2.1", "2001:db8::1"))],
    )


PORTS = (("TCP", 79), ("TCP", 80), ("TCP", 81), ("UDP", 80), ("SCTP", 65535), ("ICMP", None))


@given(st.data())
def test_what_is_covered_is_allowed(data: st.DataObject) -> None:
    wide, narrow = data.draw(generated.rules), data.draw(generated.rules)
    if data.draw(st.booleans()):
        narrow = narrow._replace(peers=wide.peers)
    covered = covers(wide, narrow)
    event(f"covered: {covered}")
    assert covers(wide, wide)
    if not covered:
        return
    index, pods, found = ends(data)
    for end in found:
        assert not matches_peer(narrow, end, index) or matches_peer(wide, end, index)
    for protocol, port in PORTS:
        for destination in (None, *pods):
            assert not matches_port(narrow, protocol, port, destination) or matches_port(wide, protocol, port, destination)


@given(st.data())
def test_rules_that_are_about_one_flow_meet(data: st.DataObject) -> None:
    one, other = data.draw(generated.rules), data.draw(generated.rules)
    assert meet(one, other) is meet(other, one)
    event(f"meet: {meet(one, other)}")
    if meet(one, other):
        return
    index, pods, found = ends(data)
    peers = any(matches_peer(one, end, index) and matches_peer(other, end, index) for end in found)
    ports = any(
        matches_port(one, protocol, port, pod) and matches_port(other, protocol, port, pod)
        for protocol, port in PORTS
        for pod in (None, *pods)
    )
    assert not (peers and ports)


def test_nodes_are_no_pods_and_all_addresses_are_everybody() -> None:
    nodes, all_pods = PolicyRule((PodSelector(NODES),)), PolicyRule((PodSelector(of()),))
    everybody = PolicyRule((IPBlock("0.0.0.0/0"), IPBlock("::/0")))
    assert not covers(all_pods, nodes) and not covers(nodes, all_pods) and not meet(nodes, all_pods)
    assert meet(nodes, nodes) and covers(nodes, PolicyRule((PodSelector(NODES, of(IN_X)),)))
    for rule in (nodes, all_pods, PolicyRule()):
        assert covers(everybody, rule) and meet(everybody, rule)
    assert not covers(PolicyRule(everybody.peers and everybody.peers[:1]), all_pods), "of one family only"


@pytest.mark.parametrize(
    ("one", "other", "said"),
    [
        (IN_X, Requirement("app", "In", ("y", "z")), False),
        (IN_X, IN_XY, True),
        (IN_X, Requirement("app", "NotIn", ("x",)), False),
        (IN_XY, Requirement("app", "NotIn", ("x",)), True),
        (IN_X, ABSENT, False),
        (EXISTS, ABSENT, False),
        (NOT_Z, ABSENT, True),
        (IN_X, OTHER, True),
    ],
)
def test_pods_that_are_selected_by_both(one: Requirement, other: Requirement, said: bool) -> None:
    first, second = of(one), of(other)
    for a, b in ((PodSelector("a", first), PodSelector("a", second)), (PodSelector(first), PodSelector(second))):
        assert meet(PolicyRule((a,)), PolicyRule((b,))) is meet(PolicyRule((b,)), PolicyRule((a,))) is said
    assert not meet(PolicyRule((PodSelector("a"),)), PolicyRule((PodSelector("b"),)))


@pytest.mark.parametrize(
    ("one", "other", "said"),
    [
        (IPBlock("10.0.0.0/8"), IPBlock("10.1.0.0/16"), True),
        (IPBlock("10.0.0.0/8", ("10.1.0.0/16",)), IPBlock("10.1.2.0/24"), False),
        (IPBlock("10.0.0.0/8", ("10.1.2.0/24",)), IPBlock("10.1.0.0/16"), True),
        (IPBlock("10.0.0.0/8"), IPBlock("fd00::/8"), False),
        (IPBlock("10.0.0.0/8"), PodSelector("a"), True),
    ],
)
def test_blocks_that_overlap(one: IPBlock, other: IPBlock | PodSelector, said: bool) -> None:
    assert meet(PolicyRule((one,)), PolicyRule((other,))) is meet(PolicyRule((other,)), PolicyRule((one,))) is said


@pytest.mark.parametrize(
    ("wide", "narrow", "said"),
    [
        (of(), of(IN_X), True),
        (of(IN_X), of(), False),
        (of(IN_XY), of(IN_X), True),
        (of(IN_X), of(IN_XY), False),
        (of(EXISTS), of(IN_X, OTHER), True),
        (of(NOT_Z), of(IN_XY), True),
        (of(NOT_YZ), of(IN_XY), False),
        (of(NOT_Z), of(NOT_YZ), True),
        (of(NOT_Z), of(ABSENT), True),
        (of(EXISTS), of(NOT_Z), False),
        (of(IN_X, OTHER), of(IN_X), False),
    ],
)
def test_selectors(wide: LabelSelector, narrow: LabelSelector, said: bool) -> None:
    assert selects_all_of(wide, narrow) is said
    assert has_peer(PodSelector("a", wide), PodSelector("a", narrow)) is said
    assert has_peer(PodSelector(of(), wide), PodSelector("a", narrow)) is said
    assert not has_peer(PodSelector("b", wide), PodSelector("a", narrow))


@pytest.mark.parametrize(
    ("wide", "narrow", "said"),
    [
        (IPBlock("10.0.0.0/8"), IPBlock("10.1.0.0/16"), True),
        (IPBlock("10.0.0.0/8", ("10.2.0.0/16",)), IPBlock("10.1.0.0/16"), True),
        (IPBlock("10.0.0.0/8", ("10.1.2.0/24",)), IPBlock("10.1.0.0/16"), False),
        (IPBlock("10.0.0.0/8", ("10.1.2.0/24",)), IPBlock("10.1.0.0/16", ("10.1.2.0/23",)), True),
        (IPBlock("10.0.0.0/8"), IPBlock("fd00::/8"), False),
        (IPBlock("0.0.0.0/0"), PodSelector("a"), False),
    ],
)
def test_blocks(wide: IPBlock, narrow: IPBlock | PodSelector, said: bool) -> None:
    assert has_peer(wide, narrow) is said


@pytest.mark.parametrize(
    ("wide", "narrow", "said"),
    [
        (PolicyPort("TCP"), PolicyPort("TCP", (80, 80)), True),
        (PolicyPort("TCP", (79, 81)), PolicyPort("TCP", (80, 80)), True),
        (PolicyPort("TCP", (80, 80)), PolicyPort("TCP", "http"), False),
        (PolicyPort("UDP"), PolicyPort("TCP", (80, 80)), False),
        (PolicyPort("TCP", (80, 80)), PolicyPort("TCP"), False),
    ],
)
def test_ports(wide: PolicyPort, narrow: PolicyPort, said: bool) -> None:
    assert has_port(wide, narrow) is said
    assert covers(PolicyRule(None, (wide,)), PolicyRule(None, (narrow,))) is said


def test_ten_thousand_blocks_are_compared_as_they_are_written() -> None:
    blocks = tuple(IPBlock(f"10.{n // 256}.{n % 256}.0/24") for n in range(10_000))
    assert covers(PolicyRule(blocks), PolicyRule(blocks[::-1]))
    assert covers(PolicyRule(blocks), PolicyRule((IPBlock("10.0.0.7/32"),)))
    assert not covers(PolicyRule(blocks[1:]), PolicyRule(blocks))
