"""The packet evaluator and the kernel agree: on generated rulesets and packets, and on the plans of a real node."""

from __future__ import annotations

import ipaddress

import msgspec
import pytest
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st

from podplane.kernel.door import Kernel
from podplane.kernel.namespace import CurrentNamespace, Namespace, NetworkNamespace, Workers
from podplane.kernel.opener import KernelOpener
from podplane.model.service import ServicePort
from podplane.model.view import HostPort
from podplane.state.network import Address, Link, Peer, Route, Sysctl
from podplane.state.nft import Table
from podplane.state.operations import Operation
from podplane.state.value import Value
from podplane.trace.evaluator import evaluate, outcomes, reply
from podplane.trace.memory import Memory
from podplane.trace.packet import ACK, Packet
from podplane.trace.trace import Delivered, Trace
from podplane.trace.world import World, of
from tests.fake_cluster import (
    FakeCluster,
    HostPorts,
    endpoints,
    node_ip,
    outside_ip,
    pod_ip,
    service,
)
from tests.kernel.cluster import RealCluster
from tests.kernel.packets import NOTHING, PORTS, Seen, Sockets, expected, flush_conntrack, next_port
from tests.rulesets import LEFT, NOWHERE, PLACE, RIGHT, packets, rulesets

pytestmark = pytest.mark.kernel
LENGTH = {4: 24, 6: 64}
GENERATED = settings(
    max_examples=40,
    derandomize=True,
    database=None,
    deadline=None,
    phases=(Phase.explicit, Phase.generate),  # to shrink takes minutes: packets that don't come are waited for
    suppress_health_check=list(HealthCheck),
)
DEFAULT = {4: ipaddress.ip_network("0.0.0.0/0"), 6: ipaddress.ip_network("::/0")}


def router() -> list[Value]:
    """This namespace as a router between `left` and `right`, in both families."""
    values: list[Value] = [
        Sysctl(name="net.ipv4.ip_forward", value="1"),
        Sysctl(name="net.ipv6.conf.all.forwarding", value="1"),
        Sysctl(name="net.ipv4.icmp_ratemask", value="0"),
        Sysctl(name="net.ipv6.icmp.ratelimit", value="0"),
        Link(name="lo"),
    ]
    for netns in ("", "left", "right"):
        values += [Sysctl(netns=netns, name=f"net.ipv6.conf.default.{n}", value="0") for n in ("accept_dad", "accept_ra")]
        values += [Sysctl(netns=netns, name=f"net.ipv4.conf.{n}.rp_filter", value="0") for n in ("all", "default")]
    for side, (name, netns) in zip((LEFT, RIGHT), (("vl", "left"), ("vr", "right")), strict=True):
        values.append(Link(name=name, kind="veth", peer=Peer(netns=netns, name="eth0")))
        values += [Link(netns=netns, name="lo"), Link(netns=netns, name="eth0")]
        for version in (4, 6):
            gateway, *own = (ipaddress.ip_address(side[version].format(number)) for number in (1, 2, 3))
            values.append(Address(link=name, ip=gateway, prefix_length=LENGTH[version]))
            values += [Address(netns=netns, link="eth0", ip=one, prefix_length=LENGTH[version]) for one in own]
            values.append(Route(netns=netns, destination=DEFAULT[version], gateway=gateway, link="eth0", protocol=80))
    for (
        version,
        text,
    ) in NOWHERE.items():  # what goes nowhere goes to a machine that does not forward: the kernel tells only one a second
        gateway, network = ipaddress.ip_address(RIGHT[version].format(2)), ipaddress.ip_network(text)
        values.append(Route(destination=network, gateway=gateway, link="vr", protocol=80))
    return values


class Rig:
    """A kernel with these values, and sockets in all its namespaces."""

    def __init__(self, values: list[Value], names: tuple[str, ...]) -> None:
        workers = Workers(1)
        namespaces: dict[str, Namespace] = {"": CurrentNamespace()}
        self.kernel = Kernel(namespaces[""], KernelOpener())
        for name in names:
            namespaces[name] = NetworkNamespace.create(workers)
            self.kernel.attach(name, namespaces[name])
        self.apply(values)
        self.values = values
        self.sockets = Sockets(namespaces)

    def apply(self, values: list[Value]) -> None:
        """All at once; nothing is refused."""
        report = self.kernel.apply([Operation(None, value) for value in values])
        assert not report.failed, [str(failure) for failure in report.failed]


