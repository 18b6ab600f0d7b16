"""Probes of a node's peers, and routes that are withdrawn: an agent over the fake kernel, a network and a time of the test's own."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import msgspec
import pytest

from podplane.agent import probing
from podplane.agent.poller import Poller
from podplane.agent.probing import FIRST_SECONDS, SUSPECTS, WITHDRAWN, Probing
from podplane.kernel.parts import Answer
from podplane.model.config import UNDERLAY_MTU
from podplane.model.objects import Node, NodeCondition
from podplane.probes.choice import MOST
from podplane.probes.table import INTERVAL_SECONDS, State
from podplane.state.network import Route
from tests.plans import node
from tests.unit.agent.rig import DUAL, Rig

STEP = 0.08


def with_ready(number: int, status: str) -> Node:
    """A node with this condition Ready."""
    made = node(number, DUAL)
    return msgspec.structs.replace(
        made, status=msgspec.structs.replace(made.status, conditions=(NodeCondition("Ready", status),))
    )


def narrow(number: int, status: str) -> Node:
    """The same, that takes packets of less than IPv6 needs."""
    made = with_ready(number, status)
    annotations = {**made.metadata.annotations, UNDERLAY_MTU: "1270"}
    return msgspec.structs.replace(made, metadata=msgspec.structs.replace(made.metadata, annotations=annotations))


def renamed(name: str, made: Node) -> Node:
    """The same node by another name."""
    return msgspec.structs.replace(made, metadata=msgspec.structs.replace(made.metadata, name=name))


class Net:
    """The network: nodes of `dead` numbers answer nothing, and their addresses of `blocked` neither."""

    def __init__(self) -> None:
        self.dead: set[int] = set()
        self.blocked: set[str] = set()
        self.asked: list[str] = []
        self._answers: list[Answer] = []
        self.is_closed = False

    def send(self, ip: str, sequence: int) -> bool:
        self.asked.append(ip)
        if ip not in self.blocked and self._number(ip) not in self.dead:
            self._answers.append(Answer(ip, sequence, 0.0005))
        return True

    @staticmethod
    def _number(ip: str) -> int:
        """Of the node that has it, by `tests.plans`."""
        parts = ip.replace("::", ":").split(":" if ":" in ip else ".")
        if ip.startswith("10.244."):
            return int(parts[2])
        if ip.startswith("fd00:10:244:"):
            return int(parts[3])
        return int(parts[-1]) - 9

    def receive(self) -> Iterable[Answer]:
        found, self._answers = self._answers, []
        return found

    def close(self) -> None:
        self.is_closed = True


class ProbingRig(Rig):
    """An agent of node1 that probes; what is told of Nodes reaches both."""

    async def begin(self, *nodes: Node) -> Probing:
        """Start it in a cluster of these."""
        self.net, self.is_current = Net(), True
        await self.start(*nodes)
        self.probing = self.new_probing()
        self.caches.nodes.subscribe(lambda old, new: self.probing.changed(old, new))
        return self.probing

    def new_probing(self) -> Probing:
        made = Probing(self.agent, lambda: self.net, Poller(), self._record, lambda: self.is_current, clock=lambda: self.now)
        made.begin()
        made._echo = self.net
        return made

    async def pass_(self, seconds: float) -> None:
        """Look again and again for so long."""
        end = self.now + seconds
        while self.now < end:
            self.now += STEP
            self.probing.look()
        await self.settle()

    def kinds(self, number: int) -> set[str]:
        """Of the routes to a node's blocks in the kernel."""
        return {one.kind for one in self.routes(number)}

    def routes(self, number: int) -> list[Route]:
        """To a node's blocks, in the kernel."""
        wanted = (f"10.244.{number}.0/24", f"fd00:10:244:{number}::/64")
        found = (one for one in self.host.objects.network.values() if isinstance(one, Route))
        return [one for one in found if str(one.destination) in wanted]

    @property
    def withdrawals(self) -> list[str]:
        return [key for key, reason, _ in self.events if reason == WITHDRAWN]


READY = [with_ready(n, "True") for n in (1, 2, 3, 4)]
START = FIRST_SECONDS + 2 * INTERVAL_SECONDS


@pytest.fixture
async def rig() -> ProbingRig:
    """All nodes are ready, and answer."""
    made = ProbingRig()
    await made.begin(*READY)
    await made.pass_(START)
    return made


