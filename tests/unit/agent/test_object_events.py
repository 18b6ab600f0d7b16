"""Events about the objects of keys: written about the right object, and not again and again."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from podplane.agent.keys import AttachmentKey, ClusterNetworkPolicyKey, Key, NetworkPolicyKey, NodeKey, PeerKey, ServiceKey
from podplane.agent.object_events import ObjectEvents
from podplane.kubeapi.errors import ApiError
from podplane.kubeapi.events import WARNING, Recorder, settled
from podplane.model.cluster_policy import ClusterNetworkPolicy
from podplane.model.policy import NetworkPolicy, PolicyMetadata
from tests.plans import node
from tests.unit.agent.rig import DUAL, caches_of, service_of


class Remembering(Recorder):
    """Remembers what it is given; fails when it is told to."""

    def __init__(self) -> None:
        self.written: list[tuple[Any, ...]] = []
        self.fails = False

    async def record(self, *arguments: Any, **_: Any) -> None:
        self.written.append(arguments)
        if self.fails:
            raise ApiError(503, "ServiceUnavailable", "the API can't be reached")


@pytest.mark.parametrize(
    ("key", "reference"),
    [
        (NodeKey("node1"), {"name": "node1", "uid": ""}),
        (PeerKey("node1"), {"name": "node1", "uid": ""}),
        (ServiceKey("default/web"), {"name": "web", "uid": "", "namespace": "default"}),
        (NetworkPolicyKey("default/np"), {"name": "np", "uid": "u", "namespace": "default"}),
        (ClusterNetworkPolicyKey("guard"), {"name": "guard", "uid": "v"}),
        (AttachmentKey("default/a", "c", "eth0", "u"), {"name": "a", "uid": "u", "namespace": "default"}),
    ],
)
async def test_an_event_names_the_object_of_its_key(key: Key, reference: dict[str, str]) -> None:
    recorder = Remembering()
    policies = NetworkPolicy(PolicyMetadata("np", "default", "u")), ClusterNetworkPolicy(PolicyMetadata("guard", "", "v"))
    events = ObjectEvents(recorder, caches_of(node(1, DUAL), service_of("web", "10.96.0.1"), *policies))
    events(key, "it is refused")
    events(key, "it is refused")
    await asyncio.gather(*events._tasks)
    assert recorder.written == [(key.kind, reference, "NotApplied", "it is refused", WARNING)]


async def test_of_an_object_that_is_gone_there_is_no_event() -> None:
    recorder = Remembering()
    events = ObjectEvents(recorder, caches_of())
    container = AttachmentKey("/c", "c", "eth0", "")  # it is no pod
    for key in (ServiceKey("default/web"), NetworkPolicyKey("default/web"), ClusterNetworkPolicyKey("web"), container):
        events(key, "it is refused")
    assert not events._tasks and not recorder.written


async def test_an_event_that_the_api_does_not_take_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    recorder = Remembering()
    recorder.fails = True
    events = ObjectEvents(recorder, caches_of(node(1, DUAL)))
    events(NodeKey("node1"), "it is refused")
    await asyncio.gather(*events._tasks)
    assert "event about=node1" in caplog.text


async def test_at_an_orderly_end_events_are_written_and_an_api_that_is_silent_is_not_waited_for(
    caplog: pytest.LogCaptureFixture,
) -> None:
    answers = asyncio.Event()

    class Slow(Remembering):
        async def record(self, *arguments: Any, **more: Any) -> None:
            await answers.wait()
            await super().record(*arguments, **more)

    recorder = Slow()
    events = ObjectEvents(recorder, caches_of(node(1, DUAL)))
    await settled(events.pending)
    events(NodeKey("node1"), "it is refused")
    await settled(events.pending, 0.01)
    assert not recorder.written and "events: 1 were not written" in caplog.text
    asyncio.get_running_loop().call_later(0.01, answers.set)
    await settled(events.pending)
    assert len(recorder.written) == 1 and not events.pending
