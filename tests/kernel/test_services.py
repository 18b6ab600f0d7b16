"""Services on a real kernel: connections arrive where they should, evenly, or are refused at once; and `nft` reads what we wrote."""

from __future__ import annotations

import contextlib
import dataclasses
import ipaddress
import select
import shutil
import socket
import subprocess
import time
from collections import Counter

import msgspec
import pytest

from podplane.kernel.conntrack import NETLINK_NETFILTER, Conntrack
from podplane.kernel.door import Kernel
from podplane.kernel.namespace import CurrentNamespace
from podplane.kernel.netlink import NLM_F_DUMP, Socket
from podplane.kernel.opener import KernelOpener
from podplane.kernel.text import nft
from podplane.model.config import NetworkConfig
from podplane.model.objects import Metadata
from podplane.model.service import (
    ClientIPConfig,
    Endpoint,
    EndpointPort,
    EndpointSlice,
    Ingress,
    LoadBalancerStatus,
    Service,
    ServicePort,
    ServiceSpec,
    ServiceStatus,
    SessionAffinityConfig,
)
from podplane.services import tables
from podplane.services.elements import encode
from podplane.services.endpoints import Place
from podplane.services.feature import ServicesMemory
from podplane.services.numbers import Numbers
from podplane.services.report import traffic
from podplane.services.resolve import NodeContext, resolve
from podplane.services.rules import PLAIN_COUNTS
from podplane.state.conntrack import Frontend, Target
from podplane.state.network import Link
from podplane.state.nft import Element
from podplane.state.operations import diff
from podplane.state.ownership import Ownership
from podplane.state.value import Fragment, Identity, Value, fragment
from tests.plans import CLUSTER, node

pytestmark = pytest.mark.kernel
BOTH = (4, 6)
CONFIG = NetworkConfig(
    cluster_cidrs=tuple(CLUSTER[v] for v in BOTH), service_cidrs=("10.96.0.0/16", "fd00:10:96::/112"), bridge="lo"
)
OWNER = Ownership(tables=frozenset({tables.TABLE}), route_protocol=80)
HERE = NodeContext(Place("node1"), BOTH, (ipaddress.ip_address("127.0.0.9"),))
VIPS = ("10.96.0.10", "fd00:10:96::10")
PATIENCE = 30
"""Seconds for what comes at once on a machine that has nothing else to do."""
LOOPBACK: dict[Identity, Value] = dict(fragment([Link(name="lo")]))


def service(name: str = "web", ips: tuple[str, ...] = VIPS, **more: object) -> Service:
    spec = {"cluster_ip": ips[0], "cluster_ips": ips, "ports": (ServicePort(80, "http", node_port=30080),), **more}
    return Service(metadata=Metadata(name=name, namespace="default"), spec=ServiceSpec(**spec))  # type: ignore[arg-type]  # by name


def slices(*addresses: str, port: int = 8080) -> list[EndpointSlice]:
    ports = (EndpointPort("http", "TCP", port),)
    endpoints: dict[str, list[Endpoint]] = {"IPv4": [], "IPv6": []}
    for address in addresses:
        endpoints["IPv6" if ":" in address else "IPv4"].append(Endpoint(addresses=(address,)))
    return [EndpointSlice(address_type=family, endpoints=tuple(own), ports=ports) for family, own in endpoints.items()]


def plan(service: Service, slices: list[EndpointSlice], context: NodeContext, numbers: Numbers) -> Fragment:
    return encode(resolve(service, slices, context), numbers)


def wanted(*fragments: object) -> dict[Identity, Value]:
    result = {**LOOPBACK, **tables.plan(node(1, BOTH), CONFIG)}
    for one in fragments:
        result |= one  # type: ignore[operator]  # a fragment
    return result


class Rig:
    """This namespace as a node, whose loopback stands for the pods."""

    def __init__(self) -> None:
        self.kernel = Kernel(CurrentNamespace(), KernelOpener())
        self.state: dict[Identity, Value] = {}
        subprocess.run(
            "ip link set lo up; ip addr add 192.168.1.10/32 dev lo; ip -6 addr add fd00:192:168:1::10/128 dev lo nodad",
            shell=True,
        )
        self.numbers = Numbers()
        self.servers: dict[str, socket.socket] = {}

    def want(self, *planned: tuple[Service, list[EndpointSlice]]) -> None:
        new = wanted(*(plan(one, own, HERE, self.numbers) for one, own in planned))
        report = self.kernel.apply(diff(self.state, new))
        assert not report.failed, [str(f) for f in report.failed]
        self.state = new

    def serve(self, *addresses: str, port: int = 8080) -> None:
        for address in addresses:
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            self.servers[address] = socket.create_server((address, port), family=family, backlog=1000)
            self.servers[address].setblocking(False)

    def reached(self, address: str, port: int = 80) -> str:
        """Who takes a connection."""
        with socket.create_connection((address, port), timeout=PATIENCE):
            for name, server in self.servers.items():
                try:
                    server.accept()[0].close()
                except BlockingIOError:
                    continue
                return name
        raise AssertionError("nobody took it")


