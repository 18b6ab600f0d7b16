"""Netlink's bytes: what is packed is unpacked again, broken input is refused, batches keep within one send."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podplane.kernel import netlink
from podplane.kernel.netlink import Message

KINDS = st.integers(1, netlink.NLA_TYPE_MASK)
VALUES = st.binary(max_size=40)
MESSAGES = st.builds(Message, st.integers(0x10, 0xFFFF), st.integers(0, 0xFFFF), st.binary(max_size=60))


@given(st.lists(st.tuples(KINDS, VALUES)))
def test_attributes_round_trip(rows: list[tuple[int, bytes]]) -> None:
    data = b"".join(netlink.attribute(kind, value) for kind, value in rows)
    assert len(data) % 4 == 0
    assert list(netlink.attributes(data)) == rows


@given(KINDS, st.lists(st.tuples(KINDS, VALUES), max_size=5))
def test_nested_attributes_round_trip_and_carry_the_flag(kind: int, rows: list[tuple[int, bytes]]) -> None:
    data = netlink.nested(kind, *(netlink.attribute(k, v) for k, v in rows))
    assert struct.unpack_from("=H", data, 2)[0] == kind | netlink.NLA_F_NESTED
    [(found, inside)] = netlink.attributes(data)
    assert (found, list(netlink.attributes(inside))) == (kind, rows)


@given(st.lists(st.tuples(KINDS, VALUES), min_size=1), st.integers(0, 12))
def test_attributes_after_a_header(rows: list[tuple[int, bytes]], words: int) -> None:
    data = bytes(4 * words) + b"".join(netlink.attribute(kind, value) for kind, value in rows)
    assert list(netlink.attributes(data, 4 * words)) == rows


@given(KINDS, st.binary(min_size=1, max_size=40), st.integers(1, 40))
def test_a_cut_attribute_is_refused(kind: int, value: bytes, missing: int) -> None:
    data = netlink.ATTRIBUTE.pack(4 + len(value), kind) + value
    cut = data[: max(4, len(data) - missing)]
    with pytest.raises(ValueError, match=f"attribute {kind} of length"):
        list(netlink.attributes(cut))


@pytest.mark.parametrize("length", range(4))
def test_an_attribute_shorter_than_its_header_is_refused(length: int) -> None:
    with pytest.raises(ValueError, match="attribute 7"):
        list(netlink.attributes(netlink.ATTRIBUTE.pack(length, 7)))


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_parsed_or_refused(data: bytes) -> None:
    try:
        found = list(netlink.attributes(data))
    except ValueError:
        return
    assert sum(4 + len(value) for _, value in found) <= len(data)


def test_numbers_and_text_as_the_kernel_has_them() -> None:
    assert netlink.u8(1, 7)[4:] == b"\x07\0\0\0"
    assert netlink.u16(1, 0x1234)[4:6] == struct.pack("=H", 0x1234)
    assert netlink.u32(1, 0x12345678)[4:] == struct.pack("=I", 0x12345678)
    assert netlink.be16(1, 0x1234)[4:6] == b"\x12\x34"
    assert netlink.be32(1, 0x12345678)[4:] == b"\x12\x34\x56\x78"
    assert netlink.be64(1, 1)[4:] == bytes(7) + b"\x01"
    assert netlink.text(3, "eth0") == struct.pack("=HH", 9, 3) + b"eth0\0" + bytes(3)


@given(st.lists(MESSAGES, min_size=1), st.integers(1, 1 << 31))
def test_messages_round_trip(batch: list[Message], first: int) -> None:
    data = b"".join(netlink.encode(m, first + i, netlink.NLM_F_REQUEST) for i, m in enumerate(batch))
    found = [(kind, flags, sequence, bytes(payload)) for kind, flags, sequence, payload in netlink.messages(data)]
    assert found == [(m.type, m.flags | netlink.NLM_F_REQUEST, first + i, m.payload) for i, m in enumerate(batch)]


@given(st.lists(st.integers(0, 60_000), max_size=700))
def test_parts_of_a_batch_keep_order_and_limits(sizes: list[int]) -> None:
    batch = [Message(16, i, bytes(size)) for i, size in enumerate(sizes)]
    parts = list(netlink.split(batch))
    assert [m for part in parts for m in part] == batch
    for part in parts:
        assert 1 <= len(part) <= netlink.BATCH_MESSAGES
        assert len(part) == 1 or sum(len(netlink.encode(m, 1, 0)) for m in part) <= netlink.BATCH_BYTES


def test_a_message_larger_than_a_batch_goes_alone() -> None:
    small, large = Message(16, 0, b""), Message(16, 0, bytes(netlink.BATCH_BYTES + 1))
    assert [list(part) for part in netlink.split([small, large, small])] == [[small], [large], [small]]


def test_labels_are_made_when_they_are_needed() -> None:
    assert Message(1, 0, b"", "create link a").name == "create link a"
    assert Message(1, 0, b"", lambda: "create link b").name == "create link b"
