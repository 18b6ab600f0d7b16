"""One node's parts: what fails is started again while the others go on, and an agent that begins anew leaves nothing of the one before."""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import os
from collections.abc import Callable, Iterable

import msgspec
import pytest

from podplane.agent.attachments import AttachedPod
from podplane.agent.kernel import Kernel
from podplane.agent.node import TASKS, Concern, NodeAgent
from podplane.agent.peer_plans import PeerPlans
from podplane.apiserver.server import utc_now
from podplane.cni.network import Attachment, NetworkError, Unready
from podplane.kernel import door
from podplane.kernel.fakes.world import FakeNamespace, FakeOpener
from podplane.kubeapi.client import Client
from podplane.kubeapi.errors import ApiError
from podplane.model.objects import NodeCondition
from podplane.model.pod_info import Labels, PodInfo, SlimMetadata
from podplane.model.policy import LabelSelector, NetworkPolicy, PodSelector, PolicyMetadata, PolicyRule, Requirement
from podplane.policy.index import Change
from podplane.state.operations import LinkEvent, Operation
from tests.plans import agent_settings, node, uplink
from tests.unit.agent.rig import DUAL, caches_of, cluster

NO_NETWORK = NodeCondition("NetworkUnavailable", "True")


class FakeHost:
    """A machine with an uplink whose runtime remembers what is attached."""

    def __init__(self) -> None:
        self.opener = FakeOpener()
        self.machine = self.opener.namespace()
        self.kernel = door.Kernel(self.machine, self.opener)
        self.kernel.apply([Operation(None, value) for value in uplink(DUAL).values()])
        self.remembers: Callable[[], Iterable[AttachedPod]] = tuple
        self.breaks: Exception | None = None
        self.last: tuple[str, ...] = ()

    @property
    def namespace(self) -> FakeNamespace:
        return self.machine

    def open_kernel(self) -> Kernel:
        if self.breaks is not None:
            raise self.breaks
        return door.Kernel(self.machine, self.opener)

    def attached(self) -> Iterable[AttachedPod]:
        return self.remembers()

    def last_ips(self) -> tuple[str, ...]:
        return self.last

    def attaching(self, request: Attachment, ips: tuple[str, ...]) -> None:
        """Nothing is kept."""

    def detached(self, id_: tuple[str, str]) -> None:
        """Nothing is kept."""

    def link_changed(self, name: str, event: LinkEvent) -> None:
        """Nothing is done."""


class NoApi(Client):
    """An API that can't be reached."""

    def __init__(self) -> None:
        pass

    def __getattribute__(self, name: str) -> object:
        async def fail(*_: object, **__: object) -> object:
            raise ApiError(503, "ServiceUnavailable", "the API can't be reached")

        return None if name == "contact" else fail


class Rig:
    """A node's parts on such a machine."""

    def __init__(self) -> None:
        self.host = FakeHost()
        self.caches = caches_of(*cluster(1, 2))
        self.node = NodeAgent(
            "node1", self.host, agent_settings(DUAL), NoApi(), self.caches, PeerPlans(), lambda *_: None, utc_now
        )
        self.caches.subscribe(lambda kind, old, new: self.node.changed(kind, old, new))
        self.host.remembers = lambda: self.node.agent.network.attached if self.node.has_agent else ()

    def attachment(self, name: str) -> Attachment:
        return Attachment(name, name, "default", name, self.host.opener.namespace())


@pytest.fixture
async def rig(monkeypatch: pytest.MonkeyPatch) -> Rig:
    """Started; its servers listen nowhere, and what fails is started again at once."""
    monkeypatch.setattr("podplane.kubeapi.retry.Backoff.delay", lambda self, now: 0.0)
    monkeypatch.setattr("podplane.agent.health.NodeHealth._serve_all", nothing_to_serve)
    made = Rig()
    await made.node.start()
    made.node.run()
    return made


async def nothing_to_serve(*_: object) -> bool:
    return True


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(2000):
        if condition():
            return
        await asyncio.sleep(0.001)
    raise AssertionError("it does not come about")