def test_a_connection_reaches_an_endpoint_of_its_family() -> None:
    rig = Rig()
    rig.serve("127.0.0.1", "127.0.0.2", "::1")
    rig.want((service(), slices("127.0.0.1", "127.0.0.2", "::1")))
    assert {rig.reached(VIPS[0]) for _ in range(50)} == {"127.0.0.1", "127.0.0.2"}
    assert rig.reached(VIPS[1]) == "::1"
    assert rig.reached("127.0.0.9", 30080) in ("127.0.0.1", "127.0.0.2")


def test_connections_spread_evenly() -> None:
    """Chi-squared over 5 endpoints: 18.5 is passed by chance once in a thousand times."""
    rig = Rig()
    addresses = [f"127.0.0.{n}" for n in range(1, 6)]
    rig.serve(*addresses)
    rig.want((service(), slices(*addresses)))
    total = 2000
    counts = Counter(rig.reached(VIPS[0]) for _ in range(total))
    assert sum((counts[a] - total / 5) ** 2 / (total / 5) for a in addresses) < 18.5, counts


@pytest.mark.parametrize("address", [("10.96.0.10", 81), ("10.96.0.11", 80), ("fd00:10:96::10", 81), ("fd00:10:96::11", 80)])
def test_what_leads_nowhere_is_refused_at_once(address: tuple[str, int]) -> None:
    rig = Rig()
    rig.want((service(), slices("127.0.0.1", "::1")))
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address, timeout=PATIENCE)


def test_a_service_without_endpoints_refuses_and_serves_when_they_come() -> None:
    rig = Rig()
    rig.serve("127.0.0.1")
    rig.want((service(), slices()))
    for address in (VIPS[0], VIPS[1]):
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((address, 80), timeout=PATIENCE)
    rig.want((service(), slices("127.0.0.1")))
    assert rig.reached(VIPS[0]) == "127.0.0.1"
    rig.want((service(), slices()))
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((VIPS[0], 80), timeout=PATIENCE)


def test_endpoints_come_and_go() -> None:
    rig = Rig()
    addresses = [f"127.0.0.{n}" for n in range(1, 5)]
    rig.serve(*addresses)
    for count in (1, 4, 2, 3, 1):
        rig.want((service(), slices(*addresses[:count])))
        assert {rig.reached(VIPS[0]) for _ in range(40 * count)} == set(addresses[:count])


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


def _takes(server: socket.socket) -> bool:
    try:
        server.recv(10)
    except BlockingIOError:
        return False
    return True


def udp(own: list[EndpointSlice]) -> list[EndpointSlice]:
    """The same for UDP."""
    return [msgspec.structs.replace(one, ports=(EndpointPort("dns", "UDP", 8080),)) for one in own]


LOCAL = {"external_traffic_policy": "Local", "external_ips": ("192.0.2.7",)}


def test_from_outside_only_local_endpoints_are_reached_and_from_inside_all() -> None:
    rig = Rig()
    rig.serve("127.0.0.1", "127.0.0.2")
    (slice_, _) = slices("127.0.0.1", "127.0.0.2")
    placed = tuple(Endpoint(addresses=e.addresses, node_name=f"node{n}") for n, e in enumerate(slice_.endpoints or (), 1))
    here = EndpointSlice(endpoints=placed, ports=slice_.ports)
    rig.want((service(**LOCAL), [here]))
    inside = {rig.reached("127.0.0.9", 30080) for _ in range(30)}  # the node itself is inside
    assert inside == {"127.0.0.1", "127.0.0.2"}
    table = nft.tables(value for identity, value in rig.state.items() if identity[0].startswith("nft"))
    assert '127.0.0.9 . tcp . 30080 comment "svc/default/web:http/local"' in table
    assert '192.0.2.7 . tcp . 80 comment "svc/default/web:http/local"' in table


