"""The event recorder against a real API server: equal events are one with a count, and each object has a rate limit."""

from __future__ import annotations

import asyncio
import datetime
import json
from typing import Any

from podplane.kubeapi.client import Client
from podplane.kubeapi.events import BURST, REFILL_SECONDS, WARNING, Recorder
from podplane.kubeapi.messages import Answer, Request
from tests.unit.apiserver.test_server import Api

POD = {"name": "web", "namespace": "default", "uid": "u"}
NODE = {"name": "n1", "uid": "n"}


class Clock:
    """A wall clock that the test sets."""

    def __init__(self) -> None:
        self.seconds = 1_800_000_000.0

    def __call__(self) -> datetime.datetime:
        return datetime.datetime.fromtimestamp(self.seconds, datetime.UTC)


async def events(api: Api) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(await Client(api.server.handle, "secret").list("events"))["items"]
    return found


def recorder(api: Api, clock: Clock | None = None) -> Recorder:
    return Recorder(Client(api.server.handle, "secret"), "agent", clock or Clock(), "n1")


async def test_equal_events_are_counted_and_others_are_events_of_their_own() -> None:
    api = Api()
    record = recorder(api).record
    for _ in range(3):
        await record("v1/Pod", POD, "Failed", "no route", WARNING)
    await record("v1/Pod", POD, "Failed", "no route", WARNING, part="spec.containers{main}")
    await record("v1/Node", NODE, "Started", "up")
    found = {(e["involvedObject"]["name"], e["involvedObject"].get("fieldPath", "")): e for e in await events(api)}
    assert {key: (e["count"], e["metadata"]["namespace"], e["type"]) for key, e in found.items()} == {
        ("web", ""): (3, "default", "Warning"),
        ("web", "spec.containers{main}"): (1, "default", "Warning"),
        ("n1", ""): (1, "default", "Normal"),
    }


async def test_an_object_has_a_rate_limit_that_refills_and_other_objects_have_their_own() -> None:
    api, clock = Api(), Clock()
    record = recorder(api, clock).record
    for number in range(BURST + 5):
        await record("v1/Pod", POD, "Failed", f"reason {number}")
    assert len(await events(api)) == BURST
    await record("v1/Node", NODE, "Failed", "another object")
    assert len(await events(api)) == BURST + 1
    clock.seconds += REFILL_SECONDS
    for number in range(2):
        await record("v1/Pod", POD, "Failed", f"later {number}")
    assert len(await events(api)) == BURST + 2


async def test_what_many_say_is_one_event_that_counts_what_is_said_later() -> None:
    api, clock = Api(), Clock()

    def one(host: str) -> Recorder:
        return Recorder(Client(api.server.handle, "secret"), "agent", clock, host, one_of_many=True)

    agents = [one(f"n{number}") for number in range(4)]
    await asyncio.gather(*(agent.record("v1/Pod", POD, "Failed", "taken", WARNING) for agent in agents))
    await agents[0].record("v1/Pod", POD, "Failed", "something else", WARNING)
    assert sorted((e["message"], e["count"]) for e in await events(api)) == [("something else", 1), ("taken", 1)]
    clock.seconds += 61
    after_restart = one("n3")
    assert await after_restart.record("v1/Pod", POD, "Failed", "taken", WARNING)
    assert await after_restart.record("v1/Pod", POD, "Failed", "taken", WARNING)
    (event,) = (e for e in await events(api) if e["message"] == "taken")
    assert (event["count"], event["lastTimestamp"]) == (3, clock().strftime("%Y-%m-%dT%H:%M:%SZ"))


async def test_an_event_that_expired_is_written_anew_by_however_many_at_once() -> None:
    api = Api()

    async def remote(request: Request) -> Answer:
        await asyncio.sleep(0)  # as over a network, answers come while other requests are on their way
        answer = await api.server.handle(request)
        await asyncio.sleep(0)
        return answer

    record = Recorder(Client(remote, "secret"), "agent", Clock()).record
    await record("v1/Pod", POD, "Failed", "no route")
    (event,) = await events(api)
    await api("DELETE", f"/api/v1/namespaces/default/events/{event['metadata']['name']}")
    await asyncio.gather(*(record("v1/Pod", POD, "Failed", "no route") for _ in range(3)))
    assert sum(e["count"] for e in await events(api)) == 3


async def test_an_api_that_refuses_costs_the_caller_nothing() -> None:
    api = Api()
    await Recorder(Client(api.server.handle, "wrong"), "agent", Clock()).record("v1/Pod", POD, "Failed", "no route")
    assert await events(api) == []
