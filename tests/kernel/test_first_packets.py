"""No packet of a new pod, or to one, is lost once its ADD has returned: not the first one, nor the answer to it."""

from __future__ import annotations

import asyncio
import itertools
import os
import socket

import pytest

from podplane.cni.network import Attachment
from podplane.kernel.namespace import Namespace, NetworkNamespace, Workers
from podplane.kernel.opener import KernelOpener
from tests.fake_cluster import node_ip, outside_ip, pod_ip
from tests.kernel.cluster import RealCluster

pytestmark = pytest.mark.kernel
FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}
ADDRESSES = "10.244.1.{}", "fd00:10:244:1::{:x}"
PORT, PATIENCE_SECONDS, PODS = 7777, 2.0, 48


def datagrams(namespace: Namespace, ip: str, port: int = 0) -> socket.socket:
    made = namespace.run(socket.socket, FAMILY[6 if ":" in ip else 4], socket.SOCK_DGRAM)
    made.settimeout(PATIENCE_SECONDS)
    made.bind((ip, port))
    return made


def talk(first: Namespace, ip: str, second: Namespace, other: str) -> None:
    """One packet, and its answer. TimeoutError when one of them is lost."""
    with datagrams(first, ip) as asking, datagrams(second, other, PORT) as asked:
        asking.sendto(b"question", (other, PORT))
        text, source = asked.recvfrom(100)
        asked.sendto(b"answer to " + text, source)
        assert asking.recv(100) == b"answer to question"


def test_the_first_packet_and_its_answer_arrive() -> None:
    """Of each kind of peer, IP version and direction. Without waiting, some in a hundred don't: what the kernel is asked for is not done
    when it has answered."""
    rig, workers = RealCluster([], []), Workers(1)
    peers = {
        "node2-pod1": lambda v: pod_ip(2, 1, v),
        "node1-pod1": lambda v: pod_ip(1, 1, v),
        "node1": lambda v: node_ip(1, v),
        "outside": lambda v: outside_ip(v),
    }
    kinds = itertools.cycle([*itertools.product(peers, (6, 4), (True, False))])
    lost: list[str] = []

    async def run() -> None:
        for number, (peer, version, pod_begins) in zip(range(PODS), kinds, strict=False):
            name, namespace = f"new{number}", NetworkNamespace.create(workers)
            ips = tuple(text.format(50 + number) for text in ADDRESSES)
            await rig.agents[1].network.add(Attachment(name, name, "default", name, namespace, requested_ips=ips))
            ends = [(namespace, ips[version == 6]), (rig.namespaces[peer], str(peers[peer](version)))]
            if not pod_begins and peer == "outside":
                continue  # nobody outside has a way to a pod
            (one, its_ip), (other, other_ip) = ends if pod_begins else reversed(ends)
            try:
                talk(one, its_ip, other, other_ip)
            except TimeoutError:
                lost.append(f"{'to' if pod_begins else 'from'} {peer}, IPv{version}")

    asyncio.run(run())
    assert not lost


def test_a_namespace_takes_packets_once_its_addresses_are_local() -> None:
    rig = RealCluster([], [])
    kernel = rig.agents[1]._kernel
    assert kernel.takes_packets("pod/node1-pod1") and kernel.takes_packets("no such pod")
    before = len(os.listdir("/proc/self/fd"))
    part = KernelOpener().rtnl(kernel._namespaces["pod/node1-pod1"], lambda name: -1)
    kernel._late["pod/node1-pod1"] = part, [pod_ip(1, 1, 6), pod_ip(1, 2, 6)]
    assert not kernel.takes_packets("pod/node1-pod1"), "one of them is not its own"
    assert kernel._late["pod/node1-pod1"] == (part, [pod_ip(1, 2, 6)])
    kernel.detach("pod/node1-pod1")
    assert kernel.takes_packets("pod/node1-pod1")
    assert len(os.listdir("/proc/self/fd")) == before
