"""No pod is led to rules whose sets are still being filled, whatever else happens at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator, Sequence
from typing import cast

import msgspec
import pytest

from podplane.agent import pause, policy_plans
from podplane.agent.attachments import PEER_KEYS
from podplane.agent.fills import Fill
from podplane.agent.keys import PolicyPodKey
from podplane.agent.pause import Pause
from podplane.kernel.door import Kernel
from podplane.kernel.nft import table
from podplane.model.pod_info import NamespaceInfo, SlimMetadata
from podplane.model.policy import LabelSelector, NetworkPolicy, PodSelector, PolicyRule, Requirement
from podplane.policy import filling
from podplane.state.nft import Element, Verdict
from podplane.state.operations import Operation, Report
from podplane.state.value import Identity
from tests.policed import policy, select
from tests.unit.agent.rig import Object, Rig, cluster, until
from tests.unit.policy.test_agent import WEB, attach, peers, pod, verdicts

PEERS = 40
CLIENTS = [pod(f"c{n}", "client", f"10.244.2.{n}") for n in range(2, 2 + PEERS)]
OTHERS = [pod(f"o{n}", "other", f"10.244.3.{n}") for n in range(2, 2 + PEERS)]


class LookingRig(Rig):
    """It notes, after each transaction of its agent, how many peers a pod under policies is led to, if it is."""

    def __init__(self) -> None:
        self.seen: set[tuple[str, int]] = set()
        look = self._look

        class Looking(Kernel):
            def steps(self, operations: Sequence[Operation]) -> Iterator[Report]:
                for report in super().steps(operations):
                    look()
                    yield report

        super().__init__(kernel=Looking)

    def _look(self) -> None:
        found = [v for v in self.host.objects.nft.values() if isinstance(v, Element)]
        led = [v for v in found if v.set == "ingress4" and isinstance(v.data, Verdict) and v.data.chain.startswith("in-")]
        count = sum(v.set.startswith("pods4") for v in found)
        self.seen |= {(v.comment, count) for v in led}


@pytest.fixture(params=[0, PEERS], ids=["large sets", "small sets"])
def rig(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> LookingRig:
    """With pauses after each step of long work, in which everything else has a turn. Each unit is a transaction of its own. Sets of up to
    so many pods are filled in the turn in which a pod is led to them."""
    monkeypatch.setattr(pause, "TURN_SECONDS", 0.0)
    monkeypatch.setattr(filling, "AT_ONCE", 1)
    monkeypatch.setattr(policy_plans, "AT_ONCE", request.param)
    monkeypatch.setattr(table, "SLICE_BYTES", 1)
    return LookingRig()


large_sets = pytest.mark.parametrize("rig", [0], indirect=True)


async def begin(rig: LookingRig, *objects: Object) -> None:
    await rig.start(*cluster(1))
    rig.put(NamespaceInfo(SlimMetadata("a")), pod("web", "web"), *CLIENTS, *OTHERS, *objects)


async def test_a_policy_that_comes_while_pods_start_leads_to_whole_sets_only(rig: LookingRig) -> None:
    await begin(rig)
    await attach(rig, "web")
    running = asyncio.create_task(rig.agent.run())
    try:
        rig.put(WEB)
        for number in range(20):
            await attach(rig, f"other{number}")
        await rig.settle()
    finally:
        running.cancel()
    assert verdicts(rig, "ingress4")["pod/a/web"] == "in" and len(peers(rig)) == PEERS
    assert rig.seen == {("pod/a/web", PEERS)}


@pytest.mark.parametrize("steps", [1, 5, 20, 60])
async def test_a_pod_waits_for_sets_that_another_one_has_filled_only_half(rig: LookingRig, steps: int) -> None:
    await begin(rig, WEB, *(pod(f"web{n}", "web") for n in range(3)))
    first = asyncio.create_task(attach(rig, "web"))
    for _ in range(steps):
        await asyncio.sleep(0)
    await asyncio.gather(first, *(attach(rig, f"web{n}") for n in range(3)))
    assert {name for name, _ in rig.seen} == {"pod/a/web", "pod/a/web0", "pod/a/web1", "pod/a/web2"}
    assert {count for _, count in rig.seen} == {PEERS}


async def test_who_is_led_to_other_rules_loses_the_former_sets_after_that_and_not_before(rig: LookingRig) -> None:
    await begin(rig, WEB)
    await attach(rig, "web")
    running = asyncio.create_task(rig.agent.run())
    try:
        rig.put(msgspec.structs.replace(WEB, ingress=(PolicyRule((PodSelector("a", select(app="other")),)),)))
        requests = [await attach(rig, f"other{number}") for number in range(10)]
        for request in requests:
            await rig.agent.network.delete(request)
        await rig.settle()
    finally:
        running.cancel()
    assert peers(rig) == sorted(f"pod/a/{one.metadata.name}" for one in OTHERS)
    assert min(count for _, count in rig.seen) == PEERS


async def test_a_pod_that_goes_or_gets_another_policy_while_it_waits_leaves_nothing(rig: LookingRig) -> None:
    await begin(rig)
    before = await attach(rig, "web")
    rig.put(WEB)
    planning = asyncio.create_task(rig.agent.reconcile())
    for _ in range(10):
        await asyncio.sleep(0)
    rig.put(policy("web", select(app="web"), [PolicyRule((PodSelector("a", select(app="other")),))]))
    for _ in range(10):
        await asyncio.sleep(0)
    await rig.agent.network.delete(before)
    await planning
    await rig.settle()
    assert peers(rig) == [] and not rig.agent.is_behind and not rig.events
    await attach(rig, "web")
    assert len(peers(rig)) == PEERS


async def test_an_attachment_returns_when_the_sets_of_its_policies_are_filled_whoever_fills_them(rig: LookingRig) -> None:
    await begin(rig, WEB)
    attaching = asyncio.create_task(attach(rig, "web"))
    await until(lambda: rig.agent.is_behind or attaching.done())
    await asyncio.gather(rig.agent.reconcile(), attaching)
    assert rig.seen == {("pod/a/web", PEERS)} and len(peers(rig)) == PEERS


@pytest.mark.parametrize("is_planned", [False, True])
async def test_a_pod_that_starts_finds_the_sets_of_others_as_they_are_known_by_then(rig: LookingRig, is_planned: bool) -> None:
    """A label that was taken away before it came, and of which the agent knows, lets nobody in."""
    await begin(rig, WEB, pod("late", "web"))
    await attach(rig, "web")
    rig.put(pod("c2", "", "10.244.2.2"))
    if is_planned:
        await rig.agent.planner.replan(Pause())
    assert len(peers(rig)) == PEERS, "nothing was sent yet"
    await attach(rig, "late")
    assert ("pod/a/late", PEERS - 1) in rig.seen and ("pod/a/late", PEERS) not in rig.seen


def other_policy(number: int) -> NetworkPolicy:
    """WEB with another selector, which selects the same clients."""
    clients = LabelSelector((Requirement("app", "In", ("client", f"x{number}")),))
    return msgspec.structs.replace(WEB, ingress=(PolicyRule((PodSelector("a", clients),)),))


def change_while_filling(rig: LookingRig, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Each time when sets are filled the policy is another one, which needs other sets; so often that was."""
    planner, changes = rig.agent.planner, list[int]()
    fill = planner.fill

    async def changing(fills: Collection[Fill], pause: Pause) -> None:
        await fill(fills, pause)
        if fills:
            assert len(changes) < 100, "it goes on for ever"
            changes.append(len(changes))
            rig.put(other_policy(len(changes)))

    monkeypatch.setattr(planner, "fill", changing)
    return changes


