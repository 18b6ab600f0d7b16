"""What users of other networks suffered from on the way between nodes, on the real kernel: each case for its whole kind.

node1 is podplane's, in this namespace, with three links: a default route by the first, its InternalIP on the second. node2 is made by
hand at the other end of that one; at the ends of the others are hosts that know a way to the nodes.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator, Sequence

import msgspec
import pytest

from podplane.agent.agent import Agent
from podplane.agent.caches import Caches
from podplane.cni.network import Attachment
from podplane.kernel import sysctl
from podplane.kernel.door import Kernel
from podplane.kernel.namespace import CurrentNamespace, Namespace, NetworkNamespace, Workers
from podplane.kernel.opener import KernelOpener
from podplane.machine import reverse_path, uplink
from podplane.model.config import UNDERLAY_MAC
from podplane.model.objects import Metadata, Node, NodeSpec
from podplane.model.service import Endpoint, EndpointPort, EndpointSlice, Service, ServicePort, ServiceSpec
from podplane.routes.vxlan import device_mac
from podplane.state.network import Link, Peer
from podplane.state.operations import Operation
from tests.fake_cluster import uplink_mac
from tests.plans import agent_settings, node
from tests.unit.agent.rig import caches_of

pytestmark = pytest.mark.kernel
LINKS = {"eth0": "first", "eth1": "node2", "eth2": "third"}
HERE = """
ip link set lo up
ip address add 10.1.0.10/24 dev eth0
ip address add 192.168.1.10/24 dev eth1
ip address add 172.30.0.10/24 dev eth2
ip route add default via 10.1.0.1 dev eth0
ip route add 198.51.100.0/24 via 192.168.1.1 proto static
ip route add 10.244.77.0/24 via 192.168.1.1 proto static
sysctl -qw net.ipv4.conf.all.rp_filter=1 net.ipv4.conf.eth0.rp_filter=1 net.ipv4.conf.eth1.rp_filter=1 net.ipv4.conf.eth2.rp_filter=1
"""
"""A strict filter of reverse paths, and two routes of somebody else."""
THERE = {
    "first": "ip address add 10.1.0.1/24 dev eth0; ip route add 192.168.1.0/24 via 10.1.0.10",
    "node2": "ip address add 192.168.1.11/24 dev eth0; ip address add 10.244.2.5/32 dev lo; "
    "ip route add 10.244.1.0/24 via 192.168.1.10; sysctl -qw net.ipv4.conf.all.rp_filter=1",
    "third": "ip address add 172.30.0.1/24 dev eth0; ip route add 192.168.1.0/24 via 172.30.0.10",
}
BY_VXLAN = """
ip link add tunnel address {own} type vxlan id 1 local 192.168.1.11 dev eth0 dstport 4789 nolearning
ip address add 10.244.2.0/32 dev tunnel
ip link set tunnel up
ip route replace 10.244.1.0/24 via 10.244.1.0 dev tunnel onlink
ip neighbour add 10.244.1.0 lladdr {peer} dev tunnel nud permanent
bridge fdb add {peer} dev tunnel dst 192.168.1.10
"""
"""What node2 has for a tunnel to node1."""
FOREIGN = ("198.51.100.0/24 via 192.168.1.1 dev eth1 proto static", "10.244.77.0/24 via 192.168.1.1 dev eth1 proto static")
THEIR_POD = "10.244.2.5"
ONLY_4 = (4,)


def shell(script: str) -> str:
    """What it writes."""
    return subprocess.run(["sh", "-ec", script], check=True, capture_output=True, text=True).stdout


class Site:
    """The namespaces, and an agent of node1 whenever it is started."""

    def __init__(self) -> None:
        for program in ("ip", "bridge", "sysctl"):
            if shutil.which(program) is None:
                pytest.skip(f"{program} is not installed")
        workers = Workers(1)
        self.kernel = Kernel(CurrentNamespace(), KernelOpener())
        self.far = {name: NetworkNamespace.create(workers) for name in LINKS.values()}
        self.pod = NetworkNamespace.create(workers)
        for name, namespace in self.far.items():
            self.kernel.attach(name, namespace)
        cables = [
            Link(name=link, kind="veth", peer=Peer(netns=name, name="eth0", mac=uplink_mac(2) if name == "node2" else ""))
            for link, name in LINKS.items()
        ]
        assert not self.kernel.apply([Operation(None, one) for one in cables]).failed
        for name, namespace in self.far.items():
            namespace.run(shell, f"ip link set lo up; ip link set eth0 up; {THERE[name]}")
        shell(HERE)
        self.now = 0.0
        self.told: list[str] = []

    def agent(self, caches: Caches, backend: str = "host-gw") -> Agent:
        """One that finds its uplink as on a machine."""
        found = uplink.find(self.kernel.read_namespace("").values(), ["192.168.1.10"])
        assert (found.name, found.subnets) == ("eth1", ("192.168.1.0/24",)), (
            "the link with the InternalIP, not the default route's"
        )
        services = {"service_cidrs": ("10.96.0.0/16",), "backend": backend}
        settings = agent_settings(ONLY_4, uplink=found.name, subnets=found.subnets, **services)
        return Agent(
            "node1",
            settings,
            self.kernel,
            caches,
            clock=lambda: self.now,
            record_event=lambda key, why, *_: self.told.append(why),
        )

    async def settle(self, agent: Agent) -> None:
        """Two seconds later the kernel is as desired."""
        for _ in range(4):
            self.now += 0.5
            agent.watcher.take_notifications()
            await agent.poll()
            await agent.reconcile()
            await agent.idle()


def exchange(client: Namespace, server: Namespace, ip: str, port: int, listens: tuple[str, int] | None = None) -> str:
    """A line over TCP; the client's address as the server sees it."""
    family = socket.AF_INET6 if ":" in ip else socket.AF_INET
    with server.run(lambda: socket.create_server(listens or (ip, port), family=family)) as listener:
        listener.settimeout(5)
        with client.run(lambda: socket.create_connection((ip, port), timeout=5)) as near:
            far, (source, *_) = listener.accept()
            with far:
                near.sendall(b"x")
                assert far.recv(1) == b"x"
                far.sendall(b"y")
                assert near.recv(1) == b"y"
    return str(source)


