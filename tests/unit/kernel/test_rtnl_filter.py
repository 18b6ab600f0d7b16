"""The monitor's socket filter, run by an interpreter of classic BPF, on notifications as the kernel writes them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podplane.kernel.netlink import HEADER, NLM_F_REPLACE, attribute, u8
from podplane.kernel.rtnl import constants as c
from podplane.kernel.rtnl import filter

OWNER, PORT, OTHER_PORT = 80, 4711, 815


def run(code: bytes, packet: bytes) -> int:
    """What the program returns for a packet: how many bytes of it pass."""
    a = x = position = 0
    for _ in range(len(code)):
        kind, then, otherwise, k = filter.INSTRUCTION.unpack_from(code, 8 * position)
        position += 1
        if kind == filter.RETURN:
            return int(k)
        if kind == filter.LOAD_WORD and k == filter.FIND_ATTRIBUTE:
            a = find(packet, a, x)
        elif kind in (filter.LOAD_WORD, filter.LOAD_HALF, filter.LOAD_BYTE, filter.LOAD_BYTE_AT_X):
            start = k + (x if kind == filter.LOAD_BYTE_AT_X else 0)
            size = {filter.LOAD_WORD: 4, filter.LOAD_HALF: 2}.get(kind, 1)
            a = int.from_bytes(packet[start : start + size], "big")
        elif kind == filter.LOAD_CONSTANT:
            a = k
        elif kind == filter.LOAD_X_CONSTANT:
            x = k
        elif kind == filter.A_TO_X:
            x = a
        else:
            holds = a == k if kind == filter.JUMP_IF_EQUAL else bool(a & k)
            position += then if holds else otherwise
    raise AssertionError("the program has no end")


def find(packet: bytes, start: int, kind: int) -> int:
    """The offset of an attribute, as SKF_AD_NLATTR has it."""
    while start + 4 <= len(packet):
        length = int.from_bytes(packet[start : start + 2], "little")
        if int.from_bytes(packet[start + 2 : start + 4], "little") == kind:
            return start
        start += (length + 3) & ~3
    return 0


CODE = filter.assemble(filter.program(OWNER, PORT))


def passes(kind: int, payload: bytes, port: int = OTHER_PORT, flags: int = 0) -> bool:
    """Does a notification get through?"""
    return run(CODE, HEADER.pack(16 + len(payload), kind, flags, 1, port) + payload) > 0


MULTIPATH = 9


def route(protocol: int, kind: str = "unicast", over: tuple[int, ...] = (c.RTA_GATEWAY, c.RTA_OIF)) -> bytes:
    """`over`: the attributes that say which way it goes."""
    kinds = {**c.ROUTE_TYPES, "local": 2}
    head = c.ROUTE.pack(c.AF_INET, 24, 0, 0, 254, protocol, 0, kinds[kind], 0) + attribute(c.RTA_DST, bytes(4))
    return head + b"".join(attribute(one, bytes(4)) for one in over)


def neighbour(state: int, protocol: int = 0, family: int = c.AF_INET) -> bytes:
    payload = c.NEIGHBOUR.pack(family, 2, state, 0, 1) + attribute(c.NDA_DST, bytes(4)) + attribute(c.NDA_LLADDR, bytes(6))
    return payload + (u8(c.NDA_PROTOCOL, protocol) if protocol else b"")


@pytest.mark.parametrize("kind", [c.RTM_NEWLINK, c.RTM_DELLINK])
@pytest.mark.parametrize("port", [0, PORT, OTHER_PORT])
def test_all_of_links_passes(kind: int, port: int) -> None:
    assert passes(kind, c.LINK.pack(0, 1, 2, 1, 0), port)


@given(st.sampled_from((c.RTM_NEWADDR, c.RTM_DELADDR, c.RTM_NEWRULE, c.RTM_DELRULE)), st.integers(0, 0xFFFF_FFFF))
def test_of_addresses_and_rules_what_others_asked_for_passes(kind: int, port: int) -> None:
    assert passes(kind, bytes(12), port) is (port != PORT)


@given(st.booleans(), st.integers(0, 255), st.booleans(), st.booleans())
def test_of_routes_the_owners_and_replacements_pass(new: bool, protocol: int, replace: bool, own: bool) -> None:
    kind, flags = c.RTM_NEWROUTE if new else c.RTM_DELROUTE, 0x400 | (NLM_F_REPLACE if replace else 0)
    wanted = not own and (protocol == OWNER or replace)
    assert passes(kind, route(protocol), PORT if own else OTHER_PORT, flags) is wanted


OVER = (c.RTA_OIF,), (c.RTA_GATEWAY, c.RTA_OIF), (c.RTA_VIA, c.RTA_OIF), (MULTIPATH,), ()


@given(
    st.booleans(),
    st.integers(0, 255),
    st.sampled_from(("unicast", "local", "unreachable")),
    st.sampled_from(OVER),
    st.booleans(),
)
def test_of_others_new_routes_those_to_what_is_on_a_link_pass(
    new: bool, protocol: int, kind: str, over: tuple[int, ...], own: bool
) -> None:
    """And none of a table of routes by BGP, whichever way they go."""
    wanted = not own and (protocol == OWNER or (new and kind == "unicast" and over == (c.RTA_OIF,)))
    message = c.RTM_NEWROUTE if new else c.RTM_DELROUTE
    assert passes(message, route(protocol, kind, over), PORT if own else OTHER_PORT) is wanted


STATES = (1, 2, 4, 8, 16, c.NUD_FAILED, c.NUD_NOARP, c.NUD_PERMANENT)


@given(st.booleans(), st.sampled_from(STATES), st.sampled_from((0, 3, OWNER)), st.sampled_from((c.AF_INET, c.AF_INET6)))
def test_of_neighbours_permanent_ones_and_the_owners_pass(new: bool, state: int, protocol: int, family: int) -> None:
    wanted = state == c.NUD_PERMANENT or protocol == OWNER
    if not new and state == c.NUD_FAILED:
        wanted = False
    assert passes(c.RTM_NEWNEIGH if new else c.RTM_DELNEIGH, neighbour(state, protocol, family)) is wanted


@given(st.booleans(), st.sampled_from([state for state in STATES if state != c.NUD_FAILED]))
def test_of_forwarding_entries_static_ones_pass(new: bool, state: int) -> None:
    wanted = state in (c.NUD_PERMANENT, c.NUD_NOARP)
    assert passes(c.RTM_NEWNEIGH if new else c.RTM_DELNEIGH, neighbour(state, family=c.AF_BRIDGE)) is wanted
