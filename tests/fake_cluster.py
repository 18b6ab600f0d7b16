"""A cluster of two nodes, on the fake kernel or a real one, with a machine outside, to ask where packets go.

Each node has an agent, two pods and an uplink on one network. Nodes send what they have no route to to the machine outside, which sends
what it has no route to to node1, and forwards nothing.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Callable, Mapping, Sequence

import msgspec

from podplane.agent.agent import Agent
from podplane.agent.caches import Caches
from podplane.cni.network import Attachment
from podplane.dns.settings import DnsSettings
from podplane.kernel.door import Kernel
from podplane.kernel.fakes.world import FakeNamespace, FakeOpener
from podplane.kernel.namespace import Namespace
from podplane.kernel.parts import Opener
from podplane.model.objects import Metadata, Node
from podplane.model.service import SERVICE_NAME, Endpoint, EndpointPort, EndpointSlice, Service, ServicePort, ServiceSpec
from podplane.model.view import HostPort
from podplane.state.network import Address, Link, Route
from podplane.state.operations import Operation
from podplane.state.value import IPAddress, Value
from podplane.trace.packet import Packet
from podplane.trace.trace import Trace
from podplane.trace.world import End
from tests.plans import UNDERLAY, agent_settings, node
from tests.unit.agent.rig import caches_of

BOTH = (4, 6)
SERVICE_CIDRS = ("10.96.0.0/16", "fd00:10:96::/112")
LENGTH = {4: 24, 6: 64}
OUTSIDE = 90
"""The number of the machine outside, where nodes have 1 and 2."""
DEFAULT = {4: ipaddress.ip_network("0.0.0.0/0"), 6: ipaddress.ip_network("::/0")}
POD = {4: "10.244.{}.{}", 6: "fd00:10:244:{}::{}"}

HostPorts = Mapping[tuple[int, int], tuple[HostPort, ...]]
"""By node and number of the pod."""
NO_HOST_PORTS: HostPorts = {}


def ip(text: str) -> IPAddress:
    return ipaddress.ip_address(text)


def pod_ip(number: int, pod: int, version: int = 4) -> IPAddress:
    """The address of a pod: 1 or 2 of node 1 or 2."""
    return ip(POD[version].format(number, pod + 1))


def node_ip(number: int, version: int = 4) -> IPAddress:
    """The address of a node."""
    return ip(UNDERLAY[version].format(9 + number))


def outside_ip(version: int = 4) -> IPAddress:
    """The address of the machine outside."""
    return ip(UNDERLAY[version].format(9 + OUTSIDE))


def service(name: str = "web", cluster_ips: Sequence[str] = ("10.96.0.10", "fd00:10:96::10"), **spec: object) -> Service:
    """A Service with port 80, node port 30080."""
    fields = {"cluster_ip": cluster_ips[0], "cluster_ips": tuple(cluster_ips), "ports": (ServicePort(80, node_port=30080),)}
    return Service(Metadata(name=name, namespace="default"), ServiceSpec(type="NodePort", **{**fields, **spec}))  # type: ignore[arg-type]  # by name


def endpoints(name: str, *pods: tuple[int, int]) -> list[EndpointSlice]:
    """Its slices: pods by node and number, port 8080."""
    return [
        EndpointSlice(
            Metadata(name=f"{name}-{version}", namespace="default", labels={SERVICE_NAME: name}),
            address_type=f"IPv{version}",
            endpoints=tuple(Endpoint((str(pod_ip(n, k, version)),), node_name=f"node{n}") for n, k in pods),
            ports=(EndpointPort(port=8080),),
        )
        for version in BOTH
    ]


def uplink_mac(number: int) -> str:
    """Of the machine with this number."""
    return f"0a:58:c0:a8:01:{9 + number:02x}"


def uplink(number: int) -> list[Value]:
    """What is on a machine before podplane comes. It has a default route: of what has none the kernel tells only one client a second."""
    values: list[Value] = [Link(name="lo"), Link(name="eth0", kind="bridge", mac=uplink_mac(number))]
    for version in BOTH:
        address = ip(UNDERLAY[version].format(9 + number))
        values.append(Address(link="eth0", ip=address, prefix_length=LENGTH[version]))
        gateway = node_ip(1, version) if number == OUTSIDE else outside_ip(version)
        values.append(Route(destination=DEFAULT[version], gateway=gateway, link="eth0", protocol=4))
    return values


class Cluster:
    """node1 and node2, each with pods 1 and 2, and `outside`, on whatever kernel `opener` opens."""

    opener: Opener
    dns_ips: tuple[str, ...] = ()
    """Cluster IPs of the cluster's DNS, at which each node has a name server."""
    network: Mapping[str, object] = {}
    """Fields of the settings that all features share."""

    def __init__(
        self, services: Sequence[Service] = (), slices: Sequence[EndpointSlice] = (), host_ports: HostPorts = NO_HOST_PORTS
    ) -> None:
        self.host_ports = host_ports
        settings = agent_settings(BOTH, service_cidrs=SERVICE_CIDRS, **self.network)
        self.settings = msgspec.structs.replace(settings, dns=DnsSettings(ips=self.dns_ips))
        self.nodes = {f"node{n}": self.node(n) for n in (1, 2)}
        self.caches: dict[int, Caches] = {}
        self.agents = {number: self._machine(number, services, slices) for number in (1, 2)}
        self._outside()

    def node(self, number: int) -> Node:
        """As the API has it."""
        return node(number, BOTH)

    def namespace_of(self, number: int, pod: int) -> str:
        """The Kubernetes namespace of a pod."""
        return "default"

    def namespace(self, name: str) -> Namespace:
        """A new namespace."""
        raise NotImplementedError

    def connect(self, name: str, kernel: Kernel, number: int) -> None:
        """Give a machine its uplink, with the last byte of its addresses less nine."""
        kernel.apply([Operation(None, value) for value in uplink(number)])

    def _machine(self, number: int, services: Sequence[Service], slices: Sequence[EndpointSlice]) -> Agent:
        kernel = Kernel(self.namespace(f"node{number}"), self.opener)
        self.connect(f"node{number}", kernel, number)
        caches = caches_of(*self.nodes.values(), *services, *slices)
        self.caches[number] = caches
        agent = Agent(f"node{number}", self.settings, kernel, caches, clock=lambda: 0.0)
        asyncio.run(self._start(agent, number))
        return agent

    async def _start(self, agent: Agent, number: int) -> None:
        await agent.start()
        assert not agent.ledger.refused, [str(refused.error) for refused in agent.ledger.refused.values()]
        await self._add_pods(agent, number)

    async def _add_pods(self, agent: Agent, number: int) -> None:
        for pod in (1, 2):
            name = f"node{number}-pod{pod}"
            ips = tuple(str(pod_ip(number, pod, version)) for version in BOTH)
            ports = self.host_ports.get((number, pod), ())
            where, namespace = self.namespace_of(number, pod), self.namespace(name)
            request = Attachment(name, name, where, name, namespace, requested_ips=ips, host_ports=ports)
            attached = await agent.network.add(request)
            assert attached.ips == ips

    def _outside(self) -> None:
        self.connect("outside", Kernel(self.namespace("outside"), self.opener), OUTSIDE)