async def test_all_ways_to_all_peers_are_reached(rig: ProbingRig) -> None:
    ways = rig.probing.ways()
    assert {one.peer for one in ways} == {"node2", "node3", "node4"} and len(ways) == 12
    assert {one.state for one in ways} == {"reached"} and all(0 < (one.latency or 0) < 0.001 for one in ways)
    assert not any(one.is_withdrawn for one in ways) and rig.events == []


async def test_a_node_that_dies_is_withdrawn_within_a_second_of_the_api_saying_so_and_is_back_when_ready(
    rig: ProbingRig,
) -> None:
    rig.net.dead = {2}
    await rig.pass_(10)
    assert rig.kinds(2) == {"unicast"}, "it does not answer, and the API says nothing"
    rig.put(with_ready(2, "Unknown"))
    await rig.pass_(2 * STEP)
    assert rig.kinds(2) == {"unreachable"} and rig.kinds(3) == {"unicast"}
    assert rig.withdrawals == ["node/node2"]
    assert {one.is_withdrawn for one in rig.probing.ways() if one.peer == "node2"} == {True}
    before = rig.written
    await rig.pass_(30)
    assert rig.written == before and rig.withdrawals == ["node/node2"]
    rig.put(with_ready(2, "True"))
    await rig.pass_(2 * STEP)
    assert rig.kinds(2) == {"unicast"}


async def test_it_is_back_when_it_answers_though_the_api_does_not_say_so(rig: ProbingRig) -> None:
    rig.net.dead = {2}
    rig.put(with_ready(2, "Unknown"))
    await rig.pass_(1)
    assert rig.kinds(2) == {"unreachable"}
    rig.net.dead = set()
    await rig.pass_(4)
    assert rig.kinds(2) == {"unicast"}


async def test_a_node_that_answers_keeps_its_routes_however_old_its_lease_is(rig: ProbingRig) -> None:
    rig.put(with_ready(2, "Unknown"))
    await rig.pass_(60)
    assert rig.kinds(2) == {"unicast"} and rig.events == []


async def test_a_dead_node_whose_own_address_somebody_else_answers_for_is_withdrawn(rig: ProbingRig) -> None:
    rig.net.blocked = {"10.244.2.1", "fd00:10:244:2::1"}
    rig.put(with_ready(2, "Unknown"))
    await rig.pass_(1)
    assert rig.kinds(2) == {"unreachable"}


async def test_of_two_ip_versions_one_is_enough(rig: ProbingRig) -> None:
    rig.net.blocked = {"fd00:10:244:2::1"}
    rig.put(with_ready(2, "Unknown"))
    await rig.pass_(20)
    assert rig.kinds(2) == {"unicast"}


async def test_while_most_nodes_fail_nothing_is_withdrawn_whichever_is_told_of_first(rig: ProbingRig) -> None:
    rig.net.dead = {2, 3, 4}
    await rig.pass_(10)
    for number in (2, 3, 4):
        rig.put(with_ready(number, "Unknown"))
        await rig.pass_(5)
    assert rig.kinds(2) == rig.kinds(3) == rig.kinds(4) == {"unicast"}


async def test_while_the_api_is_away_nothing_is_withdrawn(rig: ProbingRig) -> None:
    rig.is_current = False
    rig.net.dead = {2}
    rig.put(with_ready(2, "Unknown"))
    await rig.pass_(30)
    assert rig.kinds(2) == {"unicast"}
    rig.is_current = True
    await rig.pass_(2)
    assert rig.kinds(2) == {"unreachable"}


async def test_a_node_that_is_about_to_begin_is_not_withdrawn(rig: ProbingRig) -> None:
    rig.net.dead = {5}
    rig.put(with_ready(5, "False"))
    await rig.pass_(10)
    assert rig.kinds(5) == {"unicast"} and rig.withdrawals == []


async def test_a_node_that_is_deleted_has_no_routes_and_begins_anew_when_it_is_back(rig: ProbingRig) -> None:
    rig.net.dead = {2}
    rig.put(with_ready(2, "Unknown"))
    await rig.pass_(1)
    rig.remove(READY[1])
    await rig.pass_(1)
    assert rig.kinds(2) == set() and not any(one.peer == "node2" for one in rig.probing.ways())
    assert "10.244.2.1" not in rig.host.objects.dump()
    rig.net.dead = set()
    rig.put(with_ready(2, "False"))
    await rig.pass_(1)
    assert rig.kinds(2) == {"unicast"}


