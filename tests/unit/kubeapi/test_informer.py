"""The cache: what it holds is what the API holds, whatever happens to its watches; and the exec channels' end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podplane.kubeapi import channels
from podplane.kubeapi import informer as informers
from podplane.kubeapi.client import ALL, Client
from podplane.kubeapi.currency import Shared
from podplane.kubeapi.errors import ApiError
from podplane.kubeapi.informer import Informer
from podplane.kubeapi.messages import Answer, Request, Response, Stream
from podplane.kubeapi.requests import Selection
from podplane.model.objects import Node
from tests.unit.apiserver.test_server import Api


def node(name: str, uid: str = "u", version: int = 1, **labels: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "uid": uid, "resourceVersion": str(version), "labels": labels}}


class Script:
    """An API server that plays a script: lists and watches in turn; a watch is chunks, or a refusal."""

    def __init__(self, lists: list[list[dict[str, Any]] | Response], watches: list[list[bytes] | Response]) -> None:
        self.lists, self.watches = lists, watches
        self.requests: list[Request] = []

    async def __call__(self, request: Request) -> Answer:
        self.requests.append(request)
        if request.parameter("limit") == "1":
            return Response(200, b'{"items":[],"metadata":{"resourceVersion":"1000"}}')
        if not request.flag("watch"):
            step = self.lists.pop(0)
            if isinstance(step, Response):
                return step
            body = {"items": step, "metadata": {"resourceVersion": str(10 * len(self.requests))}}
            return Response(200, json.dumps(body).encode())
        if not self.watches:
            await asyncio.sleep(3600)
        then = self.watches.pop(0)
        return then if isinstance(then, Response) else Stream(self._chunks(then))

    async def _chunks(self, chunks: list[bytes]) -> AsyncIterator[bytes]:
        for chunk in chunks:
            yield chunk


def event(kind: str, object_: dict[str, Any]) -> bytes:
    return json.dumps({"type": kind, "object": object_}).encode() + b"\n"


Told = list[tuple[str | None, str | None]]


async def follow(script: Script) -> tuple[Informer[Node], Told]:
    """Let an informer play the script to its end; what it told."""
    informer = Informer(Client(script, "t"), "nodes", Node)
    told: Told = []

    def tell(old: Node | None, new: Node | None) -> None:
        told.append((old and f"{old.metadata.name}/{old.metadata.uid}", new and f"{new.metadata.name}/{new.metadata.uid}"))

    informer.subscribe(tell)
    await informer.sync()
    task = asyncio.ensure_future(informer.run())
    for _ in range(100):
        await asyncio.sleep(0)
        if not script.watches:
            break
    await asyncio.sleep(0.01)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    return informer, told


async def test_events_change_the_cache_and_equal_models_tell_nobody() -> None:
    script = Script(
        [[node("a")]], [[event("ADDED", node("b")), event("MODIFIED", node("a", version=7)), event("DELETED", node("b"))]]
    )
    informer, told = await follow(script)
    assert told == [(None, "a/u"), (None, "b/u"), ("b/u", None)]
    assert set(informer.objects) == {"a"}


async def test_a_watch_that_ends_goes_on_where_it_stopped() -> None:
    bookmark = event("BOOKMARK", {"metadata": {"resourceVersion": "77"}})
    script = Script([[]], [[event("ADDED", node("a", version=12))], [bookmark], [event("ADDED", node("b", version=80))]])
    informer, _ = await follow(script)
    versions = [r.parameter("resourceVersion") for r in script.requests if r.flag("watch")]
    assert versions[:4] == ["10", "12", "77", "80"]
    assert set(informer.objects) == {"a", "b"}


async def test_after_gone_the_difference_is_told() -> None:
    gone = Response(410, json.dumps({"reason": "Expired", "message": "too old", "code": 410}).encode())
    script = Script([[node("a"), node("b")], [node("b", x="y"), node("c")]], [gone])
    informer, told = await follow(script)
    assert told[2:] == [("b/u", "b/u"), (None, "c/u"), ("a/u", None)]
    assert set(informer.objects) == {"b", "c"}


async def test_gone_within_a_watch_is_the_same() -> None:
    error = event("ERROR", {"kind": "Status", "reason": "Expired", "code": 410, "message": "too old"})
    script = Script([[node("a")], [node("b")]], [[error]])
    informer, _ = await follow(script)
    assert set(informer.objects) == {"b"}


async def test_another_object_of_the_same_name_is_a_removal_first() -> None:
    script = Script([[node("a", "old")]], [[event("MODIFIED", node("a", "new"))]])
    _, told = await follow(script)
    assert told == [(None, "a/old"), ("a/old", None), (None, "a/new")]


@given(st.lists(st.integers(1, 40), max_size=12))
def test_chunks_may_break_anywhere(cuts: list[int]) -> None:
    data = event("ADDED", node("a")) + event("ADDED", node("b")) + event("DELETED", node("a"))
    chunks, rest = [], data
    for cut in cuts:
        chunks.append(rest[:cut])
        rest = rest[cut:]
    informer, _ = asyncio.run(follow(Script([[]], [[*chunks, rest]])))
    assert set(informer.objects) == {"b"}


async def test_it_follows_a_real_api_server() -> None:
    api = Api()
    await api.node("n1")
    informer = Informer(Client(api.server.handle, "secret"), "nodes", Node)
    await informer.sync()
    task = asyncio.ensure_future(informer.run())
    await asyncio.sleep(0)
    await api.node("n2")
    await api("DELETE", "/api/v1/nodes/n1")
    await asyncio.sleep(0.01)
    task.cancel()
    assert {name: n.spec.pod_cidrs[0] for name, n in informer.objects.items()} == {"n2": "10.244.2.0/24"}


async def test_it_asks_for_what_it_was_made_for_in_pages_and_watches_the_same() -> None:
    first = {"items": [node("a")], "metadata": {"resourceVersion": "5", "continue": "more/of it"}}
    script = Script([Response(200, json.dumps(first).encode()), [node("b")]], [[event("ADDED", node("c"))]])
    informer = Informer(Client(script, "t"), "pods", Node, namespace="web", labels="app=x", fields="spec.nodeName=n1")
    await informer.sync()
    task = asyncio.ensure_future(informer.run())
    await asyncio.sleep(0.01)
    task.cancel()
    assert [r.path for r in script.requests[:3]] == ["/api/v1/namespaces/web/pods"] * 3
    selectors = {"labelSelector": ["app=x"], "fieldSelector": ["spec.nodeName=n1"]}
    page, rest, watch = (dict(r.query) for r in script.requests[:3])
    assert page == selectors | {"limit": ["500"]}
    assert rest == selectors | {"limit": ["500"], "continue": ["more/of it"]}
    assert watch == selectors | {"watch": ["true"], "resourceVersion": ["20"], "allowWatchBookmarks": ["true"]}
    assert set(informer.objects) == {"a", "b", "c"}


async def test_a_continuation_that_expires_begins_the_list_anew_and_at_last_in_one_piece() -> None:
    page = Response(200, json.dumps({"items": [node("old")], "metadata": {"continue": "token"}}).encode())
    gone = Response(410, b'{"reason":"Expired","code":410}')
    script = Script([page, gone, page, gone, page, gone, [node("a"), node("b")]], [])
    informer = Informer(Client(script, "t"), "nodes", Node)
    await informer.sync()
    assert set(informer.objects) == {"a", "b"}
    assert [(r.parameter("limit"), r.parameter("continue")) for r in script.requests] == [
        *[("500", ""), ("500", "token")] * 3,
        ("", ""),
    ]


async def test_a_list_in_pages_of_a_real_server_is_the_whole_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(informers, "PAGE_OBJECTS", 2)
    api = Api()
    for number in range(1, 6):
        await api.node(f"n{number}")
    label = {"metadata": {"labels": {"zone": "a"}}}
    await api("PATCH", "/api/v1/nodes/n3", label, content_type="application/merge-patch+json")
    client = Client(api.server.handle, "secret")
    whole, zone, one = (
        Informer(client, "nodes", Node),
        Informer(client, "nodes", Node, labels="zone=a"),
        Informer(client, "nodes", Node, fields="metadata.name=n5"),
    )
    for informer in (whole, zone, one):
        await informer.sync()
    assert [set(i.objects) for i in (whole, zone, one)] == [{"n1", "n2", "n3", "n4", "n5"}, {"n3"}, {"n5"}]


async def test_what_is_long_is_cut_into_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Telling costs a millisecond here: between two turns of the loop there are no more than a slice's."""
    clock, turns = [0.0], [0]
    monkeypatch.setattr(informers.time, "perf_counter", lambda: clock[0])
    told: list[int] = []

    def tell(_: Node | None, __: Node | None) -> None:
        clock[0] += 0.001
        told.append(turns[0])

    async def count() -> None:
        while True:
            turns[0] += 1
            await asyncio.sleep(0)

    events = b"".join(event("DELETED", node(f"n{i}")) for i in range(50))
    script = Script([[node(f"n{i}") for i in range(100)], [node("a")]], [[events], Response(500)])
    informer = Informer(Client(script, "t"), "nodes", Node, sleep=_soon)
    informer.subscribe(tell)
    tasks = [asyncio.ensure_future(count()), asyncio.ensure_future(informer.run())]
    async with asyncio.timeout(5):
        while set(informer.objects) != {"a"}:  # noqa: ASYNC110  # the turns of the loop are what is counted
            await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    assert len(told) == 100 + 50 + 51  # the list, the events of one chunk, the difference of the second list
    assert max(Counter(told).values()) <= 1000 * informers.SLICE_SECONDS + 1


