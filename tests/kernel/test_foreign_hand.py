"""What another program does to podplane's objects on a real kernel is noticed, repaired, and told in an event."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field

import pytest

from podplane.agent.agent import Agent, ownership
from podplane.agent.keys import Key
from podplane.agent.planner import NOT_APPLIED
from podplane.cni.network import Attachment
from podplane.kernel.door import Kernel
from podplane.kernel.namespace import CurrentNamespace, Namespace, NetworkNamespace, Workers
from podplane.kernel.opener import KernelOpener
from podplane.lab.faults import foreign
from podplane.lab.faults.actions import ACTIONS
from podplane.lab.faults.arguments import FaultError
from podplane.model.config import ROUTE_PROTOCOL, NetworkConfig
from podplane.pods.plan import veth_name
from podplane.state.network import Proxy
from podplane.state.operations import Operation
from podplane.state.ownership import Ownership
from podplane.state.value import Identity, Value
from tests.plans import agent_settings, node, uplink
from tests.unit.agent.rig import caches_of, served

pytestmark = pytest.mark.kernel
TRIES, PAUSE_SECONDS = 3000, 0.01
POD = "pod/c1"


@dataclass
class Machine:
    """A node whose machine is the namespace of this process: the `Place` of foreign changes."""

    agent: Agent
    config: NetworkConfig
    events: list[str]
    pod: NetworkNamespace
    name: str = "node1"
    namespace: Namespace = field(default_factory=CurrentNamespace)

    @property
    def ownership(self) -> Ownership:
        return ownership(self.config)

    @property
    def sysctls(self) -> Mapping[str, str]:
        return self.agent.ledger.sysctls

    def read(self) -> dict[Identity, Value]:
        """What the kernel holds of podplane, in the node's namespace and in the pod's."""
        kernel = Kernel(self.namespace, KernelOpener())
        kernel.attach(POD, self.pod)
        try:
            return {**kernel.read(self.ownership, self.sysctls), **kernel.read_namespace(POD)}
        finally:
            kernel.close()

    def is_whole(self) -> bool:
        """Does the kernel hold all that is desired?"""
        found = self.read()
        wanted = {i: v for i, v in self.agent.ledger.desired.items() if not (i[0] == "Sysctl" and i[1])}
        return all(i in found and Kernel.matches(value, found[i]) for i, value in wanted.items())

    async def until(self, is_so: Callable[[], bool]) -> None:
        """Wait for it."""
        for _ in range(TRIES):
            if is_so():
                return
            await asyncio.sleep(PAUSE_SECONDS)
        raise AssertionError(f"it is not so: {is_so}; events: {self.events}")

    async def is_repaired_and_told(self, kinds: str) -> None:
        """Wait until the kernel holds what is desired, and an event says that these kinds of objects were repaired."""
        await self.until(self.is_whole)
        await self.until(lambda: any(kind in told for told in self.events for kind in kinds.split(" or ")))


@contextlib.asynccontextmanager
async def running() -> AsyncIterator[Machine]:
    """An agent of node1 that runs here, with a peer, a Service and a pod."""
    settings, events = agent_settings((4, 6)), list[str]()
    here, opener = CurrentNamespace(), KernelOpener()
    kernel = Kernel(here, opener)
    kernel.apply([Operation(None, value) for value in uplink((4, 6)).values()])
    kernel.close()

    def record(key: Key, message: str, reason: str = NOT_APPLIED) -> None:
        events.append(f"{reason} {message}")

    objects = [node(1, (4, 6)), node(2, (4, 6)), *served(1, (2, 3))]
    agent = Agent("node1", settings, Kernel(here, opener), caches_of(*objects), record_event=record)
    await agent.start()
    pod = NetworkNamespace.create(Workers(1))
    await agent.network.add(Attachment(container_id="c1", pod_uid="u1", namespace="default", name="web", netns=pod))
    assert not agent.ledger.refused, [str(one.error) for one in agent.ledger.refused.values()]
    task = asyncio.create_task(agent.run())
    try:
        machine = Machine(agent, settings.network, events, pod)
        assert machine.is_whole()
        yield machine
    finally:
        task.cancel()
        await asyncio.wait([task])


def ip(words: str) -> str:
    """What `ip` says."""
    return subprocess.run(["ip", *words.split()], check=True, capture_output=True, text=True).stdout


def play(story: Callable[[Machine], Awaitable[None]]) -> None:
    async def main() -> None:
        async with running() as machine:
            await story(machine)

    asyncio.run(main())


HANDS: dict[str, tuple[Callable[[foreign.Place, str], str], str, str]] = {
    "flush-nftables": (foreign.flush_nftables, "", "nft table"),
    "add-rule": (foreign.add_rule, "", "nft chain"),
    "delete-route": (foreign.delete_route, "10.244.2.0/24", "route"),
    "delete-link": (foreign.delete_link, "web", "link"),
    "delete-neighbour": (foreign.delete_neighbour, "192.168.1.11", "neighbour"),
    "delete-address": (foreign.delete_address, "fd00:10:244:1::1", "address"),
    "change-sysctl": (foreign.change_sysctl, "", "sysctl"),
}


def test_every_foreign_fault_is_tried_here() -> None:
    foreign_ones = {name for name, action in ACTIONS.items() if action.make.__qualname__.startswith("by_foreign_hand")}
    assert foreign_ones == HANDS.keys()


@pytest.mark.parametrize("name", HANDS)
def test_what_another_program_changes_is_repaired_and_told(name: str) -> None:
    function, argument, kind = HANDS[name]

    async def story(machine: Machine) -> None:
        said = function(machine, argument)
        assert said.startswith("On node1, ") and argument.rpartition("/")[0] in said
        assert not machine.is_whole(), "nothing has run in between: it must be seen to be broken"
        await machine.is_repaired_and_told(kind)

    play(story)


def test_what_the_kernel_takes_of_ipv6_with_the_uplinks_mtu_is_nobodys_change() -> None:
    async def story(machine: Machine) -> None:
        ip("link set eth0 mtu 1200")
        await machine.until(lambda: "unreachable fd00:10:244:2::/64" in ip("-6 route"))
        await machine.until(machine.is_whole)
        ip("route delete 10.244.2.0/24")
        await machine.is_repaired_and_told("1 route")
        repairs = [told for told in machine.events if told.startswith("Repaired")]
        assert len(repairs) == 1 and repairs[0].endswith("repaired: 1 route")

    play(story)


def test_a_proxy_is_repaired_though_the_kernel_says_nothing() -> None:
    async def story(machine: Machine) -> None:
        proxy = Proxy(link="eth0", ip=ipaddress.ip_address("192.168.1.250"), protocol=ROUTE_PROTOCOL)
        ip("route add 192.168.1.250 dev lo")
        machine.agent.ledger.replace("test", {proxy.identity: proxy})
        machine.agent.writer.wake()
        await machine.until(machine.is_whole)
        ip("neighbour delete proxy 192.168.1.250 dev eth0")
        assert not machine.is_whole()
        await machine.is_repaired_and_told("proxy")

    play(story)


@pytest.mark.parametrize("commands", ["link set eth0 down; link set eth0 up", "route delete default", "address flush dev eth0"])
def test_what_a_pod_does_to_its_own_network_is_repaired(commands: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("podplane.agent.watcher.AUDIT_SECONDS", 1.0)  # a namespace is read in turn, once in that time

    async def story(machine: Machine) -> None:
        for words in commands.split("; "):
            machine.pod.run(ip, words)
        assert not machine.is_whole()
        await machine.is_repaired_and_told("route or address")

    play(story)


def test_what_is_not_there_is_refused_by_name() -> None:
    async def story(machine: Machine) -> None:
        for function in (foreign.delete_route, foreign.delete_link, foreign.delete_neighbour, foreign.delete_address):
            with pytest.raises(FaultError, match=r"node1 has no .*nothing: there is .*"):
                function(machine, "nothing")
        with pytest.raises(FaultError, match=r"node1 has no sysctl net.ipv4.tcp_ecn: there is "):
            foreign.change_sysctl(machine, "net.ipv4.tcp_ecn")
        assert machine.is_whole()

    play(story)


def test_a_link_is_set_down_and_up() -> None:
    async def story(machine: Machine) -> None:
        for up in (False, True):
            foreign.set_link(machine, "eth0", up=up)
            assert (",UP" in (shown := ip("link show eth0"))) is up, shown

    play(story)


def test_what_others_make_while_an_agent_runs_stays_as_it_is() -> None:
    """Notifications tell the agent of it, and it is none of podplane's, whatever its name is."""
    made = {
        "neighbour add 192.168.1.77 lladdr 02:00:00:00:00:77 dev eth0 nud permanent": "192.168.1.77 dev eth0 lladdr 02:00",
        "route add 10.9.0.0/16 via 192.168.1.11": "10.9.0.0/16 via 192.168.1.11 dev eth0",
        "rule add priority 7 to 10.9.0.0/16 lookup main": "7:\tfrom all to 10.9.0.0/16 lookup main",
        "link add pp0123456789ab type bridge": ": pp0123456789ab: ",
    }

    async def story(machine: Machine) -> None:
        for words in made:
            ip(words)
        foreign.delete_route(machine, "10.244.2.0/24")  # when that is repaired, the notifications before it have been read
        await machine.is_repaired_and_told("route")
        await machine.agent.poll()
        there = "".join(map(ip, ("neighbour show", "route show", "rule show", "-o link show")))
        assert not [text for text in made.values() if text not in there], there

    play(story)


