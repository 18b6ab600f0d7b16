"""Whatever order pods come and go in, and whatever else happens meanwhile: nothing is had twice, and nothing is left in the end."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from podplane.agent.attachments import AttachedPod
from podplane.cni.network import Attached, Attachment, NetworkError
from podplane.kernel.fakes.world import FakeNamespace
from podplane.model.objects import NodeSpec
from podplane.state.network import Link, Sysctl
from podplane.state.value import Identity, Value
from tests.plans import node
from tests.unit.agent.rig import DUAL, Choosy, Rig, cluster
from tests.unit.agent.test_attachments import assert_nothing_is_left

PODS, IFNAMES = st.integers(0, 3), st.sampled_from(["eth0", "net1"])
BLOCKS = [("10.244.1.0/24", "fd00:10:244:1::/64"), ("10.244.9.0/29", "fd00:10:244:9::/64")]
ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["add", "add", "delete", "check"]), PODS, IFNAMES),
        st.tuples(st.just("gc"), st.sets(PODS), st.none()),
        st.tuples(st.just("restart"), st.none(), st.none()),
        st.tuples(st.sampled_from(["take", "link down", "link away", "flush"]), st.integers(0, 50), st.none()),
        st.tuples(st.just("refuse"), st.sampled_from(["", "pod/default/p1", "10.244.1.3", "p2"]), st.none()),
        st.tuples(st.just("block"), st.sampled_from(BLOCKS), st.none()),
        st.tuples(st.just("turns"), st.integers(1, 6), st.none()),
        st.tuples(st.just("poll"), st.none(), st.none()),
        st.tuples(st.just("wait"), st.none(), st.none()),
    ),
    max_size=25,
)


class Play:
    """An agent, pods of which some come and go at the same time, and others who interfere."""

    def __init__(self) -> None:
        self.rig = Rig(("10.96.0.0/16",), kernel=Choosy)
        self.empty: dict[Identity, Value] = {}
        self.namespaces: dict[int, FakeNamespace] = {}
        self.running: list[asyncio.Task[Any]] = []
        self.now = 0.0

    async def start(self) -> None:
        await self.rig.start(*cluster(1, 2))
        self.empty = dict(self.rig.host.objects.network)

    def request(self, number: int, ifname: str) -> Attachment:
        """An interface of a sandbox; even ones are sandboxes of the pod before."""
        namespace = self.namespaces.setdefault(number, self.rig.opener.namespace())
        return self.rig.attachment(f"p{number}", namespace, ifname=ifname, pod_uid=f"uid{number // 2}")

    async def act(self, action: str, one: Any, other: Any) -> None:
        network = self.rig.agent.network
        if action in ("add", "delete", "check"):
            self.running.append(asyncio.create_task(getattr(network, action)(self.request(one, other))))
        elif action == "gc":
            self.running.append(asyncio.create_task(network.gc([self.request(n, "eth0") for n in one])))
        elif action == "restart":
            await self.restart()
        elif action == "turns":
            for _ in range(one):
                await asyncio.sleep(0)
        elif action == "poll":
            await self.poll()
        elif action == "wait":
            await self.wait()
        else:
            self.interfere(action, one)
        self.hold()

    async def wait(self) -> None:
        """Until the runtime has all its answers, each of which is an outcome or a NetworkError."""
        results = await asyncio.wait_for(asyncio.gather(*self.running, return_exceptions=True), 10)
        self.running.clear()
        for one in results:
            assert one is None or isinstance(one, Attached | NetworkError), one

    async def restart(self) -> None:
        """As `NodeAgent` does it: what was asked for is finished before."""
        await self.wait()
        attached: list[AttachedPod] = list(self.rig.agent.network.attached)
        refused = self.kernel.refused
        await self.rig.agent.stop()
        self.rig.new_agent(Choosy)
        self.kernel.refused = refused
        await self.rig.start(attached=attached)

    async def poll(self) -> None:
        self.now += 1
        await asyncio.wait_for(self.rig.poll(self.now), 10)

    @property
    def kernel(self) -> Choosy:
        kernel = self.rig.agent._kernel
        assert isinstance(kernel, Choosy)
        return kernel

    def interfere(self, action: str, one: Any) -> None:
        host = self.rig.host
        ours = [link for link in host.objects.links() if link.name.startswith("pp")]
        others = [v for v in host.objects.network.values() if not isinstance(v, Link) and v.identity not in self.empty]
        if action == "take" and others:
            host.delete(others[one % len(others)])
        elif action == "link down" and ours:
            host.set_link(ours[one % len(ours)].name, up=False)
        elif action == "link away" and ours:
            host.delete(ours[one % len(ours)])
        elif action == "flush":
            host.objects.nft.clear()
            host.objects.foreign_commits += 1
        elif action == "refuse":
            self.kernel.refused = one
        elif action == "block":
            self.rig.put(msgspec.structs.replace(node(1, DUAL), spec=NodeSpec(pod_cidrs=one)))

    def hold(self) -> None:
        """No two attachments have the same address."""
        network = self.rig.agent.network
        ips = [ip for _, addresses in network.attached for ip in addresses]
        assert len(ips) == len(set(ips)), ips
        for owner in network.addresses.owners:
            assert owner in network._sandboxes or owner in network._leaving or self.running, (
                f"{owner} has addresses for nothing"
            )

    async def heal(self) -> None:
        """Nobody interferes any more, and time passes."""
        self.kernel.refused = ""
        await self.wait()
        self.rig.host.objects.foreign_commits += 1
        self.rig.host.lose_changes()
        for _ in range(8):
            self.now += 70
            await self.poll()
            await self.rig.settle()

    def compare(self) -> None:
        """The kernel holds what is desired, and nothing is under way or refused."""
        agent = self.rig.agent
        assert not agent.ledger.refused and not agent.ledger._deviations, agent.ledger._deviations
        found = self.rig.kernel.read(agent.watcher.ownership)
        wanted = {i for i, v in agent.ledger.desired.items() if not v.netns and not isinstance(v, Sysctl)}
        assert wanted == set(found)


@given(ACTIONS)
@settings(deadline=None, max_examples=40)
def test_nothing_is_had_twice_and_nothing_is_left(actions: list[tuple[str, Any, Any]]) -> None:
    asyncio.run(_play(actions))


async def _play(actions: list[tuple[str, Any, Any]]) -> None:
    play = Play()
    await play.start()
    for action in actions:
        await play.act(*action)
    await play.heal()
    play.compare()
    await play.restart()
    assert play.rig.written == 0, "an agent that starts anew writes nothing"
    await play.rig.agent.network.gc([])
    await play.rig.settle()
    play.rig.put(node(1, DUAL))
    await play.heal()
    play.compare()
    assert_nothing_is_left(play.rig)
    await play.rig.agent.stop()
