"""Services on a real kernel: connections arrive where they should, evenly, or are refused at once; and `nft` reads what we wrote."""

from __future__ import annotations

import dataclasses
import ipaddress
import shutil
import socket
import subprocess
from collections import Counter

import msgspec
import pytest

from podplane.kernel.text import nft
from podplane.model.objects import Metadata
from podplane.model.service import Endpoint, EndpointPort, EndpointSlice, Service, ServicePort
from podplane.services import tables
from podplane.services.feature import ServicesMemory
from podplane.services.numbers import Numbers
from podplane.services.report import traffic
from podplane.services.rules import PLAIN_COUNTS
from podplane.state.nft import Element
from tests.kernel.services import CONFIG, HERE, LOCAL, OWNER, PATIENCE, STICKY, VIPS, Rig, plan, service, slices, squeezed

pytestmark = pytest.mark.kernel


def test_a_connection_reaches_an_endpoint_of_its_family() -> None:
    rig = Rig()
    rig.serve("127.0.0.1", "127.0.0.2", "::1")
    rig.want((service(), slices("127.0.0.1", "127.0.0.2", "::1")))
    assert {rig.reached(VIPS[0]) for _ in range(50)} == {"127.0.0.1", "127.0.0.2"}
    assert rig.reached(VIPS[1]) == "::1"
    assert rig.reached("127.0.0.9", 30080) in ("127.0.0.1", "127.0.0.2")


def test_connections_spread_evenly() -> None:
    """Chi-squared over 5 endpoints: 18.5 is passed by chance once in a thousand times, and twice in a row once in a million."""
    rig = Rig()
    addresses = [f"127.0.0.{n}" for n in range(1, 6)]
    rig.serve(*addresses)
    rig.want((service(), slices(*addresses)))
    total, uneven = 2000, list[Counter[str]]()
    for _ in range(2):
        counts = Counter(rig.reached(VIPS[0]) for _ in range(total))
        if sum((counts[a] - total / 5) ** 2 / (total / 5) for a in addresses) < 18.5:
            return
        uneven.append(counts)
    raise AssertionError(uneven)


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
    assert {**plan(long[0], own[0], HERE, again), **plan(long[1], own[1], HERE, again)}.items() <= rig.state.items()


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
