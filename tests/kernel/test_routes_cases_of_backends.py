"""What users of other networks suffered from on the way between nodes, for each backend and each IP version between nodes.

node1 is this namespace, node2 one that can be made anew; both have an agent and a pod, and are joined by a bridge in one of its own.
"""

from __future__ import annotations

import asyncio
import shutil

import msgspec
import pytest

from podplane.agent.agent import Agent
from podplane.cni.network import Attachment
from podplane.kernel import link_kinds
from podplane.kernel.door import Kernel
from podplane.kernel.namespace import CurrentNamespace, Namespace, NetworkNamespace, Workers
from podplane.kernel.opener import KernelOpener
from podplane.model.config import BACKENDS, UNDERLAY_MAC
from podplane.model.objects import Node, NodeAddress, NodeStatus
from podplane.routes import gre
from podplane.state.network import Link, Peer
from podplane.state.operations import Operation
from tests.fake_cluster import uplink_mac
from tests.kernel.test_routes_cases import dropped, exchange, shell
from tests.plans import UNDERLAY, agent_settings, node
from tests.unit.agent.rig import DUAL, caches_of

pytestmark = pytest.mark.kernel
TUNNELS = ("vxlan",) if link_kinds.missing(gre.KINDS.values()) else ("vxlan", "gre")
WAYS = [(backend, version) for backend in ("host-gw", *TUNNELS) for version in DUAL]
STRICT = "sysctl -qw net.ipv4.conf.all.rp_filter=1 net.ipv4.conf.default.rp_filter=1"
"""The filter of reverse paths of every link, those that come later, too: RFC 3704, section 2.2."""


FAR = {4: "192.168.1.138", 6: "fd00:192:168:1:8000::11"}
"""node2, where it is in another subnet."""
SUBNETS = ("192.168.1.0/25", "192.168.1.128/25", "fd00:192:168:1::/65", "fd00:192:168:1:8000::/65")
ROUTER = """
sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
for one in "node1-0 192.168.1.1/25 fd00:192:168:1::1/65" "node2-0 192.168.1.129/25 fd00:192:168:1:8000::1/65"; do
  set -- $one; ip address add $2 dev $1; ip address add $3 dev $1 nodad
done
"""
"""What is between both subnets, and knows no pods."""


def address(number: int, version: int, *, parted: bool = False) -> str:
    """Of a node."""
    return FAR[version] if parted and number == 2 else UNDERLAY[version].format(9 + number)


def addresses(number: int, *, parted: bool = False) -> str:
    """The commands that give a node's uplink its addresses, and in a subnet of its own a way to the other one."""
    here, more = [address(number, version, parted=parted) for version in DUAL], int(parted)
    given = f"ip address replace {here[0]}/{24 + more} dev eth0; ip address replace {here[1]}/{64 + more} dev eth0 nodad"
    routers = ("192.168.1.1", "fd00:192:168:1::1") if number == 1 else ("192.168.1.129", "fd00:192:168:1:8000::1")
    return given + "".join(f"; ip route replace default via {ip} dev eth0" for ip in routers if parted)