async def test_other_blocks_of_a_node_that_is_withdrawn_are_withdrawn_too(rig: ProbingRig) -> None:
    rig.net.dead = {2, 7}
    rig.put(with_ready(2, "Unknown"))
    await rig.pass_(1)
    moved = msgspec.structs.replace(with_ready(2, "Unknown"), spec=node(7, DUAL).spec)
    rig.put(moved)
    await rig.pass_(1)
    assert rig.kinds(2) == set() and rig.kinds(7) == {"unreachable"}
    rig.net.dead = set()
    await rig.pass_(2)
    assert rig.kinds(7) == {"unicast"}


async def test_an_agent_that_starts_keeps_what_was_withdrawn_and_writes_nothing(rig: ProbingRig) -> None:
    rig.net.dead = {2}
    rig.put(with_ready(2, "Unknown"))
    await rig.pass_(1)
    for status in ("Unknown", "True"):
        rig.put(with_ready(2, status))
        await rig.agent.stop()
        rig.subscribed = None
        rig.new_agent()
        await rig.start()
        rig.probing = rig.new_probing()
        await rig.pass_(3)
        if status == "Unknown":
            assert rig.kinds(2) == {"unreachable"} and rig.written == 0
    assert rig.kinds(2) == {"unicast"} and rig.withdrawals == ["node/node2"]


async def test_an_agent_that_starts_keeps_the_routes_to_a_peer_that_takes_too_little_for_ipv6(rig: ProbingRig) -> None:
    rig.put(narrow(2, "Unknown"))
    await rig.pass_(3)
    before = {str(one.destination): one.kind for one in rig.routes(2)}
    assert before == {"10.244.2.0/24": "unicast", "fd00:10:244:2::/64": "unreachable"}
    await rig.agent.stop()
    rig.subscribed = None
    rig.new_agent()
    await rig.start()
    assert rig.agent.view.withdrawn == frozenset() and rig.written == 0
    assert {str(one.destination): one.kind for one in rig.routes(2)} == before


async def test_in_a_large_cluster_a_node_watches_some_and_those_that_are_not_ready() -> None:
    rig = ProbingRig()
    nodes = [with_ready(n, "True") for n in range(1, 101)]
    await rig.begin(*nodes)
    await rig.pass_(START)
    watched = {row.path.peer for row in rig.probing.table.rows}
    assert len(watched) == MOST and len(rig.net.asked) <= MOST * 4 * 4
    far = next(n for n in range(2, 101) if f"node{n}" not in watched)
    rig.net.dead = {far}
    rig.put(with_ready(far, "Unknown"))
    await rig.pass_(0.9)
    assert rig.kinds(far) == {"unreachable"}
    rig.put(with_ready(far, "True"))
    await rig.pass_(1)
    assert rig.kinds(far) == {"unicast"} and not rig.probing.table.of(f"node{far}")


async def test_nodes_that_are_about_to_begin_are_not_probed_by_the_whole_cluster_nor_are_dead_ones_often() -> None:
    rig = ProbingRig()
    await rig.begin(*(with_ready(n, "True") for n in range(1, 201)))
    await rig.pass_(START)
    far = [n for n in range(2, 201) if not rig.probing.table.of(f"node{n}")][:2]
    rig.put(with_ready(201, "False"))
    rig.net.dead = {far[0]}
    rig.put(with_ready(far[0], "Unknown"), with_ready(far[1], "Unknown"))
    rig.net.asked.clear()
    await rig.pass_(30)
    assert not rig.probing.table.of("node201") or "node201" in rig.probing._chosen
    dead, silent = (rig.net.asked.count(f"10.244.{n}.1") for n in far)
    assert rig.kinds(far[0]) == {"unreachable"} and rig.kinds(far[1]) == {"unicast"}
    assert dead <= 4 + 30 / 3 and silent <= 1 + 30 / 8, "half as often as those that are watched"


async def test_however_many_nodes_are_not_ready_a_node_probes_only_so_many() -> None:
    rig = ProbingRig()
    await rig.begin(*(with_ready(n, "True" if n < 140 else "Unknown") for n in range(1, 240)))
    rig.net.dead = set(range(140, 240))
    await rig.pass_(0.1)
    assert len({row.path.peer for row in rig.probing.table.rows}) <= MOST + SUSPECTS
    await rig.pass_(START + 10)
    assert all(rig.kinds(n) == {"unreachable"} for n in range(140, 240)), "but each gets its turn"


