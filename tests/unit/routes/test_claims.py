"""Of Nodes that claim the same addresses or blocks the one with precedence has them, whatever the order in which they came."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podplane.model.objects import Metadata, Node, NodeAddress, NodeCondition, NodeSpec, NodeStatus
from podplane.routes.claims import Claims


def node(name: str, blocks: Sequence[str] = (), ips: Sequence[str] = (), since: str = "", *, ready: bool = True) -> Node:
    return Node(
        Metadata(name=name, creation_timestamp=since),
        NodeSpec(pod_cidrs=tuple(blocks)),
        NodeStatus(tuple(NodeAddress("InternalIP", ip) for ip in ips), (NodeCondition("Ready", "True" if ready else "False"),)),
    )


def of(*nodes: Node) -> Claims:
    claims = Claims()
    for one in nodes:
        claims.put(one.metadata.name, one)
    return claims


def test_nodes_with_addresses_and_blocks_of_their_own_lose_nothing() -> None:
    claims = of(node("a", ["10.244.1.0/24"], ["192.168.1.1"]), node("b", ["10.244.2.0/24", "fd00::/64"], ["192.168.1.2"]))
    assert claims.lost("a") == claims.lost("b") == claims.lost("none") == {}
    assert not claims.touched("a") and not claims.touched("b")


@pytest.mark.parametrize(
    ("elder", "younger", "why"),
    [
        ((["10.244.1.0/24"], []), (["10.244.1.0/24"], []), {"10.244.1.0/24": "the block 10.244.1.0/24 is that of a, too"}),
        ((["10.244.1.0/24"], []), (["10.244.0.0/16"], []), {"10.244.0.0/16": "the block 10.244.0.0/16 overlaps a's block 10.244.1.0/24"}),
        ((["10.244.0.0/16"], []), (["10.244.1.0/24"], []), {"10.244.1.0/24": "the block 10.244.1.0/24 overlaps a's block 10.244.0.0/16"}),
        (([], ["192.168.1.1"]), ([], ["192.168.1.1"]), {"192.168.1.1": "the address 192.168.1.1 is that of a, too"}),
        (([], ["fd00::1"]), (["fd00::/64"], []), {"fd00::/64": "the block fd00::/64 holds a's address fd00::1"}),
        ((["fd00::/64"], []), ([], ["fd00::1"]), {"fd00::1": "the address fd00::1 is in a's block fd00::/64"}),
        (([], []), (["10.0.0.0/8"], ["10.1.1.1"]), {"10.0.0.0/8": "the block 10.0.0.0/8 holds its own address 10.1.1.1"}),
    ],
)  # fmt: skip
def test_what_overlaps_is_the_elders_and_the_reason_names_both(
    elder: tuple[list[str], list[str]], younger: tuple[list[str], list[str]], why: dict[str, str]
) -> None:
    nodes = [node("a", *elder, since="2026-01-02"), node("b", *younger, since="2026-01-03")]
    for claims in (of(*nodes), of(*reversed(nodes))):
        assert (claims.lost("a"), claims.lost("b")) == ({}, why)


def test_a_node_that_is_ready_has_what_one_that_is_not_claims_too() -> None:
    """A machine that was replaced: the new one has the former one's address, whose Node is still there."""
    former, now = node("a", [], ["10.0.0.1"], "2026-01-01"), node("b", [], ["10.0.0.1"], "2026-01-02")
    claims = of(former, now)
    assert set(claims.lost("b")) == {"10.0.0.1"}
    claims.put("a", node("a", [], ["10.0.0.1"], "2026-01-01", ready=False))
    assert claims.touched("a") == {"b"} and not claims.lost("b") and set(claims.lost("a")) == {"10.0.0.1"}


def test_on_a_node_itself_its_own_claims_count() -> None:
    claims = of(node("a", ["10.244.1.0/24"], since="1"), node("b", ["10.244.1.0/24"], since="2"))
    assert set(claims.lost("a", own="b")) == {"10.244.1.0/24"} and not claims.lost("b", own="b")


def test_what_lost_takes_nothing_from_others() -> None:
    claims = of(
        node("a", ["10.0.0.0/24"], since="1"), node("b", ["10.0.0.0/16"], since="2"), node("c", ["10.0.5.0/24"], since="3")
    )
    assert not claims.lost("a") and set(claims.lost("b")) == {"10.0.0.0/16"} and not claims.lost("c")
    claims.put("a", None)
    assert claims.touched("a") == {"b", "c"} and not claims.lost("b") and set(claims.lost("c")) == {"10.0.5.0/24"}


def test_thousands_of_nodes_with_one_address_are_judged() -> None:
    """As machines of some hypervisors have it: each has the same address on the network to its host."""
    claims = of(*(node(f"n{9999 - number}", [], ["10.0.2.15"], f"{9999 - number}") for number in range(1500)))
    assert not claims.lost("n8500") and set(claims.lost("n9999")) == set(claims.lost("n9000")) == {"10.0.2.15"}


BLOCKS = [f"10.{a}.{b}.0/{length}" for a in (0, 1) for b in (0, 64, 128) for length in (18, 19, 24)] + ["10.0.0.0/15"]
IPS = ["10.0.0.1", "10.1.64.1", "10.1.130.1", "10.9.9.9", "fd00::1"]
NODES = st.dictionaries(
    st.sampled_from("abcdef"),
    st.tuples(st.lists(st.sampled_from(BLOCKS), max_size=2), st.lists(st.sampled_from(IPS), max_size=2), st.booleans()),
)


@given(NODES, NODES)
def test_the_order_of_changes_does_not_matter_and_what_counts_does_not_overlap(
    first: dict[str, tuple[list[str], list[str], bool]], last: dict[str, tuple[list[str], list[str], bool]]
) -> None:
    def made(nodes: dict[str, tuple[list[str], list[str], bool]], name: str) -> Node | None:
        return node(name, nodes[name][0], nodes[name][1], ready=nodes[name][2]) if name in nodes else None

    claims, known = Claims(), dict[str, dict[str, str]]()
    for nodes in (first, last):
        for name in "abcdef":
            claims.put(name, made(nodes, name))
            now = {one: dict(claims.lost(one)) for one in "abcdef"}
            changed = {one for one in "abcdef" if now[one] != known.get(one, {})}
            assert changed <= {name, *claims.touched(name)}, "whoever is concerned is told"
            known = now
    fresh = of(*(one for name in reversed("abcdef") if (one := made(last, name))))
    assert {name: dict(fresh.lost(name)) for name in "abcdef"} == known
    count = [
        (name, ipaddress.ip_network(text))
        for name, (blocks, ips, _) in last.items()
        for text in {*blocks, *ips}
        if text not in known[name]
    ]
    for name, one in count:
        for other_name, other in count:
            assert name == other_name or one.version != other.version or not one.overlaps(other)