class Two:
    """Both nodes, reached by addresses of one IP version, with pods of both where the backend allows it."""

    def __init__(self, backend: str, version: int, inside: tuple[int, ...] = (), *, parted: bool = False) -> None:
        """`inside` are the IP versions of pods; `parted`: with a router between both."""
        for program in ("ip", "sysctl"):
            if shutil.which(program) is None:
                pytest.skip(f"{program} is not installed")
        self.inside = inside or ((version,) if backend == "host-gw" else DUAL)
        self.settings = agent_settings(self.inside, backend=backend, subnets=SUBNETS if parted else ())
        self.parted, self.told = parted, list[str]()
        self.now, self.mac, self.boots = 0.0, uplink_mac(2), 0
        self.reached_by = {1: backend, 2: backend}
        self._version, self._workers, self._opener = version, Workers(1), KernelOpener()
        self.network = self._new()
        self.between = Kernel(self.network, self._opener)
        assert not self.between.apply([Operation(None, Link(name="br", kind="bridge"))]).failed
        self.node2, self.pods = self._new(), [self._new(), self._new()]
        self.caches = [caches_of(self.node(1), self.node(2)) for _ in (1, 2)]
        self.agents = [self._machine(1, CurrentNamespace()), self._machine(2, self.node2)]
        self.ips: list[tuple[str, ...]] = []
        if parted:
            self.network.run(shell, ROUTER)

    def _new(self) -> NetworkNamespace:
        return NetworkNamespace.create(self._workers)

    def node(self, number: int) -> Node:
        """As the API has it."""
        given, ip = node(number, self.inside), address(number, self._version, parted=self.parted)
        marks = {UNDERLAY_MAC: self.mac if number == 2 else uplink_mac(1), BACKENDS: self.reached_by[number]}
        return msgspec.structs.replace(
            given,
            status=NodeStatus(addresses=(NodeAddress("InternalIP", ip),)),
            metadata=msgspec.structs.replace(given.metadata, annotations=marks),
        )

    def _machine(self, number: int, where: Namespace) -> Agent:
        """A node with an uplink to the bridge, and its agent."""
        mac = self.mac if number == 2 else uplink_mac(1)
        place = f"node{number}-{self.boots}"
        self.between.attach(place, where)
        cable = Link(name=place, kind="veth", master="" if self.parted else "br", peer=Peer(netns=place, name="eth0", mac=mac))
        assert not self.between.apply([Operation(None, cable)]).failed
        where.run(shell, f"ip link set lo up; ip link set eth0 up; {addresses(number, parted=self.parted)}")
        kernel, caches = Kernel(where, self._opener), self.caches[number - 1]
        return Agent(
            f"node{number}",
            self.settings,
            kernel,
            caches,
            clock=lambda: self.now,
            record_event=lambda key, why, *_: self.told.append(why),
        )

    async def start(self, *numbers: int) -> None:
        """Agents of these nodes, and their pods."""
        for number in numbers or (1, 2):
            agent, pod = self.agents[number - 1], self.pods[number - 1]
            await agent.start()
            self.caches[number - 1].subscribe(agent.changed)
            ips = (await agent.network.add(Attachment("a", "a", "default", "a", pod))).ips
            self.ips[number - 1 : number] = [ips]
            assert not agent.ledger.refused, [str(refused.error) for refused in agent.ledger.refused.values()]

    async def boot(self, mac: str) -> None:
        """node2 has lost all, and has another card."""
        await self.agents[1].stop()
        self.between.detach(f"node2-{self.boots}")
        self.boots += 1
        for one in (self.node2, self.pods[1]):
            one.close()
        self.node2, self.pods[1], self.mac = self._new(), self._new(), mac
        self.caches[1] = caches_of(self.node(1), self.node(2))
        self.agents[1] = self._machine(2, self.node2)
        await self.start(2)
        self.caches[0].nodes.set(self.node(2))

    async def settle(self, seconds: float = 2.0) -> None:
        """So long later the kernels are as desired."""
        for _ in range(int(seconds / 0.5)):
            self.now += 0.5
            for agent in self.agents:
                agent.watcher.take_notifications()
                await agent.poll()
                await agent.reconcile()
                await agent.idle()

    async def stop(self) -> None:
        """Both agents."""
        for agent in self.agents:
            await agent.stop()

    def talk(self) -> None:
        """Pods reach each other and are seen with their own addresses; nodes reach pods of others."""
        for client, server in ((0, 1), (1, 0)):
            for mine, theirs in zip(self.ips[client], self.ips[server], strict=True):
                assert exchange(self.pods[client], self.pods[server], theirs, 7070) == mine
                exchange((CurrentNamespace(), self.node2)[client], self.pods[server], theirs, 7070)


@pytest.mark.parametrize(("backend", "version"), WAYS)
def test_what_the_kernel_drops_with_a_link_or_an_address_comes_back_with_it(backend: str, version: int) -> None:
    """flannel-io/flannel#1434, #1450."""

    async def scenario() -> None:
        two = Two(backend, version)
        await two.start()
        away = [f"ip address delete {UNDERLAY[one].format(10)}/{length} dev eth0" for one, length in ((4, 24), (6, 64))]
        for change in ("ip link set eth0 down; ip link set eth0 up", "; ".join(away)):
            shell(f"{change}; {addresses(1)}")
            await two.settle()
            two.talk()
        await two.stop()

    asyncio.run(scenario())


