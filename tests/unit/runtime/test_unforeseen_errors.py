"""No worker of a kubelet ends for good: what nobody thought of is told, tried again, and stops nothing else."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from podplane.cni.network import NetworkError
from podplane.model.pod import Container, EnvVar
from podplane.runtime import attempts, kubelet
from podplane.runtime.attempts import Attempts
from podplane.runtime.environment import ConfigError
from podplane.runtime.pod import PodWorker
from tests.unit.runtime.test_kubelet import Rig, clean, deleted, pod


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    made = Rig(tmp_path)
    yield made
    await clean(made)


def once(monkeypatch: pytest.MonkeyPatch, where: type, name: str, error: Exception) -> None:
    """The next call of a method raises this."""
    right = getattr(where, name)

    async def wrong(*words: Any, **named: Any) -> Any:
        monkeypatch.setattr(where, name, right)
        raise error

    monkeypatch.setattr(where, name, wrong)


@pytest.mark.parametrize("method", ["_prepare", "_advance", "report"])
async def test_a_step_that_fails_is_told_and_done_again(rig: Rig, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    once(monkeypatch, PodWorker, method, KeyError("what"))
    rig.kubelet.pod_changed(None, pod())
    await rig.settle()
    assert ("FailedSync", "error syncing pod: KeyError: 'what'") in rig.recorder.told
    assert all(worker.settled.is_set() for worker in rig.kubelet.workers.values())
    await rig.at(1)
    assert rig.status["phase"] == "Running"
    assert len(rig.processes.all) == 1


async def test_a_step_that_always_fails_is_tried_later_each_time(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    tries = list[float]()

    async def wrong(self: PodWorker) -> None:
        tries.append(rig.now)
        raise RuntimeError("always")

    monkeypatch.setattr(PodWorker, "_advance", wrong)
    rig.kubelet.pod_changed(None, pod())
    await rig.settle()
    (worker,) = rig.kubelet.workers.values()
    for _ in range(4):
        due = worker._attempts.due_at
        assert due is not None
        assert worker._patience() == pytest.approx(due - rig.now)
        await rig.at(due)
    gaps = [later - earlier for earlier, later in itertools.pairwise(tries)]
    assert len(gaps) == 4
    assert gaps[-1] > gaps[0] > 0.1


async def test_a_pod_whose_end_fails_is_ended_all_the_same(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.kubelet.pod_changed(None, made := pod())
    await rig.settle()
    monkeypatch.setattr(attempts.Backoff, "delay", lambda *_: 0.0)
    once(monkeypatch, type(rig.network), "delete", RuntimeError("not now"))
    rig.kubelet.pod_changed(made, deleted(made))
    await rig.settle()
    await asyncio.sleep(0.01)
    assert (rig.network.attached, [name for name, *_ in rig.client.deleted]) == ([], ["web"])
    assert rig.kubelet.workers == {}


async def test_another_worker_takes_over_from_one_that_ended(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(kubelet, "RESTART_SECONDS", 0.0)
    once(monkeypatch, PodWorker, "_live", RuntimeError("at its beginning"))
    rig.kubelet.pod_changed(None, pod())
    await rig.settle()
    await asyncio.sleep(0.01)
    assert rig.status["phase"] == "Running"
    assert "pod=default/web node=node1 failed" in caplog.text


@pytest.mark.parametrize(
    ("error", "is_logged"),
    [(OSError(36, "File name too long"), False), (ValueError("embedded null byte"), False), (KeyError("x"), True)],
)
async def test_a_container_that_can_not_be_made_waits_and_is_tried_again(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception, is_logged: bool
) -> None:
    right = PodWorker.launch

    def wrong(self: PodWorker, container: Container) -> Any:
        raise error

    monkeypatch.setattr(PodWorker, "launch", wrong)
    rig.kubelet.pod_changed(None, pod())
    await rig.settle()
    waiting = rig.container["state"]["waiting"]
    assert waiting == {
        "reason": "CreateContainerError",
        "message": f"{type(error).__name__}: {getattr(error, 'strerror', error)}",
    }
    assert ("Traceback" in caplog.text) is is_logged
    monkeypatch.setattr(PodWorker, "launch", right)
    await rig.at(6)
    assert rig.status["phase"] == "Running"


async def test_what_no_program_can_be_passed_is_refused(rig: Rig) -> None:
    made = pod()
    spec = msgspec.structs.replace(
        made.spec, containers=(Container("main", image="podplane/echo", env=(EnvVar("A", "x\0y"),)),)
    )
    rig.kubelet.pod_changed(None, msgspec.structs.replace(made, spec=spec))
    await rig.settle()
    assert "environment variable A contains a NUL character" in rig.container["state"]["waiting"]["message"]
    assert ConfigError.reason != rig.container["state"]["waiting"]["reason"] == "CreateContainerError"


async def test_a_probe_that_fails_unforeseen_goes_on(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    told, tries = list[str](), 0

    async def tell(reason: str, message: str) -> None:
        told.append(f"{reason} {message}")
        raise RuntimeError("nor can it be told")

    async def watch() -> None:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise ZeroDivisionError

    monkeypatch.setattr(attempts.Backoff, "delay", lambda *_: 0.0)
    await Attempts("Readiness probe", tell, asyncio.get_running_loop().time).until_done(watch)
    assert (tries, told) == (3, ["FailedSync error syncing pod: ZeroDivisionError"] * 2)
    assert [record.levelno for record in caplog.records] == [logging.ERROR] * 4


async def test_a_network_that_can_not_let_go_of_a_pod_is_told_and_asked_again(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A plugin of a further network that can't be executed, say: the pod is Terminating until it can."""
    rig.kubelet.pod_changed(None, made := pod())
    await rig.settle()
    monkeypatch.setattr(attempts.Backoff, "delay", lambda *_: 0.0)
    once(monkeypatch, type(rig.network), "delete", NetworkError("plugin theirs can't be called: Exec format error"))
    rig.kubelet.pod_changed(made, deleted(made))
    await rig.settle()
    await asyncio.sleep(0.01)
    told = ("FailedKillPod", "error killing pod: plugin theirs can't be called: Exec format error")
    assert rig.recorder.told.count(told) == 1
    assert (rig.network.attached, [name for name, *_ in rig.client.deleted]) == ([], ["web"])
    assert not [record for record in caplog.records if record.exc_info], "it is foreseen"
