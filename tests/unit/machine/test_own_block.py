"""A node whose block was an older node's, too, takes pods again once it is its own, whoever gives blocks then."""

from __future__ import annotations

import asyncio
import datetime

import msgspec
import pytest

from podplane.machine import own_block
from podplane.machine.own_block import OwnBlock
from podplane.model.config import ITS_OWN, NO_ROUTE, TWICE
from podplane.model.objects import Node
from tests.unit.agent.rig import caches_of
from tests.unit.machine.test_no_route import FakeApi, said
from tests.unit.machine.test_taint import until


def made(found: Node, created: str, *blocks: str) -> Node:
    metadata = msgspec.structs.replace(found.metadata, creation_timestamp=created)
    return msgspec.structs.replace(found, metadata=metadata, spec=msgspec.structs.replace(found.spec, pod_cidrs=blocks))


def now() -> datetime.datetime:
    return datetime.datetime(2026, 1, 5, tzinfo=datetime.UTC)


TIME = "2026-01-05T00:00:00Z"
TAKEN_BACK = ITS_OWN | {"lastHeartbeatTime": TIME, "lastTransitionTime": TIME}
OWN = made(said("True", TWICE), "2026-01-02T00:00:00Z", "10.244.1.0/24", "fd00:1::/64")
OLDER = made(said("False", "", 2), "2026-01-01T00:00:00Z", "10.244.0.0/22")


async def test_it_is_taken_back_once_no_older_node_has_the_block() -> None:
    caches, api = caches_of(OWN, OLDER), FakeApi()
    api.fails = 1
    keeping = asyncio.create_task(OwnBlock(api, caches.nodes, "node1", now).run())
    await asyncio.sleep(0.02)
    assert api.written == [] and api.fails == 1, "it is so"
    caches.nodes.remove("node2")
    await until(lambda: bool(api.written))
    assert api.written == [TAKEN_BACK]
    keeping.cancel()


@pytest.mark.parametrize(
    "other",
    [
        made(OLDER, "2026-01-03T00:00:00Z", "10.244.1.0/24"),
        made(OLDER, "2026-01-01T00:00:00Z", "10.244.2.0/24", "fd00:2::/64"),
        made(OLDER, "2026-01-02T00:00:00Z", "fd00:1::/64"),
    ],
)
async def test_who_is_younger_or_has_other_blocks_does_not_count(other: Node) -> None:
    """Of the same second, by name."""
    caches, api = caches_of(OWN, other), FakeApi()
    keeping = asyncio.create_task(OwnBlock(api, caches.nodes, "node1", now).run())
    await until(lambda: bool(api.written))
    assert api.written == [TAKEN_BACK]
    keeping.cancel()


@pytest.mark.parametrize(("status", "reason"), [("False", TWICE), ("True", NO_ROUTE), ("True", "RouteController")])
async def test_what_others_say_stays(status: str, reason: str) -> None:
    caches, api = caches_of(said(status, reason)), FakeApi()
    keeping = asyncio.create_task(OwnBlock(api, caches.nodes, "node1", now).run())
    await asyncio.sleep(0.02)
    assert api.written == []
    keeping.cancel()


async def test_while_one_older_node_has_it_no_other_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each change of any Node asks, in a cluster of thousands."""
    looked_at, before = list[str](), own_block._is_before

    def is_before(other: Node, own: Node) -> bool:
        looked_at.append(other.metadata.name)
        return before(other, own)

    second = made(said("False", "", 3), "2026-01-01T00:00:00Z", "10.244.1.0/24")
    apart = [made(said("False", "", n), "2026-01-01T00:00:00Z", f"10.245.{n}.0/24") for n in range(4, 40)]
    caches, api = caches_of(OWN, OLDER, second, *apart), FakeApi()
    keeping = asyncio.create_task(OwnBlock(api, caches.nodes, "node1", now).run())
    await asyncio.sleep(0.02)
    with monkeypatch.context() as patched:
        patched.setattr(own_block, "_is_before", is_before)
        for node in apart:
            caches.nodes.set(made(node, "2026-01-01T00:00:00Z"))
            await asyncio.sleep(0)
        assert set(looked_at) == {"node2"} and len(looked_at) <= 2 * len(apart)
    caches.nodes.remove("node2")
    await asyncio.sleep(0.02)
    assert api.written == [], "it is another one's still"
    caches.nodes.remove("node3")
    await until(lambda: bool(api.written))
    assert api.written == [TAKEN_BACK]
    keeping.cancel()
