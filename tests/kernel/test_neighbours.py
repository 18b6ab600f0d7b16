"""What becomes of packets to addresses that nobody has, on a link of the lab's own networks: nobody is asked for, and no entry waits."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import subprocess

import pytest

from podplane.kernel.door import Kernel
from podplane.kernel.namespace import CurrentNamespace, NetworkNamespace, Workers
from podplane.kernel.opener import KernelOpener
from podplane.lab import underlay
from podplane.lab.spec import LabSpec
from podplane.state.network import Address, Link, Peer, Sysctl
from podplane.state.operations import Operation
from podplane.state.value import Value

pytestmark = pytest.mark.kernel
LINK, MANY = "eth0", 30


def apply(kernel: Kernel, *values: Value) -> None:
    report = kernel.apply([Operation(None, value) for value in values])
    assert not report.failed, [str(one.error) for one in report.failed]


def waiting(network: str) -> int:
    """Send to many addresses of a network; so many entries wait for an answer then."""
    net = ipaddress.ip_network(network)
    with socket.socket(socket.AF_INET6 if net.version == 6 else socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for number in range(10, 10 + MANY):
            with contextlib.suppress(OSError):  # none has it
                sender.sendto(b"x", (str(net[number]), 9))
    shown = ["ip", f"-{net.version}", "neighbour", "show", "dev", LINK, "nud", "incomplete"]
    return len(subprocess.run(shown, capture_output=True, text=True, check=True).stdout.splitlines())


def test_a_link_with_permanent_neighbours_asks_for_no_others() -> None:
    networks = ("192.168.1.0/24", "fd00:192:168:1::/64")
    plan = LabSpec(node_cidr=",".join(networks), cluster_cidr="10.244.0.0/16,fd00:10:244::/48").plan()
    workers = Workers(1)
    kernel, far = Kernel(CurrentNamespace(), KernelOpener()), NetworkNamespace.create(workers)
    kernel.attach("far", far)
    apply(kernel, Sysctl(name="net.ipv6.conf.default.accept_dad", value="0"))
    apply(kernel, Link(name=LINK, kind="veth", peer=Peer(netns="far", name="eth0")), Link(netns="far", name="eth0"))
    for network in map(ipaddress.ip_network, networks):
        apply(kernel, Address(link=LINK, ip=network[2], prefix_length=network.prefixlen))
    assert [waiting(network) for network in networks] == [MANY, MANY], "that is what others' links do"
    subprocess.run(["ip", "neighbour", "flush", "dev", LINK], check=True)
    subprocess.run(["ip", "-6", "neighbour", "flush", "dev", LINK], check=True)
    apply(kernel, *underlay.asks_nobody(LINK, plan))
    assert [waiting(network) for network in networks] == [0, 0]
    kernel.close()
    workers.close()