def a_pod(name: str, netns: NetworkNamespace | None = None) -> Attachment:
    """An attachment of a pod of this name."""
    netns = netns or NetworkNamespace.create(Workers(1))
    return Attachment(container_id=name, pod_uid=name, namespace="default", name=name, netns=netns)


def test_a_pod_that_can_not_be_attached_harms_no_other_one_of_the_same_moment() -> None:
    async def story(machine: Machine) -> None:
        occupied = NetworkNamespace.create(Workers(1))
        occupied.run(ip, "link add eth0 type bridge")
        add = machine.agent.network.add
        requests = [*(a_pod(f"a{n}") for n in range(4)), a_pod("bad", occupied), *(a_pod(f"b{n}") for n in range(4))]
        done = await asyncio.gather(*map(add, requests), return_exceptions=True)
        failed = [request.name for request, one in zip(requests, done, strict=True) if isinstance(one, Exception)]
        assert failed == ["bad"]

    play(story)


def test_a_route_of_a_type_that_podplane_does_not_make_harms_no_repair() -> None:
    async def story(machine: Machine) -> None:
        ip("route add throw 10.89.2.0/24 proto 80")
        ip("route delete 10.244.2.0/24")
        await machine.is_repaired_and_told("route")
        await machine.until(lambda: "throw" not in ip("route"))

    play(story)


