"""Tunnels that make their checksums in software, and those that leave them to the uplink, on the real kernel."""

from __future__ import annotations

import socket
import struct

import pytest

from podplane.kernel.door import Kernel
from podplane.kernel.errors import NotFound, Unsupported
from podplane.kernel.fakes.world import FakeOpener
from podplane.kernel.namespace import CurrentNamespace
from podplane.kernel.opener import KernelOpener
from podplane.routes.vxlan import DEVICES
from podplane.state.network import Link, Peer, SoftwareChecksum, Vxlan
from podplane.state.operations import Operation
from podplane.state.ownership import Ownership, link_alias
from podplane.trace.packet import checksum
from tests.kernel.test_vxlan import PORT, THEIR_PODS, Two, exchange, made

pytestmark = pytest.mark.kernel
OWNER = Ownership(links=frozenset(DEVICES.values()))
ETH_P_ALL, OUTER, INNER = 3, 14 + 20 + 8 + 8, 14
"""Bytes before the frame in a packet between nodes: Ethernet, IPv4, UDP, VXLAN; and before the packet in it."""
PSEUDO = struct.Struct(">4s4sBBH")
"""Source, destination, 0, protocol, length (RFC 768)."""


def sum_on_the_wire(two: Two) -> int:
    """What is left of the checksum of a datagram that the pod sends to one of the other node, as it is between both: 0 if it is right."""
    with two.theirs.run(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))) as wire:
        wire.bind(("eth0", ETH_P_ALL))
        wire.settimeout(3)
        with two.pod.run(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as out:
            out.sendto(b"checksum", (THEIR_PODS[0], PORT))
        while b"checksum" not in (frame := wire.recv(2000)):
            continue
    packet = frame[OUTER + INNER :]
    datagram = packet[20:]
    ends = packet[12:16], packet[16:20]
    return checksum(PSEUDO.pack(*ends, 0, socket.IPPROTO_UDP, len(datagram)) + datagram)


def without_offload() -> set[str]:
    """The tunnels of this namespace whose checksums are made in software."""
    kernel = Kernel(CurrentNamespace(), KernelOpener())
    try:
        return {one.link for one in kernel.read(OWNER).values() if isinstance(one, SoftwareChecksum)}
    finally:
        kernel.close()


def test_a_tunnel_without_offload_makes_right_checksums_and_carries_all() -> None:
    two = made(tunnel_offload="disabled")
    assert without_offload() == set(DEVICES.values())
    assert sum_on_the_wire(two) == 0
    assert [exchange(two.pod, two.theirs, ip) for ip in THEIR_PODS] == list(two.ips)
    assert [exchange(two.theirs, two.pod, ip) for ip in two.ips] == ["10.244.2.0", "fd00:10:244:2::5"]


def test_here_tunnels_leave_checksums_to_the_uplink() -> None:
    two = made()
    assert without_offload() == set()
    assert sum_on_the_wire(two) != 0, "it is made where the packet leaves the machine, which it does not here"
    assert [exchange(two.pod, two.theirs, ip) for ip in THEIR_PODS] == list(two.ips)


def real_and_fake() -> list[Kernel]:
    """Both kernels, empty."""
    opener = FakeOpener()
    return [Kernel(CurrentNamespace(), KernelOpener()), Kernel(opener.namespace(), opener)]


@pytest.mark.parametrize("which", [0, 1], ids=["real", "fake"])
def test_the_door_switches_it_reads_it_back_and_refuses_what_can_not_be(which: int) -> None:
    kernel = real_and_fake()[which]
    link = Link(name="podplane-vxlan4", kind="vxlan", vxlan=Vxlan(vni=9, port=4999), alias=link_alias())
    value, missing, loopback = (SoftwareChecksum(link=name) for name in (link.name, "none", "lo"))
    assert not kernel.apply([Operation(None, value), Operation(None, link)]).failed, "in whatever order they are told"
    assert value.identity in kernel.read(OWNER)
    assert not kernel.apply([Operation(value, None)]).failed
    assert value.identity not in kernel.read(OWNER)
    assert not kernel.apply([Operation(missing, None)]).failed, "it is gone with its link"
    refused = kernel.apply([Operation(None, missing), Operation(None, loopback)]).failed
    assert [type(one.error) for one in refused] == [NotFound, Unsupported]
    assert not kernel.apply([Operation(None, value)]).failed
    assert not kernel.apply([Operation(link, None), Operation(value, None)]).failed
    assert not kernel.apply([Operation(None, link)]).failed
    assert value.identity not in kernel.read(OWNER), "a new link is as the kernel makes it"
    kernel.close()


def test_the_driver_and_the_mac_of_a_link_are_known() -> None:
    kernel = Kernel(CurrentNamespace(), KernelOpener())
    cable = Link(name="eth0", kind="veth", mac="0a:58:c0:a8:01:0b", peer=Peer(name="far"))
    assert not kernel.apply([Operation(None, cable)]).failed
    assert [kernel.driver(name) for name in ("eth0", "none", "")] == ["veth", "", ""]
    assert [kernel.mac(name) for name in ("eth0", "none", "")] == [cable.mac, "", ""]
    assert kernel.release()[0].isdigit()
    kernel.close()