async def _soon(_: float) -> None:
    await asyncio.sleep(0)


async def test_a_watch_that_is_left_is_closed() -> None:
    closed: list[str] = []

    async def handle(request: Request) -> Answer:
        async def chunks() -> AsyncIterator[bytes]:
            try:
                yield event("ADDED", node("a", version=len(closed) + 2)) + (b"" if closed else b"<html>\n")
                await asyncio.sleep(3600)
            finally:
                closed.append("closed")

        if request.flag("watch"):
            return Stream(chunks())
        return Response(200, b'{"items":[],"metadata":{"resourceVersion":"1"}}')

    informer = Informer(Client(handle, "t"), "nodes", Node, sleep=_soon)
    task = asyncio.ensure_future(informer.run())
    await asyncio.sleep(0.01)
    assert (closed, set(informer.objects)) == (["closed"], {"a"})
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert closed == ["closed", "closed"]


@given(st.integers(0, 255))
def test_exit_codes_pass_the_error_channel(code: int) -> None:
    assert channels.exit_code(channels.outcome_of(code)) == (code, "")


def test_a_command_that_did_not_start_has_a_message() -> None:
    assert channels.exit_code(channels.outcome_of(127, "nope: no such command")) == (127, "nope: no such command")


@pytest.mark.parametrize("kind", ["ADDED", "BOOKMARK"])
async def test_lists_watches_events_and_bookmarks_say_when_the_api_was_heard_last(kind: str) -> None:
    comes = asyncio.Event()

    async def chunks() -> AsyncIterator[bytes]:
        await comes.wait()
        yield event(kind, node("b"))
        await asyncio.sleep(3600)

    async def handle(request: Request) -> Answer:
        return Stream(chunks()) if request.flag("watch") else Response(200, b'{"items":[],"metadata":{"resourceVersion":"1"}}')

    informer = Informer(Client(handle, "t"), "nodes", Node)
    assert informer.heard == -math.inf
    await informer.sync()
    assert informer.heard > 0.0
    informer.heard = 0.0
    task = asyncio.ensure_future(informer.run())
    for before in (lambda: None, comes.set):  # the watch begins; something comes
        before()
        await asyncio.sleep(0.01)
        assert informer.heard > 0.0
        informer.heard = 0.0
    task.cancel()