async def test_a_change_of_the_backend_is_probed_by_the_new_way(rig: ProbingRig) -> None:
    await rig.agent.set_routes(msgspec.structs.replace(rig.agent.config, backend="vxlan"))
    await rig.pass_(0.1)
    rows = [row for row in rig.probing.table.rows if row.path.peer == "node2"]
    assert {row.path.backend for row in rows} == {"vxlan", ""}
    await rig.pass_(INTERVAL_SECONDS)
    assert {row.state for row in rows} == {State.REACHED}


async def test_a_node_whose_addresses_make_no_sense_is_not_probed(rig: ProbingRig) -> None:
    odd = with_ready(3, "True")
    rig.caches.nodes.set(msgspec.structs.replace(odd, spec=msgspec.structs.replace(odd.spec, pod_cidrs=("nonsense",))))
    await rig.pass_(5)
    assert not rig.probing.table.of("node3") and rig.probing.table.of("node2")


async def test_what_cant_be_sent_is_lost(rig: ProbingRig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rig.net, "send", lambda ip, sequence: False)
    await rig.pass_(12)
    assert {row.state for row in rig.probing.table.rows if row.path.backend} == {State.LOST}


async def test_of_the_nodes_that_are_ready_three_write_the_event() -> None:
    for number, is_written in ((4, False), (3, True)):
        rig = ProbingRig()
        await rig.begin(
            READY[0], *(renamed(f"a{n}", with_ready(n, "True")) for n in range(2, number + 1)), with_ready(5, "True")
        )
        await rig.pass_(START)
        rig.net.dead = {5}
        rig.put(with_ready(5, "Unknown"))
        await rig.pass_(1)
        assert rig.kinds(5) == {"unreachable"} and rig.withdrawals == (["node/node5"] if is_written else [])


async def test_a_look_judges_those_that_are_probed_however_many_are_not_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = ProbingRig()
    await rig.begin(*(with_ready(n, "True") for n in range(1, 240)))
    rig.net.dead = set(range(140, 240))
    rig.put(*(with_ready(n, "Unknown") for n in sorted(rig.net.dead)))
    await rig.pass_(START)
    assert all(rig.kinds(n) == {"unreachable"} for n in rig.net.dead)
    judged: list[str] = []
    suspect = rig.probing._suspect
    monkeypatch.setattr(rig.probing, "_suspect", lambda name: judged.append(name) or suspect(name))  # type: ignore[func-returns-value]
    rig.probing._is_to_judge = True
    rig.probing.look()
    assert 0 < len(judged) <= MOST + SUSPECTS
    rig.put(with_ready(150, "True"))
    await rig.pass_(2 * STEP)
    assert rig.kinds(150) == {"unicast"} and rig.kinds(151) == {"unreachable"}


async def test_of_a_withdrawn_node_that_is_deleted_nothing_is_said_to_be_back(
    rig: ProbingRig, caplog: pytest.LogCaptureFixture
) -> None:
    rig.net.dead = {2, 3}
    for number in (2, 3):
        rig.put(with_ready(number, "Unknown"))
        await rig.pass_(1)
        rig.net.dead -= {2}
        rig.remove(READY[1])
        await rig.pass_(1)
        rig.put(with_ready(2, "True"))
    assert rig.withdrawals == ["node/node2", "node/node3"]
    rig.put(with_ready(3, "True"))
    await rig.pass_(1)
    assert [line for line in caplog.messages if "are back" in line] == ["node=node1 routes to node3 are back"]


async def test_where_no_socket_can_be_opened_nothing_is_known_of_peers_and_that_is_said(
    rig: ProbingRig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(probing, "AGAIN_SECONDS", 0.01)
    is_open = asyncio.Event()
    tries: list[OSError] = [PermissionError(1, "Operation not permitted")] * 3

    def opened() -> Net:
        if tries:
            raise tries.pop()
        is_open.set()
        return rig.net

    made = Probing(rig.agent, opened, Poller(), rig._record, lambda: True, clock=lambda: rig.now)
    made.begin()
    task = asyncio.create_task(made.run())
    await asyncio.sleep(0)
    assert made.unmet() == ["peers can't be probed: [Errno 1] Operation not permitted"]
    assert not made.is_settled and made.ways() == made.problems() == []
    await is_open.wait()
    await asyncio.sleep(0)
    assert made.unmet() == [] and not made.is_settled, "no way was tried yet"
    assert len([line for line in caplog.messages if "Operation not permitted" in line]) == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert rig.probing.is_settled and rig.probing.unmet() == []
