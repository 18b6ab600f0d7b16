"""An attachment waits until the agent's caches have its pod, and the policies that the API has by then."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from podplane.agent import pod_gate
from podplane.agent.caches import CLUSTER_POLICIES, NAMESPACES, PODS, POLICIES, Caches
from podplane.agent.pod_gate import serve, until_known
from podplane.cni.network import NetworkError, TryAgainError
from podplane.kubeapi.cache import Cache
from podplane.kubeapi.errors import ApiError
from podplane.model.cluster_policy import ClusterNetworkPolicy
from podplane.model.pod_info import PodInfo, SlimMetadata
from podplane.model.policy import EVERYTHING, NetworkPolicy, PodSelector, PolicyMetadata, PolicyRule
from tests.policed import policy, select
from tests.unit.agent.rig import Rig


class Watch:
    """Informers of policies that are current, or behind, or can't say."""

    def __init__(self, answer: bool | ApiError) -> None:
        self.answer = answer
        self.asked: list[str] = []
        self.policies = Cache[NetworkPolicy]()

    async def catch_up(self, selection: Any, seconds: float) -> bool:
        self.asked.append(selection.namespace or selection.fields or "all")
        if isinstance(self.answer, ApiError):
            raise self.answer
        return self.answer

    def in_namespace(self, namespace: str) -> Mapping[str, NetworkPolicy]:
        return {path: one for path, one in self.policies.objects.items() if one.metadata.namespace == namespace}


def watched(answer: bool | ApiError) -> tuple[Caches, Watch]:
    caches, watch = Caches(), Watch(answer)
    caches.informers = dict.fromkeys((PODS, POLICIES, CLUSTER_POLICIES, NAMESPACES), watch)  # type: ignore[arg-type]  # as far as it is asked
    return caches, watch


async def test_it_waits_for_the_pod_and_not_for_another_one_of_its_name() -> None:
    caches, watch = watched(True)
    request = Rig().attachment("web")
    waiting = asyncio.ensure_future(until_known(caches, request, "node1"))
    await asyncio.sleep(0.01)
    caches.pods.set(PodInfo(SlimMetadata("web", "default", "former")))
    await asyncio.sleep(0.01)
    assert not waiting.done() and not watch.asked
    caches.pods.set(PodInfo(SlimMetadata("web", "default", "web")))
    await waiting
    assert watch.asked == ["default", "all"]
    caches.cluster_policies.set(ClusterNetworkPolicy(PolicyMetadata("guard")))
    await until_known(caches, request, "node1")
    assert watch.asked[2:] == ["default", "all", "metadata.name=default"]
    peer = PodSelector(select(team="b"))
    for one in (
        policy("elsewhere", EVERYTHING, [PolicyRule((peer,))], namespace="a"),
        policy("ip", EVERYTHING, [], namespace="default"),
    ):
        watch.policies.set(one)
    await until_known(caches, request, "node1")
    assert watch.asked[5:] == ["default", "all", "metadata.name=default"]
    watch.policies.set(policy("here", EVERYTHING, egress=[PolicyRule((peer,))], namespace="default"))
    await until_known(caches, request, "node1")
    assert watch.asked[8:] == ["default", "all", "all"], "it reads labels of any namespace"


async def test_a_static_pod_is_known_by_the_uid_that_its_kubelet_gives_it() -> None:
    caches, _ = watched(True)
    of_kubelet = Rig().attachment("web", pod_uid="of-the-file")
    caches.pods.set(PodInfo(SlimMetadata("web", "default", "in-the-api"), static_uid="of-the-file"))
    await until_known(caches, of_kubelet, "node1")
    assert not caches.arrivals.is_known("default/web", "another")


async def test_what_does_not_come_in_time_is_an_error_of_the_attachment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pod_gate, "KNOWN_SECONDS", 0.01)
    caches, _ = watched(False)
    request = Rig().attachment("web")
    with pytest.raises(NetworkError, match=r"pod default/web: the agent of node1 .* its watch of pods is 0.01 s behind"):
        await until_known(caches, request, "node1")
    caches.pods.set(PodInfo(SlimMetadata("web", "default", "web")))
    with pytest.raises(NetworkError, match="its watch of networkpolicies"):
        await until_known(caches, request, "node1")


@pytest.mark.parametrize(
    ("uid", "said"), [("web", "no such pod with uid web: create it first"), ("", "no such pod: create it")]
)
async def test_a_pod_that_nobody_created_is_told_from_one_that_is_not_known_yet(
    monkeypatch: pytest.MonkeyPatch, uid: str, said: str
) -> None:
    monkeypatch.setattr(pod_gate, "KNOWN_SECONDS", 0.01)
    caches, watch = watched(True)
    with pytest.raises(TryAgainError, match=f"pod default/web: the API has {said}"):
        await until_known(caches, Rig().attachment("web", pod_uid=uid), "node1")
    assert watch.asked == ["default"]
    watch.answer = ApiError(503, "ServiceUnavailable", "away")
    with pytest.raises(TryAgainError, match=r"its watch of pods is 0.01 s behind"):
        await until_known(caches, Rig().attachment("web", pod_uid=uid), "node1")


