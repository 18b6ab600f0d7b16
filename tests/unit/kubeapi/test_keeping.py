"""What a cache has is kept for whoever comes after this process, and had again while the API is away."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from podplane.kubeapi.client import Client, Contact
from podplane.kubeapi.errors import ApiError
from podplane.kubeapi.informer import Informer
from podplane.kubeapi.messages import Answer, Request, Response
from podplane.kubeapi.requests import ALL
from podplane.model.objects import Node
from tests.unit.kubeapi.test_informer import Script, event, node


class Kept:
    """A `Keeper` in memory."""

    def __init__(self) -> None:
        self.told: dict[str, bytes] = {}
        self.kept: dict[str, bytes] = {}
        """As of the last `flush`."""
        self.lists = 0

    def put(self, resource: str, path: str, content: bytes) -> None:
        assert resource == "nodes"
        self.told[path] = content

    def remove(self, resource: str, path: str) -> None:
        del self.told[path]

    def listed(self, resource: str) -> None:
        self.lists += 1

    def flush(self) -> None:
        self.kept = dict(self.told)

    def hold(self, informer: Informer[Node]) -> None:
        """Nobody else had a turn since something changed that is not kept."""
        found = {path: msgspec.json.decode(one, type=Node) for path, one in self.kept.items()}
        assert found == dict(informer.objects)


NODES = st.builds(node, st.sampled_from("abc"), st.sampled_from(["u", "v"]), x=st.sampled_from("yz"))
EVENTS = st.lists(st.tuples(st.sampled_from(["ADDED", "MODIFIED", "DELETED"]), NODES), max_size=8)


@given(first=st.lists(NODES, max_size=3), events=EVENTS, second=st.lists(NODES, max_size=3))
def test_it_is_what_the_cache_has_at_the_end_of_each_turn(first: list[Any], events: list[Any], second: list[Any]) -> None:
    async def play() -> None:
        kept = Kept()
        informer = Informer(Client(Script([first, second], []), "t"), "nodes", Node, keeper=kept)
        await informer.sync()
        kept.hold(informer)
        await informer._take_in_slices([event(*one).strip() for one in events])
        kept.hold(informer)
        await informer.sync()
        kept.hold(informer)
        assert kept.lists == 2
        later = Informer(Client(Script([[]], []), "t"), "nodes", Node)
        await later.recall(kept.kept)
        assert dict(later.objects) == dict(informer.objects) and not later.is_synced
        await later.sync()
        assert not later.objects and later.is_synced

    asyncio.run(play())


async def test_of_a_kind_that_the_api_does_not_know_there_is_nothing() -> None:
    kept, unknown = Kept(), Response(404, json.dumps({"reason": "NotFound", "code": 404}).encode())
    informer = Informer(Client(Script([[node("a")], unknown], []), "t"), "nodes", Node, may_be_unknown=True, keeper=kept)
    await informer.sync()
    await informer.sync()
    assert informer.is_synced and not kept.kept and kept.lists == 2


async def test_what_is_recalled_is_all_that_there_is_and_what_can_not_be_read_is_left_out() -> None:
    informer = Informer(Client(Script([[node("a"), node("b")]], []), "t"), "nodes", Node)
    await informer.sync()
    await informer.recall({"b": b'{"metadata":{"name":"b","uid":"u"}}', "c": b"[", "d": b"\xff"})
    assert set(informer.objects) == {"b"} and sum(informer.failures.values()) == 2


class Silent:
    """An API that never answers."""

    async def __call__(self, request: Request) -> Answer:
        await asyncio.sleep(3600)
        raise AssertionError


async def test_an_api_that_says_nothing_at_all_is_away_and_one_that_is_slow_is_behind() -> None:
    client = Client(Silent(), "t")
    informer = Informer(client, "nodes", Node)
    for contact in (None, Contact(False, float("inf"), "refused"), Contact(True, 0.0)):
        client.contact = contact
        try:
            await informer.catch_up(ALL, 0.01)
        except ApiError as error:
            assert "has not answered within 0.01 s" in str(error)
        else:
            raise AssertionError
    client.contact = Contact(True, float("inf"))
    assert await informer.catch_up(ALL, 0.01) is False
