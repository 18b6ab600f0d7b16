"""A load balancer's address on a real link: it is answered for, and whoever knew another MAC learns the new one at once."""

from __future__ import annotations

import ipaddress
import json
import socket
import subprocess
import time

import pytest

from podplane.kernel.door import Kernel
from podplane.kernel.errors import NotFound
from podplane.kernel.namespace import CurrentNamespace, NetworkNamespace, Workers
from podplane.kernel.opener import KernelOpener
from podplane.model.config import NetworkConfig
from podplane.model.objects import Metadata, Node, NodeAddress, NodeSpec, NodeStatus
from podplane.model.service import Ingress, LoadBalancerStatus, Service, ServiceSpec, ServiceStatus
from podplane.services import announce, lifetime
from podplane.state.network import Address, Link, Peer, Sysctl
from podplane.state.operations import diff
from podplane.state.ownership import Ownership
from podplane.state.value import Identity, Value, fragment

pytestmark = pytest.mark.kernel
CONFIG = NetworkConfig(cluster_cidrs=("10.244.0.0/16",))
VIPS = ("192.168.1.240", "fd00:192:168:1::f0")
SERVICE = Service(
    spec=ServiceSpec(type="LoadBalancer"),
    status=ServiceStatus(LoadBalancerStatus(tuple(Ingress(ip=ip) for ip in VIPS))),
)
OWNER = Ownership(route_protocol=80, tables=lifetime.TABLES)
PATIENCE = 30
"""Seconds for what comes at once on a machine that has nothing else to do."""
GATEWAY, PREFIXES = ("192.168.1.1", "fd00:192:168:1::1"), ("192.168.1.", "fd00:192:168:1::")
BRIDGE = ("10.244.1.1", "fd00:10:244:1::1")


def needs(number: int = 10) -> dict[Identity, Value]:
    """What a machine of the rig needs to answer."""
    ips = tuple(NodeAddress(type="InternalIP", address=f"{prefix}{number}") for prefix in PREFIXES)
    spec = NodeSpec(pod_cidrs=("10.244.1.0/24", "fd00:10:244:1::/64"))
    return dict(announce.plan(SERVICE, Node(Metadata(name="node"), spec, NodeStatus(addresses=ips)), CONFIG))


NEEDS = needs()


def sysctls(*, forwards: bool) -> list[Value]:
    names = [f"net.ipv6.conf.default.{name}" for name in ("accept_dad", "dad_transmits")]
    forwarding = [Sysctl(name=name, value="1") for name in ("net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding")]
    return [*(Sysctl(name=name, value="0") for name in names), *(forwarding if forwards else ())]


def address(link: str, ip: str) -> Address:
    return Address(link=link, ip=ipaddress.ip_address(ip), prefix_length=64 if ":" in ip else 24)


def rig(*names: str) -> dict[str, Kernel]:
    """This namespace as a switch with an address of each family, and machines at it."""
    workers, opener = Workers(1), KernelOpener()
    switch = Kernel(CurrentNamespace(), opener)
    machines: dict[str, Kernel] = {}
    cables: list[Value] = [*sysctls(forwards=False), Link(name="lo"), Link(name="switch0", kind="bridge")]
    cables += [address("switch0", ip) for ip in GATEWAY]
    for name in names:
        namespace = NetworkNamespace.create(workers)
        machines[name] = Kernel(namespace, opener)
        build(machines[name], sysctls(forwards=True))
        switch.attach(name, namespace)
        cables.append(Link(name=f"to-{name}", kind="veth", master="switch0", peer=Peer(netns=name, name="eth0")))
    build(switch, cables)
    for number, machine in enumerate(machines.values(), 10):
        build(machine, [Link(name="lo"), Link(name="eth0"), Link(name="cbr0", kind="bridge"), *addresses(number)])
    return machines


def addresses(number: int) -> list[Value]:
    """Those of machine `number`, and of its pods' bridge."""
    own: list[Value] = [address("eth0", f"{prefix}{number}") for prefix in PREFIXES]
    return [*own, *(address("cbr0", ip) for ip in BRIDGE)]


def build(kernel: Kernel, values: list[Value]) -> None:
    report = kernel.apply(diff({}, fragment(values)))
    assert not report.failed, [str(f) for f in report.failed]


def asked(ip: str) -> str:
    """The MAC that this namespace gets when it asks for an address; "" when nobody answers for a while."""
    return answers(ip, PATIENCE)


