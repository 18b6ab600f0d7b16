"""GRE on the real kernel: nodes of podplane, and one that somebody made by hand with `ip`. Where the kernel has none, these run in a
virtual machine (`make test-vm`)."""

from __future__ import annotations

import asyncio
import errno
import json
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
from podplane.state.network import Link, Peer, SoftwareChecksum, Sysctl
from podplane.state.operations import Operation
from podplane.state.ownership import Ownership
from podplane.state.value import Value
from tests.fake_cluster import uplink, uplink_mac
from tests.kernel.test_vxlan import inner
from tests.plans import FAMILIES, agent_settings, node
from tests.unit.agent.rig import DUAL, caches_of
from tests.unit.routes.test_vxlan import only

pytestmark = pytest.mark.kernel
if link_kinds.missing(gre.KINDS.values()):
    pytest.skip(f"this kernel lacks the {link_kinds.modules(gre.KINDS.values())}", allow_module_level=True)

PATIENCE = 3.0 * float(os.environ.get("PODPLANE_TEST_PATIENCE", "1"))
PORT = 7070
IPPROTO_GRE = 47
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
        workers, self.opener, self.now = Workers(1), KernelOpener(), 0.0
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

    async def start(self, *, of_both: bool = True) -> None:
        """Both agents and their pods, or only node1's."""
        for index, pod in enumerate(self.pods if of_both else self.pods[:1]):
            agent = self.agent(index)
            await agent.start()
            self.agents.append(agent)
            self.ips.append((await agent.network.add(Attachment("a", "a", "default", "a", pod))).ips)

    async def look(self) -> None:
        """Have node1's agent see what others did, and do what is due."""
        for _ in range(6):
            self.now += 5
            self.agents[0].watcher.take_notifications()
            await self.agents[0].poll()
            await self.agents[0].idle()

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
            clock=lambda: self.now,
            record_event=lambda key, why, *_: self.told.append(why),
        )


def started(between: Sequence[int] = DUAL, inside: tuple[int, ...] = DUAL, **network: object) -> Pair:
    """Both nodes, of which the kernel took all."""
    pair = Pair(between, inside, **network)
    asyncio.run(pair.start())
    for agent in pair.agents:
        assert not agent.ledger.refused, [str(refused.error) for refused in agent.ledger.refused.values()]
    return pair


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
    pair = started(between, FAMILIES[inside])
    here, there = pair.pods
    for mine, theirs in zip(*pair.ips, strict=True):
        assert exchange(here, there, theirs) == mine and exchange(there, here, mine) == theirs
        assert [passes(here, theirs, MTU[between[0]] + more) for more in (0, 1)] == [True, False]


@pytest.mark.parametrize("between", [(4,), (6,)])
def test_nodes_reach_pods_of_others_by_their_address_on_the_tunnel_and_are_reached_with_that_of_the_node(
    between: tuple[int, ...],
) -> None:
    pair = started(between)
    own, pods = CurrentNamespace(), zip(("10.244.1.1", "fd00:10:244:1::1"), pair.ips[1], strict=True)
    assert all(exchange(own, pair.pods[1], ip) == gateway for gateway, ip in pods)
    addresses = {"192.168.1.11": "192.168.1.10", "fd00:192:168:1::11": "fd00:192:168:1::10"}
    assert {ip: exchange(pair.pods[0], pair.there, ip) for ip in addresses} == addresses


@pytest.mark.parametrize("between", [(4,), (6,)])
def test_a_tunnel_without_offload_carries_all(between: tuple[int, ...]) -> None:
    pair = started(between, tunnel_offload="disabled")
    owner = Ownership(links=frozenset(gre.DEVICES.values()))
    without = {one.link for one in pair.kernels[0].read(owner).values() if isinstance(one, SoftwareChecksum)}
    assert without == {gre.DEVICES[between[0]]}
    here, there = pair.pods
    for mine, theirs in zip(*pair.ips, strict=True):
        assert exchange(here, there, theirs) == mine and exchange(there, here, mine) == theirs


COUNT = """
nft -f - <<END
table inet seen {
  counter tunnel {}
  counter bare {}
  chain in {
    type filter hook prerouting priority -400
    iifname eth0 meta l4proto gre counter name tunnel
    iifname eth0 ip saddr 10.244.0.0/16 counter name bare
    iifname eth0 ip6 saddr fd00:10:244::/48 counter name bare
  }
}
END
"""


