"""A pod's life, without a kernel: start, failure, restart with back-off, end."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from podplane.kernel import cgroups
from podplane.kernel.cgroups import Group
from podplane.model.objects import Metadata
from podplane.model.pod import Container, ContainerStatus, Pod, PodIP, PodSpec, PodStatus
from podplane.runtime import roots
from podplane.runtime.container import BACKOFF_SECONDS, CONFIG_RETRY_SECONDS
from podplane.runtime.images import Command, ImageError, command_of
from podplane.runtime.kubelet import Kubelet
from podplane.runtime.pod import PodWorker
from tests.unit.runtime.fakes import FakeClient, FakeNamespace, FakeNetwork, FakeProcesses, FakeRecorder, FakeSandbox


class Rig:
    """A kubelet among fakes, and a clock that the test moves."""

    def __init__(self, logs: Path, *, sandbox_only: bool = False) -> None:
        self.recorder = FakeRecorder()
        self.now = 0.0
        self.full = False
        self.network, self.processes, self.client = FakeNetwork(), FakeProcesses(), FakeClient()
        self.sandboxes: list[FakeSandbox] = []
        self.kubelet = Kubelet(
            name="node1",
            host_ips=("192.168.1.10",),
            namespace=FakeNamespace(7),
            network=self.network,
            processes=self.processes,
            client=cast(Any, self.client),
            recorder=cast(Any, self.recorder),
            logs=logs,
            services={},
            allocatable={},
            make_sandbox=self._make,
            host_sandbox=FakeSandbox(0, FakeNamespace(7)),
            null=os.open(os.devnull, os.O_RDWR),
            sandbox_only=sandbox_only,
            clock=lambda: self.now,
        )

    async def _make(self, *_: int) -> FakeSandbox:
        if self.full:
            raise OSError(28, "No space left on device")
        self.sandboxes.append(FakeSandbox(len(self.sandboxes) + 1))
        return self.sandboxes[-1]

    async def settle(self) -> None:
        for _ in range(30):
            await asyncio.sleep(0)

    @property
    def status(self) -> dict[str, Any]:
        return dict(self.client.statuses[-1])

    @property
    def container(self) -> dict[str, Any]:
        found: dict[str, Any] = self.status["containerStatuses"][0]
        return found

    async def at(self, seconds: float) -> None:
        """Move the clock, and wake the worker as its timer would."""
        self.now = seconds
        for worker in self.kubelet.workers.values():
            worker._wake.set()
        await self.settle()


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    made = Rig(tmp_path)
    yield made
    await clean(made)


async def clean(rig: Rig) -> None:
    for task in list(rig.kubelet._tasks.values()):
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def pod(
    policy: str = "Always",
    *,
    grace: int = 5,
    host: bool = False,
    image: str = "podplane/echo",
    ips: tuple[str, ...] = (),
    phase: str = "Pending",
) -> Pod:
    return Pod(
        metadata=Metadata(name="web", namespace="default", uid="u1"),
        spec=PodSpec(
            node_name="node1",
            host_network=host,
            restart_policy=policy,
            termination_grace_period_seconds=grace,
            containers=(Container("main", image=image),),
        ),
        status=PodStatus(pod_ips=tuple(map(PodIP, ips)), phase=phase),
    )


def deleted(made: Pod, grace: int = 5) -> Pod:
    meta = msgspec.structs.replace(made.metadata, deletion_timestamp="now", deletion_grace_period_seconds=grace)
    return msgspec.structs.replace(made, metadata=meta)


async def test_a_pod_is_attached_started_and_reported_once(rig: Rig) -> None:
    rig.kubelet.pod_changed(None, pod())
    await rig.settle()
    assert len(rig.client.statuses) == 1
    assert rig.status["phase"] == "Running"
    assert rig.status["podIPs"] == [{"ip": "10.244.1.2"}]
    assert {c["type"]: c["status"] for c in rig.status["conditions"]}["Ready"] == "True"
    assert rig.container["ready"]
    assert [list(p.argv) for p in rig.processes.all] == [["podplane/echo"]]


async def test_a_pod_that_had_addresses_asks_for_them(rig: Rig) -> None:
    rig.kubelet.pod_changed(None, pod(ips=("10.244.1.9",)))
    await rig.settle()
    assert rig.network.asked == [("10.244.1.9",)]


async def test_restarts_back_off(rig: Rig) -> None:
    rig.kubelet.pod_changed(None, pod())
    await rig.settle()
    now = 0.0
    for number, wait in enumerate(BACKOFF_SECONDS[:5]):
        rig.processes.all[-1].exited.set_result(3)
        await rig.settle()
        if wait:
            assert (rig.container["state"]["waiting"]["reason"], len(rig.processes.all)) == ("CrashLoopBackOff", number + 1)
            await rig.at(now + wait - 0.1)
            assert len(rig.processes.all) == number + 1
        now += wait
        await rig.at(now)
        assert len(rig.processes.all) == number + 2
        assert rig.container["restartCount"] == number + 1
        assert rig.container["lastState"]["terminated"]["exitCode"] == 3


@pytest.mark.parametrize(
    ("policy", "code", "phase", "runs"),
    [
        ("Never", 0, "Succeeded", 1),
        ("Never", 2, "Failed", 1),
        ("OnFailure", 0, "Succeeded", 1),
        ("OnFailure", 2, "Running", 2),
        ("Always", 0, "Running", 2),
    ],
)
async def test_restart_policies(rig: Rig, policy: str, code: int, phase: str, runs: int) -> None:
    rig.kubelet.pod_changed(None, pod(policy))
    await rig.settle()
    rig.processes.all[0].exited.set_result(code)
    await rig.settle()
    assert (rig.status["phase"], len(rig.processes.all)) == (phase, runs)


async def test_the_end_is_sigterm_then_sigkill_then_detached_then_deleted(rig: Rig) -> None:
    rig.processes.ends_on = (9,)
    made = pod(grace=5)
    rig.kubelet.pod_changed(None, made)
    await rig.settle()
    worker = rig.kubelet.workers["u1"]
    rig.kubelet.pod_changed(made, deleted(made))
    await rig.settle()
    assert rig.processes.all[0].signals == [15]
    assert rig.client.deleted == []
    worker._grace = 0
    rig.processes.all[0].signal(9)
    await rig.settle()
    assert rig.network.attached == []
    assert rig.sandboxes[0].closed
    assert rig.client.deleted == [("web", 0, "u1")]
    assert rig.kubelet.workers == {}


def workers_in_memory() -> int:
    return sum(type(thing) is PodWorker for thing in gc.get_objects())


async def test_nothing_of_a_pod_that_has_ended_waits_for_a_collection_of_garbage(rig: Rig) -> None:
    gc.collect()
    before = workers_in_memory()
    rig.kubelet.pod_changed(None, pod())
    await rig.settle()
    assert workers_in_memory() == before + 1
    gc.disable()
    try:
        rig.kubelet.pod_changed(None, deleted(pod(), 0))
        await rig.settle()
        assert not rig.kubelet.workers
        assert workers_in_memory() == before
    finally:
        gc.enable()


async def test_a_pod_that_was_forced_away_is_killed_at_once(rig: Rig) -> None:
    made = pod()
    rig.kubelet.pod_changed(None, made)
    await rig.settle()
    rig.kubelet.pod_changed(made, None)
    await rig.settle()
    assert rig.processes.all[0].signals[0] == 9
    assert rig.network.attached == []


async def test_a_pod_that_is_deleted_before_it_began_never_begins(rig: Rig) -> None:
    made = pod()
    rig.kubelet.pod_changed(None, made)
    rig.kubelet.pod_changed(made, deleted(made))
    await rig.settle()
    assert rig.processes.all == []
    assert rig.client.deleted == [("web", 0, "u1")]
    assert rig.kubelet.workers == {}


async def test_a_pod_that_was_ending_when_its_kubelet_came_is_gone(rig: Rig) -> None:
    rig.kubelet.pod_changed(None, deleted(pod()))
    await rig.settle()
    assert rig.client.deleted == [("web", 0, "u1")]


@pytest.mark.parametrize("shorter", [0, 1])
async def test_a_grace_that_is_shortened_counts_at_once(rig: Rig, shorter: int) -> None:
    rig.processes.ends_on = (9,)
    made = pod(grace=600)
    rig.kubelet.pod_changed(None, made)
    await rig.settle()
    rig.kubelet.pod_changed(made, deleted(made, 600))
    await rig.settle()
    assert rig.processes.all[0].signals == [15]
    rig.now = 2.0
    rig.kubelet.pod_changed(made, deleted(made, shorter))
    await rig.settle()
    assert rig.processes.all[0].signals == [15, 9]
    assert rig.kubelet.workers == {}


async def test_without_a_namespace_to_be_had_the_pod_says_so_and_tries_again(rig: Rig) -> None:
    rig.full = True
    rig.kubelet.pod_changed(None, pod())
    await rig.settle()
    assert "raise the sysctl user.max_net_namespaces" in rig.container["state"]["waiting"]["message"]
    rig.full = False
    await rig.at(2)
    assert rig.status["phase"] == "Running"


async def test_files_that_cannot_be_written_are_no_fault_of_the_network(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    async def full(_: object) -> None:
        raise OSError(28, "No space left on device", "/pods/u1")

    with monkeypatch.context() as patch:
        patch.setattr(PodWorker, "_gather", full)
        rig.kubelet.pod_changed(None, pod())
        await rig.settle()
        assert rig.container["state"]["waiting"]["message"] == "No space left on device"
    assert "/pods/u1" not in str(rig.recorder.told)
    await rig.at(2)
    assert rig.status["phase"] == "Running"


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
async def test_a_pod_that_is_over_is_not_run_again(rig: Rig, phase: str) -> None:
    made = pod("Never", phase=phase)
    rig.kubelet.pod_changed(None, made)
    await rig.settle()
    assert (rig.processes.all, rig.client.statuses, rig.network.attached) == ([], [], [])
    rig.kubelet.pod_changed(made, deleted(made))
    await rig.settle()
    assert rig.client.deleted == [("web", 0, "u1")]


def ran(made: Pod, *, code: int | None = None) -> Pod:
    """The pod as its node left it when it was stopped: its container was running, or had ended."""
    end = {"exitCode": code, "reason": "Error" if code else "Completed", "startedAt": "then"}
    state = {"running": {"startedAt": "then"}} if code is None else {"terminated": end}
    status = PodStatus(phase="Running", container_statuses=(ContainerStatus("main", restart_count=2, state=state),))
    return msgspec.structs.replace(made, status=status)


@pytest.mark.parametrize(
    ("policy", "code", "phase", "restarts"),
    [
        ("Never", None, "Failed", 2),
        ("Never", 0, "Succeeded", 2),
        ("OnFailure", None, "Running", 3),
        ("OnFailure", 0, "Succeeded", 2),
        ("OnFailure", 1, "Running", 3),
        ("Always", 0, "Running", 3),
    ],
)
async def test_a_restart_of_the_node_keeps_to_the_restart_policy(
    rig: Rig, policy: str, code: int | None, phase: str, restarts: int
) -> None:
    rig.kubelet.pod_changed(None, ran(pod(policy), code=code))
    await rig.settle()
    assert (rig.status["phase"], rig.container["restartCount"]) == (phase, restarts)
    assert len(rig.processes.all) == (phase == "Running")
    if phase == "Failed":
        assert rig.container["state"]["terminated"]["reason"] == "ContainerStatusUnknown"


async def test_ephemeral_containers_run_once_beside_the_others(rig: Rig) -> None:
    made = pod()
    rig.kubelet.pod_changed(None, made)
    await rig.settle()
    spec = msgspec.structs.replace(made.spec, ephemeral_containers=(Container("look", image="host/x", command=("id",)),))
    looked = msgspec.structs.replace(made, spec=spec)
    rig.kubelet.pod_changed(made, looked)
    await rig.settle()
    assert [list(p.argv) for p in rig.processes.all] == [["podplane/echo"], ["id"]]
    rig.processes.all[1].exited.set_result(1)
    await rig.settle()
    (status,) = rig.status["ephemeralContainerStatuses"]
    assert (status["state"]["terminated"]["exitCode"], status["ready"]) == (1, False)
    assert (rig.status["phase"], rig.container["restartCount"], len(rig.processes.all)) == ("Running", 0, 2)
    before = msgspec.convert(rig.status, PodStatus)
    await clean(rig)
    rig.kubelet.pod_changed(None, msgspec.structs.replace(looked, status=before))
    await rig.settle()
    assert [list(p.argv) for p in rig.processes.all[2:]] == [["podplane/echo"]]


async def test_a_network_that_refuses_is_said_and_tried_again(rig: Rig) -> None:
    rig.network.refusal = "node block is full"
    rig.kubelet.pod_changed(None, pod())
    await rig.settle()
    assert rig.status["phase"] == "Pending"
    assert rig.container["state"]["waiting"]["message"] == "node block is full"
    rig.network.refusal = ""
    await rig.at(2)
    assert rig.status["phase"] == "Running"


async def test_a_full_name_that_no_host_can_have_is_said(rig: Rig) -> None:
    made = pod()
    spec = msgspec.structs.replace(made.spec, hostname="x" * 40, subdomain="db", set_hostname_as_fqdn=True)
    rig.kubelet.pod_changed(None, msgspec.structs.replace(made, spec=spec))
    await rig.settle()
    waits = f"its full name {'x' * 40}.db.default.svc.cluster.local has 69 characters, and a host name has 64 at most (setHostnameAsFQDN)"
    assert rig.container["state"]["waiting"]["message"] == waits
    assert (rig.processes.all, rig.network.attached) == ([], [])


async def test_a_container_that_lacks_memory_before_it_runs_says_so(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    group = Group(folders=("/nowhere",))
    monkeypatch.setattr(roots, "share", lambda *_: (group, 0))
    monkeypatch.setattr(cgroups, "end", lambda of: of is group)
    made = pod()
    main = msgspec.structs.replace(made.spec.containers[0], resources={"limits": {"memory": "2Mi"}})
    rig.kubelet.pod_changed(None, msgspec.structs.replace(made, spec=msgspec.structs.replace(made.spec, containers=(main,))))
    rig.processes.refusal, rig.processes.ran = "it ended with exit code 137 before it ran", False
    rig.processes.tells_errors = False
    await rig.settle()
    why = "it was killed for want of memory before it ran: its limit of 2Mi is too low"
    await rig.at(1)
    ended = rig.container["lastState"]["terminated"]
    assert (ended["reason"], ended["exitCode"], ended["message"]) == ("StartError", 128, why)
    assert ("Failed", f"Error: {why}") in rig.recorder.told
    rig.processes.refusal, rig.processes.ran = "", True
    await rig.at(BACKOFF_SECONDS[1])
    rig.processes.all[-1].exited.set_result(137)
    await rig.settle()
    ended = rig.container["state"].get("terminated") or rig.container["lastState"].get("terminated")
    assert (ended["reason"], ended["exitCode"]) == ("OOMKilled", 137)


async def test_a_container_whose_volumes_lack_something_waits_and_is_tried_again(rig: Rig) -> None:
    rig.processes.refusal, rig.processes.refused = "subPath 'a': there is nothing in the volume", True
    rig.kubelet.pod_changed(None, pod())
    await rig.settle()
    waiting = {"reason": "CreateContainerConfigError", "message": "subPath 'a': there is nothing in the volume"}
    assert rig.container["state"] == {"waiting": waiting}
    assert ("Failed", "Error: subPath 'a': there is nothing in the volume") in rig.recorder.told
    rig.processes.refusal = ""
    await rig.at(CONFIG_RETRY_SECONDS - 1)
    assert "waiting" in rig.container["state"]
    await rig.at(CONFIG_RETRY_SECONDS)
    assert "running" in rig.container["state"] and rig.container["restartCount"] == 0


async def test_a_command_that_cannot_start_says_why(rig: Rig) -> None:
    rig.processes.refusal = "nope: no such command on this machine"
    rig.kubelet.pod_changed(None, pod("Never"))
    await rig.settle()
    terminated = rig.container["state"]["terminated"]
    assert (terminated["reason"], terminated["message"]) == ("StartError", "nope: no such command on this machine")
    assert terminated["exitCode"] == 128


async def test_an_image_that_is_not_there(rig: Rig) -> None:
    rig.kubelet.pod_changed(None, pod(image="nginx"))
    await rig.settle()
    waiting = rig.container["state"]["waiting"]
    assert waiting["reason"] == "ErrImagePull"
    assert "podplane/echo" in waiting["message"]
    await rig.at(5)
    waiting = rig.container["state"]["waiting"]
    assert waiting["reason"] == "ImagePullBackOff"
    assert "podplane/echo" in waiting["message"]
    await rig.at(10)
    assert [reason for reason, _ in rig.recorder.told] == ["Failed", "BackOff", "Failed"]
    assert rig.processes.all == []


async def test_an_image_that_is_replaced_by_one_that_is_there(rig: Rig) -> None:
    made = pod(image="nginx")
    rig.kubelet.pod_changed(None, made)
    await rig.settle()
    rig.kubelet.pod_changed(made, pod())
    await rig.settle()
    assert (rig.status["phase"], rig.container["restartCount"]) == ("Running", 0)


async def test_host_network_needs_no_attachment(rig: Rig) -> None:
    made = pod(host=True)
    rig.kubelet.pod_changed(None, made)
    await rig.settle()
    assert rig.status["podIP"] == "192.168.1.10"
    rig.kubelet.pod_changed(made, deleted(made))
    await rig.settle()
    assert rig.network.attached == []
    assert not cast(FakeNamespace, rig.kubelet.namespace).closed


async def test_sandboxes_have_no_processes(tmp_path: Path) -> None:
    rig = Rig(tmp_path, sandbox_only=True)
    rig.kubelet.pod_changed(None, pod())
    await rig.settle()
    assert rig.status["phase"] == "Running"
    assert rig.processes.all == []
    await clean(rig)


def test_commands() -> None:
    assert command_of(Container("a", image="podplane/echo")) == Command(("podplane/echo",), "podplane/echo")
    assert command_of(Container("a", image="host/sh", command=("sleep",), args=("1",))) == Command(("sleep", "1"))
    assert command_of(Container("a", image="podplane/client")) == Command(("podplane/client",), "podplane/client")
    assert command_of(Container("a", image="podplane/client", args=("cat", "x"))) == Command(("cat", "x"))
    assert command_of(Container("a", image="registry.k8s.io/pause:3.10", args=("x",))) == Command(
        ("/pause", "x"), "podplane/client"
    )
    for wrong in (Container("a", image="nginx"), Container("a", image="host/sh")):
        with pytest.raises(ImageError):
            command_of(wrong)
