"""Headers of packets: what is read by offset is what was meant, and what is written comes back."""

from __future__ import annotations

import struct

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from podplane.trace import packet as p
from podplane.trace.jenkins import jhash
from podplane.trace.memory import tuple_of
from podplane.trace.packet import Packet
from tests.unit.kernel.generated import MACS, VERSIONS, addresses

PORTS = st.integers(0, 65535)


@st.composite
def packets(draw: st.DrawFn) -> Packet:
    version = draw(VERSIONS)
    own = "icmp" if version == 4 else "icmpv6"
    protocol = draw(st.sampled_from(("tcp", "udp", "sctp", own)))
    return Packet(
        source=draw(addresses(version)),
        destination=draw(addresses(version)),
        protocol=protocol,
        source_port=draw(PORTS),
        destination_port=p.ECHO_REQUEST[own] if protocol == own else draw(PORTS),
        ttl=draw(st.integers(1, 255)),
        source_mac=draw(MACS),
        destination_mac=draw(MACS),
        tcp_flags=draw(st.integers(0, 255)) if protocol == "tcp" else p.SYN,
    )


@given(packets(), packets())
def test_a_packet_that_takes_the_headers_of_another_one_is_that_one(packet: Packet, other: Packet) -> None:
    if packet.version != other.version:
        return
    changed = p.with_link_header(packet, p.link_header(other))
    changed = p.with_network_header(changed, p.network_header(other))
    changed = msgspec.structs.replace(changed, tcp_flags=p.SYN)
    assert p.with_transport_header(changed, p.transport_header(other)) == other


@given(packets())
def test_headers_are_as_long_as_they_say_and_sum_up(packet: Packet) -> None:
    header, transport = p.network_header(packet), p.transport_header(packet)
    if packet.version == 4:
        assert header[0] == 0x45 and struct.unpack(">H", header[2:4])[0] == len(header) + len(transport) == 20 + len(transport)
        assert p.checksum(header) == 0, "with its own checksum in it, the sum is zero (RFC 1071)"
    else:
        assert header[0] >> 4 == 6 and struct.unpack(">H", header[4:6])[0] == len(transport) and len(header) == 40


@given(packets())
def test_the_answer_to_an_answer_goes_the_first_way(packet: Packet) -> None:
    assert tuple_of(packet).inverse.inverse == tuple_of(packet)
    assert (tuple_of(packet).inverse.source, tuple_of(packet).inverse.destination) == (packet.destination, packet.source)


@pytest.mark.parametrize(("seed", "expected"), [(0, 0x17770551), (1, 0xCD628161)])
def test_jenkins_hash_of_lookup3s_own_examples(seed: int, expected: int) -> None:
    assert jhash(b"Four score and seven years ago", seed) == expected


def test_jenkins_hash_of_nothing_is_what_it_begins_with() -> None:
    assert jhash(b"", 5) == 0xDEADBEEF + 5
