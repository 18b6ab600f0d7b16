"""The cache: what it holds is what the API holds, whatever happens to its watches; and the exec channels' end."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from podplane.kubeapi import channels
from podplane.kubeapi.client import Client
from podplane.kubeapi.informer import Informer
from podplane.kubeapi.messages import Answer, Request, Response, Stream
from podplane.model.objects import Node
from tests.unit.apiserver.test_server import Api


def node(name: str, uid: str = "u", version: int = 1, **labels: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "uid": uid, "resourceVersion": str(version), "labels": labels}}


class Script:
    """An API server that plays a script: lists and watches in turn; a watch is chunks, or a refusal."""

    def __init__(self, lists: list[list[dict[str, Any]]], watches: list[list[bytes] | Response]) -> None:
        self.lists, self.watches = lists, watches
        self.requests: list[Request] = []

    async def __call__(self, request: Request) -> Answer:
        self.requests.append(request)
        if not request.flag("watch"):
            body = {"items": self.lists.pop(0), "metadata": {"resourceVersion": str(10 * len(self.requests))}}
            return Response(200, json.dumps(body).encode())
        if not self.watches:
            await asyncio.sleep(3600)
        step = self.watches.pop(0)
        return step if isinstance(step, Response) else Stream(self._chunks(step))

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


@given(st.integers(0, 255))
def test_exit_codes_pass_the_error_channel(code: int) -> None:
    assert channels.exit_code(channels.outcome_of(code)) == (code, "")


def test_a_command_that_did_not_start_has_a_message() -> None:
    assert channels.exit_code(channels.outcome_of(127, "nope: no such command")) == (127, "nope: no such command")