@pytest.mark.parametrize("label", ["service.kubernetes.io/service-proxy-name", "service.kubernetes.io/headless"])
def test_a_service_of_somebody_else_is_left_alone(label: str) -> None:
    theirs = Service(metadata=Metadata(name="x", namespace="y", labels={label: "z"}), spec=service().spec)
    assert plan(theirs, slices("127.0.0.1"), HERE, Numbers()) == {}


STICKY = {"session_affinity": "ClientIP", "session_affinity_config": None}


def test_a_client_keeps_its_endpoint_until_that_goes() -> None:
    rig = Rig()
    addresses = [f"127.0.0.{n}" for n in range(1, 6)]
    rig.serve(*addresses)
    rig.want((service(**STICKY), slices(*addresses)))
    first = rig.reached(VIPS[0])
    assert {rig.reached(VIPS[0]) for _ in range(30)} == {first}
    for others in range(4):  # the others go, and come back
        staying = [a for a in addresses if a == first or addresses.index(a) >= others]
        rig.want((service(**STICKY), slices(*staying)))
        assert rig.reached(VIPS[0]) == first
    rig.want((service(**STICKY), slices(*(a for a in addresses if a != first))))
    second = rig.reached(VIPS[0])
    assert second != first
    rig.want((service(**STICKY), slices(*addresses)))
    assert {rig.reached(VIPS[0]) for _ in range(30)} == {second}


def test_a_client_of_an_endpoint_that_went_is_led_to_no_other_service_by_the_next_agent() -> None:
    """Its memory has the greatest number, which nothing in the tables names any more."""
    rig = Rig()
    rig.serve("127.0.0.1", "127.0.0.2", "127.0.0.3")
    stays, web, other = (service(name, (f"10.96.0.1{n}",), **STICKY) for n, name in enumerate(("stays", "web", "other")))
    rig.want((stays, slices("127.0.0.1")), (web, slices("127.0.0.2")))
    assert rig.reached("10.96.0.11") == "127.0.0.2"
    rig.want((stays, slices("127.0.0.1")), (web, slices()))
    rig.numbers = Numbers()
    rig.numbers.recover(rig.kernel.read(OWNER).values())
    rig.want((stays, slices("127.0.0.1")), (other, slices("127.0.0.3")), (web, slices("127.0.0.2")))
    assert rig.reached("10.96.0.11") == "127.0.0.2" and rig.reached("10.96.0.12") == "127.0.0.3"


def test_a_client_leaves_its_endpoint_when_a_policy_rules_that_out() -> None:
    rig = Rig()
    rig.serve("127.0.0.1", "127.0.0.2")
    (slice_, _) = slices("127.0.0.1", "127.0.0.2")
    placed = tuple(Endpoint(addresses=e.addresses, node_name=f"node{n}") for n, e in enumerate(slice_.endpoints or (), 1))
    own = [EndpointSlice(endpoints=placed, ports=slice_.ports)]
    for _ in range(20):
        rig.want((service(**STICKY), own))
        rig.reached(VIPS[0])
        rig.want((service(**STICKY, internal_traffic_policy="Local"), own))
        assert rig.reached(VIPS[0]) == "127.0.0.1"
        rig.want()


def test_what_is_remembered_of_a_client_is_forgotten_in_time() -> None:
    rig = Rig()
    rig.serve("127.0.0.1", "127.0.0.2", "127.0.0.3")
    config = SessionAffinityConfig(ClientIPConfig(timeout_seconds=1))
    rig.want((service(session_affinity="ClientIP", session_affinity_config=config), slices(*rig.servers)))
    first = rig.reached(VIPS[0])
    for _ in range(15):  # it is chosen anew each time, so by chance never another in 1 of 14 million runs
        assert rig.reached(VIPS[0]) == first
        time.sleep(1.3)
        before, first = first, rig.reached(VIPS[0])
        if before != first:
            return
    raise AssertionError("it was never forgotten")


def test_with_affinity_and_policy_local_who_is_inside_keeps_one_of_all_endpoints() -> None:
    rig = Rig()
    rig.serve("127.0.0.1", "127.0.0.2")
    (slice_, _) = slices("127.0.0.1", "127.0.0.2")
    placed = tuple(Endpoint(addresses=e.addresses, node_name=f"node{n}") for n, e in enumerate(slice_.endpoints or (), 1))
    wanted_ = (service(**STICKY, **LOCAL), [EndpointSlice(endpoints=placed, ports=slice_.ports)])
    seen = set()
    for _ in range(30):
        rig.want()  # its memory goes along
        rig.want(wanted_)
        first = rig.reached("127.0.0.9", 30080)
        assert {rig.reached("127.0.0.9", 30080) for _ in range(3)} == {first}
        seen.add(first)
    assert seen == {"127.0.0.1", "127.0.0.2"}