@large_sets
async def test_an_attachment_ends_though_its_policies_change_all_the_time(
    rig: LookingRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    await begin(rig, WEB)
    with monkeypatch.context() as patched:
        changes = change_while_filling(rig, patched)
        await attach(rig, "web")
    assert len(changes) == 1 and verdicts(rig, "ingress4")["pod/a/web"] == "in" and len(peers(rig)) == PEERS
    assert rig.agent.is_behind
    await rig.settle()
    assert not rig.agent.is_behind and not rig.agent.planner._planned and not rig.agent.planner._overtaken
    assert len(peers(rig)) == PEERS and min(count for _, count in rig.seen) == PEERS


@large_sets
async def test_policies_come_into_force_though_they_change_all_the_time(
    rig: LookingRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last one but one is, while the last one's sets are filled; and what is planned is sent."""
    await begin(rig)
    await attach(rig, "web")
    rig.put(WEB)
    with monkeypatch.context() as patched:
        changes = change_while_filling(rig, patched)
        await rig.agent.reconcile()
    assert len(changes) > 1 and verdicts(rig, "ingress4")["pod/a/web"] == "in" and rig.agent.is_behind
    await rig.settle()
    assert not rig.agent.is_behind and len(peers(rig)) == PEERS and min(count for _, count in rig.seen) == PEERS


async def test_who_catches_up_with_peers_does_not_wait_for_those_that_move_meanwhile(
    rig: LookingRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filling, "AT_ONCE", 1000)
    await begin(rig, WEB)
    await attach(rig, "web")
    moved = list[str]()

    async def moving() -> None:
        assert len(moved) < 100, "it goes on for ever"
        moved.append(f"10.244.5.{len(moved) + 1}")
        rig.put(pod("moving", "client", moved[-1]))

    rig.put(pod("c2", "", "10.244.2.2"))
    await rig.agent.planner.catch_up(PEER_KEYS, cast(Pause, moving))
    rig.agent.writer.wake()
    await rig.agent.writer.idle()
    assert moved and "pod/a/c2" not in peers(rig)
    await rig.settle()
    assert len(peers(rig)) == PEERS and "pod/a/moving" in peers(rig)


@large_sets
async def test_pods_do_not_wait_for_sets_that_others_are_still_to_have(rig: LookingRig) -> None:
    await begin(rig, WEB)
    attaching = asyncio.create_task(attach(rig, "web"))
    await until(lambda: len(peers(rig)) > 0 or bool(rig.agent.planner._fills))
    await attach(rig, "other")
    assert not attaching.done()
    await attaching


@large_sets
async def test_a_set_whose_last_pods_a_change_has_brought_is_awaited_like_any_other(rig: LookingRig) -> None:
    await begin(rig)
    await attach(rig, "web")
    planner = rig.agent.planner
    rig.put(WEB)
    await planner.catch_up((PolicyPodKey,), Pause())
    for number in range(PEERS + 2):
        rig.put(pod("another", "client", f"10.244.4.{2 + number}"))
        await planner.catch_up(PEER_KEYS, Pause())
    assert planner.is_behind and peers(rig) == [], "planned, and not sent"
    await planner.fill(planner._fills.all(), Pause())
    assert len(peers(rig)) == PEERS + 1


@large_sets
async def test_who_waited_longest_for_a_set_does_not_take_a_later_one_for_filled(
    rig: LookingRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    await begin(rig)
    await attach(rig, "web")
    planner, waits, go_on = rig.agent.planner, [True], asyncio.Event()
    in_kernel = planner._in_kernel

    async def slow_at_first(identities: Collection[Identity]) -> None:
        await in_kernel(identities)
        if waits and waits.pop():
            await go_on.wait()

    monkeypatch.setattr(planner, "_in_kernel", slow_at_first)
    rig.put(WEB)
    await planner.catch_up((PolicyPodKey,), Pause())
    waiting = asyncio.create_task(planner.fill(planner._fills.all(), Pause()))
    await until(lambda: not waits)
    await planner.replan(Pause())
    for change in (rig.remove, rig.put):
        change(WEB)
        await planner.catch_up((PolicyPodKey,), Pause())
    go_on.set()
    await waiting
    (key,) = (key for key in rig.agent.ledger.desired.keys_planned if isinstance(key, PolicyPodKey))
    planner.plan_now(key)
    assert planner.awaited(key), "until the set is filled again"
    await rig.settle()
    assert min(count for _, count in rig.seen) == PEERS


@pytest.mark.parametrize("rig", [PEERS], indirect=True)
async def test_a_pod_that_is_sent_between_others_has_what_is_in_its_sets_sent_with_it(rig: LookingRig) -> None:
    await begin(rig, WEB, pod("x", "x"), pod("one", "one", "10.244.4.2"))
    await attach(rig, "x")
    rig.put(policy("x", select(app="x"), [PolicyRule((PodSelector("a", select(app="one")),))]))
    reconciling = asyncio.create_task(rig.agent.reconcile())
    await until(lambda: bool(rig.agent.ledger._sent))
    await attach(rig, "web")
    assert not reconciling.done()
    await reconciling
    assert ("pod/a/x", PEERS + 1) in rig.seen
    assert min(count for name, count in rig.seen if name == "pod/a/web") >= PEERS
