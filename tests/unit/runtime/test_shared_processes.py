"""Containers of a pod that share their processes (`shareProcessNamespace`): a pause process comes first and ends last."""

from __future__ import annotations

import signal
from pathlib import Path

import msgspec

from podplane.kernel import cgroups
from podplane.kernel.cgroups import Group
from podplane.kernel.ids import COUNT, FIRST, Ids
from podplane.model.pod import Container, Pod, PodSecurityContext
from podplane.runtime import roots, security, shared_processes
from podplane.runtime.shared_processes import NOBODY
from tests.unit.runtime.test_kubelet import Rig, deleted, pod, rig

__all__ = ["rig"]


def sharing(policy: str = "Always", **spec: object) -> Pod:
    made = pod(policy)
    both = (*made.spec.containers, Container("other", image="podplane/echo"))
    changed = {"containers": both, "share_process_namespace": True, **spec}
    return msgspec.structs.replace(made, spec=msgspec.structs.replace(made.spec, **changed))


async def test_all_its_containers_are_among_the_processes_of_one_pause(rig: Rig) -> None:
    rig.kubelet.pod_changed(None, sharing())
    await rig.settle()
    pause, *containers = rig.processes.all
    assert [*pause.argv] == ["/pause"]
    assert pause.options["rights"].without == tuple(sorted(security.EVERY))
    assert [(process.options.get("pids"), list(process.argv)) for process in containers] == [(pause.id, ["podplane/echo"])] * 2
    containers[0].exited.set_result(3)
    await rig.settle()
    assert rig.processes.all[-1].options["pids"] == pause.id and not pause.exited.done(), "one that is started again is, too"


async def test_a_pod_that_does_not_ask_for_it_has_none(rig: Rig) -> None:
    rig.kubelet.pod_changed(None, sharing(share_process_namespace=False))
    await rig.settle()
    assert [process.options["pids"] for process in rig.processes.all] == [0, 0]


async def test_a_pause_that_has_ended_is_followed_by_another(rig: Rig) -> None:
    rig.kubelet.pod_changed(None, sharing())
    await rig.settle()
    for process in list(rig.processes.all):
        process.exited.set_result(137)
    await rig.settle()
    assert [list(process.argv) for process in rig.processes.all[3:]] == [["/pause"], ["podplane/echo"], ["podplane/echo"]]
    assert {process.options["pids"] for process in rig.processes.all[4:]} == {rig.processes.all[3].id}


async def test_it_ends_after_all_containers_of_a_pod_that_is_deleted(rig: Rig) -> None:
    rig.processes.ends_on = (9,)
    made = sharing()
    rig.kubelet.pod_changed(None, made)
    await rig.settle()
    pause, *containers = rig.processes.all
    rig.kubelet.pod_changed(made, deleted(made))
    await rig.settle()
    assert pause.signals == [] and [process.signals for process in containers] == [[15], [15]]
    for process in containers:
        process.exited.set_result(0)
    await rig.settle()
    assert pause.signals == [signal.SIGKILL]
    assert rig.client.deleted == [("web", 0, "u1")]


async def test_it_ends_with_a_pod_that_has_succeeded(rig: Rig) -> None:
    rig.kubelet.pod_changed(None, sharing("Never"))
    await rig.settle()
    pause, *containers = rig.processes.all
    for process in containers:
        process.exited.set_result(0)
    await rig.settle()
    assert (rig.status["phase"], pause.exited.done()) == ("Succeeded", True)


async def test_an_ephemeral_container_stays_among_them_when_its_target_ends(rig: Rig) -> None:
    made = sharing()
    rig.kubelet.pod_changed(None, made)
    await rig.settle()
    look = Container("look", image="podplane/client", target_container_name="other")
    rig.kubelet.pod_changed(
        made, msgspec.structs.replace(made, spec=msgspec.structs.replace(made.spec, ephemeral_containers=(look,)))
    )
    await rig.settle()
    assert rig.processes.all[-1].options["pids"] == rig.processes.all[0].id


async def test_its_control_groups_go_with_it(rig: Rig, monkeypatch: object, tmp_path: Path) -> None:
    made = roots.share_of_pause(rig.kubelet, sharing(), 0)
    assert made is None, "a lab that has none"
    ended: list[Group] = []
    group = Group((), (f"{tmp_path}/g",))
    monkeypatch.setattr(cgroups, "end", lambda one: bool(ended.append(one)))  # type: ignore[attr-defined]
    monkeypatch.setattr(roots, "share_of_pause", lambda *_: group)  # type: ignore[attr-defined]
    rig.kubelet.pod_changed(None, sharing())
    await rig.settle()
    assert rig.processes.all[0].options["group"] is group and ended == []
    rig.kubelet.pod_changed(sharing(), deleted(sharing()))
    await rig.settle()
    assert ended == [group]


async def test_it_is_nobody_or_the_one_user_of_its_pod(rig: Rig, monkeypatch: object) -> None:
    for users, expected in ((Ids(FIRST, COUNT), (NOBODY, NOBODY)), (Ids(), (1000, 1000))):
        monkeypatch.setattr(shared_processes.ids, "of_pods", lambda users=users: users)  # type: ignore[attr-defined]
        context = PodSecurityContext(run_as_user=1000, run_as_group=1000)
        rig.kubelet.pod_changed(None, sharing(security_context=context))
        await rig.settle()
        rights = rig.processes.all[0].options["rights"]
        assert (rights.user, rights.group) == expected
        rig.kubelet.pod_changed(sharing(), deleted(sharing()))
        await rig.settle()
        rig.processes.all.clear()
