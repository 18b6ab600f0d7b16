"""Events of a Node about what keeps its agent from beginning."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import Mapping
from typing import Any

from podplane.kubeapi.client import Client
from podplane.kubeapi.errors import ApiError
from podplane.kubeapi.events import Recorder
from podplane.machine.node_events import QUIET_SECONDS, REASON, NodeEvents
from tests.plans import node
from tests.unit.agent.rig import caches_of


class FakeApi(Client):
    def __init__(self) -> None:
        self.events: list[Mapping[str, Any]] = []
        self.is_away = False

    async def create(self, resource: str, namespace: str, body: Mapping[str, Any]) -> dict[str, Any]:
        if self.is_away:
            raise ApiError(503, "Unavailable", "")
        self.events.append(body)
        return {"metadata": {"name": body["metadata"]["name"], "uid": str(len(self.events))}}

    async def patch(self, *_: Any, **__: Any) -> dict[str, Any]:
        self.events.append({"count": 2})
        return {}


async def test_each_line_is_one_event_a_minute_of_the_node_or_of_its_name() -> None:
    api, caches, now = FakeApi(), caches_of(), 0.0
    recorder = Recorder(api, "podplane", lambda: datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC), one_of_many=True)
    tell = NodeEvents(recorder, "node1", caches.nodes.objects, lambda: now)
    for line in ("no rights", "no rights", "no space"):
        tell(line)
    await asyncio.sleep(0.01)
    assert [one["message"] for one in api.events] == ["no rights", "no space"]
    first = api.events[0]
    assert (first["reason"], first["type"], first["metadata"]["namespace"]) == (REASON, "Warning", "default")
    assert first["involvedObject"]["uid"] == first["involvedObject"]["name"] == "node1", (
        "as kubelets name a Node that they don't know"
    )
    caches.nodes.set(node(1, (4,)))
    now = QUIET_SECONDS
    tell("no space left")
    await asyncio.sleep(0.01)
    assert api.events[-1]["involvedObject"]["uid"] == node(1, (4,)).metadata.uid


async def test_an_api_that_is_away_keeps_nobody_from_anything() -> None:
    api = FakeApi()
    api.is_away = True
    recorder = Recorder(api, "podplane", lambda: datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC))
    tell = NodeEvents(recorder, "node1", {})
    tell("no rights")
    await asyncio.sleep(0.01)
    assert api.events == []
