"""What a node tells of its Services: frontends and endpoints, and whose connections are whose."""

from __future__ import annotations

import ipaddress

from podplane.services.feature import ServicesMemory
from podplane.services.model import CLUSTER_IP, Group, ServiceFrontend, ServiceTable
from podplane.services.report import Frontend, described, traffic
from podplane.state import conntrack
from podplane.state.conntrack import Connection, Target

VIP, OLD, TARGET = (ipaddress.ip_address(text) for text in ("10.96.0.5", "10.96.0.6", "10.244.1.2"))
WEB = Group("svc/default/web:80", 4, (Target(TARGET, 8080),))
NONE = Group("svc/default/web:81", 4, ())
TABLE = ServiceTable(
    "default/web",
    tuple(
        ServiceFrontend(conntrack.Frontend("tcp", VIP, port), CLUSTER_IP, "Cluster", group)
        for port, group in ((80, WEB), (81, NONE))
    ),
)


def connection(address: object = VIP, port: int = 80, protocol: str = "tcp", octets: int = 10) -> Connection:
    return Connection(protocol, address, port, TARGET, 8080, 1, octets)  # type: ignore[arg-type]  # an address


def memory() -> ServicesMemory:
    """A Service with endpoints at one port, and with none at another one."""
    found = ServicesMemory()
    found.replace(TABLE)
    return found


def test_connections_are_summed_by_frontend_and_endpoint() -> None:
    (one,) = traffic([connection(), connection(octets=5)], memory())
    assert (one.address, one.port, one.protocol, one.endpoint, one.endpoint_port) == (
        "10.96.0.5",
        80,
        "tcp",
        "10.244.1.2",
        8080,
    )
    assert (one.connections, one.packets, one.bytes) == (2, 2, 15)


def test_a_connection_is_the_services_that_has_the_frontend_now() -> None:
    all_ = [connection(), connection(port=81), connection(port=82), connection(protocol="udp"), connection(OLD)]
    assert [one.service for one in traffic(all_, memory())] == ["default/web", "default/web", "", "", ""]


def test_a_frontend_without_endpoints_is_described_without_group() -> None:
    found = described(TABLE)
    assert found.frontends == [
        Frontend("10.96.0.5", 80, "tcp", "svc/default/web:80"),
        Frontend("10.96.0.5", 81, "tcp", ""),
    ]
    assert found.groups == {"svc/default/web:80": [("10.244.1.2", 8080)]}
