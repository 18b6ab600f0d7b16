"""What comes and goes leaves nothing behind: the containers of an agent, and of all that it holds, do not grow with what has been."""

from __future__ import annotations

import asyncio
import functools
import gc
import types
from collections import deque
from collections.abc import Iterator
from typing import Any

import pytest

from podplane.agent.keys import ServiceKey
from podplane.agent.object_events import AT_ONCE, QUIET_SECONDS, REMEMBERED, ObjectEvents
from podplane.agent.peer_plans import PeerPlans
from podplane.kubeapi.events import Recorder
from tests.plans import node
from tests.unit.agent.rig import DUAL, Rig, caches_of, cluster, service_of, slice_of

CONTAINERS = (dict, list, set, deque)
ROUNDS, MORE_ROUNDS = 30, 50
SLACK = 24
"""A container may hold so much more for the moment."""


def containers(root: object) -> Iterator[tuple[str, int]]:
    """(where, how many) of all containers that can be reached from an object through attributes, containers and closures."""
    seen: set[int] = set()
    waiting: deque[tuple[str, Any]] = deque([(type(root).__name__, root)])
    while waiting:
        where, one = waiting.popleft()
        if id(one) in seen or isinstance(one, str | bytes | int | float | type | types.ModuleType | types.FrameType):
            continue
        seen.add(id(one))
        if isinstance(one, CONTAINERS):
            yield where, len(one)
            pairs = one.items() if isinstance(one, dict) else enumerate(one)
            inner = [(f"{where}[…]", part) for _, part in pairs]
            inner += [(f"{where} key", key) for key in one] if isinstance(one, dict) else []
        elif isinstance(one, tuple | frozenset):
            inner = [(where, part) for part in one]
        elif isinstance(one, types.FunctionType):
            inner = [(f"{where}()", cell.cell_contents) for cell in one.__closure__ or () if cell != types.CellType()]
        elif isinstance(one, types.MethodType):
            inner = [(where, one.__self__)]
        elif type(one).__module__.startswith(("podplane", "tests")):
            inner = [(f"{where}.{name}", value) for name, value in _attributes(one)]
        else:
            continue
        waiting += inner


def _attributes(one: object) -> Iterator[tuple[str, object]]:
    names = {name for kind in type(one).__mro__ for name in getattr(kind, "__slots__", ())}
    for name in sorted(names | set(getattr(one, "__dict__", {}))):
        if hasattr(one, name):
            yield name, getattr(one, name)


def sizes(root: object) -> dict[str, int]:
    """How much there is of each kind of container."""
    found: dict[str, int] = {}
    for where, size in containers(root):
        found[where] = found.get(where, 0) + size
    return found


def cached() -> dict[str, tuple[int, int | None]]:
    """(entries, limit) of the caches of functions."""
    gc.unfreeze()  # what the tests' collection has frozen
    wrappers = [one for one in gc.get_objects() if isinstance(one, functools._lru_cache_wrapper)]
    ours = [one for one in wrappers if getattr(one, "__module__", "").startswith("podplane")]
    return {f"{one.__module__}.{one.__qualname__}": (one.cache_info().currsize, one.cache_info().maxsize) for one in ours}


def grown(before: dict[str, int], after: dict[str, int]) -> dict[str, tuple[int, int]]:
    """The containers that hold more than before, but for what only the fakes remember."""
    return {
        where: (before.get(where, 0), size)
        for where, size in after.items()
        if size > before.get(where, 0) + SLACK and "_opener" not in where and "objects" not in where
    }


def test_the_walk_finds_what_grows() -> None:
    """In attributes, slots, closures and containers in containers."""
    rig = Rig()
    before = sizes(rig.agent)
    rig.agent.watcher._foreign |= {("x", n): None for n in range(100)}
    rig.agent.planner._taken[ServiceKey("a")] = {("x", n) for n in range(100)}
    found = grown(before, sizes(rig.agent))
    assert {"Agent.watcher._foreign", "Agent.planner._taken[…]"} <= found.keys()


