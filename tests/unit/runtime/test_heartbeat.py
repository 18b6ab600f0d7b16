"""A kubelet's heartbeat corrects what others write into the status of its node."""

from __future__ import annotations

import asyncio
import datetime
import random
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from podplane.apiserver import identity
from podplane.kubeapi.client import Client
from podplane.kubeapi.messages import Request, Response
from podplane.model.objects import Node
from podplane.runtime.heartbeat import HEALTHY, Heartbeat, with_own
from tests.unit.apiserver.test_server import Api

PATH = "/api/v1/nodes/node1"
TURNS, MANY_TURNS = 20, 10_000
MACHINE: dict[str, Any] = {
    "addresses": [{"type": "InternalIP", "address": "192.168.1.10"}, {"type": "Hostname", "address": "node1"}],
    "capacity": {"cpu": "2", "pods": "110"},
    "allocatable": {"cpu": "2", "pods": "110"},
}


async def test_a_status_that_somebody_empties_is_that_of_the_machine_again() -> None:
    api = Api()
    api.tokens.add("node1", identity.node("node1"))
    made = await api("POST", "/api/v1/nodes", {"metadata": {"name": "node1"}})
    heart = Heartbeat(
        Client(api.server.call, "node1"), msgspec.convert(made, Node), lambda: datetime.datetime.now(datetime.UTC), MACHINE
    )
    for status in ({}, {"addresses": [], "capacity": {"cpu": "0", "pods": "110", "example.com/dongle": "3"}}, None):
        node = await api("GET", PATH)
        if status is not None:
            node = await api("PUT", f"{PATH}/status", {**node, "status": status})
        heart.node_changed(msgspec.convert(node, Node))
        await heart.beat()
        found = (await api("GET", PATH))["status"]
        assert found["addresses"] == MACHINE["addresses"]
        assert MACHINE["capacity"].items() <= found["capacity"].items()
        assert MACHINE["allocatable"].items() <= found["allocatable"].items()
        assert {one["type"] for one in found["conditions"]} >= {"Ready", "DiskPressure"}
    assert found["capacity"]["example.com/dongle"] == found["allocatable"]["example.com/dongle"] == "3"
    version = (await api("GET", PATH))["metadata"]["resourceVersion"]
    heart.node_changed(msgspec.convert(await api("GET", PATH), Node))
    await heart.beat()
    assert (await api("GET", PATH))["metadata"]["resourceVersion"] == version, "what is right is not written"


async def test_one_beat_does_what_it_is_woken_for_while_it_lasts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random, "random", lambda: 1.0)
    api = Api()
    api.tokens.add("node1", identity.node("node1"))
    made = await api("POST", "/api/v1/nodes", {"metadata": {"name": "node1"}})
    asked: list[str] = []

    async def call(request: Request) -> Response:
        asked.append(f"{request.method} {request.path}")
        answer = await api.server.call(request)
        heart.node_changed(msgspec.convert(await api("GET", PATH), Node))  # the watch is as quick as the answer
        return answer

    heart = Heartbeat(Client(call, "node1"), msgspec.convert(made, Node), lambda: datetime.datetime.now(datetime.UTC), MACHINE)
    life = asyncio.create_task(heart.run())
    lease = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
    first = [f"GET {PATH}", f"PATCH {PATH}/status", f"POST {lease}"]
    await until(lambda: len(asked) >= len(first))
    for _ in range(TURNS):
        await asyncio.sleep(0)
    assert asked == first
    await api("DELETE", PATH)
    await api("POST", "/api/v1/nodes", {"metadata": {"name": "node1"}})
    heart.node_changed(msgspec.convert(await api("GET", PATH), Node))
    await until(lambda: len(asked) > len(first))
    life.cancel()


async def test_of_a_node_that_has_just_registered_only_the_lease_is_written() -> None:
    api = Api()
    api.tokens.add("node1", identity.node("node1"))
    times = {"lastHeartbeatTime": "2026-01-01T00:00:00Z", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    other = {"type": "NetworkUnavailable", "status": "False", "reason": "Up", "message": "it is up", **times}
    status = {**MACHINE, "conditions": with_own([other], times["lastHeartbeatTime"])}
    made = await api("POST", "/api/v1/nodes", {"metadata": {"name": "node1"}, "status": status})
    assert [one["type"] for one in made["status"]["conditions"]] == ["NetworkUnavailable", *(kind for kind, *_ in HEALTHY)]
    asked: list[str] = []

    async def call(request: Request) -> Response:
        asked.append(f"{request.method} {request.path}")
        return await api.server.call(request)

    def heart(node: Any, *, is_reported: bool) -> Heartbeat:
        model = msgspec.convert(node, Node)
        return Heartbeat(
            Client(call, "node1"), model, lambda: datetime.datetime.now(datetime.UTC), MACHINE, is_reported=is_reported
        )

    first = heart(made, is_reported=True)
    await first.beat()
    assert asked == ["POST /apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"]
    without = {
        **made,
        "status": {**made["status"], "conditions": [*made["status"]["conditions"][:1], made["status"]["conditions"][-1]]},
    }
    first.node_changed(msgspec.convert(without, Node))
    await first.beat()
    assert f"PATCH {PATH}/status" in asked, "the pressures were taken away"
    asked.clear()
    await heart(made, is_reported=False).beat()
    assert f"PATCH {PATH}/status" in asked, "what a former run said is said anew"


async def test_a_lease_lasts_for_some_of_its_renewals() -> None:
    api = Api()
    api.tokens.add("node1", identity.node("node1"))
    made = msgspec.convert(await api("POST", "/api/v1/nodes", {"metadata": {"name": "node1"}}), Node)
    await Heartbeat(
        Client(api.server.call, "node1"), made, lambda: datetime.datetime.now(datetime.UTC), MACHINE, interval=0.4
    ).beat()
    lease = await api("GET", "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/node1")
    assert lease["spec"]["leaseDurationSeconds"] == 2


async def until(is_so: Callable[[], bool]) -> None:
    """Turns of the loop until it is so."""
    for _ in range(MANY_TURNS):
        if is_so():
            return
        await asyncio.sleep(0)
    raise AssertionError("it never was so")