async def caught_up(informer: Informer[Node], selection: Selection = ALL) -> asyncio.Task[bool]:
    """Somebody who waits until it is current, and has asked what there is."""
    waiting = asyncio.ensure_future(informer.catch_up(selection, 1.0))
    for _ in range(20):
        await asyncio.sleep(0)
    return waiting


async def test_it_waits_until_the_watch_has_brought_what_the_api_has() -> None:
    script = Script([[node("a", version=3)], [node("a", version=3), node("b", version=7)], [], [node("c", version=90)]], [])
    informer = Informer(Client(script, "t"), "nodes", Node)
    await informer.sync()
    informer._version = "3"
    waiting = await caught_up(informer)
    assert not waiting.done()
    informer.take([event("ADDED", node("b", version=6)).strip()])
    await asyncio.sleep(0.001)
    assert not waiting.done()
    informer.take([event("MODIFIED", node("b", version=7)).strip()])
    assert await waiting
    informer.take([event("DELETED", node(name, version=8)).strip() for name in "ab"])
    assert await informer.catch_up(ALL, 1.0), "there is nothing"
    assert not await informer.catch_up(ALL, 0.01)


async def test_it_waits_until_what_the_api_has_no_more_is_gone() -> None:
    script = Script([[node("a", version=3), node("b", version=4)], *([[node("a", version=3)]] * 3)], [])
    informer = Informer(Client(script, "t"), "nodes", Node)
    await informer.sync()
    informer._version = "4"
    waiting = await caught_up(informer)
    informer.take([event("MODIFIED", node("a", version=5)).strip()])
    await asyncio.sleep(0.001)
    assert not waiting.done(), "b is still to go"
    informer.take([event("DELETED", node("b", version=6)).strip()])
    assert await waiting
    informer.take([event("ADDED", node("late", version=7)).strip()])
    waiting = await caught_up(informer)
    assert not waiting.done(), "it is not listed"
    informer.take([event("MODIFIED", node("late", version=31)).strip()])
    assert await waiting, "it came after the list, for the watch is further than that"
    assert await informer.catch_up(Selection(fields="metadata.name=a"), 1.0), "another one is not asked about"
    assert [one.query.get("fieldSelector") for one in script.requests[1:]] == [None, None, ["metadata.name=a"]]


