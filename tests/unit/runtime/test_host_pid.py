"""Pods that want the processes of the lab (`hostPID`): they have them and are bounded by other means, or do not start."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from podplane.kernel.cgroups import Groups, Limits
from podplane.kernel.user_limits import MAX_PROCESSES
from podplane.kernel.zygote_messages import LAB
from podplane.model.pod import Pod
from podplane.runtime import roots
from podplane.runtime.mounts import PodFolder
from tests.unit.runtime.test_kubelet import Rig, pod, rig

__all__ = ["rig"]


def asking(name: str = "web") -> Pod:
    made = pod()
    metadata = msgspec.structs.replace(made.metadata, name=name)
    return msgspec.structs.replace(made, metadata=metadata, spec=msgspec.structs.replace(made.spec, host_pid=True))


@pytest.mark.parametrize("shows", [True, False])
async def test_it_has_them_where_that_was_allowed_and_waits_else(rig: Rig, shows: bool) -> None:
    rig.kubelet.shows_processes = shows
    rig.kubelet.pod_changed(None, asking())
    await rig.settle()
    assert [process.options["pids"] for process in rig.processes.all] == ([LAB] if shows else [])
    assert ("waiting" in rig.container["state"]) is not shows


@pytest.mark.parametrize("per_namespace", [True, False])
def test_its_processes_are_bounded_by_its_control_group_as_its_namespace_is_the_labs(
    rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, per_namespace: bool
) -> None:
    given: list[Limits] = []
    monkeypatch.setattr(Groups, "of_container", lambda self, name, limits: given.append(limits))
    monkeypatch.setattr(roots, "limits_processes", lambda: per_namespace)
    rig.kubelet.shows_processes, rig.kubelet.folder = True, tmp_path
    own, asks = pod(), asking()
    for one in (own, asks):
        roots.share(rig.kubelet, one, one.spec.containers[0], None)
    assert [limits.processes for limits in given] == [0 if per_namespace else MAX_PROCESSES, MAX_PROCESSES]
    files = PodFolder(tmp_path / "files", rig.kubelet.client, roots.host_paths(rig.kubelet))
    made = [roots.of_container(rig.kubelet, files, one, one.spec.containers[0], {}) for one in (own, asks)]
    assert [root.pids for root in made if root is not None] == [MAX_PROCESSES, 0]
