"""Pods with several interfaces and several sandboxes on a real kernel: each address answers as long as its interface is attached."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess

import pytest

from podplane.agent.agent import Agent
from podplane.cni.network import Attachment
from podplane.kernel.door import Kernel
from podplane.kernel.namespace import CurrentNamespace, Namespace, NetworkNamespace, Workers
from podplane.kernel.opener import KernelOpener
from tests.plans import agent_settings, node
from tests.unit.agent.rig import caches_of

pytestmark = pytest.mark.kernel
PORT, TRIES = 9001, 200


def uplink() -> None:
    for words in ("link set lo up", "link add eth0 type bridge", "addr add 192.168.1.10/24 dev eth0", "link set eth0 up"):
        subprocess.run(["ip", *words.split()], check=True)


def answers(client: Namespace, pod: Namespace, ip: str) -> bool:
    """Does a datagram from the client come to this address of the pod, and the reply back? A new link takes a moment (linkwatch)."""
    with contextlib.ExitStack() as stack:
        asking, serving = (stack.enter_context(n.run(socket.socket, socket.AF_INET, socket.SOCK_DGRAM)) for n in (client, pod))
        serving.bind((ip, PORT))
        serving.settimeout(0.02)
        asking.settimeout(0.5)
        for _ in range(TRIES):
            with contextlib.suppress(TimeoutError, OSError):
                asking.sendto(b"x", (ip, PORT))
                content, sender = serving.recvfrom(10)
                serving.sendto(content, sender)
                return asking.recv(10) == content
    return False


async def started() -> Agent:
    agent = Agent("node1", agent_settings((4,)), Kernel(CurrentNamespace(), KernelOpener()), caches_of(node(1, (4,))))
    await agent.start()
    return agent


def attachment(namespace: Namespace, name: str, ifname: str = "eth0", sandbox: str = "") -> Attachment:
    return Attachment(sandbox or name, name, "default", name, namespace, ifname=ifname)


async def interfaces(order: tuple[str, str], removed: str) -> list[bool]:
    """Which of a pod's interfaces answer: both, and the one that is left."""
    agent, workers = await started(), Workers(1)
    client, pod = NetworkNamespace.create(workers), NetworkNamespace.create(workers)
    await agent.network.add(attachment(client, "client"))
    ips = {name: (await agent.network.add(attachment(pod, "a", name))).ips[0] for name in order}
    found = [answers(client, pod, ip) for ip in ips.values()]
    await agent.network.delete(attachment(pod, "a", removed))
    await agent.reconcile()
    (left,) = set(order) - {removed}
    await agent.network.check(attachment(pod, "a", left))
    assert not agent.ledger.refused
    return [*found, answers(client, pod, ips[left])]


@pytest.mark.parametrize("order", [("eth0", "net1"), ("net1", "eth0")])
@pytest.mark.parametrize("removed", ["eth0", "net1"])
def test_each_interface_of_a_pod_answers_and_the_one_that_is_left_goes_on(order: tuple[str, str], removed: str) -> None:
    uplink()
    assert asyncio.run(interfaces(order, removed)) == [True, True, True]


async def sandboxes() -> list[bool]:
    """Do two sandboxes of one pod answer, and does the new one when the old one is gone?"""
    agent, workers = await started(), Workers(1)
    client, old, new = (NetworkNamespace.create(workers) for _ in range(3))
    await agent.network.add(attachment(client, "client"))
    requests = [attachment(namespace, "a", sandbox=f"sandbox{n}") for n, namespace in enumerate((old, new))]
    first, second = [(await agent.network.add(request)).ips[0] for request in requests]
    found = [answers(client, old, first), answers(client, new, second)]
    await agent.network.delete(requests[0])
    await agent.reconcile()
    return [*found, answers(client, new, second)]


def test_a_new_sandbox_of_a_pod_answers_while_the_old_one_is_attached_and_after_it() -> None:
    uplink()
    assert asyncio.run(sandboxes()) == [True, True, True]
