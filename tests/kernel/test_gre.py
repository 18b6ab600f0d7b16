"""GRE on the real kernel: nodes of podplane, and one that somebody made by hand with `ip`. Where the kernel has none, these run in a
virtual machine (`make test-vm`)."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import struct
import subprocess
from collections.abc import Sequence

import msgspec
import pytest

from podplane.agent.agent import Agent
from podplane.cni.network import Attachment
from podplane.kernel import link_kinds
from podplane.kernel.door import Kernel
from podplane.kernel.namespace import CurrentNamespace, Namespace, NetworkNamespace, Workers
from podplane.kernel.opener import KernelOpener
from podplane.model.objects import Node
from podplane.routes import gre
from podplane.state.network import Link, Peer, Sysctl
from podplane.state.operations import Operation
from podplane.state.value import Value
from tests.fake_cluster import uplink, uplink_mac
from tests.plans import FAMILIES, agent_settings, node
from tests.unit.agent.rig import DUAL, caches_of
from tests.unit.routes.test_vxlan import only

pytestmark = pytest.mark.kernel
if link_kinds.missing(gre.KINDS.values()):
    pytest.skip(f"this kernel lacks the {link_kinds.modules(gre.KINDS.values())}", allow_module_level=True)

PATIENCE = 3.0 * float(os.environ.get("PODPLANE_TEST_PATIENCE", "1"))
PORT = 7070
MTU = {4: 1476, 6: 1456}
"""Of pods, by the IP version between nodes: 1,500 without IP header and GRE header."""
IP_MTU_DISCOVER, IPV6_MTU_DISCOVER, ALWAYS = 10, 23, 2
"""IP_PMTUDISC_DO: not to be fragmented."""


def shell(script: str, where: Namespace | None = None) -> str:
    """What it writes."""
    run = (where or CurrentNamespace()).run
    return run(lambda: subprocess.run(["sh", "-ec", script], check=True, capture_output=True, text=True).stdout)


class Pair:
    """node1 in this namespace and node2 in another one, joined by their uplinks, each with a pod."""

    def __init__(self, between: Sequence[int] = DUAL, inside: tuple[int, ...] = DUAL, **network: object) -> None:
        """IP versions: of the nodes' addresses in their order, and of pods; fields of the network's settings."""
        workers, self.opener = Workers(1), KernelOpener()
        self.there, self.pods = NetworkNamespace.create(workers), [NetworkNamespace.create(workers) for _ in range(2)]
        self.nodes = [self._node(number, between, inside) for number in (1, 2)]
        self.settings = agent_settings(inside, **{"backend": "gre", **network})
        own = Kernel(CurrentNamespace(), self.opener)
        own.attach("there", self.there)
        cable = Link(name="eth0", kind="veth", mac=uplink_mac(1), peer=Peer(netns="there", name="eth0", mac=uplink_mac(2)))
        self._make(own, 1, cable)
        self.kernels = [own, Kernel(self.there, self.opener)]
        self._make(self.kernels[1], 2, Link(name="eth0"))
        self.agents: list[Agent] = []
        self.ips: list[tuple[str, ...]] = []
        self.told: list[str] = []
        asyncio.run(self._start())

    @staticmethod
    def _node(number: int, between: Sequence[int], inside: tuple[int, ...]) -> Node:
        blocks = node(number, inside)
        return msgspec.structs.replace(only(node(number, DUAL), *between), spec=blocks.spec)

    @staticmethod
    def _make(kernel: Kernel, number: int, cable: Link) -> None:
        rest = [value for value in uplink(number) if not isinstance(value, Link)]
        quiet = Sysctl(name="net.ipv6.conf.default.accept_dad", value="0")
        values: list[Value] = [quiet, Link(name="lo"), cable, *rest]
        assert not kernel.apply([Operation(None, value) for value in values]).failed

    def agent(self, index: int) -> Agent:
        return Agent(
            f"node{index + 1}",
            self.settings,
            self.kernels[index],
            caches_of(*self.nodes),
            record_event=lambda key, why, *_: self.told.append(why),
        )

    async def _start(self) -> None:
        for index, pod in enumerate(self.pods):
            agent = self.agent(index)
            await agent.start()
            self.agents.append(agent)
            self.ips.append((await agent.network.add(Attachment("a", "a", "default", "a", pod))).ips)
            assert not agent.ledger.refused, [str(refused.error) for refused in agent.ledger.refused.values()]


def exchange(client: Namespace, server: Namespace, ip: str) -> str:
    """100 KB over TCP to a server at this address; the client's address as the server sees it."""
    family = socket.AF_INET6 if ":" in ip else socket.AF_INET
    with server.run(lambda: socket.create_server((ip, PORT), family=family)) as listener:
        listener.settimeout(PATIENCE)
        with client.run(lambda: socket.create_connection((ip, PORT), timeout=PATIENCE)) as near:
            far, (source, *_) = listener.accept()
            far.settimeout(PATIENCE)
            with far:
                near.sendall(b"x" * 100_000)
                received = 0
                while received < 100_000:
                    received += len(far.recv(65536))
    return str(source)


def passes(client: Namespace, ip: str, size: int) -> bool:
    """Is a ping of so many bytes of IP, which nobody may fragment, answered? False when the sender itself may not send it."""
    v6 = ":" in ip
    kind, protocol = (socket.AF_INET6, socket.IPPROTO_ICMPV6) if v6 else (socket.AF_INET, socket.IPPROTO_ICMP)
    level, option = (socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER) if v6 else (socket.IPPROTO_IP, IP_MTU_DISCOVER)
    shell("sysctl -qw net.ipv4.ping_group_range='0 0'", client)
    with client.run(lambda: socket.socket(kind, socket.SOCK_DGRAM, protocol)) as ping:
        ping.settimeout(PATIENCE)
        ping.setsockopt(level, option, ALWAYS)
        message = struct.pack(">BBHHH", 128 if v6 else 8, 0, 0, 0, 1) + bytes(size - 8 - (40 if v6 else 20))
        try:
            ping.sendto(message, (ip, 0))
        except OSError as error:
            assert error.errno == errno.EMSGSIZE
            return False
        return len(ping.recv(65536)) == len(message)


@pytest.mark.parametrize("between", [(4,), (6,)])
@pytest.mark.parametrize("inside", FAMILIES)
def test_pods_of_two_nodes_reach_each_other_with_their_own_addresses_at_full_size(
    between: tuple[int, ...], inside: str
) -> None:
    pair = Pair(between, FAMILIES[inside])
    here, there = pair.pods
    for mine, theirs in zip(*pair.ips, strict=True):
        assert exchange(here, there, theirs) == mine and exchange(there, here, mine) == theirs
        assert [passes(here, theirs, MTU[between[0]] + more) for more in (0, 1)] == [True, False]
