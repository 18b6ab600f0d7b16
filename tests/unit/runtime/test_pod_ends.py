"""How a pod ends whose sidecars live longer than its main container: what is said meanwhile, and in which order they go."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from podplane.model.pod import Container, Lifecycle, Pod
from tests.unit.runtime.test_kubelet import Rig, clean, deleted, pod


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    made = Rig(tmp_path)
    yield made
    await clean(made)


def with_inits(policy: str, *inits: Container, **more: Any) -> Pod:
    made = pod(policy, **more)
    return msgspec.structs.replace(made, spec=msgspec.structs.replace(made.spec, init_containers=inits))


def sidecar(name: str) -> Container:
    return Container(name, image="podplane/echo", restart_policy="Always")


def ready(rig: Rig) -> tuple[str, str, str]:
    """The phase, and whether it is ready and why not."""
    found = next(c for c in rig.status["conditions"] if c["type"] == "Ready")
    return rig.status["phase"], found["status"], found.get("reason", "")


@pytest.mark.parametrize(
    ("policy", "code", "phase"), [("Never", 0, "Succeeded"), ("Never", 1, "Failed"), ("OnFailure", 0, "Succeeded")]
)
async def test_it_is_not_ready_while_its_sidecars_end(rig: Rig, policy: str, code: int, phase: str) -> None:
    rig.processes.ends_on = (9,)
    rig.kubelet.pod_changed(None, with_inits(policy, sidecar("first"), sidecar("second"), grace=30))
    await rig.settle()
    first, second, main = rig.processes.all
    assert ready(rig) == ("Running", "True", "")
    main.exited.set_result(code)
    await rig.settle()
    assert ready(rig) == ("Running", "False", "ContainersNotReady")
    assert (first.signals, second.signals) == ([], [15])
    second.exited.set_result(0)
    await rig.settle()
    assert (first.signals, rig.network.attached) == ([15], ["u1"])
    first.exited.set_result(143)
    await rig.settle()
    assert ready(rig) == (phase, "False", "PodCompleted" if phase == "Succeeded" else "PodFailed")
    assert rig.network.attached == []
    assert [reason for reason, _ in rig.recorder.told].count("Killing") == 2


async def test_a_deletion_shortens_the_time_that_sidecars_have_left(rig: Rig) -> None:
    rig.processes.ends_on = (9,)
    made = with_inits("Never", sidecar("proxy"), grace=600)
    rig.kubelet.pod_changed(None, made)
    await rig.settle()
    proxy, main = rig.processes.all
    main.exited.set_result(0)
    await rig.settle()
    rig.now = 5.0
    rig.kubelet.pod_changed(made, deleted(made, 1))
    await rig.settle()
    assert proxy.signals == [15]
    await rig.at(6.0)
    assert proxy.signals[-1] == 9
    assert (rig.status["phase"], rig.kubelet.workers) == ("Succeeded", {})


async def test_a_failed_init_container_ends_the_sidecars_before_it(rig: Rig) -> None:
    setup = Container("setup", image="podplane/echo")
    rig.kubelet.pod_changed(None, with_inits("Never", sidecar("proxy"), setup))
    await rig.settle()
    rig.processes.all[1].exited.set_result(7)
    await rig.settle()
    assert ready(rig) == ("Failed", "False", "PodFailed")
    assert rig.processes.all[0].signals == [15]
    assert len(rig.processes.all) == 2


async def test_a_pod_that_ran_too_long_is_not_ready_at_once(rig: Rig) -> None:
    rig.processes.ends_on = (9,)
    made = pod("Never", grace=30)
    rig.kubelet.pod_changed(
        None, msgspec.structs.replace(made, spec=msgspec.structs.replace(made.spec, active_deadline_seconds=10))
    )
    await rig.settle()
    await rig.at(10)
    assert ready(rig) == ("Running", "False", "PodFailed")
    rig.processes.all[0].exited.set_result(143)
    await rig.settle()
    assert (ready(rig), rig.status["reason"]) == (("Failed", "False", "PodFailed"), "DeadlineExceeded")


@pytest.mark.parametrize(
    ("policy", "code", "phase"), [("Always", 143, "Failed"), ("Always", 0, "Succeeded"), ("Never", 143, "Failed")]
)
async def test_a_deleted_pod_says_how_it_ended(rig: Rig, policy: str, code: int, phase: str) -> None:
    """A finalizer may keep its object: whoever waits for the end of its containers sees one of the last phases."""
    rig.processes.ends_on = (9,)
    made = pod(policy)
    rig.kubelet.pod_changed(None, made)
    await rig.settle()
    rig.kubelet.pod_changed(made, deleted(made))
    await rig.settle()
    assert ready(rig) == ("Running", "True", "")
    rig.processes.all[0].exited.set_result(code)
    await rig.settle()
    assert rig.status["phase"] == phase
    assert rig.client.deleted == [("web", 0, "u1")]


async def test_a_pod_that_is_deleted_before_its_containers_began_has_failed(rig: Rig) -> None:
    made = pod(image="nginx")
    rig.kubelet.pod_changed(None, made)
    await rig.settle()
    rig.kubelet.pod_changed(made, deleted(made))
    await rig.settle()
    end = rig.container["state"]["terminated"]
    assert (rig.status["phase"], end["reason"], end["exitCode"]) == ("Failed", "ContainerStatusUnknown", 137)


async def test_a_pod_whose_agent_gives_no_answer_says_so(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("podplane.runtime.pod.SLOW_NETWORK_SECONDS", 0.0)
    rig.network.silence = asyncio.Event()
    rig.kubelet.pod_changed(None, pod())
    for _ in range(10):  # a sleep of 0 seconds takes a turn of its own
        await rig.settle()
    why = "the agent of node1 has not given it a network for 0 s"
    assert ("NetworkNotReady", f"network is not ready: {why}") in rig.recorder.told
    condition = rig.status["conditions"][0]
    assert (condition["status"], condition["reason"], condition["message"]) == ("False", "NetworkNotReady", why)
    rig.network.silence.set()
    await rig.settle()
    condition = rig.status["conditions"][0]
    assert condition["status"] == "True" and "message" not in condition


@pytest.mark.parametrize("host", [False, True])
async def test_a_pod_that_has_ended_has_no_sandbox_any_more(rig: Rig, host: bool) -> None:
    rig.kubelet.pod_changed(None, pod("Never", host=host))
    await rig.settle()
    assert {"type": "PodReadyToStartContainers", "status": "True"}.items() <= rig.status["conditions"][0].items()
    rig.processes.all[0].exited.set_result(0)
    await rig.settle()
    assert {"type": "PodReadyToStartContainers", "status": "False"}.items() <= rig.status["conditions"][0].items()
    assert rig.status["podIP"] == ("192.168.1.10" if host else "10.244.1.2")


HOOKS: list[dict[str, Any]] = [{"tcpSocket": {"port": 80}}, {"httpGet": {"port": 80}}]


def with_hooks(**hooks: Any) -> Pod:
    made = pod()
    main = msgspec.structs.replace(made.spec.containers[0], lifecycle=msgspec.convert(hooks, Lifecycle))
    return msgspec.structs.replace(made, spec=msgspec.structs.replace(made.spec, containers=(main,)))


@pytest.mark.parametrize("hook", HOOKS)
async def test_a_hook_that_fails_as_nobody_thought_of_keeps_no_container_from_its_end(
    rig: Rig, hook: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    made = with_hooks(preStop=hook)
    rig.kubelet.pod_changed(None, made)
    await rig.settle()
    rig.kubelet.pod_changed(made, deleted(made))
    await rig.settle()
    why = "PreStopHook failed: AssertionError: nothing runs in a fake namespace"
    assert ("FailedPreStopHook", why) in rig.recorder.told
    assert rig.processes.all[0].signals[0] == 15
    assert rig.client.deleted == [("web", 0, "u1")]
    assert [record.message for record in caplog.records] == ["hook of container=main pod=default/web failed"]


@pytest.mark.parametrize("hook", HOOKS)
async def test_a_hook_after_the_start_that_fails_as_nobody_thought_of_ends_the_container(
    rig: Rig, hook: dict[str, Any]
) -> None:
    rig.kubelet.pod_changed(None, with_hooks(postStart=hook))
    await rig.settle()
    why = "PostStartHook failed: AssertionError: nothing runs in a fake namespace"
    assert ("FailedPostStartHook", why) in rig.recorder.told
    assert rig.processes.all[0].signals[0] == 15