@pytest.mark.parametrize("part", ["agent", "election", "health"])
async def test_a_part_that_fails_is_started_again_and_the_others_go_on(
    rig: Rig, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    supervisor = rig.node.supervisor
    await asyncio.sleep(0.01)

    async def fail() -> None:
        raise ValueError("nobody foresaw this")

    with monkeypatch.context() as patch:
        patch.setattr(type(getattr(rig.node, part)), "run", lambda self: fail())
        await supervisor.remove(part)
        supervisor.add(part, lambda: getattr(rig.node, part).run())
        await until(lambda: supervisor.report()[part].restarts > 2)
    await until(lambda: supervisor.report()[part].is_running)
    before = supervisor.report()[part].restarts
    await asyncio.sleep(0.02)
    reports = supervisor.report()
    assert reports[part].restarts == before and "nobody foresaw this" in reports[part].last_error
    assert {name: one.restarts for name, one in reports.items() if name != part} == dict.fromkeys(set(TASKS) - {part}, 0)
    rig.caches.nodes.set(node(5, DUAL))
    await until(lambda: "10.244.5.0/24" in rig.host.machine.objects.dump())
    await rig.node.close()


async def test_an_agent_whose_run_is_cancelled_runs_again(rig: Rig) -> None:
    supervisor = rig.node.supervisor
    for number in (3, 4, 5):
        await supervisor.remove("agent")
        supervisor.add("agent", lambda: rig.node.agent.run())
        await asyncio.sleep(0)
        rig.caches.nodes.set(node(number, DUAL))
        await until(lambda number=number: f"10.244.{number}.0/24" in rig.host.machine.objects.dump())  # type: ignore[misc]
    route = next(v for v in rig.host.machine.objects.network.values() if "10.244.5.0/24" in str(v))
    rig.host.machine.delete(route)
    await until(lambda: route.identity in rig.host.machine.objects.network)
    assert supervisor.report()["agent"].restarts == 0
    await rig.node.close()


async def test_an_address_that_was_freed_is_used_last_of_all_after_a_restart_too(rig: Rig) -> None:
    one, other = rig.attachment("one"), rig.attachment("other")
    await rig.node.add(one)
    freed = (await rig.node.add(other)).ips
    await rig.node.delete(other)
    rig.host.last = freed
    await rig.node.restart()
    assert set((await rig.node.add(rig.attachment("next"))).ips).isdisjoint(freed)
    await rig.node.close()


async def test_restarts_leave_no_descriptor_no_task_and_no_subscription(rig: Rig) -> None:
    await rig.node.add(rig.attachment("a"))

    def held() -> tuple[int, int]:
        gc.collect()
        return len(os.listdir("/proc/self/fd")), len(asyncio.all_tasks())

    await rig.node.restart()
    await asyncio.sleep(0.01)
    before = held()
    for _ in range(10):
        started = await rig.node.restart()
        assert started.changes == 0 and not started.refused
        await asyncio.sleep(0)
    await asyncio.sleep(0.01)
    assert held() == before
    await rig.node.close()


async def test_what_a_runtime_asks_for_is_finished_before_a_restart_and_waits_during_one(rig: Rig) -> None:
    stays = [rig.attachment(f"s{n}") for n in range(5)]
    goes = [rig.attachment(f"g{n}") for n in range(5)]
    for one in goes:
        await rig.node.add(one)
    working = [asyncio.create_task(rig.node.add(one)) for one in stays]
    working += [asyncio.create_task(rig.node.delete(one)) for one in goes]  # type: ignore[arg-type]  # no outcome
    await asyncio.sleep(0)
    restarting = asyncio.create_task(rig.node.restart())
    await asyncio.sleep(0)
    late = rig.attachment("late")
    working.append(asyncio.create_task(rig.node.add(late)))
    await asyncio.wait_for(asyncio.gather(restarting, *working), 10)
    for one in (*stays, late):
        await rig.node.check(one)
    assert {request.id[0] for request, _ in rig.node.agent.network.attached} == {*(f"s{n}" for n in range(5)), "late"}
    ips = [ip for _, some in rig.node.agent.network.attached for ip in some]
    assert len(ips) == len(set(ips))
    await rig.node.agent.writer.idle()
    assert rig.host.machine.objects.dump().count("type veth") == 6
    await rig.node.close()


async def test_a_restart_that_fails_may_be_tried_again_and_no_pod_loses_its_network(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = rig.attachment("a")
    await rig.node.add(request)
    before = rig.host.machine.objects.dump()
    with monkeypatch.context() as patch:
        patch.setattr("podplane.agent.auditor.Auditor.read_all", lambda self: nothing_to_read())
        with pytest.raises(OSError, match="Too many open files"):
            await rig.node.restart()
    rig.host.breaks = OSError(24, "Too many open files")
    with pytest.raises(OSError, match="Too many open files"):
        await rig.node.restart()
    rig.host.breaks = None
    waiting = asyncio.create_task(rig.node.check(request))
    started = await rig.node.restart()
    assert started.changes == 0
    await asyncio.wait_for(waiting, 5)
    assert rig.host.machine.objects.dump() == before
    await rig.node.close()


async def test_a_restart_that_fails_is_tried_again_by_itself(rig: Rig) -> None:
    request = rig.attachment("a")
    await rig.node.add(request)
    rig.host.breaks = OSError(24, "Too many open files")
    with pytest.raises(OSError, match="Too many open files"):
        await rig.node.restart()
    await asyncio.sleep(0.01)
    rig.host.breaks = None
    await asyncio.wait_for(rig.node.check(request), 5)
    assert all(report.is_running for report in rig.node.supervisor.report().values())
    await rig.node.close()


async def test_an_attachment_is_refused_with_the_reason_while_no_agent_can_start_and_a_detachment_waits(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("podplane.agent.node.READY_SECONDS", 0.05)
    goes = rig.attachment("a")
    await rig.node.add(goes)
    rig.host.breaks = OSError(24, "Too many open files")
    with pytest.raises(OSError, match="Too many open files"):
        await rig.node.restart()
    deleting = asyncio.create_task(rig.node.delete(goes))
    for call in (rig.node.add(rig.attachment("b")), rig.node.check(goes)):
        with pytest.raises(NetworkError, match=r"the agent of node1 is not ready after 0.05 s: .*Too many open files"):
            await call
    assert not deleting.done()
    rig.host.breaks = None
    await asyncio.wait_for(deleting, 10)
    assert [request.id[0] for request, _ in rig.node.agent.network.attached] == []
    await rig.node.close()


async def nothing_to_read() -> None:
    raise OSError(24, "Too many open files")


async def test_a_failed_first_start_has_no_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Rig()
    made.host.breaks = OSError(24, "Too many open files")
    with pytest.raises(OSError, match="Too many open files"):
        await made.node.start()
    assert [made.node.has_agent] == [False]
    made.host.breaks = None
    await made.node.start()
    assert [made.node.has_agent] == [True]
    await made.node.close()


async def test_a_node_knows_whether_one_of_some_pods_is_attached_to_it(rig: Rig) -> None:
    attachment = rig.attachment("web")
    web, other = (Concern.of(Change(pods=(path,))) for path in ("default/web", "default/other"))
    assert not rig.node.is_concerned(web)
    await rig.node.add(attachment)
    assert rig.node.is_concerned(Concern.of(Change(pods=("default/other", "default/web")))) and not rig.node.is_concerned(other)
    await rig.node.delete(attachment)
    assert not rig.node.is_concerned(web)


def peer(name: str, role: str, ip: str) -> PodInfo:
    return PodInfo(SlimMetadata(name, "default", name, Labels({"role": role})), "node2", (ip,), "Running")


def selector_of(role: str) -> PodSelector:
    return PodSelector("default", LabelSelector.of([Requirement("role", "In", (role,))]))


async def test_only_moves_between_sets_that_rules_here_look_into_concern_a_node(rig: Rig) -> None:
    told: list[bool] = []
    rig.caches.subscribe(lambda kind, old, new: told.append(rig.node.is_concerned(Concern.of(new))) if kind is Change else None)
    rule = PolicyRule((selector_of("client"),), None)
    rig.caches.policies.set(NetworkPolicy(PolicyMetadata("p", "default", "p"), LabelSelector.of([]), (rule,), None))
    rig.caches.pods.set(PodInfo(SlimMetadata("web", "default", "web", Labels({})), "node1", (), "Running"))
    assert told == [True, False], "a policy may concern any node, a pod its own one only"
    rig.caches.policy_index.use(selector_of("other"))
    await rig.node.add(rig.attachment("web"))
    told.clear()
    rig.caches.pods.set(peer("a", "client", "10.244.2.9"))
    rig.caches.pods.set(peer("b", "other", "10.244.2.10"))
    rig.caches.pods.remove("default/a")
    assert told == [True, False, True]


async def test_why_no_pod_can_be_attached_is_said(rig: Rig) -> None:
    assert rig.node.unready() is None
    own = node(1, DUAL)
    rig.caches.nodes.set(msgspec.structs.replace(own, spec=msgspec.structs.replace(own.spec, pod_cidrs=())))
    assert rig.node.unready() == Unready("node node1 has no pod block yet: it gets one when the cluster has room")
    rig.caches.nodes.set(msgspec.structs.replace(own, status=msgspec.structs.replace(own.status, conditions=(NO_NETWORK,))))
    assert rig.node.unready() == Unready("the network of node node1 is down", is_limited=True)
    small = msgspec.structs.replace(own.spec, pod_cidrs=("10.244.1.0/30",))
    rig.caches.nodes.set(msgspec.structs.replace(own, spec=small))
    await rig.node.agent.reconcile()
    assert rig.node.unready() is None
    only = rig.attachment("only")
    await rig.node.add(only)
    assert rig.node.unready() == Unready("all addresses of block 10.244.1.0/30 of node node1 are in use: delete pods of it")
    await rig.node.delete(only)
    rig.caches.nodes.set(own)
    await rig.node.agent.reconcile()
    await rig.node.agent.idle()
    assert rig.node.unready() is None
    pod = rig.attachment("a")
    assert rig.node.find(pod.id) is None and not rig.node.attachments()
    attached = await rig.node.add(pod)
    assert rig.node.find(pod.id) == attached and rig.node.attachments() == [pod]
    await rig.node.close()


async def test_before_its_start_a_node_attaches_no_pod() -> None:
    made = Rig().node
    assert (made.find(("a", "eth0")), made.attachments()) == (None, ())
    assert made.unready() == Unready("the agent of node1 is not ready: it is still starting")


async def test_a_static_pod_is_attached_as_the_one_that_stands_for_it_in_the_api(rig: Rig) -> None:
    rig.caches.pods.set(PodInfo(SlimMetadata("a", "default", "in-the-api"), "node1", static_uid="of-the-file"))
    await rig.node.add(dataclasses.replace(rig.attachment("a"), pod_uid="of-the-file"))
    await rig.node.add(dataclasses.replace(rig.attachment("b"), pod_uid="of-the-file"))
    assert {one.name: one.pod_uid for one in rig.node.attachments()} == {"a": "in-the-api", "b": "of-the-file"}
    await rig.node.close()


async def test_what_the_machine_keeps_from_the_node_is_in_its_state_after_a_start_anew_too(rig: Rig) -> None:
    for why in ("rp_filter is 1 on eth0", "rp_filter is 1 on eth1"):
        rig.node.machine_without = lambda why=why: [why]  # type: ignore[misc]
        assert rig.node.health.reports._sources.summary().unmet[0] == why
        await rig.node.restart(agent_settings(DUAL))
        assert rig.node.health.reports._sources.summary().unmet[0] == why
