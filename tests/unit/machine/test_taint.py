"""The taint by which a node waits for its network goes once that is in place, whatever else stands in the list."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import jsonpatch
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from podplane.kubeapi.client import Client
from podplane.kubeapi.errors import ApiError
from podplane.machine import taint
from podplane.machine.taint import ReadyTaint, removal
from podplane.model.config import NOT_READY
from podplane.model.objects import Node, Taint
from tests.plans import node
from tests.unit.agent.rig import caches_of

KEYS = st.lists(st.sampled_from([NOT_READY, "node.kubernetes.io/not-ready", "a"]), max_size=6)


@given(KEYS)
def test_it_goes_and_all_others_stay_in_their_order(keys: list[str]) -> None:
    found = {"spec": {"taints": [{"key": key, "effect": "NoSchedule"} for key in keys]}}
    after = jsonpatch.apply_patch(found, removal(keys))
    assert [one["key"] for one in after["spec"]["taints"]] == [key for key in keys if key != NOT_READY]


def test_a_list_that_changed_meanwhile_is_not_touched() -> None:
    found = {"spec": {"taints": [{"key": "a"}, {"key": NOT_READY}]}}
    with pytest.raises(jsonpatch.JsonPatchTestFailed):
        jsonpatch.apply_patch(found, removal([NOT_READY, "a"]))


class FakeApi(Client):
    def __init__(self) -> None:
        self.patches: list[Sequence[Mapping[str, Any]]] = []
        self.fails = 0

    async def patch_by(self, resource: str, namespace: str, name: str, operations: Sequence[Mapping[str, Any]]) -> None:
        assert (resource, namespace, name) == ("nodes", "", "node1")
        if self.fails:
            self.fails -= 1
            raise ApiError(422, "Invalid", "the server rejected our request")
        self.patches.append(operations)


def tainted(*keys: str) -> Node:
    found = node(1, (4,))
    return msgspec.structs.replace(found, spec=msgspec.structs.replace(found.spec, taints=tuple(map(Taint, keys))))


async def until(condition: Any) -> None:
    for _ in range(10_000):
        if condition():
            return
        await asyncio.sleep(0.001)
    raise AssertionError("it did not happen")


async def test_it_stays_until_the_node_is_ready_and_goes_whenever_it_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(taint, "LOOK_SECONDS", 0.001)
    monkeypatch.setattr(taint, "RETRY_SECONDS", 0.001)
    caches, api, ready = caches_of(tainted("a", NOT_READY), node(2, (4,))), FakeApi(), False
    keeping = asyncio.create_task(ReadyTaint(api, caches.nodes, "node1", lambda: ready).run())
    await asyncio.sleep(0.02)
    assert api.patches == []
    api.fails, ready = 1, True
    await until(lambda: bool(api.patches))
    assert api.patches == [removal(["a", NOT_READY])]
    caches.nodes.set(tainted("a"))
    await asyncio.sleep(0.01)
    assert len(api.patches) == 1, "nothing is written without it"
    caches.nodes.set(tainted(NOT_READY))
    await until(lambda: len(api.patches) == 2)
    keeping.cancel()
