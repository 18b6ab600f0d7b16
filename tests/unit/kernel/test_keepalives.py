"""Probes of TCP connections, as bytes."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from podplane.kernel.announce import checksum
from podplane.kernel.keepalives import SEQUENCES, packet
from podplane.state.conntrack import Sent

FOUR = Sent(ip_address("10.244.1.2"), 40000, ip_address("10.96.0.7"), 80)
SIX = Sent(ip_address("fd00:10:244:1::2"), 40000, ip_address("fd00:10:96::7"), 80)


@pytest.mark.parametrize(("one", "head"), [(FOUR, 20), (SIX, 40)])
def test_a_probe_is_an_acknowledgement_without_data_from_the_client_to_its_server(one: Sent, head: int) -> None:
    for number in SEQUENCES:
        whole = packet(one, number)
        segment = whole[head:]
        assert one.source.packed + one.to.packed == whole[head - 2 * len(one.to.packed) : head]
        assert (segment[:2], segment[2:4]) == ((40000).to_bytes(2, "big"), (80).to_bytes(2, "big"))
        assert int.from_bytes(segment[4:8], "big") == number and segment[12:14] == b"\x50\x10" and len(segment) == 20
        pseudo = one.source.packed + one.to.packed + b"\0\6" + len(segment).to_bytes(2, "big")
        assert checksum(pseudo + segment) == 0
    if head == 20:
        assert int.from_bytes(whole[2:4], "big") == len(whole)


def test_no_window_has_both_numbers() -> None:
    first, second = SEQUENCES
    assert min(second - first, (1 << 32) - second + first) > 1 << 30, "RFC 7323, 2.3: a window is no larger"
