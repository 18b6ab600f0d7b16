"""Packets that the kernel logged, from bytes that it sent, and from headers of all shapes."""

from __future__ import annotations

import ipaddress
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podplane.kernel.packet_log import COPIED, packet_from, packets_in
from podplane.state.packet_log import LoggedPacket

GOLDEN = bytes.fromhex(
    "9800000000040000000000000000000002000050080001000800010007000a00696e0000080004000000000110000800000600000000000000000000"
    "06000f000304000006001100000e0000120010000000000000000000000000000800000014000300000000006b08fcec0000000000091c15210009004500"
    "001dafa8400040118d257f0000017f0000018e7d00350009fe1c78000000"
    "ac0000000004000000000000000000000a0000500800010086dd010007000a00696e0000080004000000000110000800000600000000000000000000"
    "06000f000304000006001100000e00001200100000000000000000000000000086dd000014000300000000006b08fcec0000000000091c53350009006009"
    "d5ac000911400000000000000000000000000000000100000000000000000000000000000001b8ae14e90009001c78000000"
    "1400000003000000000000000000000000000050"
)
"""A datagram of Linux 6.18: two packets, and the end of the list."""
PORTS = struct.pack(">HH", 40000, 8080)
V4, V6 = ("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2")
NAMES = {"tcp": 6, "udp": 17, "sctp": 132, "icmp": 1, "icmpv6": 58, "47": 47}


def ipv4(protocol: int, upper: bytes, options: int = 0, offset: int = 0) -> bytes:
    head = struct.pack(">BBHHHBBH", 0x40 | 5 + options, 0, 0, 0, offset, 64, protocol, 0)
    return head + b"".join(ipaddress.ip_address(ip).packed for ip in V4) + bytes(4 * options) + upper


def ipv6(protocol: int, upper: bytes) -> bytes:
    return struct.pack(">IHBB", 6 << 28, 0, protocol, 64) + b"".join(ipaddress.ip_address(ip).packed for ip in V6) + upper


def test_what_the_kernel_sent() -> None:
    assert list(packets_in(GOLDEN)) == [
        LoggedPacket("in", "127.0.0.1", "127.0.0.1", "udp", 53),
        LoggedPacket("in", "::1", "::1", "udp", 5353),
    ]


@given(st.integers(0, len(GOLDEN)), st.binary(max_size=4))
def test_no_cut_is_an_error_but_one_of_netlink(cut: int, instead: bytes) -> None:
    try:
        found = list(packets_in(GOLDEN[:cut] + instead + GOLDEN[cut + len(instead) :]))
    except ValueError as error:
        assert "of length" in str(error)
    else:
        assert len(found) <= 2


@pytest.mark.parametrize(("name", "number"), NAMES.items())
@pytest.mark.parametrize("options", [0, 3])
def test_protocols(name: str, number: int, options: int) -> None:
    port = 8080 if name in ("tcp", "udp", "sctp") else 0
    assert packet_from("out", ipv4(number, PORTS, options)) == LoggedPacket("out", *V4, name, port)
    assert packet_from("out", ipv6(number, PORTS)) == LoggedPacket("out", *V6, name, port)


def test_only_the_first_fragment_has_a_port() -> None:
    more, later = 0x2000, 0x2001
    assert packet_from("", ipv4(17, PORTS, offset=more)) == LoggedPacket("", *V4, "udp", 8080)
    assert packet_from("", ipv4(17, PORTS, offset=later)) == LoggedPacket("", *V4, "udp", 0)
    for offset, port in ((1, 8080), (8, 0)):
        fragment = struct.pack(">BBHI", 17, 0, offset, 7)
        assert packet_from("", ipv6(44, fragment + PORTS)) == LoggedPacket("", *V6, "udp", port)


def test_extension_headers_are_passed_over() -> None:
    hop = bytes((43, 1)) + bytes(14)
    routing = bytes((51, 0)) + bytes(6)
    authentication = bytes((60, 4)) + bytes(22)
    destination = bytes((6, 0)) + bytes(6)
    chain = hop + routing + authentication + destination
    assert packet_from("", ipv6(0, chain + PORTS)) == LoggedPacket("", *V6, "tcp", 8080)
    assert packet_from("", ipv6(0, hop + routing)[:60]) == LoggedPacket("", *V6, "43", 0), "it goes on behind what was copied"


@given(st.binary(max_size=COPIED) | st.builds(lambda one, cut: one[:cut], st.just(ipv6(0, bytes(64))), st.integers(0, 128)))
def test_no_bytes_are_an_error(content: bytes) -> None:
    found = packet_from("in", content)
    assert found is None or (0 <= found.port < 1 << 16 and ipaddress.ip_address(found.source))
