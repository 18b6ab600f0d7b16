"""UDP and SCTP through Services on a real kernel: clients that go on sending are led to endpoints that come and go."""

from __future__ import annotations

import contextlib
import dataclasses
import ipaddress
import select
import socket
import subprocess

import msgspec
import pytest

from podplane.kernel.conntrack import NETLINK_NETFILTER, Conntrack
from podplane.kernel.netlink import NLM_F_DUMP, Socket
from podplane.model.service import EndpointPort, EndpointSlice, ServicePort
from podplane.services.resolve import resolve
from podplane.state.conntrack import Frontend, Target
from podplane.state.operations import diff
from tests.kernel.services import HERE, PATIENCE, VIPS, Rig, plan, service, slices, wanted

pytestmark = pytest.mark.kernel


def _takes(server: socket.socket) -> bool:
    try:
        server.recv(10)
    except BlockingIOError:
        return False
    return True


def udp(own: list[EndpointSlice]) -> list[EndpointSlice]:
    """The same for UDP."""
    return [msgspec.structs.replace(one, ports=(EndpointPort("dns", "UDP", 8080),)) for one in own]


@pytest.mark.parametrize("version", [4, 6])
def test_a_udp_client_that_goes_on_sending_moves_when_its_endpoint_goes(version: int) -> None:
    rig = Rig()
    family, vip = (socket.AF_INET, VIPS[0]) if version == 4 else (socket.AF_INET6, VIPS[1])
    subprocess.run("ip -6 addr add fd00::1/128 dev lo nodad; ip -6 addr add fd00::2/128 dev lo nodad", shell=True)
    addresses = ["127.0.0.1", "127.0.0.2"] if version == 4 else ["fd00::1", "fd00::2"]
    servers = {}
    for address in addresses:
        servers[address] = socket.socket(family, socket.SOCK_DGRAM)
        servers[address].bind((address, 8080))
        servers[address].setblocking(False)
    client = socket.socket(family, socket.SOCK_DGRAM)

    def reached() -> set[str]:
        client.send(b"x")
        return {name for name, server in servers.items() if _takes(server)}

    def want(*own: str) -> None:
        rig.want(one := (service(ports=(ServicePort(53, "dns", "UDP"),)), udp(slices(*own))))
        rig.kernel.flush_conntrack(resolve(*one, HERE).allowed())

    want(*addresses)
    client.connect((vip, 53))
    (first,) = reached()
    assert all(reached() == {first} for _ in range(10))
    (second,) = set(addresses) - {first}
    want(second)
    assert reached() == {second}
    want(*addresses)
    assert all(reached() == {second} for _ in range(10)), "a new endpoint moves nobody"


SCTP_INIT = bytes.fromhex("9c4000500000000000000000") + bytes.fromhex("0100001400000001000100000001000100000001")


def test_sctp_is_translated_packet_by_packet() -> None:
    """There are no SCTP sockets here: a raw packet goes in, and a raw socket sees it come out at the endpoint."""
    rig = Rig()
    own = [msgspec.structs.replace(one, ports=(EndpointPort("s", "SCTP", 8080),)) for one in slices("127.0.0.1")]
    rig.want((service(ips=VIPS[:1], ports=(ServicePort(80, "s", "SCTP"),)), own))
    receiver = socket.socket(socket.AF_INET, socket.SOCK_RAW, 132)
    receiver.settimeout(PATIENCE)
    sender = socket.socket(socket.AF_INET, socket.SOCK_RAW, 132)
    sender.sendto(sctp(SCTP_INIT), (VIPS[0], 0))
    packet = receiver.recv(2000)
    header = (packet[0] & 15) * 4
    assert socket.inet_ntoa(packet[16:20]) == "127.0.0.1"
    assert int.from_bytes(packet[header + 2 : header + 4], "big") == 8080


def sctp(packet: bytes) -> bytes:
    """The packet with its CRC32c (RFC 9260, appendix A)."""
    crc = 0xFFFFFFFF
    for byte in packet:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return packet[:8] + (crc ^ 0xFFFFFFFF).to_bytes(4, "little") + packet[12:]