def agrees(sockets: Sockets, world: World, netns: str, packet: Packet, memory: Memory) -> Memory:
    """Send a packet, and compare what became of it with all that may become of it; what is remembered then."""
    packet = msgspec.structs.replace(packet, source_port=next_port())
    told = dict(talk(world, trace, netns) for trace in outcomes(world, packet, netns, memory))
    seen = sockets.send(packet, netns, list(told))
    known = {any_port(one, packet): after for one, after in told.items()}
    assert any_port(seen, packet) in known, f"{packet} of {netns}: {seen} is none of {list(told)}"
    return known[any_port(seen, packet)]


def any_port(seen: Seen, packet: Packet) -> Seen:
    """Without the source port, when the source is another one: masquerade takes any port."""
    if seen.source is None or seen.source[0] == packet.source:
        return seen
    return seen._replace(source=(seen.source[0], 0))


def talk(world: World, trace: Trace, netns: str) -> tuple[Seen, Memory]:
    """What is seen of a packet after its answer, and of TCP the packet after that: without it nobody accepts."""
    note(str(trace))
    if not isinstance(trace.end, Delivered):
        return expected(trace, None), trace.memory
    answer = reply(world, trace)
    note(f"answer: {answer}")
    seen = expected(trace, answer)
    if trace.sent.protocol == "udp":
        return seen, answer.memory
    if not seen.answered:
        return NOTHING, answer.memory
    third = evaluate(world, msgspec.structs.replace(trace.sent, tcp_flags=ACK), netns, answer.memory)
    note(f"third: {third}")
    return (seen if third.end == trace.end else NOTHING), third.memory


def test_the_evaluator_and_the_kernel_agree_on_generated_rulesets() -> None:
    rig = Rig(router(), ("left", "right"))

    @GENERATED
    @given(rulesets(), st.lists(packets(), min_size=3, max_size=8))
    def check(ruleset: list[Value], sent: list[tuple[str, Packet]]) -> None:
        world = of([*rig.values, *ruleset])
        try:
            rig.apply(ruleset)
            flush_conntrack()
            memory = Memory()
            for netns, packet in sent:
                memory = agrees(rig.sockets, world, netns, packet, memory)
        finally:
            rig.kernel.apply([Operation(Table(**PLACE), None)])

    check()


SERVICES = [
    service("web"),
    service("empty", ("10.96.0.11", "fd00:10:96::11"), ports=(ServicePort(80),)),
    service("sticky", ("10.96.0.12", "fd00:10:96::12"), ports=(ServicePort(80),), session_affinity="ClientIP"),
    service(
        "local",
        ("10.96.0.13", "fd00:10:96::13"),
        ports=(ServicePort(80),),
        external_traffic_policy="Local",
        external_ips=("192.0.2.7",),
    ),
]
SLICES = [
    *endpoints("web", (1, 1), (1, 2), (2, 1)),
    *endpoints("empty"),
    *endpoints("sticky", (1, 1), (2, 2)),
    *endpoints("local", (1, 2), (2, 1)),
]


@st.composite
def cluster_packets(draw: st.DrawFn) -> tuple[str, Packet]:
    """Of a pod, a node or the machine outside, to any of those, or to an address of a Service."""
    version = draw(st.sampled_from((4, 6)))
    hosts = {"node1": node_ip(1, version), "node2": node_ip(2, version), "outside": outside_ip(version)}
    pods = {f"node{n}-pod{k}": pod_ip(n, k, version) for n in (1, 2) for k in (1, 2)}
    netns = draw(st.sampled_from([*hosts, *pods]))
    served = [ipaddress.ip_address(one.spec.cluster_ips[version == 6]) for one in SERVICES]
    served += [ipaddress.ip_address("192.0.2.7")] if version == 4 else []
    inside = [] if netns == "outside" else list(pods.values())
    targets = [address for address in (*hosts.values(), *inside, *served, *served) if address != (hosts | pods)[netns]]
    return netns, Packet(
        source=(hosts | pods)[netns],
        destination=draw(st.sampled_from(targets)),
        protocol=draw(st.sampled_from(("tcp", "tcp", "udp"))),
        destination_port=draw(st.sampled_from(PORTS)),
    )


