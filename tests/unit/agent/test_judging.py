"""Connections are judged again in few walks, after what judges them is in the kernel, and nobody waits for that."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Collection
from ipaddress import ip_address

import pytest

from podplane.agent.judging import Judge
from podplane.agent.pause import Pause
from podplane.kernel.door import Kernel
from podplane.kernel.netlink import DumpInterrupted
from podplane.model.policy import EVERYTHING
from podplane.state.value import IPAddress
from tests.policed import policy
from tests.unit.agent.rig import Rig, cluster, until
from tests.unit.policy.test_agent import attach, pod, verdicts

IPS = [ip_address(f"10.244.1.{n}") for n in range(10)]


class Walks:
    """A kernel that remembers what it was asked, and answers when it may."""

    def __init__(self, *errors: Exception) -> None:
        self.asked: list[set[IPAddress]] = []
        self.forgotten: list[set[IPAddress]] = []
        self.errors = list(errors)
        self.may_end = threading.Event()
        self.may_end.set()
        self.at_once = self.most_at_once = 0

    def judge_again(self, ips: Collection[IPAddress]) -> int:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        self.asked.append(set(ips))
        self.may_end.wait(10)
        self.at_once -= 1
        if self.errors:
            raise self.errors.pop()
        return 0

    def forget_connections(self, ips: Collection[IPAddress]) -> int:
        self.forgotten.append(set(ips))
        return 0


async def nothing_to_send() -> None:
    """All is in the kernel."""


async def test_changes_of_a_moment_are_one_walk_and_those_that_come_during_it_another() -> None:
    walks = Walks()
    judge = Judge("node1", walks, nothing_to_send, asyncio.Lock())
    for ip in IPS[:5]:
        judge.add([ip])
        judge.begin()
    walks.may_end.clear()
    await until(lambda: bool(walks.asked))
    for ip in IPS[5:]:
        judge.add([ip])
        judge.begin()
    assert walks.asked == [set(IPS[:5])]
    walks.may_end.set()
    await judge.idle()
    assert walks.asked == [set(IPS[:5]), set(IPS[5:])] and not judge.has_due


async def test_what_is_planned_is_judged_only_when_it_is_in_the_kernel() -> None:
    walks, sent = Walks(), asyncio.Event()
    judge = Judge("node1", walks, lambda: sent.wait(), asyncio.Lock())  # type: ignore[arg-type, return-value]
    judge.add(IPS)
    assert judge.has_due
    judge.begin()
    await asyncio.sleep(0.02)
    assert not walks.asked
    sent.set()
    await judge.idle()
    assert walks.asked == [set(IPS)]


@pytest.mark.parametrize(
    "error", [OSError(24, "Too many open files"), DumpInterrupted("connections"), RuntimeError("no thread")]
)
async def test_a_walk_that_fails_is_tried_again_with_what_came_since(error: Exception) -> None:
    walks = Walks(error)
    judge = Judge("node1", walks, nothing_to_send, asyncio.Lock())
    judge.add(IPS[:1])
    judge.begin()
    await judge.idle()
    assert judge.has_due and len(walks.asked) == 1
    judge.add(IPS[1:2])
    judge.begin()
    await judge.idle()
    assert not judge.has_due and walks.asked[1:] == [set(IPS[:2])]


async def test_what_is_to_be_forgotten_is_though_it_is_to_be_judged_too_and_who_waits_for_it_does_not_wait_for_others() -> None:
    walks = Walks()
    judge = Judge("node1", walks, nothing_to_send, asyncio.Lock())
    judge.add(IPS[:2])
    judge.forget(IPS[1:3])
    judge.add(IPS[1:4])
    await judge.forgotten(IPS[1:3])
    assert walks.forgotten == [set(IPS[1:3])] and walks.asked == [{IPS[0], IPS[3]}]
    walks.may_end.clear()
    judge.add(IPS[5:6])
    await judge.forgotten(IPS[1:3])
    await until(lambda: len(walks.asked) == 2)
    await judge.forgotten(IPS[1:3])
    walks.may_end.set()
    await judge.idle()


async def test_agents_of_a_process_walk_one_after_another() -> None:
    walks, turn = Walks(), asyncio.Lock()
    judges = [Judge(f"node{n}", walks, nothing_to_send, turn) for n in range(5)]
    for judge in judges:
        judge.add(IPS)
        judge.begin()
    for judge in judges:
        await judge.idle()
    assert len(walks.asked) == 5 and walks.most_at_once == 1


async def test_neither_a_change_nor_a_pod_waits_for_a_walk_and_an_agent_that_ends_does() -> None:
    walks = Walks()
    walks.may_end.clear()

    class Busy(Kernel):
        def judge_again(self, ips: Collection[IPAddress]) -> int:
            return walks.judge_again(ips)

    rig = Rig(kernel=Busy)
    await rig.start(*cluster(1))
    rig.put(pod("web", "web"))
    await attach(rig, "web")
    rig.put(policy("all", EVERYTHING, []))
    await rig.agent.reconcile()
    await until(lambda: bool(walks.asked))
    rig.put(policy("all", EVERYTHING, [], []))
    await rig.agent.reconcile()
    rig.put(pod("late", "web"))
    await attach(rig, "late")
    assert len(walks.asked) == 1, "the first one has not ended"
    ending = asyncio.create_task(rig.agent.stop())
    walks.may_end.set()
    await ending
    assert len(walks.asked) == 2, "what changed last is judged"


async def test_what_is_planned_and_not_sent_yet_is_sent_before_connections_are_judged() -> None:
    """Whoever begins the walk, and whenever: another one may be planning."""
    led: list[str] = []

    class Noting(Kernel):
        def judge_again(self, ips: Collection[IPAddress]) -> int:
            led.append(verdicts(rig, "ingress4")["pod/a/web"])
            return 0

    rig = Rig(kernel=Noting)
    await rig.start(*cluster(1))
    rig.put(pod("web", "web"))
    await attach(rig, "web")
    rig.put(policy("all", EVERYTHING, []))
    await rig.agent.planner.replan(Pause())
    assert verdicts(rig, "ingress4")["pod/a/web"] == "pass" and not led
    await rig.agent.idle()
    assert led == ["in"]