def answers(ip: str, seconds: float) -> str:
    """The same, after so long at most."""
    family = socket.AF_INET6 if ":" in ip else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as client:
        client.sendto(b"x", (ip, 9))
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if known(ip):
            return known(ip)
        time.sleep(0.01)
    return ""


def known(ip: str) -> str:
    """The MAC that this namespace has for an address."""
    out = subprocess.run(["ip", "-json", "neigh", "show", ip], capture_output=True, text=True, check=True).stdout
    return next((str(entry["lladdr"]) for entry in json.loads(out) if "lladdr" in entry), "")


def test_the_needs_of_an_address_are_read_back_and_go() -> None:
    machine = rig("node1")["node1"]
    before = machine.read(OWNER)
    assert not machine.apply(diff({}, NEEDS)).failed
    names = [value.name for value in NEEDS.values() if isinstance(value, Sysctl)]
    found = machine.read(OWNER, names)
    assert found.keys() == NEEDS.keys()
    assert all(machine.matches(value, found[identity]) for identity, value in NEEDS.items())
    assert not machine.apply(diff(NEEDS, {})).failed
    assert machine.read(OWNER) == before


@pytest.mark.parametrize("ip", VIPS)
def test_the_node_that_answers_is_found_at_once_and_a_successor_is_known_without_asking(ip: str) -> None:
    first, second = rig("node1", "node2").values()
    assert not first.apply(diff({}, NEEDS)).failed
    delays = [one.value for one in NEEDS.values() if isinstance(one, Sysctl) and one.name.endswith("eth0.proxy_delay")]
    assert delays == ["0", "0"], "else the kernel holds a proxy's answer back for up to 0.8 s"
    answer_for(60, first)
    old = asked(ip)
    assert old
    first.apply(diff(NEEDS, {}))
    assert not second.apply(diff({}, needs(11))).failed
    second.announce("eth0", [ipaddress.ip_address(ip)])
    deadline = time.monotonic() + PATIENCE
    while known(ip) == old and time.monotonic() < deadline:
        time.sleep(0.01)
    assert known(ip) not in ("", old)


def answer_for(seconds: float, machine: Kernel) -> None:
    """The machine's agent lives for so long."""
    for one in lifetime.lifetimes((4, 6), CONFIG):
        machine.prolong(*one, int(1000 * seconds))


def test_a_node_whose_agent_is_dead_answers_for_a_time_and_then_no_longer() -> None:
    machine = rig("node1")["node1"]
    assert not machine.apply(diff({}, NEEDS)).failed
    machine.foreign_commit()
    answer_for(60, machine)
    assert all(map(asked, VIPS)), "it answers"
    answer_for(0.01, machine)  # what is there gets another end
    assert not machine.foreign_commit(), "that is no change by others"
    time.sleep(0.1)
    subprocess.run(["ip", "neigh", "flush", "dev", "switch0"], check=True)
    assert not any(answers(ip, 0.4) for ip in VIPS)
    assert all(answers(f"{prefix}10", PATIENCE) for prefix in PREFIXES), "for its own addresses it answers"
    answer_for(60, machine)
    assert all(map(asked, VIPS)), "an agent that comes back answers again"


def test_a_set_that_is_not_there_is_not_prolonged() -> None:
    with pytest.raises(NotFound, match="prolong an element of nft set podplane-announced alive"):
        answer_for(1, rig("node1")["node1"])


@pytest.mark.parametrize("ip", VIPS)
def test_nobody_answers_for_what_is_withdrawn(ip: str) -> None:
    machine = rig("node1")["node1"]
    machine.apply(diff({}, NEEDS))
    answer_for(60, machine)
    machine.apply(diff(NEEDS, {}))
    family = socket.AF_INET6 if ":" in ip else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as client:
        client.sendto(b"x", (ip, 9))
    time.sleep(0.3)
    assert known(ip) == ""


@pytest.mark.parametrize("ip", VIPS)
def test_the_node_itself_sends_from_its_own_address_whether_it_answers_or_not(ip: str) -> None:
    node = Kernel(CurrentNamespace(), KernelOpener())
    links = [Link(name="lo"), Link(name="eth0", kind="bridge"), Link(name="cbr0", kind="bridge")]
    build(node, [*sysctls(forwards=True), *links, *addresses(10)])
    own = f"{PREFIXES[':' in ip]}10"
    assert source_towards(ip) == own
    assert not node.apply(diff({}, NEEDS)).failed
    assert source_towards(ip) == own


def source_towards(ip: str) -> str:
    """The address from which this namespace sends there."""
    family = socket.AF_INET6 if ":" in ip else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as client:
        client.connect((ip, 9))
        return str(client.getsockname()[0])