class FakeCluster(Cluster):
    """On the fake kernel."""

    opener: FakeOpener

    def __init__(
        self, services: Sequence[Service] = (), slices: Sequence[EndpointSlice] = (), host_ports: HostPorts = NO_HOST_PORTS
    ) -> None:
        self.opener = FakeOpener()
        self.namespaces: dict[str, FakeNamespace] = {}
        super().__init__(services, slices, host_ports)
        self.opener.traffic.segments.append(tuple(End(name, "eth0") for name in ("node1", "node2", "outside")))

    def namespace(self, name: str) -> Namespace:
        """A fake one."""
        self.namespaces[name] = self.opener.namespace(name)
        return self.namespaces[name]

    def send(
        self,
        netns: str,
        source: IPAddress,
        destination: IPAddress,
        port: int = 80,
        choose: Callable[[int], int] | None = None,
        **more: object,
    ) -> Trace:
        """A packet of a namespace by its name (`node1`, `node1-pod2`, `outside`)."""
        packet = msgspec.structs.replace(Packet(source=source, destination=destination, destination_port=port), **more)
        return self.namespaces[netns].send(packet, *([choose] if choose else []))

    def from_pod(self, number: int, pod: int, destination: IPAddress, port: int = 80, **more: object) -> Trace:
        """A packet of a pod with its own address."""
        return self.send(f"node{number}-pod{pod}", pod_ip(number, pod, destination.version), destination, port, **more)  # type: ignore[arg-type]  # by name

    def from_outside(self, destination: IPAddress, port: int = 80, **more: object) -> Trace:
        """A packet of the machine outside."""
        return self.send("outside", outside_ip(destination.version), destination, port, **more)  # type: ignore[arg-type]  # by name

    def reply(self, trace: Trace) -> Trace:
        """The answer to a packet that was delivered."""
        return self.opener.traffic.reply(trace)