async def _rounds(rig: Rig, numbers: range) -> None:
    """A peer, a Service and two pods come and go in each, and somebody interferes."""
    for number in numbers:
        peer = node(2 + number % 200, DUAL)
        name = f"s{number}"
        service = service_of(name, f"10.96.{number // 250}.{1 + number % 250}", "ClientIP" if number % 2 else "None")
        slice_ = slice_of(name, *(f"10.244.{1 + number % 200}.{2 + n}" for n in range(number % 5)))
        requests = [rig.attachment(f"p{number}-{n}", pod_uid=f"u{number}") for n in range(2)]
        rig.put(peer, service, slice_)
        for request in requests:
            await rig.agent.network.add(request)
        await rig.settle()
        rig.host.delete(next(v for v in rig.host.objects.network.values() if v.identity[0] == "Neighbour"))
        await rig.poll(rig.now + 0.1)
        await rig.agent.advertise(service.metadata.path)
        await rig.agent.withdraw(service.metadata.path)
        for request in requests:
            await rig.agent.network.delete(request)
        rig.remove(slice_, service, peer)
        await rig.settle()
        rig.host.objects.foreign_commits += 1
        await rig.poll(rig.now + 70)


async def test_peers_services_and_pods_that_come_and_go_leave_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("podplane.services.numbers.SPARE", 4)  # unused numbers are kept for a while, but not for ever
    rig = Rig(("10.96.0.0/16",))
    await rig.start(*cluster(1, 2000 % 250))
    await _rounds(rig, range(ROUNDS))
    rig.events.clear()
    before, cached_before = sizes(rig.agent), cached()
    assert len(before) > 50 and cached_before, "the walk goes through all parts"
    await _rounds(rig, range(ROUNDS, ROUNDS + MORE_ROUNDS))
    rig.events.clear()
    assert grown(before, sizes(rig.agent)) == {}
    for name, (size, limit) in cached().items():
        assert limit is not None or size <= cached_before.get(name, (0, None))[0] + SLACK, name


def test_plans_of_peers_that_are_gone_are_forgotten_by_all_agents() -> None:
    asyncio.run(_peers_come_and_go())


async def _peers_come_and_go() -> None:
    rig, peers = Rig(), PeerPlans()
    rig.agent.planner._rows = type(rig.agent.planner)(
        rig.agent.view, rig.settings, rig.agent.ledger, peers, lambda *_: None, lambda effects: None, rig.agent._in_kernel
    )._rows
    await rig.start(*cluster(1))
    for number in range(2, 100):
        rig.put(node(number, DUAL))
        await rig.settle()
        assert len(peers) == 1
        rig.remove(node(number, DUAL))
        await rig.settle()
    assert len(peers) == 0


class Hanging(Recorder):
    """An API that answers when it is let."""

    def __init__(self) -> None:
        self.answer = asyncio.Event()
        self.written = 0

    async def record(self, *_: Any, **__: Any) -> None:
        await self.answer.wait()
        self.written += 1


async def test_events_are_bounded_when_thousands_of_objects_fail(caplog: pytest.LogCaptureFixture) -> None:
    recorder = Hanging()
    services = [service_of(f"s{n}", "10.96.0.1") for n in range(3000)]
    now = 0.0
    events = ObjectEvents(recorder, caches_of(*services), lambda: now)
    for one in services:
        events(ServiceKey(one.metadata.path), "the kernel refuses it")
    assert len(events._tasks) == AT_ONCE and len(events._written) <= REMEMBERED
    recorder.answer.set()
    await asyncio.gather(*events._tasks)
    assert recorder.written == AT_ONCE
    assert len(caplog.records) == 2, "one line when events are dropped, one that says how many were"
    assert f"{3000 - AT_ONCE} were not written" in caplog.records[1].getMessage()
    events(ServiceKey("default/s2999"), "the kernel refuses it")
    events(ServiceKey("default/s0"), "the kernel refuses it")
    assert len(events._tasks) == 1, "one was dropped and is written now; the other one was written a moment ago"
    now = QUIET_SECONDS
    events(ServiceKey("default/s0"), "the kernel refuses it")
    assert len(events._tasks) == 2
    await asyncio.gather(*events._tasks)
