"""Services on a real kernel: connections arrive where they should, evenly, or are refused at once; and `nft` reads what we wrote."""

from __future__ import annotations

import ipaddress
import shutil
import socket
import subprocess
from collections import Counter

import pytest

from podplane.kernel.door import Kernel, KernelOpener
from podplane.kernel.namespace import CurrentNamespace
from podplane.kernel.text import nft
from podplane.model.config import NetworkConfig
from podplane.model.objects import Metadata
from podplane.model.service import Endpoint, EndpointPort, EndpointSlice, Service, ServicePort, ServiceSpec
from podplane.services import plan as services
from podplane.services import tables
from podplane.services.endpoints import Place
from podplane.state.network import Link
from podplane.state.operations import diff
from podplane.state.ownership import Ownership
from podplane.state.value import Identity, Value, fragment
from tests.plans import CLUSTER, node

pytestmark = pytest.mark.kernel
BOTH = (4, 6)
CONFIG = NetworkConfig(
    cluster_cidrs=tuple(CLUSTER[v] for v in BOTH), service_cidrs=("10.96.0.0/16", "fd00:10:96::/112"), bridge="lo"
)
OWNER = Ownership(tables=frozenset({tables.TABLE}), route_protocol=80)
HERE = services.Here(Place("node1"), BOTH, (ipaddress.ip_address("127.0.0.9"),))
VIPS = ("10.96.0.10", "fd00:10:96::10")
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
            "ip link set lo up; ip addr add 192.168.1.10/32 dev lo; ip -6 addr add fd00:192:168:1::10/128 dev lo", shell=True
        )
        self.numbers = services.Numbers()
        self.servers: dict[str, socket.socket] = {}

    def want(self, *planned: tuple[Service, list[EndpointSlice]]) -> None:
        new = wanted(*(services.plan(one, own, HERE, self.numbers) for one, own in planned))
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
        with socket.create_connection((address, port), timeout=2):
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
        socket.create_connection(address, timeout=2)


def test_a_service_without_endpoints_refuses_and_serves_when_they_come() -> None:
    rig = Rig()
    rig.serve("127.0.0.1")
    rig.want((service(), slices()))
    for address in (VIPS[0], VIPS[1]):
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((address, 80), timeout=2)
    rig.want((service(), slices("127.0.0.1")))
    assert rig.reached(VIPS[0]) == "127.0.0.1"
    rig.want((service(), slices()))
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((VIPS[0], 80), timeout=2)


def test_endpoints_come_and_go() -> None:
    rig = Rig()
    addresses = [f"127.0.0.{n}" for n in range(1, 5)]
    rig.serve(*addresses)
    for count in (1, 4, 2, 3, 1):
        rig.want((service(), slices(*addresses[:count])))
        assert {rig.reached(VIPS[0]) for _ in range(40 * count)} == set(addresses[:count])


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
    return {line.removeprefix("elements = { ").removesuffix(" }") for line in lines}