def node_port(ip: str) -> tuple[Service, EndpointSlice]:
    spec = ServiceSpec(
        cluster_ip="10.96.0.9", cluster_ips=("10.96.0.9",), type="NodePort", ports=(ServicePort(80, node_port=30080),)
    )
    metadata = Metadata(name="web-a", namespace="default", labels={"kubernetes.io/service-name": "web"})
    endpoints = (Endpoint((ip,), node_name="node1"),)
    return Service(Metadata(name="web", namespace="default"), spec), EndpointSlice(
        metadata=metadata, endpoints=endpoints, ports=(EndpointPort("", "TCP", 8080),)
    )


@pytest.mark.parametrize("backend", ["host-gw", "vxlan"])
def test_of_several_links_that_with_the_internal_ip_carries_pods_and_answers_leave_as_questions_came(backend: str) -> None:
    """cloudnativelabs/kube-router#549, kubernetes/kubernetes#101910, cilium/cilium#13130."""
    site = Site()

    async def scenario() -> None:
        if backend == "vxlan":
            site.far["node2"].run(shell, BY_VXLAN.format(own=device_mac("node2"), peer=device_mac("node1")))
        agent = site.agent(caches_of(node(1, ONLY_4), node(2, ONLY_4), *node_port("10.244.1.2")), backend)
        await agent.start()
        (ip,) = (await agent.network.add(Attachment("a", "a", "default", "a", site.pod))).ips
        assert ip == "10.244.1.2" and not agent.ledger.refused

    asyncio.run(scenario())
    assert f"dev {'eth1' if backend == 'host-gw' else 'podplane-vxlan4'}" in shell(f"ip route get {THEIR_POD}")
    assert exchange(site.pod, site.far["node2"], THEIR_POD, 7070) == "10.244.1.2"
    assert exchange(site.far["node2"], site.pod, "10.244.1.2", 7070) in ("192.168.1.11", "10.244.2.0", THEIR_POD)
    seen = [exchange(one, site.pod, "192.168.1.10", 30080, ("10.244.1.2", 8080)) for one in site.far.values()]
    assert seen == ["10.1.0.1", "192.168.1.11", "172.30.0.1"], "a node port, from behind each link"