def test_the_evaluator_and_the_kernel_agree_on_the_plans_of_real_nodes() -> None:
    """The same agents on the fake kernel and on the real one: what the fake says of a packet is what becomes of it."""
    real, fake = RealCluster(SERVICES, SLICES), FakeCluster(SERVICES, SLICES)
    world = fake.opener.traffic.world()
    sockets = Sockets({name: place for name, place in real.namespaces.items() if name != "network"})
    memory = Memory()

    @GENERATED
    @given(st.lists(cluster_packets(), min_size=4, max_size=4))
    def check(sent: list[tuple[str, Packet]]) -> None:
        nonlocal memory
        for netns, packet in sent:
            memory = agrees(sockets, world, netns, packet, memory)

    check()


HOST_PORTS: HostPorts = {
    (1, 1): (HostPort(81, 80), HostPort(81, 80, "UDP"), HostPort(30080, 81)),
    (1, 2): (
        HostPort(8080, 80, "TCP", str(node_ip(1, 4))),
        HostPort(8080, 81, "TCP", "127.0.0.1"),
        HostPort(8080, 8080, "UDP"),
    ),
    (2, 2): (HostPort(80, 8080), HostPort(81, 81, "TCP", str(node_ip(2, 6))), HostPort(81, 80, "UDP", str(outside_ip(4)))),
}
LOOPBACK = {4: ipaddress.ip_address("127.0.0.1"), 6: ipaddress.ip_address("::1")}
GATEWAY = {4: "10.244.{}.1", 6: "fd00:10:244:{}::1"}


@st.composite
def host_port_packets(draw: st.DrawFn) -> tuple[str, Packet]:
    """Of a pod, a node or the machine outside, to addresses of the nodes; nodes send to their own, loopback's too."""
    version = draw(st.sampled_from((4, 6)))
    number, sender = draw(st.integers(1, 2)), draw(st.sampled_from(("node1", "node2", "outside", "pod", "pod")))
    gateway = ipaddress.ip_address(GATEWAY[version].format(number))
    destination = draw(st.sampled_from((node_ip(number, version), node_ip(number, version), gateway)))
    if sender == "pod":
        n, k = draw(st.sampled_from(((1, 1), (1, 2), (2, 1), (2, 2))))
        sender, source = f"node{n}-pod{k}", pod_ip(n, k, version)
    elif sender == "outside":
        source, destination = outside_ip(version), node_ip(number, version)
    elif sender == f"node{number}":
        destination = draw(st.sampled_from((destination, LOOPBACK[version])))
        source = LOOPBACK[version] if destination == LOOPBACK[version] else node_ip(number, version)
    else:
        source, destination = node_ip(3 - number, version), node_ip(number, version)
    return sender, Packet(
        source=source,
        destination=destination,
        protocol=draw(st.sampled_from(("tcp", "tcp", "udp"))),
        destination_port=draw(st.sampled_from(PORTS)),
    )


def test_the_evaluator_and_the_kernel_agree_on_host_ports() -> None:
    """As above, with host ports beside Services."""
    real, fake = RealCluster(SERVICES, SLICES, HOST_PORTS), FakeCluster(SERVICES, SLICES, HOST_PORTS)
    world = fake.opener.traffic.world()
    sockets = Sockets({name: place for name, place in real.namespaces.items() if name != "network"})
    memory = Memory()

    @GENERATED
    @given(st.lists(host_port_packets(), min_size=4, max_size=4))
    def check(sent: list[tuple[str, Packet]]) -> None:
        nonlocal memory
        for netns, packet in sent:
            memory = agrees(sockets, world, netns, packet, memory)

    check()