@pytest.mark.parametrize("name", ["bare", "tunnel"])
def test_a_tunnel_of_host_gw_is_for_nodes_of_other_subnets_alone(name: str) -> None:
    apart = ("192.168.1.10/32", "192.168.1.11/32", "fd00:192:168:1::10/128", "fd00:192:168:1::11/128")
    pair = started(backend="host-gw+gre", subnets=() if name == "bare" else apart)
    shell(COUNT, pair.there)
    for mine, theirs in zip(*pair.ips, strict=True):
        assert exchange(*pair.pods, theirs) == mine
        assert [passes(pair.pods[0], theirs, MTU[4] + more) for more in (0, 1)] == [True, False]
    said = json.loads(shell("nft -j list counters table inet seen", pair.there))["nftables"]
    counts = {one["counter"]["name"]: one["counter"]["packets"] for one in said if "counter" in one}
    assert counts.pop(name) > 10 and list(counts.values()) == [0]


def test_somebody_elses_node_with_a_tunnel_made_by_hand_talks_to_ours() -> None:
    pair = Pair((4,))
    script = """
    ip link add theirs mtu 1476 type gre local 192.168.1.11 remote 192.168.1.10 ttl 64
    ip address add 10.244.2.5/32 dev theirs
    ip address add fd00:10:244:2::5/128 dev theirs nodad
    ip link set theirs up
    ip route add 10.244.1.0/24 dev theirs
    ip -6 route add fd00:10:244:1::/64 dev theirs
    """
    shell(script, pair.there)
    asyncio.run(pair.start(of_both=False))
    for ip, own in zip(("10.244.2.5", "fd00:10:244:2::5"), pair.ips[0], strict=True):
        assert exchange(pair.pods[0], pair.there, ip) == own and exchange(pair.there, pair.pods[0], own) == ip


def links() -> dict[str, str]:
    """The GRE devices of this namespace, and all that `ip` says of each."""
    return {line.split(": ")[1].split("@")[0]: line for line in shell("ip -o -d link show").splitlines() if "gre" in line}


def test_a_device_that_is_taken_away_comes_back_and_the_kernels_own_stay_as_they_are() -> None:
    async def all_of_it(pair: Pair) -> None:
        shell("ip link add probe type gre external; ip link del probe")  # which loads the modules
        before = links()
        assert "gre0" in before
        await pair.start()
        shell("ip link delete podplane-gre4")
        assert "10.244.2.0/24" not in shell("ip route")
        await pair.look()
        assert "10.244.2.0/24" in shell("ip route")
        assert await asyncio.to_thread(exchange, pair.pods[0], pair.pods[1], pair.ips[1][0]) == pair.ips[0][0]
        other = "10.244.2.0/24 encap ip dst 192.168.1.77 ttl 3 dev podplane-gre4 proto 80"
        shell(f"ip link set podplane-gre4 mtu 1400; ip route change {other}")
        await pair.look()
        assert "mtu 1476" in links()["podplane-gre4"] and "dst 192.168.1.11 ttl 64" in shell("ip route")
        await pair.agents[0].network.delete(Attachment("a", "a", "default", "a", pair.pods[0]))
        owner = pair.agents[0].watcher.ownership
        await pair.agents[0].stop()
        pair.kernels[0].apply([Operation(value, None) for value in pair.kernels[0].read(owner).values()])
        assert links() == before

    asyncio.run(all_of_it(Pair((4,))))


def test_somebody_elses_external_device_is_named_and_stays_until_they_remove_it() -> None:
    async def all_of_it(pair: Pair) -> None:
        shell("ip link add theirs type gre external")
        await pair.start()
        await pair.look()
        (why, *_) = [why for why in pair.told if "podplane-gre4" in why]
        assert "the kernel has one external device of type gre at most: remove the other one (ip -d link show type gre)" in why
        assert "theirs" in links() and not pair.agents[0].has_backend("gre")
        shell("ip link delete theirs")
        await pair.look()
        assert pair.agents[0].has_backend("gre") and {"podplane-gre4", "podplane-gre6"} <= links().keys()
        assert await asyncio.to_thread(exchange, pair.pods[0], pair.pods[1], pair.ips[1][0]) == pair.ips[0][0]

    asyncio.run(all_of_it(Pair()))


@pytest.mark.parametrize("node", ["192.168.1.10", "192.168.1.11"])
def test_a_pod_sends_no_packet_into_the_tunnel_of_a_node(node: str) -> None:
    pair = started((4,))
    ends = [(CurrentNamespace(), "10.244.1.1", "10.244.2.9"), (pair.there, "10.244.2.1", "10.244.1.9")]
    (there, destination, source), (other, *_) = ends if node == "192.168.1.10" else reversed(ends)

    def send(sender: Namespace, payload: bytes) -> None:
        with sender.run(lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, IPPROTO_GRE)) as out:
            out.sendto(struct.pack(">HH", 0, 0x0800) + inner(source, destination, payload), (node, 0))

    with there.run(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as received:
        received.bind((destination, PORT))
        received.settimeout(PATIENCE)
        for sender, payload in ((pair.pods[0], b"forged"), (other, b"of a node")):
            send(sender, payload)
        assert received.recv(100) == b"of a node", "the first one that came"
