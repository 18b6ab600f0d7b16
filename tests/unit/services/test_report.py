"""What a node tells of its Services: whose connections are whose."""

from __future__ import annotations

import ipaddress

from podplane.services import tables
from podplane.services.report import traffic
from podplane.state.conntrack import Connection
from podplane.state.desired import Desired
from podplane.state.value import fragment

VIP, OLD, TARGET = (ipaddress.ip_address(text) for text in ("10.96.0.5", "10.96.0.6", "10.244.1.2"))


def flow(address: object = VIP, port: int = 80, protocol: str = "tcp", octets: int = 10) -> Connection:
    return Connection(protocol, address, port, TARGET, 8080, 1, octets)  # type: ignore[arg-type]  # an address


def desired() -> Desired:
    """A Service with endpoints at one port, and with none at another one."""
    found = Desired()
    leads = tables.element("frontends", 4, (VIP, "tcp", 80), (0x8001,), "svc/default/web:80")
    refused = tables.element("refused", 4, (VIP, "tcp", 81), None, "svc/default/web:81")
    found.replace("service/default/web", fragment([leads, refused]))
    return found


def test_connections_are_summed_by_frontend_and_endpoint() -> None:
    (one,) = traffic([flow(), flow(octets=5)], desired())
    assert (one.address, one.port, one.protocol, one.endpoint, one.endpoint_port) == (
        "10.96.0.5",
        80,
        "tcp",
        "10.244.1.2",
        8080,
    )
    assert (one.connections, one.packets, one.bytes) == (2, 2, 15)


def test_a_connection_is_the_services_that_has_the_frontend_now() -> None:
    flows = [flow(), flow(port=81), flow(port=82), flow(protocol="udp"), flow(OLD)]
    assert [one.service for one in traffic(flows, desired())] == ["default/web", "default/web", "", "", ""]
