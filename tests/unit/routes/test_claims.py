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
    claims.put("d", node("d", ["10.0.0.0/8"], since="0"))
    assert not claims.lost("d") and set(claims.lost("b")) == {"10.0.0.0/16"} and set(claims.lost("c")) == {"10.0.5.0/24"}


def test_what_lost_on_a_node_to_its_own_takes_nothing_there() -> None:
    claims = of(
        node("a", ["10.0.0.0/16"], since="1"), node("b", ["10.0.5.0/24"], since="2"), node("c", ["10.0.6.0/24"], since="3")
    )
    assert set(claims.lost("c")) == {"10.0.6.0/24"} and set(claims.lost("a", own="b")) == {"10.0.0.0/16"}
    assert not claims.lost("c", own="b"), "on b the block of a is not routed"


@pytest.mark.parametrize("is_older", [True, False])
def test_an_address_in_a_block_of_another_takes_nothing_from_it(is_older: bool) -> None:
    liar = node("a", [], ["10.244.5.7"], "1" if is_older else "3")
    claims = of(node("b", ["10.244.5.0/24"], ["192.168.1.5"], "2"), liar)
    assert claims.lost("a") == {"10.244.5.7": "the address 10.244.5.7 is in b's block 10.244.5.0/24"} and not claims.lost("b")


def test_an_address_at_which_no_node_is_reached_takes_nothing_and_is_none_when_the_first_is_lost() -> None:
    others = [node("b", ["10.244.5.0/24"], ["192.168.1.5"], "2"), node("c", [], ["192.168.1.6", "fd00::6"], "3")]
    claims = of(*others, node("a", [], ["192.168.1.4", "192.168.1.5", "192.168.1.6", "10.244.5.7"], "1"))
    assert claims.lost("a") == {
        "192.168.1.5": "the address 192.168.1.5 is that of b, too",
        "192.168.1.6": "the address 192.168.1.6 is that of c, too",
        "10.244.5.7": "the address 10.244.5.7 is in b's block 10.244.5.0/24",
    }
    assert not claims.lost("b") and not claims.lost("c")
    claims.put("a", node("a", [], ["10.244.5.7", "192.168.1.7", "fd00::5"], "1"))
    assert claims.lost("a") == {
        "10.244.5.7": "the address 10.244.5.7 is in b's block 10.244.5.0/24",
        "192.168.1.7": "the address 192.168.1.7 comes after one that is left out",
    }
    assert not claims.lost("b")


def test_addresses_of_three_nodes_in_a_block_leave_it_without_routes_and_of_two_do_not() -> None:
    """docs/security.md says so: it can't be told from a block that holds the cluster."""
    liars = [node(name, [], [f"10.244.5.{number}"]) for number, name in enumerate("xyz", 7)]
    claims = of(node("b", ["10.244.5.0/24"]), *liars[:2])
    assert not claims.lost("b")
    claims.put("z", liars[2])
    assert claims.touched("z") >= {"b"} and set(claims.lost("b")) == {"10.244.5.0/24"} and not claims.lost("b", own="b")


def test_each_address_of_a_node_is_its_own_there() -> None:
    claims = of(node("a", [], ["192.168.1.4", "10.1.1.1"], "2"), node("b", ["10.1.1.0/24"], ["192.168.1.5"], "1"))
    assert not claims.lost("b") and claims.lost("b", own="a") == {
        "10.1.1.0/24": "the block 10.1.1.0/24 holds a's address 10.1.1.1"
    }


def test_a_block_said_twice_counts_once() -> None:
    claims = of(node("a", ["fd00::/64", "fd00:0::/64"]))
    assert claims.lost("a") == {"fd00:0::/64": "the block fd00:0::/64 is said twice"}


def many(count: int) -> list[Node]:
    return [
        node(f"n{one}", [f"10.{one >> 8}.{one & 255}.0/24"], [f"192.168.{one >> 8}.{one & 255}"], "2") for one in range(count)
    ]


@pytest.mark.parametrize("block", ["10.0.0.0/9", "192.168.0.0/16"])
def test_a_block_that_holds_what_many_have_is_none_and_concerns_nobody(block: str) -> None:
    claims = of(*many(300))
    claims.put("wide", node("wide", [block], since="1"))
    assert claims.lost("wide") == {block: f"the block {block} holds addresses or blocks of more than 2 nodes"}
    assert not claims.touched("wide") and not any(claims.lost(f"n{one}") for one in range(300))
    claims.put("n50", node("n50", ["10.0.50.0/24"], ["192.168.0.50"], "2", ready=False))
    assert not claims.touched("n50")
    assert len(claims.lost("n1", own="wide")) == 1, "its pods are there"
    claims.put("wide", None)
    assert not claims.touched("wide")


def test_thousands_of_nodes_with_one_address_are_judged() -> None:
    """As machines of some hypervisors have it: each has the same address on the network to its host."""
    claims = of(*(node(f"n{number}", [], ["10.0.2.15"], f"{number}") for number in range(8500, 9999)))
    assert not claims.lost("n8500") and set(claims.lost("n9998")) == set(claims.lost("n9000")) == {"10.0.2.15"}
    claims.put("n9000", node("n9000", [], ["10.0.2.15"], "9000", ready=False))
    assert set(claims.touched("n9000")) <= {"n8500", "n8501"}, "who of them is ready concerns nobody, but for the first"
    claims.put("n8500", None)
    assert len(claims.touched("n8500")) == 1498 and not claims.lost("n8501")


def test_nothing_is_kept_of_nodes_that_went() -> None:
    claims = of(node("keep", ["10.0.0.0/16"], ["192.168.7.7"], "1"))
    for number in range(50):
        name = f"spot{number}"
        claims.put(name, node(name, ["10.0.1.0/24"], ["192.168.7.7"], "2"))
        claims.put(name, None)
        assert claims.touched(name) == {"keep"}
    kept = [value for value in vars(claims).values() if isinstance(value, set | dict | list) and "spot" in repr(value)]
    assert not kept and claims.first(9) == ["keep"]


BLOCKS = [f"10.{a}.{b}.0/{length}" for a in (0, 1) for b in (0, 64, 128) for length in (18, 19, 24)] + ["10.0.0.0/15"]
IPS = ["10.0.0.1", "10.1.64.1", "10.1.130.1", "10.9.9.9", "fd00::1"]
NODES = st.dictionaries(
    st.sampled_from("abcdef"),
    st.tuples(st.lists(st.sampled_from(BLOCKS), max_size=2), st.lists(st.sampled_from(IPS), max_size=2), st.booleans()),
)


def reached(name: str, said: tuple[list[str], list[str], bool], lost: dict[str, str]) -> list[tuple[str, str]]:
    """What of a Node counts: its blocks, and its first address of each IP version."""
    blocks, ips, _ = said
    left = [ip for ip in ips if ip not in lost]
    first = [next(iter(found), "") for found in ([ip for ip in left if ":" in ip], [ip for ip in left if ":" not in ip])]
    return [(name, text) for text in {*blocks, *first} if text and text not in lost]


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
    for own in ("", *last):
        lost = {name: dict(claims.lost(name, own)) for name in last}
        count = [
            (one, ipaddress.ip_network(text)) for name, said in last.items() for one, text in reached(name, said, lost[name])
        ]
        for name, one in count:
            for other_name, other in count:
                assert name == other_name or one.version != other.version or not one.overlaps(other)
