"""A node with its pods on a real kernel: this test's namespace is the node; pods are namespaces that send and receive datagrams."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import struct
import subprocess
from collections.abc import Iterable, Iterator, Sequence

import msgspec

from podplane.kernel.door import Kernel
from podplane.kernel.namespace import CurrentNamespace, Namespace, NetworkNamespace, Workers
from podplane.kernel.netlink import Socket, parse_attributes
from podplane.kernel.opener import KernelOpener
from podplane.kernel.rtnl import constants as c
from podplane.kernel.rtnl.decode import ip_from
from podplane.model.config import NetworkConfig
from podplane.model.objects import Metadata
from podplane.model.service import Endpoint, EndpointPort, EndpointSlice, Service, ServicePort, ServiceSpec
from podplane.model.view import View
from podplane.nodes import plan as nodes
from podplane.nodes.settings import NodeSettings
from podplane.pods import bridge
from podplane.pods import plan as pods
from podplane.services import feature as services
from podplane.services import tables
from podplane.services.elements import hairpin
from podplane.services.endpoints import Place
from podplane.services.resolve import NodeContext
from podplane.state.network import Link
from podplane.state.operations import diff
from podplane.state.value import Identity, IPAddress, Value, fragment
from tests.plans import CLUSTER, POD, node, sandbox

SERVICE_CIDRS = {4: "10.96.0.0/16", 6: "fd00:10:96::/112"}
VIP = {4: "10.96.0.{}", 6: "fd00:10:96::{}"}
EXTERNAL = {4: "192.0.2.{}", 6: "2001:db8::{}"}
PORT, SERVICE_PORT = 9000, 53
NETLINK_ROUTE = 0
FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}
TTL = {4: (socket.IPPROTO_IP, socket.IP_TTL), 6: (socket.IPPROTO_IPV6, socket.IPV6_HOPLIMIT)}
RECEIVE_TTL = {4: (socket.IPPROTO_IP, 12), 6: (socket.IPPROTO_IPV6, socket.IPV6_RECVHOPLIMIT)}  # 12: IP_RECVTTL
FIRST, LAST = b"first", b"last"


class Pod:
    """A pod's namespace, with a socket for datagrams of each IP version."""

    def __init__(self, number: int, versions: Iterable[int], workers: Workers) -> None:
        self.number = number
        self.namespace = NetworkNamespace.create(workers)
        self.sockets: dict[int, socket.socket] = {}
        self.versions = tuple(versions)

    def ip(self, version: int) -> str:
        """One of its addresses (IPv6 parts are hexadecimal digits that read as the decimal number)."""
        return POD[version].format(self.number + 1)

    def open(self) -> None:
        """Open its sockets; its addresses must be there."""
        for version in self.versions:
            own = self.namespace.run(socket.socket, FAMILY[version], socket.SOCK_DGRAM)
            own.setsockopt(*RECEIVE_TTL[version], 1)
            own.bind((self.ip(version), PORT))
            own.settimeout(2)
            self.sockets[version] = own

    def send(self, version: int, to: str, content: bytes, port: int = PORT) -> None:
        """Send a datagram."""
        self.sockets[version].sendto(content, (to, port))

    def receive(self, version: int) -> tuple[bytes, int]:
        """The next datagram, and its TTL or hop limit. TimeoutError when none comes."""
        content, ancillary, _, _ = self.sockets[version].recvmsg(100, 100)
        (ttl,) = (struct.unpack("=i", data)[0] for level, kind, data in ancillary if (level, kind) == TTL[version])
        return content, ttl

    def received(self, version: int) -> list[bytes]:
        """All datagrams before the one that is the last."""
        found = []
        while (content := self.receive(version)[0]) != LAST:
            found.append(content)
        return found


