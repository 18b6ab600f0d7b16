"""What a start says of pods that had no first start in time."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest

from podplane.lab import settling
from podplane.lab.launch import Progress, Reporter
from podplane.model.pod import PodCondition, PodStatus
from tests.unit.runtime.test_kubelet import Rig, clean, pod


class Told:
    """A reporter that keeps what it was told."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def send(self, progress: Progress) -> None:
        self.notes.append(progress.note)

    def step(self, text: str, done: int = 0, total: int = 0) -> None:
        return


async def settled(rig: Rig, count: int) -> list[str]:
    """The notes of a start with this kubelet, which knows of so many pods."""
    told = Told()
    await settling.settle({"node1": rig.kubelet}, list(map(str, range(count))), count, cast("Reporter", told))
    return told.notes


@pytest.mark.parametrize("hangs", [False, True])
async def test_a_pod_that_was_ready_and_has_not_begun_again_is_said_and_not_ready(
    hangs: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settling, "SETTLE_SECONDS", 0.05 if hangs else 60)
    rig, begin = Rig(tmp_path), asyncio.Event()
    add = rig.network.add

    async def slow(request: Any) -> Any:
        if hangs:
            await begin.wait()
        return await add(request)

    monkeypatch.setattr(rig.network, "add", slow)
    ready = PodStatus(phase="Running", conditions=(PodCondition("Ready", "True"),))
    rig.kubelet.pod_changed(None, msgspec.structs.replace(pod(), status=ready))
    notes = await settled(rig, 1)
    conditions = {one["type"]: one["status"] for one in rig.status["conditions"]}
    assert conditions["Ready"] == ("False" if hangs else "True")
    late = "of 1 pods, 1 had no first start within 0.05 s: default/web waits, for one."
    assert notes == ([late] if hangs else [])
    begin.set()
    await rig.settle()
    assert {one["type"]: one["status"] for one in rig.status["conditions"]}["Ready"] == "True"
    await clean(rig)


@pytest.mark.parametrize(("took", "rest"), [(0.000001, settling.LEAST_REST), (0.0001, 0.02), (1.0, settling.LONGEST_REST)])
async def test_looks_take_little_of_the_time_of_a_start(took: float, rest: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many pods there are, and whatever else the machine does."""
    rests: list[float] = []
    now = itertools.count()

    async def sleep(seconds: float) -> None:
        rests.append(seconds)

    loop = SimpleNamespace(time=lambda: next(now) * took)
    monkeypatch.setattr(settling, "asyncio", SimpleNamespace(sleep=sleep, get_running_loop=lambda: loop))
    workers = {"1": SimpleNamespace(settled=SimpleNamespace(is_set=lambda: len(rests) > 9), path="default/1")}
    kubelets: Any = {"node1": SimpleNamespace(workers=workers)}
    await settling.settle(kubelets, workers, 0, cast("Reporter", Told()))
    assert rests[1:] == pytest.approx([rest] * 9)
