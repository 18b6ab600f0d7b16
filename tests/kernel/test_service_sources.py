"""Load balancers on a real kernel: whom they let in, and what they refuse."""

from __future__ import annotations

import shutil
import socket
import subprocess

import pytest

from podplane.kernel.text import nft
from podplane.model.objects import Metadata
from podplane.model.service import Ingress, LoadBalancerStatus, Service, ServiceStatus
from podplane.services import tables
from tests.kernel.services import OWNER, PATIENCE, VIPS, Rig, service, slices, squeezed

pytestmark = pytest.mark.kernel


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
