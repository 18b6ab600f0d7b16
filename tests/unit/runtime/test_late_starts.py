"""A container of whose start nothing was heard for long: it is believed when it runs after all, and ends as any other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.unit.runtime.test_kubelet import Rig, clean, deleted, pod

SAID = "Error: the zygote has said nothing for 30 s; the start of the container is still awaited"


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    """A pod whose container does not say that it started."""
    made = Rig(tmp_path)
    made.processes.silence = heard = asyncio.Event()
    made.kubelet.pod_changed(None, pod())
    await made.settle()
    yield made
    heard.set()
    await clean(made)


def silence(rig: Rig) -> asyncio.Event:
    assert rig.processes.silence is not None
    return rig.processes.silence


async def test_it_runs_when_it_is_heard_of(rig: Rig) -> None:
    assert rig.container["state"]["waiting"]["reason"] == "ContainerCreating"
    assert [message for reason, message in rig.recorder.told if reason == "Failed"] == [SAID]
    await rig.at(100)
    assert len(rig.processes.all) == 1, "it is not started twice"
    silence(rig).set()
    await rig.settle()
    assert "running" in rig.container["state"] and rig.container["ready"] and rig.container["restartCount"] == 0
    assert [reason for reason, _ in rig.recorder.told if reason in ("Failed", "Started")] == ["Failed", "Started"]
    rig.processes.silence = None
    rig.processes.all[0].exited.set_result(3)
    await rig.settle()
    assert len(rig.processes.all) == 2 and rig.container["restartCount"] == 1


async def test_one_that_fails_in_the_end_is_started_again(rig: Rig) -> None:
    first = rig.processes.all[0]
    first.refusal = "main: no such command on this machine"
    first_silence, rig.processes.silence = silence(rig), asyncio.Event()
    rig.processes.silence.set()
    first_silence.set()
    await rig.settle()
    await rig.at(1)
    assert len(rig.processes.all) == 2
    assert rig.container["lastState"]["terminated"]["reason"] == "StartError"
    assert "running" in rig.container["state"]


async def test_a_pod_that_is_deleted_meanwhile_ends(rig: Rig) -> None:
    rig.kubelet.pod_changed(pod(), deleted(pod()))
    await rig.settle()
    assert rig.processes.all[0].signals == [15]
    assert rig.client.deleted == [("web", 0, "u1")]