def test_what_the_kernel_drops_of_another_node_for_its_way_back_is_named() -> None:
    """The default route leads by the first link, and the filter of the second is strict."""
    site = Site()
    site.far["node2"].run(shell, "ip address add 10.9.0.5/32 dev eth0; sysctl -qw net.ipv4.conf.eth0.arp_announce=2")

    def passes() -> bool:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as here:
            here.bind(("192.168.1.10", 7070))
            here.settimeout(0.3)
            with site.far["node2"].run(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as there:
                there.bind(("10.9.0.5", 0))
                there.sendto(b"x", ("192.168.1.10", 7070))
            with contextlib.suppress(TimeoutError):
                return here.recv(10) == b"x"
        return False

    def told() -> list[str]:
        values = site.kernel.read_namespace("").values()
        filters = sysctl.read_here(reverse_path.sysctls("eth1"))
        return reverse_path.dropped(values, filters, "eth1", [("node2", "192.168.1.11"), ("node3", "10.9.0.5")])

    (why,) = told()
    assert why.startswith(
        "rp_filter is 1 on eth1, so the kernel drops what node3 (10.9.0.5) sends there: the way back leads by eth0"
    )
    assert not passes() and dropped() == 1
    for change in ("sysctl -qw net.ipv4.conf.eth1.rp_filter=2", "sysctl -qw net.ipv4.conf.eth1.rp_filter=1; " + WAY_BACK):
        shell(change)
        assert passes() and told() == []


WAY_BACK = "ip route add 10.9.0.0/16 via 192.168.1.11 dev eth1"


def dropped() -> int:
    """Packets that the filter of reverse paths dropped in this namespace (IPReversePathFilter)."""
    names, figures = shell("grep ^TcpExt: /proc/net/netstat").splitlines()
    return int(dict(zip(names.split(), figures.split(), strict=True))["IPReversePathFilter"])


def test_an_agent_that_was_away_while_nodes_went_and_came_has_just_the_routes_that_there_are() -> None:
    """flannel-io/flannel#2554, #996: peers that were deleted meanwhile left routes for ever."""
    site = Site()

    async def scenario() -> None:
        first = site.agent(caches_of(*(node(number, ONLY_4) for number in (1, 2, 3))))
        await first.start()
        assert "10.244.3.0/24 via 192.168.1.12" in shell("ip route")
        await first.stop()
        heir = msgspec.structs.replace(node(4, ONLY_4), spec=node(3, ONLY_4).spec)
        second = site.agent(caches_of(node(1, ONLY_4), node(2, ONLY_4), heir))
        await second.start()
        await second.stop()

    asyncio.run(scenario())
    found = shell("ip route")
    ours = {" ".join(line.split()[:3]) for line in found.splitlines() if "proto 80" in line and "via" in line}
    assert ours == {"10.244.2.0/24 via 192.168.1.11", "10.244.3.0/24 via 192.168.1.13"}
    assert all(one in found for one in FOREIGN)
    assert "192.168.1.12" not in shell("ip neigh show nud permanent")


def test_what_the_kernel_drops_with_a_link_or_an_address_comes_back_with_it() -> None:
    """flannel-io/flannel#1434, #1450."""
    site = Site()

    async def scenario() -> None:
        agent = site.agent(caches_of(node(1, ONLY_4), node(2, ONLY_4)))
        await agent.start()
        for change in (
            "ip link set eth1 down; ip link set eth1 up",
            "ip address delete 192.168.1.10/24 dev eth1; ip address add 192.168.1.10/24 dev eth1",
        ):
            shell(change)
            assert "10.244.2.0/24" not in shell("ip route")
            await site.settle(agent)
            assert exchange(CurrentNamespace(), site.far["node2"], THEIR_POD, 7070) == "192.168.1.10", change
        await agent.stop()

    asyncio.run(scenario())


def test_a_node_that_comes_back_with_another_mac_is_reached() -> None:
    """flannel-io/flannel#533, #1036, #1788, #654: others kept the old one."""
    site = Site()

    async def scenario() -> None:
        caches = caches_of(node(1, ONLY_4), node(2, ONLY_4))
        agent = site.agent(caches)
        await agent.start()
        caches.subscribe(agent.changed)
        for number in range(5):
            mac = f"0a:58:00:00:00:{number:02x}"
            site.far["node2"].run(shell, f"ip link set eth0 address {mac}")
            known = node(2, ONLY_4)
            caches.nodes.set(
                msgspec.structs.replace(
                    known, metadata=msgspec.structs.replace(known.metadata, annotations={UNDERLAY_MAC: mac})
                )
            )
            await site.settle(agent)
            assert exchange(CurrentNamespace(), site.far["node2"], THEIR_POD, 7070) == "192.168.1.10"
        await agent.stop()

    asyncio.run(scenario())


def with_blocks(*blocks: str) -> Node:
    return msgspec.structs.replace(node(2, ONLY_4), spec=NodeSpec(pod_cidrs=blocks))


@contextlib.contextmanager
def sending(ip: str) -> Iterator[list[str]]:
    """Datagrams to this address, all the time; why some could not be sent."""
    errors, is_over = list[str](), threading.Event()

    def send() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            while not is_over.is_set():
                try:
                    sock.sendto(b"x", (ip, 9))
                except OSError as error:
                    errors.append(str(error))

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield errors
    finally:
        is_over.set()
        thread.join()


def routed(blocks: Sequence[str]) -> bool:
    found = [line.split()[0] for line in shell("ip route").splitlines() if "proto 80" in line and "via" in line]
    return sorted(found) == sorted(blocks)


def test_adjoining_blocks_are_one_route_and_no_packet_is_without_one_when_they_come_and_go() -> None:
    site = Site()

    async def scenario() -> None:
        shell("ip route delete default")  # what has no route is refused
        both, apart = ("10.244.2.0/25", "10.244.2.128/25"), ("10.244.2.0/25", "10.244.9.0/24")
        caches = caches_of(node(1, ONLY_4), with_blocks(*both))
        agent = site.agent(caches)
        await agent.start()
        caches.subscribe(agent.changed)
        assert routed(["10.244.2.0/24"])
        with sending(THEIR_POD) as errors:
            for _ in range(20):
                for blocks, wanted in ((apart, apart), (both, ("10.244.2.0/24",))):
                    caches.nodes.set(with_blocks(*blocks))
                    await agent.reconcile()
                    assert routed(wanted)
        assert errors == []
        await agent.stop()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("theirs", "why"),
    [
        ("id 1 dstport 4789", "VNI 1 at UDP port 4789 is taken by the link theirs, which podplane did not make"),
        ("id 2 dstport 4789 gbp", "UDP port 4789 is taken by the link theirs, which podplane did not make"),
        ("", "UDP port 4789 is taken by the socket of a process; see who has it (ss -ulnp 'sport = 4789')"),
    ],
)
def test_who_has_the_vni_or_the_port_is_named_and_keeps_it(theirs: str, why: str) -> None:
    site = Site()

    async def scenario() -> None:
        agent = site.agent(caches_of(node(1, ONLY_4), node(2, ONLY_4)))
        await agent.start()
        shell(
            f"ip link add theirs type vxlan local 192.168.1.10 dev eth1 {theirs} && ip link set theirs up" if theirs else "true"
        )
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            if not theirs:
                sock.bind(("0.0.0.0", 4789))
            await agent.set_routes(msgspec.structs.replace(agent.config, backend="vxlan", former_backends=("host-gw",)))
            await site.settle(agent)
        assert any(why in one for one in site.told), site.told
        assert "theirs" in shell("ip -o link") or not theirs
        assert not agent.has_backend("vxlan") and routed(["10.244.2.0/24"])
        await agent.stop()

    asyncio.run(scenario())
