"""Pods come and go, and the agent is killed between any two steps: whatever was acknowledged holds, and nothing is left over."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from podplane.cni.network import Attachment
from podplane.kernel.door import Kernel
from podplane.kernel.fakes.world import FakeNamespace
from podplane.machine.journal import Id, Journal
from podplane.model.view import BridgeNetwork
from podplane.state.network import Link
from podplane.state.operations import Operation, Report
from tests.unit.agent.rig import Rig, cluster

PODS = "abxy"
FURTHER = {name: BridgeNetwork("default/blue", ("10.20.0.0/24",)) for name in "xy"}
"""Of these it is about an interface of a further network."""
TURNS = 60
"""A call takes fewer turns of the loop than that."""


class Mortal(Kernel):
    """A door that does nothing any more once its process was killed, in the middle of a change or not."""

    is_dead = False

    def steps(self, operations: Sequence[Operation]) -> Iterator[Report]:
        for report in super().steps(operations):
            yield report
            if self.is_dead:
                raise ProcessLookupError


class Machine:
    """A node with a journal, an agent on it, and its runtime, which knows what was acknowledged."""

    def __init__(self, path: Path) -> None:
        self.rig = Rig()
        self.path = path
        self.journal = Journal(path)
        self.namespaces: dict[str, FakeNamespace] = {}
        self.acknowledged: dict[str, tuple[str, ...]] = {}

    def attaching(self, request: Attachment, ips: tuple[str, ...]) -> None:
        self.journal.attach(request, ips, 0)

    def detached(self, id_: Id) -> None:
        self.journal.detach(id_)

    async def start(self) -> None:
        """An agent, which knows what is in the journal."""
        self.journal.close()
        self.journal = Journal(self.path)
        attached = []
        for id_, kept in tuple(self.journal.attachments.items()):
            if (namespace := self.namespaces.get(kept.attach.name)) is not None:
                attached.append((kept.attachment(namespace), kept.ips))
            else:
                self.journal.detach(id_)
        self.rig.record = self
        self.rig.new_agent(Mortal)
        await self.rig.start(*cluster(1, 2), attached=attached)

    async def kill(self) -> None:
        """SIGKILL: nothing of it goes on."""
        kernel: Any = self.rig.agent._kernel
        kernel.is_dead = True
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    def request(self, name: str) -> Attachment:
        namespace = self.namespaces.setdefault(name, self.rig.opener.namespace())
        return self.rig.attachment(name, namespace, further=FURTHER.get(name))

    async def vanish(self, name: str) -> None:
        """A pod ends while no agent runs, and nobody asks for its network to be undone."""
        await self.kill()
        if (namespace := self.namespaces.pop(name, None)) is not None:
            self.acknowledged.pop(name, None)
            for link in [one for one in self.rig.host.objects.links() if one.peer and one.peer.netns == f"pod/{name}"]:
                self.rig.host.delete(link)
            namespace.close()
        await self.start()

    async def call(self, verb: str, name: str, turns: int) -> None:
        """A call of the runtime, whose agent is killed after so many turns of the loop (TURNS: it is not)."""
        if verb == "vanish":
            await self.vanish(name)
            return
        network, request = self.rig.agent.network, self.request(name)
        call = asyncio.create_task(getattr(network, verb)(request))
        if turns == TURNS:
            self._answered(verb, name, await call)
            return
        for _ in range(turns):
            await asyncio.sleep(0)
        if call.done() and call.exception() is None:
            self._answered(verb, name, call.result())
        elif verb == "delete":
            self.acknowledged.pop(name, None)  # it may be there or not
        await self.kill()
        await self.start()

    def _answered(self, verb: str, name: str, answer: Any) -> None:
        if verb == "add":
            self.acknowledged[name] = answer.ips
        elif verb == "delete":
            self.acknowledged.pop(name, None)
            del self.namespaces[name]

    async def look(self) -> None:
        """What was acknowledged is there as it was; no address is had twice; nothing is in the kernel that is not in the journal."""
        network = self.rig.agent.network
        await self.rig.settle()
        assert not self.rig.agent.ledger.refused, [str(one.error) for one in self.rig.agent.ledger.refused.values()]
        attached = {request.name: ips for request, ips in network.attached}
        assert {name: attached.get(name) for name in self.acknowledged} == self.acknowledged
        every = [(FURTHER.get(name), ip) for name, ips in attached.items() for ip in ips]
        assert len(every) == len(set(every))
        assert {kept.attach.name: kept.ips for kept in self.journal.attachments.values()} == attached
        for name in self.acknowledged:
            await network.check(self.request(name))
        links = {link.name: link.kind for link in self.rig.host.objects.links() if link.name.startswith("pp")}
        desired = self.rig.agent.ledger.desired.values()
        assert links.keys() == {one.name for one in desired if isinstance(one, Link) and one.name.startswith("pp")}
        assert list(links.values()).count("veth") == len(attached)


CALLS = st.tuples(
    st.sampled_from(("add", "add", "delete", "check", "vanish")),
    st.sampled_from(PODS),
    st.one_of(st.just(TURNS), st.integers(0, TURNS - 1)),
)


@settings(max_examples=40)
@given(calls=st.lists(CALLS, max_size=5))
def test_what_was_acknowledged_outlives_any_crash_and_nothing_leaks(
    calls: list[tuple[str, str, int]], tmp_path_factory: Any
) -> None:
    async def live() -> None:
        machine = Machine(tmp_path_factory.mktemp("run") / "journal")
        await machine.start()
        for verb, name, turns in calls:
            if verb == "check" and name not in machine.acknowledged:
                continue
            await machine.call(verb, name, turns)
            await machine.look()
        for name in PODS:  # what a runtime does in the end, of what it was not told, too
            await machine.call("delete", name, TURNS)
        await machine.look()
        assert not machine.journal.attachments and not machine.rig.agent.network.addresses.owners

    asyncio.run(live())


@settings(max_examples=20)
@given(data=st.data())
def test_whatever_the_journal_says_an_agent_starts_and_no_address_is_had_twice(
    data: st.DataObject, tmp_path_factory: Any
) -> None:
    async def live() -> None:
        machine = Machine(tmp_path_factory.mktemp("run") / "journal")
        await machine.start()
        for name in PODS:
            await machine.call("add", name, TURNS)
        content = bytearray(machine.path.read_bytes())
        for _ in range(data.draw(st.integers(1, 6))):
            at = data.draw(st.integers(0, len(content) - 1))
            content[at] = data.draw(st.sampled_from(b'0123456789.:a"{}[]x-\n'))
        await machine.kill()
        machine.path.write_bytes(content)
        await machine.start()
        every = [(request.further, ip) for request, ips in machine.rig.agent.network.attached for ip in ips]
        assert len(every) == len(set(every))
        added = await machine.rig.agent.network.add(machine.rig.attachment("new"))
        assert not {(None, ip) for ip in added.ips} & set(every)

    asyncio.run(live())