def test_the_network_of_a_pod_whose_link_was_moved_away_is_made_anew_as_a_whole() -> None:
    async def story(machine: Machine) -> None:
        elsewhere = NetworkNamespace.create(Workers(1))
        name = veth_name("c1", "eth0")
        move_link(name, elsewhere)
        assert not machine.is_whole()
        elsewhere.run(ip, f"link delete {name}")
        await machine.is_repaired_and_told("link")

    play(story)


def move_link(name: str, netns: NetworkNamespace) -> None:
    """Put a link in another namespace."""
    words = ["ip", "link", "set", name, "netns", f"/proc/self/fd/{netns.fd}"]
    subprocess.run(words, check=True, capture_output=True, pass_fds=[netns.fd])


def test_a_forwarding_entry_that_was_moved_to_another_port_is_moved_back() -> None:
    async def story(machine: Machine) -> None:
        other = await machine.agent.network.add(a_pod("other"))
        its_own, another = veth_name("other", "eth0"), veth_name("c1", "eth0")
        bridge(f"fdb replace {other.mac} dev {another} master static")
        await machine.until(lambda: f"{other.mac} dev {its_own} master" in bridge("fdb show"))
        assert f"{other.mac} dev {another} " not in bridge("fdb show")

    play(story)


@pytest.mark.parametrize(
    "change", ["isolated on", "locked off", "learning on", "mcast_flood on", "bcast_flood on", "group_fwd_mask 0"]
)
def test_a_mode_of_a_port_that_somebody_changed_is_as_it_was_again(change: str) -> None:
    async def story(machine: Machine) -> None:
        if change.startswith("group"):
            ip(f"link set dev {veth_name('c1', 'eth0')} type bridge_slave {change}")
        else:
            bridge(f"link set dev {veth_name('c1', 'eth0')} {change}")
        assert not machine.is_whole()
        await machine.is_repaired_and_told("link")

    play(story)


def test_a_bridge_that_somebody_has_snoop_does_not_again() -> None:
    async def story(machine: Machine) -> None:
        ip("link set dev cbr0 type bridge mcast_snooping 1")
        assert not machine.is_whole()
        await machine.is_repaired_and_told("link")

    play(story)


def test_a_bridge_on_which_somebody_turns_ipv6_off_has_its_addresses_and_routes_back() -> None:
    async def story(machine: Machine) -> None:
        foreign.change_sysctl(machine, "net.ipv6.conf.cbr0.disable_ipv6")
        assert not machine.is_whole()
        await machine.is_repaired_and_told("sysctl")
        assert "fd00:10:244:1::1/128" in ip("address show dev cbr0")

    play(story)


@pytest.mark.parametrize("link", ["cbr0", "eth0"])
@pytest.mark.parametrize("version", [4, 6])
def test_a_link_on_which_somebody_turns_forwarding_off_forwards_again(version: int, link: str) -> None:
    async def story(machine: Machine) -> None:
        foreign.change_sysctl(machine, f"net.ipv{version}.conf.{link}.forwarding")
        assert not machine.is_whole()
        await machine.is_repaired_and_told("sysctl")

    play(story)


def bridge(words: str) -> str:
    """What `bridge` says."""
    return subprocess.run(["bridge", *words.split()], check=True, capture_output=True, text=True).stdout


def test_a_bridge_that_loses_its_mark_is_refused_and_nothing_is_said_to_be_repaired() -> None:
    async def story(machine: Machine) -> None:
        ip("link set cbr0 alias theirs")
        await machine.until(lambda: bool(machine.agent.ledger.refused))
        await asyncio.sleep(1)
        await machine.agent.watcher.auditor.audit()
        assert not [told for told in machine.events if told.startswith("Repaired")]
        ip("link set cbr0 alias podplane")
        await machine.until(lambda: not machine.agent.ledger.refused)
        assert machine.is_whole()

    play(story)
