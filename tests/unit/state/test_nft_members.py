"""Packed sets: as a mapping from keys to elements, at the cost of what differs."""

from __future__ import annotations

from ipaddress import IPv4Address

from hypothesis import given, settings
from hypothesis import strategies as st

from podplane.state.nft import Element, Set
from podplane.state.nft_members import CHUNK, Members, packed

OWNER = Set(family="inet", table="t", name="s", key=("ipv4_addr", "inet_proto", "inet_service"), packed=True)


def key(number: int) -> bytes:
    return number.to_bytes(4, "big") + b"\x06\0\0\0\0\x50\0\0"


def element(number: int, comment: str = "x") -> bytes:
    return packed(key(number), comment)


STEPS = st.lists(st.tuples(st.integers(0, 3 * CHUNK), st.sampled_from(("", "a", "pod/a/b"))), max_size=60)


@settings(max_examples=50, derandomize=True, database=None)
@given(st.sets(st.integers(0, 3 * CHUNK)), STEPS)
def test_it_is_a_mapping_whose_versions_differ_by_what_was_changed(first: set[int], steps: list[tuple[int, str]]) -> None:
    naive = {number: element(number) for number in first}
    begun = members = Members.of(OWNER, naive.values())
    before = dict(naive)
    for number, comment in steps:
        assert members.at(key(number)) == naive.get(number)
        if comment or number not in naive:
            naive[number] = element(number, comment)
            members = members.with_(naive[number])
        else:
            del naive[number]
            members = members.without(key(number))
    assert list(members) == sorted(naive.values()) and len(members) == len(naive)
    assert members == Members.of(OWNER, naive.values())
    gone, came = set(before.values()) - set(naive.values()), set(naive.values()) - set(before.values())
    assert members.differences(begun) == (sorted(gone), sorted(came))
    assert members.differences(None) == ([], list(members))
    assert (members == begun) == (not gone and not came) and (members != begun) == bool(gone or came)


def test_one_more_of_many_costs_one_chunk() -> None:
    many = Members.of(OWNER, map(element, range(0, 20 * CHUNK, 2)))
    more = many.with_(element(7))
    assert len(set(map(id, many.chunks)) - set(map(id, more.chunks))) == 1
    for number in range(1, 8 * CHUNK, 2):
        more = more.with_(element(number))
    assert max(map(len, more.chunks)) <= 2 * CHUNK and all(more.chunks)


def test_an_element_is_unpacked_as_it_would_be_written_alone() -> None:
    members = Members.of(OWNER, [element(7, "pod/a/web")])
    wanted = Element(family="inet", table="t", set="s", key=(IPv4Address(7), "tcp", 80), comment="pod/a/web")
    assert list(members.elements()) == [wanted]
    assert members.parts(element(7)) == wanted.key
    assert members != Members.of(OWNER, []) and members != wanted