class World:
    """A node with pods, all applied; `wanted` is what the node wants."""

    def __init__(self, versions: tuple[int, ...], pod_count: int, *, bridge_family: bool = True) -> None:
        self.versions = versions
        self.config = NetworkConfig(
            cluster_cidrs=tuple(CLUSTER[v] for v in versions),
            service_cidrs=tuple(SERVICE_CIDRS[v] for v in versions),
            bridge_family=bridge_family,
        )
        self.kernel = Kernel(CurrentNamespace(), KernelOpener())
        workers = Workers(1)
        self.pods = [Pod(number, versions, workers) for number in range(1, pod_count + 1)]
        for pod in self.pods:
            self.kernel.attach(f"pod/uid-{pod.number}", pod.namespace)
        self.wanted: dict[Identity, Value] = {}
        self.want(self.node_values())
        for pod in self.pods:
            pod.open()
        wait_for_links(self.pods)

    def node_values(self) -> dict[Identity, Value]:
        """What the node and its pods want."""
        own = node(1, self.versions)
        view = View("node1", {"node1": own})
        result = {
            **fragment([Link(name="lo"), Link(name="eth0", kind="bridge")]),
            **nodes.plan(own, self.config, NodeSettings()),
        }
        result |= {**bridge.plan(own, self.config), **self._services()}
        for pod in self.pods:
            one = sandbox(pod.number, self.versions)
            result |= {**pods.plan(one, view, self.config), **hairpin(one, view, self.config)}
        return result

    def want(self, values: dict[Identity, Value]) -> None:
        """Apply a new state of the node."""
        report = self.kernel.apply(diff(self.wanted, values))
        assert not report.failed, [str(f) for f in report.failed]
        self.wanted = values

    def _services(self) -> dict[Identity, Value]:
        """The tables of Services, and a Service of each pod: its address ends in the pod's number."""
        own = msgspec.structs.replace(node(1, self.versions), status=type(node(1, ()).status)())
        result = dict(tables.plan(own, self.config))
        here, memory = NodeContext(Place("node1"), self.versions, ()), services.ServicesMemory()
        for pod in self.pods:
            planned = services.plan(_service(pod), _slices(pod), here, memory, frozenset())
            services.accept(memory, planned)
            result |= planned.fragment
        return result


def wait_for_links(pods: Sequence[Pod]) -> None:
    """Until each pod reaches the next one: the kernel activates a link a moment after its carrier came (linkwatch), and IPv6 after IPv4."""
    for source, target in zip(pods, [*pods[1:], *pods[:1]], strict=True):
        for version in source.versions:
            _wait_until_it_reaches(source, target, version)


def _wait_until_it_reaches(source: Pod, target: Pod, version: int) -> None:
    source.send(version, target.ip(version), FIRST)
    target.sockets[version].settimeout(0.002)
    for _ in range(2000):
        with contextlib.suppress(TimeoutError):
            target.receive(version)
            break
        source.send(version, target.ip(version), FIRST)
    target.sockets[version].settimeout(2)
    source.send(version, target.ip(version), LAST)
    target.received(version)


def _service(pod: Pod) -> Service:
    ips = tuple(VIP[v].format(pod.number) for v in pod.versions)
    ports = (ServicePort(SERVICE_PORT, "u", protocol="UDP"),)
    external = tuple(EXTERNAL[v].format(pod.number) for v in pod.versions)
    spec = ServiceSpec(cluster_ip=ips[0], cluster_ips=ips, ports=ports, external_ips=external)
    return Service(metadata=Metadata(name=f"s{pod.number}", namespace="default"), spec=spec)


def _slices(pod: Pod) -> list[EndpointSlice]:
    port = (EndpointPort("u", "UDP", PORT),)
    return [
        EndpointSlice(address_type=f"IPv{v}", endpoints=(Endpoint(addresses=(pod.ip(v),)),), ports=port) for v in pod.versions
    ]


def dynamic_neighbours(namespaces: Iterable[Namespace], *, multicast: bool = False) -> list[tuple[str, IPAddress]]:
    """(link's index, address) of all neighbours there that are not permanent; those of loopback, and by default multicast, are left out."""
    found = []
    for namespace in namespaces:
        own = namespace.run(Socket, NETLINK_ROUTE)
        with contextlib.closing(own):
            for family in (c.AF_INET, c.AF_INET6):
                rows = own.dump(c.RTM_GETNEIGH, c.NEIGHBOUR.pack(family, 0, 0, 0, 0))
                found += [entry for _, payload in rows for entry in _dynamic(payload, multicast)]
    return found


def _dynamic(payload: bytes, multicast: bool) -> Iterator[tuple[str, IPAddress]]:
    _, index, state, _, _ = c.NEIGHBOUR.unpack_from(payload)
    ip = ip_from(parse_attributes(payload, c.NEIGHBOUR.size)[c.NDA_DST])
    if not state & c.NUD_PERMANENT and (multicast or not ip.is_multicast) and index != 1:
        yield f"link {index}", ipaddress.ip_address(ip)


def command(words: str, given: str = "") -> str:
    """The output of a command in the node's namespace."""
    return subprocess.run(words.split(), input=given or None, capture_output=True, text=True, check=True).stdout