@pytest.mark.parametrize("address", [(VIPS[0], 53), ("127.0.0.9", 30053)])
def test_a_udp_client_that_began_before_the_first_endpoint_reaches_it_when_it_comes(address: tuple[str, int]) -> None:
    rig = Rig()
    dns = service(ips=VIPS[:1], ports=(ServicePort(53, "dns", "UDP", node_port=30053),), type="NodePort")
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("127.0.0.1", 8080))
    server.settimeout(PATIENCE)
    rig.want((dns, []))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(PATIENCE)
        client.connect(address)
        with pytest.raises((PermissionError, ConnectionRefusedError)):  # a sender of the same machine is told by send itself
            client.send(b"early")
            client.recv(10)
        rig.want((dns, udp(slices("127.0.0.1"))))
        for _ in range(3):
            with contextlib.suppress(ConnectionRefusedError):  # what ICMP said of the first one, it may say late
                client.send(b"again")
        assert server.recv(10) == b"again"


@pytest.mark.parametrize("version", [4, 6])
def test_a_udp_client_that_talked_to_the_address_before_it_was_a_service_comes_to_the_service(version: int) -> None:
    """Without anything deleted, tracking would keep it past the Service for as long as it goes on sending."""
    rig = Rig()
    family, address = (socket.AF_INET, "192.168.1.10") if version == 4 else (socket.AF_INET6, "fd00:192:168:1::10")
    endpoint = "127.0.0.1" if version == 4 else "::1"
    before_it, behind_it = (socket.socket(family, socket.SOCK_DGRAM) for _ in range(2))
    before_it.bind((address, 30053))
    behind_it.bind((endpoint, 8080))
    behind_it.settimeout(PATIENCE)
    rig.want()
    with socket.socket(family, socket.SOCK_DGRAM) as client:
        client.connect((address, 30053))
        assert any(client.send(b"1") and select.select([before_it], [], [], 1)[0] for _ in range(PATIENCE)), (
            "not ready for IPv6?"
        )
        assert before_it.recv(10) == b"1"
        dns = service(ports=(ServicePort(53, "dns", "UDP", node_port=30053),), type="NodePort"), udp(slices(endpoint))
        here = dataclasses.replace(HERE, addresses=(ipaddress.ip_address(address),))
        planned = plan(*dns, here, rig.numbers)
        assert not rig.kernel.apply(diff(rig.state, wanted(planned))).failed
        client.send(b"2")
        assert before_it.recv(10) == b"2", "as tracked"
        assert rig.kernel.flush_conntrack(resolve(*dns, here).allowed()) == 1
        client.send(b"3")
        assert behind_it.recv(10) == b"3"


def test_connections_of_others_are_not_forgotten() -> None:
    """Neither those of another protocol, family or port, nor what goes where it may."""
    rig = Rig()
    rig.serve("127.0.0.1")
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("127.0.0.1", 8080))
    rig.want((service(), slices("127.0.0.1")))
    with socket.create_connection((VIPS[0], 80)), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.sendto(b"x", ("127.0.0.1", 8080))
        here, there = (Target(ipaddress.ip_address(f"127.0.0.{n}"), 8080) for n in (1, 2))
        for address, port in (("127.0.0.1", 8081), ("127.0.0.2", 8080), ("::1", 8080)):
            assert rig.kernel.flush_conntrack({("udp", ipaddress.ip_address(address), port): ()}) == 0
        assert rig.kernel.flush_conntrack({("udp", *here): (there, here)}) == 0, "it may go there"
        assert rig.kernel.flush_conntrack({("udp", *here): (there,)}) == 1
        assert len(rig.kernel.connections()) == 1


def test_a_namespace_without_connections_is_not_searched_for_them() -> None:
    """A dump goes through the one table of all namespaces of the machine, which takes some 10 ms."""
    rig = Rig()
    rig.want()

    class Counted(Socket):
        dumps = 0

        def dump(self, kind: int, payload: bytes, flags: int = NLM_F_DUMP) -> list[tuple[int, bytes]]:
            self.dumps += 1
            return super().dump(kind, payload, flags)

    with Counted(NETLINK_NETFILTER) as netlink, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        stale = {Frontend("udp", ipaddress.ip_address("127.0.0.1"), 8080): ()}
        assert Conntrack(netlink).flush(stale) == 0 and not netlink.dumps
        client.sendto(b"x", ("127.0.0.1", 8080))
        assert Conntrack(netlink).flush(stale) == 1 and netlink.dumps == 1
