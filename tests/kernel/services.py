"""What tests of Services on a real kernel share: a namespace as a node, whose loopback stands for the pods."""

from __future__ import annotations

import ipaddress
import socket
import subprocess

from podplane.kernel.door import Kernel
from podplane.kernel.namespace import CurrentNamespace
from podplane.kernel.opener import KernelOpener
from podplane.model.config import NetworkConfig
from podplane.model.objects import Metadata
from podplane.model.service import Endpoint, EndpointPort, EndpointSlice, Service, ServicePort, ServiceSpec
from podplane.services import tables
from podplane.services.elements import encode
from podplane.services.endpoints import Place
from podplane.services.numbers import Numbers
from podplane.services.resolve import NodeContext, resolve
from podplane.state.network import Link
from podplane.state.operations import diff
from podplane.state.ownership import Ownership
from podplane.state.value import Fragment, Identity, Value, fragment
from tests.plans import CLUSTER, node

BOTH = (4, 6)
CONFIG = NetworkConfig(
    cluster_cidrs=tuple(CLUSTER[v] for v in BOTH), service_cidrs=("10.96.0.0/16", "fd00:10:96::/112"), bridge="lo"
)
OWNER = Ownership(tables=frozenset({tables.TABLE}), route_protocol=80)
HERE = NodeContext(Place("node1"), BOTH, (ipaddress.ip_address("127.0.0.9"),))
VIPS = ("10.96.0.10", "fd00:10:96::10")
PATIENCE = 30
"""Seconds for what comes at once on a machine that has nothing else to do."""
LOCAL = {"external_traffic_policy": "Local", "external_ips": ("192.0.2.7",)}
STICKY = {"session_affinity": "ClientIP", "session_affinity_config": None}
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


def squeezed(text: str) -> set[str]:
    """Lines without double blanks, and elements without what is between them."""
    lines = (" ".join(line.split()).rstrip(",") for line in text.splitlines())
    return {part for line in lines for part in line.removeprefix("elements = { ").removesuffix(" }").split(", ")}
