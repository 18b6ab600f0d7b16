"""The packet evaluator and the kernel agree: on generated rulesets and packets, and on the plans of a real node."""

from __future__ import annotations

import ipaddress

import msgspec
import pytest
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st

from podplane.kernel.door import Kernel, KernelOpener
from podplane.kernel.namespace import CurrentNamespace, Namespace, NetworkNamespace, Workers
from podplane.state.network import Address, Link, Peer, Route, Sysctl
from podplane.state.nft import Table
from podplane.state.operations import Operation
from podplane.state.value import Value
from podplane.trace.evaluator import evaluate, outcomes, reply
from podplane.trace.memory import Memory
from podplane.trace.packet import ACK, Packet
from podplane.trace.trace import Delivered, Trace
from podplane.trace.world import World, of
from tests.kernel.packets import NOTHING, Seen, Sockets, expected, flush_conntrack, next_port
from tests.rulesets import LEFT, NOWHERE, PLACE, RIGHT, packets, rulesets

pytestmark = pytest.mark.kernel
LENGTH = {4: 24, 6: 64}
GENERATED = settings(
    max_examples=80,
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

    def agrees(self, world: World, netns: str, packet: Packet, memory: Memory) -> Memory:
        """Send a packet, and compare what became of it with all that may become of it; what is remembered then."""
        packet = msgspec.structs.replace(packet, source_port=next_port())
        traces = outcomes(world, packet, netns, memory)
        told: dict[Seen, Memory] = {}
        for trace in traces:
            what, memory = talk(world, trace, netns)
            told[what] = memory
        seen = self.sockets.send(packet, netns, list(told))
        assert seen in told, f"{seen} is none of {list(told)}"
        return told[seen]


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
                memory = rig.agrees(world, netns, packet, memory)
        finally:
            rig.kernel.apply([Operation(Table(**PLACE), None)])

    check()