async def test_who_asks_at_one_time_shares_a_list_that_begins_after_that() -> None:
    script = Script([[node("a")] for _ in range(10)], [])
    informer = Informer(Client(script, "t"), "nodes", Node)
    await informer.sync()
    first = asyncio.ensure_future(informer.catch_up(ALL, 1.0))
    await asyncio.sleep(0)
    others = [asyncio.ensure_future(informer.catch_up(ALL, 1.0)) for _ in range(50)]
    others[0].cancel()
    assert await first and all(await asyncio.gather(*others[1:]))
    assert len(script.requests) == 3, "one to begin with, that of the first, and one for all others"
    script.lists = [Response(500, b"{}"), [node("a")]]
    failed = await asyncio.gather(*(informer.catch_up(ALL, 1.0) for _ in range(5)), return_exceptions=True)
    assert {type(one) for one in failed} == {ApiError}
    assert await informer.catch_up(ALL, 1.0)


async def test_a_list_that_is_under_way_says_nothing_to_who_asks_during_it() -> None:
    shared, answers = Shared[str, int](), [asyncio.get_running_loop().create_future() for _ in range(2)]
    begun = iter(answers)
    first = asyncio.ensure_future(shared.ask("a", lambda: next(begun)))
    for _ in range(3):
        await asyncio.sleep(0)
    others = [asyncio.ensure_future(shared.ask("a", lambda: next(begun))) for _ in range(3)]
    for _ in range(3):
        await asyncio.sleep(0)
    answers[0].set_result(1)
    assert await first == 1 and not any(one.done() for one in others)
    answers[1].set_result(2)
    assert await asyncio.gather(*others) == [2, 2, 2]


async def test_what_is_no_list_is_an_error_and_labels_are_not_asked_for() -> None:
    informer = Informer(Client(Script([Response(200, b"<html>"), [], []], []), "t"), "nodes", Node)
    with pytest.raises(ApiError, match="html"):
        await informer.catch_up(ALL, 1.0)
    for selection in (Selection(labels="a=b"), Selection(fields="spec.x=y")):
        with pytest.raises(ValueError, match="="):
            await informer.catch_up(selection, 1.0)


async def test_a_kind_that_the_api_does_not_serve_has_no_objects_until_it_does() -> None:
    unknown = Response(404, json.dumps({"reason": "NotFound", "message": "no such resource", "code": 404}).encode())
    script = Script([unknown, unknown, [node("a")], unknown, [node("b")], unknown], [unknown])
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        await asyncio.sleep(0)

    informer = Informer(Client(script, "t"), "nodes", Node, may_be_unknown=True, sleep=sleep)
    await informer.sync()
    assert informer.is_synced and not informer.objects
    assert await informer.catch_up(ALL, 1.0)
    told: list[str] = []
    informer.subscribe(lambda old, new: told.append(f"{old and old.metadata.name} {new and new.metadata.name}"))
    running = asyncio.ensure_future(informer.run())
    for _ in range(200):
        await asyncio.sleep(0)
        if not script.watches and len(script.lists) == 1:
            break
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    assert told == ["None a", "a None", "None b"]
    assert waits, "it is not asked without a pause"
    with pytest.raises(ApiError, match="no such resource"):
        await Informer(Client(Script([unknown], []), "t"), "nodes", Node).sync()
