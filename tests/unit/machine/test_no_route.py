"""A node of a cloud that makes no routes takes pods once podplane's network is in place there."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest

from podplane.kubeapi.client import Client
from podplane.kubeapi.errors import ApiError
from podplane.machine import no_route
from podplane.machine.no_route import NoRoute
from podplane.model.config import IS_UP, NO_NETWORK, NO_ROUTE
from podplane.model.objects import Node, NodeCondition
from tests.plans import node
from tests.unit.agent.rig import caches_of
from tests.unit.machine.test_taint import until

NOW = datetime.datetime(2026, 11, 28, tzinfo=datetime.UTC)


def said(status: str, reason: str, number: int = 1) -> Node:
    found = node(number, (4,))
    conditions = (NodeCondition("Ready", "True"), NodeCondition(NO_NETWORK, status, reason))
    return msgspec.structs.replace(found, status=msgspec.structs.replace(found.status, conditions=conditions))


class FakeApi(Client):
    def __init__(self) -> None:
        self.written: list[Any] = []
        self.fails = 0

    async def patch_own_status(self, resource: str, namespace: str, name: str, status: Mapping[str, Any], uid: str) -> None:
        assert (resource, namespace, name, uid) == ("nodes", "", "node1", node(1, (4,)).metadata.uid)
        if self.fails:
            self.fails -= 1
            raise ApiError(500, "InternalError", "no")
        self.written += status["conditions"]


@pytest.mark.parametrize(
    ("status", "reason", "is_down", "waits"),
    [
        ("True", NO_ROUTE, False, True),
        ("True", "PodCIDRTwice", True, False),
        ("True", "", True, False),
        ("False", NO_ROUTE, False, False),
    ],
)
def test_a_missing_route_of_the_cloud_is_no_missing_network(status: str, reason: str, is_down: bool, waits: bool) -> None:
    found = said(status, reason)
    assert (found.has_no_network, found.waits_for_a_route) == (is_down, waits)


async def test_it_is_taken_back_once_pods_can_run_and_not_all_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(no_route, "LOOK_SECONDS", 0.001)
    caches, api, ready = caches_of(said("True", NO_ROUTE), said("True", NO_ROUTE, 2)), FakeApi(), False
    api.fails = 1
    keeping = asyncio.create_task(NoRoute(api, caches.nodes, "node1", lambda: ready, lambda: NOW).run())
    await asyncio.sleep(0.02)
    assert api.written == [] and api.fails == 1, "not before"
    ready = True
    await until(lambda: bool(api.written))
    assert api.written == [{**IS_UP, "lastHeartbeatTime": "2026-11-28T00:00:00Z", "lastTransitionTime": "2026-11-28T00:00:00Z"}]
    caches.nodes.set(said("False", IS_UP["reason"]))
    caches.nodes.set(said("True", NO_ROUTE))
    await asyncio.sleep(0.02)
    assert len(api.written) == 1, "whoever says it again and again is not answered each time"
    keeping.cancel()


@pytest.mark.parametrize(("status", "reason"), [("True", "PodCIDRTwice"), ("True", "RouteController"), ("False", NO_ROUTE)])
async def test_what_others_say_stays(status: str, reason: str) -> None:
    caches, api = caches_of(said(status, reason)), FakeApi()
    keeping = asyncio.create_task(NoRoute(api, caches.nodes, "node1", lambda: True, lambda: NOW).run())
    await asyncio.sleep(0.02)
    assert api.written == []
    keeping.cancel()