def test_names_longer_than_a_comment_are_read_back_as_they_were_wanted() -> None:
    rig = Rig()
    rig.serve("127.0.0.1", "127.0.0.2")
    spec = service(ports=(ServicePort(80, "a-port-15-bytes", node_port=30080),)).spec
    long = [
        Service(Metadata(name="n" * 62 + end, namespace="s" * 63), msgspec.structs.replace(spec, cluster_ips=(ip,)))
        for end, ip in (("1", VIPS[0]), ("2", "10.96.0.11"))
    ]
    own = [
        [msgspec.structs.replace(o, ports=(EndpointPort("a-port-15-bytes", "TCP", 8080),)) for o in slices(ip)]
        for ip in ("127.0.0.1", "127.0.0.2")
    ]
    long[1] = msgspec.structs.replace(
        long[1], spec=msgspec.structs.replace(long[1].spec, ports=(ServicePort(80, "a-port-15-bytes"),))
    )
    rig.want(*zip(long, own, strict=True))
    assert rig.reached(VIPS[0]) == "127.0.0.1" and rig.reached("10.96.0.11") == "127.0.0.2"
    found = rig.kernel.read(OWNER)
    assert all(found[identity] == value for identity, value in rig.state.items() if identity[0].startswith("nft"))
    again = Numbers()
    again.recover(found.values())
    assert {
        **plan(long[0], own[0], HERE, again),
        **plan(long[1], own[1], HERE, again),
    }.items() <= rig.state.items()


def test_nothing_is_left_when_services_go() -> None:
    rig = Rig()
    rig.want()
    before = rig.kernel.read(OWNER)
    rig.want((service(), slices("127.0.0.1", "127.0.0.2", "::1")), (service("b", ("10.96.0.11",)), slices("127.0.0.3")))
    assert rig.kernel.read(OWNER) != before
    rig.want()
    assert rig.kernel.read(OWNER) == before


def test_what_is_read_back_is_what_was_wanted_and_nft_says_the_same() -> None:
    rig = Rig()
    sticky = service("c", ("10.96.0.12", "fd00:10:96::12"), **STICKY)
    rig.want(
        (service(), slices("127.0.0.1", "127.0.0.2", "::1")),
        (service("b", ("10.96.0.11",)), slices()),
        (sticky, slices("127.0.0.1", "::1")),
    )
    found = rig.kernel.read(OWNER)
    own = {identity: value for identity, value in rig.state.items() if identity[0].startswith("nft")}
    assert {identity: value for identity, value in found.items() if identity[0].startswith("nft")} == own
    if shutil.which("nft") is None:
        pytest.skip("nft is not installed")
    listed = subprocess.run(["nft", "list", "table", *tables.TABLE], capture_output=True, text=True, check=True).stdout
    assert squeezed(nft.tables(own.values())) == squeezed(listed)


def squeezed(text: str) -> set[str]:
    """Lines without double blanks, and elements without what is between them."""
    lines = (" ".join(line.split()).rstrip(",") for line in text.splitlines())
    return {part for line in lines for part in line.removeprefix("elements = { ").removesuffix(" }").split(", ")}


BALANCED = ("192.168.1.240", "fd00:192:168:1::f0")


def balanced(*ranges: str) -> Service:
    """A load balancer, for these sources."""
    ingress = tuple(Ingress(ip=ip) for ip in BALANCED)
    spec = service(type="LoadBalancer", load_balancer_source_ranges=ranges).spec
    return Service(Metadata(name="web", namespace="default"), spec, ServiceStatus(LoadBalancerStatus(ingress)))


def came(address: str, source: str, port: int = 80) -> bool:
    """Does a connection from this source come through? A dropped one is waited for half a second."""
    try:
        socket.create_connection((address, port), timeout=0.5, source_address=(source, 0)).close()
    except TimeoutError:
        return False
    return True