@pytest.mark.parametrize(("backend", "version"), WAYS)
def test_a_node_that_is_made_anew_with_another_mac_is_reached(backend: str, version: int) -> None:
    """flannel-io/flannel#533, #1036, #1788, #654: others kept the old one."""

    async def scenario() -> None:
        two = Two(backend, version)
        await two.start()
        for number in range(10 if (backend, version) == ("vxlan", 4) else 2):
            await two.boot(f"0a:58:00:00:00:{number:02x}")
            await two.settle(0.5)
            two.talk()
        await two.stop()

    asyncio.run(scenario())


@pytest.mark.parametrize(("backend", "version"), [one for one in WAYS if one[1] == 4])
def test_a_strict_filter_of_reverse_paths_drops_nothing_between_nodes(backend: str, version: int) -> None:
    """cloudnativelabs/kube-router#549, kubernetes/kubernetes#101910, cilium/cilium#13130."""

    async def scenario() -> None:
        shell(STRICT)
        two = Two(backend, version)
        two.node2.run(shell, STRICT)
        await two.start()
        two.talk()
        await two.stop()
        assert dropped() == two.node2.run(dropped) == 0

    asyncio.run(scenario())


@pytest.mark.parametrize(("before", "after"), [("host-gw", "vxlan"), ("vxlan", "host-gw")])
def test_a_strict_filter_drops_nothing_of_a_tunnel_while_backends_change(before: str, after: str) -> None:
    """One of both nodes sends by the new one, and the other one has not heard of that yet. The uplink's filter is not podplane's."""

    async def scenario() -> None:
        shell(STRICT)
        two = Two(before, 4, (4,))
        two.node2.run(shell, STRICT)
        await two.start()
        for agent in two.agents:
            config = msgspec.structs.replace(agent.config, backend=after, former_backends=(before,))
            await agent.set_routes(config)
        for where in (CurrentNamespace(), two.node2):
            where.run(shell, "sysctl -qw net.ipv4.conf.eth0.rp_filter=2")
        for caches, number in ((two.caches[0], 2), (two.caches[1], 1)):
            two.reached_by[number] = f"{before},{after}"
            caches.nodes.set(two.node(number))
            await two.settle(0.5)
            two.talk()
        await two.stop()
        assert dropped() == two.node2.run(dropped) == 0

    asyncio.run(scenario())


@pytest.mark.parametrize("version", DUAL)
@pytest.mark.parametrize("backend", [*TUNNELS, "auto", *(f"host-gw+{tunnel}" for tunnel in TUNNELS)])
def test_nodes_of_two_subnets_reach_each_other_through_a_tunnel(backend: str, version: int) -> None:
    """cloudnativelabs/kube-router#728, #722, #1834."""

    async def scenario() -> None:
        for parted in (True, False):
            two = Two(backend, version, (version,), parted=parted)
            await two.start()
            two.talk()
            assert not two.told
            direct = "eth0" in shell(f"ip route get {two.ips[1][0]}")
            assert direct is (not parted and backend not in TUNNELS), "and on a link without one, unless it is wanted"
            await two.stop()
            shell("ip link delete eth0")

    asyncio.run(scenario())


@pytest.mark.parametrize("version", DUAL)
def test_host_gw_names_nodes_that_have_a_router_between_them_and_has_no_route(version: int) -> None:
    async def scenario() -> None:
        two = Two("host-gw", version, (version,), parted=True)
        await two.start()
        await two.settle()
        nodes = f"node1 ({address(1, version)}) and node2 ({FAR[version]}) have a router between them"
        assert any(one.startswith(nodes) for one in two.told), two.told
        assert " proto 80 " not in shell(f"ip -{version} route show match {two.ips[1][0]}")
        await two.stop()

    asyncio.run(scenario())
