"""ICMP messages: what is sent is what RFC 792 and RFC 4443 say, and only answers are taken for answers."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from podplane.runtime import icmp


@given(st.binary(max_size=200))
def test_a_message_with_its_checksum_sums_to_zero(data: bytes) -> None:
    data += b"\0" * (len(data) & 1)
    assert icmp.checksum(data + struct.pack("!H", icmp.checksum(data))) == 0


@given(st.integers(0, 65535), st.integers(0, 65535), st.integers(60, 1500))
def test_a_request_has_the_size_of_the_packet(identifier: int, sequence: int, size: int) -> None:
    for version, header in icmp.IP_HEADER_BYTES.items():
        assert len(icmp.request(version, identifier, sequence, size)) + header == size
    assert icmp.checksum(icmp.request(4, identifier, sequence, size)) == 0


@given(st.integers(0, 65535), st.integers(0, 65535))
def test_an_answer_is_recognized_and_a_request_is_not(identifier: int, sequence: int) -> None:
    answer = struct.pack("!BBHHH", 0, 0, 0, identifier, sequence)
    assert icmp.reply(4, b"\x45" + bytes(19) + answer) == (identifier, sequence)
    assert icmp.reply(6, struct.pack("!BBHHH", 129, 0, 0, identifier, sequence)) == (identifier, sequence)
    assert icmp.reply(4, b"\x45" + bytes(19) + icmp.request(4, identifier, sequence)) is None
    assert icmp.reply(4, b"\x45" + bytes(5)) is None