async def test_where_the_api_is_away_what_was_known_last_counts_and_caches_of_nobody_are_whole() -> None:
    caches, watch = watched(ApiError(503, "ServiceUnavailable", "away"))
    caches.pods.set(PodInfo(SlimMetadata("web", "default", "web")))
    await until_known(caches, Rig().attachment("web"), "node1")
    assert watch.asked
    await until_known(Caches(), Rig().attachment("other"), "node1")


async def test_who_waits_for_pods_is_forgotten_when_they_come_and_when_they_do_not() -> None:
    caches, _ = watched(True)
    waiting = [asyncio.ensure_future(caches.arrivals.wait("default/web", "", 5.0)) for _ in range(3)]
    assert not await caches.arrivals.wait("default/web", "web", 0.01)
    waiting[0].cancel()
    caches.pods.set(PodInfo(SlimMetadata("web", "default", "web")))
    assert await asyncio.gather(*waiting[1:]) == [True, True]
    caches.pods.remove("default/web")
    assert not await caches.arrivals.wait("default/web", "", 0.0)
    assert not caches.arrivals._awaited


def of_node(name: str, node: str = "node1", namespace: str = "default", **more: Any) -> PodInfo:
    return PodInfo(SlimMetadata(name, namespace, name), node=node, **more)


async def test_for_pods_of_a_node_it_is_asked_as_soon_as_they_are_known() -> None:
    caches, watch = watched(True)
    for there in (of_node("before"), of_node("attached"), of_node("elsewhere", "node2"), of_node("of-node", host_network=True)):
        caches.pods.set(there)
    serve(caches, "node1", {"default/attached"}.__contains__)
    await until_known(caches, Rig().attachment("before"), "node1")
    assert watch.asked == ["default", "all"], "of the one pod that will be attached"
    caches.pods.set(of_node("later", ""))
    caches.pods.set(of_node("ended", phase="Succeeded"))
    assert watch.asked[2:] == []
    for name in ("later", "other"):
        caches.pods.set(of_node(name))
    caches.pods.set(of_node("third", namespace="a"))
    await asyncio.sleep(0.01)
    assert watch.asked[2:] == ["default", "all", "a", "all"], "pods that come at one time share an answer"
    for name in ("later", "other", "before"):
        await until_known(caches, Rig().attachment(name), "node1")
    assert len(watch.asked) == 6
    await until_known(caches, Rig().attachment("attached"), "node1")
    assert len(watch.asked) == 8, "a pod that was not asked for is, when it is attached"


async def test_what_was_said_of_a_pod_is_not_said_of_the_next_one_of_its_name() -> None:
    caches, watch = watched(True)
    serve(caches, "node1", lambda path: False)
    caches.pods.set(of_node("web"))
    await asyncio.sleep(0.01)
    assert watch.asked == ["default", "all"]
    caches.pods.set(PodInfo(SlimMetadata("web", "default", "second"), node="node1"))
    await until_known(caches, Rig().attachment("web", pod_uid="second"), "node1")
    assert watch.asked[2:] == ["default", "all"]
    caches.pods.remove("default/web")
    assert not caches.ahead._asked


@pytest.mark.parametrize("answer", [False, ApiError(503, "ServiceUnavailable", "away")])
async def test_what_could_not_be_had_ahead_is_asked_for_again(answer: bool | ApiError) -> None:
    caches, watch = watched(answer)
    serve(caches, "node1", lambda path: False)
    caches.pods.set(of_node("web"))
    await asyncio.sleep(0.01)
    watch.answer, before = True, len(watch.asked)
    await until_known(caches, Rig().attachment("web"), "node1")
    assert watch.asked[before:] == ["default", "all"]


async def test_an_attachment_that_comes_first_waits_for_the_answer_that_is_on_its_way() -> None:
    caches, watch = watched(True)
    answered = asyncio.Event()

    async def slow(selection: Any, seconds: float) -> bool:
        watch.asked.append("slow")
        return await answered.wait()

    watch.catch_up = slow  # type: ignore[method-assign]
    serve(caches, "node1", lambda path: False)
    caches.pods.set(of_node("web"))
    waiting = asyncio.ensure_future(until_known(caches, Rig().attachment("web"), "node1"))
    await asyncio.sleep(0.01)
    assert not waiting.done() and watch.asked == ["slow", "slow"]
    answered.set()
    await waiting
    assert len(watch.asked) == 2
    serve(Caches(), "node1", lambda path: False)
