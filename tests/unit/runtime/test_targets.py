"""An ephemeral container among the processes of another one (`kubectl debug --target`)."""

from __future__ import annotations

import msgspec
import pytest

from podplane.model.pod import Container, Pod
from podplane.runtime.container import CONFIG_RETRY_SECONDS
from tests.unit.runtime.test_kubelet import Rig, pod, rig

__all__ = ["rig"]


def looked_into(made: Pod, target: str) -> Pod:
    """The pod with an ephemeral container."""
    look = Container("look", image="podplane/client", target_container_name=target)
    return msgspec.structs.replace(made, spec=msgspec.structs.replace(made.spec, ephemeral_containers=(look,)))


def look(rig: Rig) -> dict[str, object]:
    (found,) = rig.status["ephemeralContainerStatuses"]
    state: dict[str, object] = found["state"]
    return state


async def test_it_is_started_among_the_processes_of_its_target(rig: Rig) -> None:
    rig.kubelet.pod_changed(None, pod())
    await rig.settle()
    rig.kubelet.pod_changed(pod(), looked_into(pod(), "main"))
    await rig.settle()
    assert [process.options["pids"] for process in rig.processes.all] == [0, rig.processes.all[0].id]
    assert "running" in look(rig)


@pytest.mark.parametrize("target", ["main", "none"])
async def test_it_waits_for_a_target_that_does_not_run(rig: Rig, target: str) -> None:
    rig.processes.refusal = "main: no such command on this machine"
    rig.kubelet.pod_changed(None, pod())
    await rig.settle()
    rig.processes.refusal = ""
    rig.kubelet.pod_changed(pod(), looked_into(pod(), target))
    await rig.settle()
    why = f"unable to find target container {target!r}: it does not run"
    if target == "none":
        assert look(rig) == {"waiting": {"reason": "CreateContainerConfigError", "message": why}}
        assert ("Failed", f"Error: {why}") in rig.recorder.told
    await rig.at(CONFIG_RETRY_SECONDS + 1)
    for turn in (2, 3, 4, 5):
        await rig.at(turn * (CONFIG_RETRY_SECONDS + 1))
    assert ("running" in look(rig)) is (target == "main")