def test_a_load_balancer_lets_in_whom_it_names() -> None:
    rig = Rig()
    rig.serve("127.0.0.1", "::1")
    subprocess.run(f"ip route add {BALANCED[0]} dev lo; ip -6 route add {BALANCED[1]} dev lo", shell=True, check=True)
    own = slices("127.0.0.1", "::1")
    rig.want((balanced(), own))
    assert came(BALANCED[0], "192.168.1.10") and came(BALANCED[1], "fd00:192:168:1::10")
    rig.want((balanced("192.168.1.0/28"), own))
    assert came(BALANCED[0], "192.168.1.10")
    assert not came(BALANCED[1], "fd00:192:168:1::10"), "ranges of one family let nobody of the other in"
    rig.want((balanced("192.168.2.0/24", "fd00:192:168::/48"), own))
    assert not came(BALANCED[0], "192.168.1.10") and came(BALANCED[1], "fd00:192:168:1::10")
    assert came(VIPS[0], "192.168.1.10"), "its cluster IP is for everybody"
    rig.want((balanced(), own))
    assert came(BALANCED[0], "192.168.1.10")


def test_other_ports_of_a_load_balancer_are_refused_at_once() -> None:
    rig = Rig()
    subprocess.run(f"ip route add {BALANCED[0]} dev lo; ip -6 route add {BALANCED[1]} dev lo", shell=True, check=True)
    rig.want((balanced(), slices("127.0.0.1", "::1")))
    for address in BALANCED:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((address, 81), timeout=PATIENCE)


def test_guarded_services_are_read_back_and_listed_as_they_are() -> None:
    rig = Rig()
    rig.want((balanced("192.168.1.0/28", "10.0.0.0/8", "fd00::/8"), slices("127.0.0.1")))
    found = {i: v for i, v in rig.kernel.read(OWNER).items() if i[0].startswith("nft")}
    assert found == {i: v for i, v in rig.state.items() if i[0].startswith("nft")}
    if shutil.which("nft") is None:
        pytest.skip("nft is not installed")
    listed = subprocess.run(["nft", "list", "table", *tables.TABLE], capture_output=True, text=True, check=True).stdout
    assert squeezed(nft.tables(found.values())) == squeezed(listed)


def test_the_connections_through_a_service_are_known_with_what_passed() -> None:
    rig = Rig()
    rig.serve("127.0.0.1", "::1")
    rig.want((service(), slices("127.0.0.1", "::1")))
    assert rig.kernel.connections() == []
    for vip in VIPS:
        rig.reached(vip)
        rig.reached(vip)
    socket.create_connection(("127.0.0.1", 8080), timeout=PATIENCE).close()
    found = traffic(rig.kernel.connections(), ServicesMemory())
    assert {(one.address, one.port, one.protocol, one.endpoint, one.endpoint_port, one.connections) for one in found} == {
        (VIPS[0], 80, "tcp", "127.0.0.1", 8080, 2),
        (VIPS[1], 80, "tcp", "::1", 8080, 2),
    }
    assert all(one.packets >= 6 and one.bytes >= 6 * 40 for one in found)


@pytest.mark.parametrize("count", [5000, PLAIN_COUNTS + 1])
def test_thousands_of_endpoints_are_all_reached_and_all_go(count: int) -> None:
    rig = Rig()
    (slice_, _) = slices(*(f"127.1.{n >> 8}.{n & 255}" for n in range(count)))
    rows = slice_.endpoints or ()
    many = [EndpointSlice(endpoints=rows[i : i + 1000], ports=slice_.ports) for i in range(0, count, 1000)]
    rig.want()
    before = rig.kernel.read(OWNER)
    rig.want((service(ips=VIPS[:1]), many))
    server = socket.create_server(("0.0.0.0", 8080), backlog=1000)
    clients, reached = [], set()
    for _ in range(300):
        clients.append(socket.create_connection((VIPS[0], 80), timeout=PATIENCE))
        accepted, _ = server.accept()
        reached.add(accepted.getsockname()[0])
        accepted.close()
    assert len(reached) > 250, "hardly one of 300 connections meets another one"
    found = rig.kernel.read(OWNER)
    assert sum(identity[0] == "nft element" and "endpoints4" in identity for identity in found) == count
    rig.want()
    assert rig.kernel.read(OWNER) == before


def test_an_endpoint_in_two_slices_is_one_and_one_in_the_service_range_is_none() -> None:
    here = dataclasses.replace(HERE, service_cidrs=(ipaddress.ip_network(CONFIG.service_cidrs[0]),))
    both = [*slices("127.0.0.1", "127.0.0.2", "10.96.0.77"), *slices("127.0.0.2", "10.96.255.255")]
    planned = plan(service(), both, here, Numbers())
    targets = [v.data for v in planned.values() if isinstance(v, Element) and v.set == "endpoints4"]
    assert targets == [(ipaddress.ip_address(f"127.0.0.{n}"), 8080) for n in (1, 2)]


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
