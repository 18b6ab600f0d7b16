"""Whatever comes over a watch or a list, an informer lives on and ends up with the server's state."""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from podplane.kubeapi.client import Client
from podplane.kubeapi.informer import Informer
from podplane.kubeapi.messages import Answer, Request, Response, Stream
from podplane.kubeapi.requests import ALL
from podplane.kubeapi.retry import Backoff
from podplane.model.objects import Node
from tests.unit.virtual_time import virtual

HTML = b"<html>\n<h1>502 Bad Gateway</h1>\n</html>\n"
Objects = dict[str, dict[str, Any]]


class Crash(Exception):
    """Something that nobody foresaw."""


BROKEN_LINES = [
    HTML,
    b"\xff\xfe\n",
    b"null\n",
    b"[]\n",
    b'{"type":"ADDED"}\n',
    b'{"type":"DELETED"}\n',
    b'{"type":"DELETED","object":null}\n',
    b'{"type":"DELETED","object":{"metadata":{}}}\n',
    b'{"type":"ADDED","object":{"metadata":{"name":""}}}\n',
    b'{"type":"ADDED","object":{"metadata":{"name":"\xff"}}}\n',
    b'{"type":"NONSENSE","object":{"metadata":{"name":"a"}}}\n',
    b'{"type":"BOOKMARK","object":7}\n',
    b'{"type":"ERROR","object":"no status"}\n',
    b'{"type":"ERROR","object":{}}\n',
    b'{"type":"ERROR","object":{"code":410}}\n',
    b'{"type":"ERROR","object":{"code":500,"reason":"InternalError","message":"etcdserver: request timed out"}}\n',
    b'{"type":"ADDED","object":' + b"[" * 5000 + b"\n",
    b'{"type":"ADDED","object":{"metadata":{"name":"a","uid"',
]
EXCEPTIONS = [
    ConnectionResetError("reset by peer"),
    ssl.SSLError(1, "decryption failed or bad record mac"),
    TimeoutError(),
    OSError(113, "No route to host"),
    Crash("unforeseen"),
]
REFUSALS = [
    Response(500, HTML, "text/html"),
    Response(503, b'{"reason":"ServiceUnavailable"}'),
    Response(429, b""),
    Response(401, b'{"reason":"Unauthorized"}'),
    Response(410, b'{"reason":"Expired"}'),
    Response(504, b'{"reason":"Timeout","message":"Too large resource version: 9, current: 2"}'),
    Response(200, HTML, "text/html"),
    Response(200, b"{}"),
    Response(200, b'{"items":7,"metadata":{}}'),
    Response(302, b""),
]
FAULTS = st.one_of(
    st.sampled_from(BROKEN_LINES),
    st.sampled_from(EXCEPTIONS),
    st.sampled_from(REFUSALS),
    st.binary(max_size=30),
    st.sampled_from(["text/html", "closed at once", "half of it", "events, then silence"]),
)
Fault = bytes | Exception | Response | str
CHANGES = st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from(["1", "2", None])), min_size=1, max_size=4)
STEPS = st.lists(st.tuples(CHANGES, FAULTS, st.booleans()), max_size=8)


class Server:
    """An API server with two objects a page whose answers go wrong, one fault after the other, and are right at last."""

    def __init__(self, steps: list[tuple[list[tuple[str, str | None]], Fault, bool]]) -> None:
        self.steps = steps
        self.objects: Objects = {}
        self.history: list[tuple[int, bytes]] = []
        self.version = 1

    def change(self, name: str, uid: str | None) -> None:
        """Write an object, or delete it; every write is another one."""
        former = self.objects.pop(name, None)
        if uid is None and former is None:
            return
        self.version += 1
        if uid is None:
            kind, object_ = "DELETED", former
        else:
            metadata = {"name": name, "uid": uid, "resourceVersion": str(self.version), "labels": {"v": str(self.version)}}
            kind = "MODIFIED" if former else "ADDED"
            object_ = self.objects[name] = {"metadata": metadata}
        assert object_ is not None
        object_ = {"metadata": object_["metadata"] | {"resourceVersion": str(self.version)}}
        self.history.append((self.version, json.dumps({"type": kind, "object": object_}).encode() + b"\n"))

    async def __call__(self, request: Request) -> Answer:
        await asyncio.sleep(0)
        watches = request.flag("watch")
        if self.steps and (watches or self.steps[0][2]):  # the flag: does the fault strike a list, too?
            changes, fault, _ = self.steps.pop(0)
            for change in changes:
                self.change(*change)
            return self._wrong(fault, request)
        return Stream(self._events(int(request.parameter("resourceVersion")))) if watches else self._page(request)

    def _wrong(self, fault: Fault, request: Request) -> Answer:
        if isinstance(fault, Response):
            return fault
        if not request.flag("watch"):
            if isinstance(fault, Exception):
                raise fault
            return Response(200, fault if isinstance(fault, bytes) else b"")
        events = self._since(int(request.parameter("resourceVersion")))
        if fault == "text/html":
            return Stream(self._chunks([HTML]), 200, fault)
        if fault == "half of it":
            return Stream(self._chunks([b"".join(events)[:-20]]))
        if fault == "closed at once":
            return Stream(self._chunks([]))
        if isinstance(fault, str):
            return Stream(self._chunks([*events, TimeoutError("nothing came for a long time")]))
        return Stream(self._chunks([*events, fault]))

    def _since(self, version: int) -> list[bytes]:
        return [line for at, line in self.history if at > version]

    @staticmethod
    async def _chunks(chunks: list[bytes | Exception]) -> AsyncIterator[bytes]:
        for chunk in chunks:
            if isinstance(chunk, Exception):
                raise chunk
            yield chunk

    async def _events(self, version: int) -> AsyncIterator[bytes]:
        yield b"".join(self._since(version))
        await asyncio.sleep(10**9)

    def _page(self, request: Request) -> Response:
        names = sorted(name for name in self.objects if name > request.parameter("continue"))
        more = {"continue": names[1]} if len(names) > 2 else {}
        body = {"items": [self.objects[n] for n in names[:2]], "metadata": {"resourceVersion": str(self.version)} | more}
        return Response(200, json.dumps(body).encode())


async def play(informer: Informer[Node], seconds: float) -> None:
    """Let it run; an informer that ends has failed."""
    task = asyncio.ensure_future(informer.run())
    done, _ = await asyncio.wait([task], timeout=seconds)
    assert not done, "nothing may end an informer"
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@settings(max_examples=200)
@given(STEPS)
@virtual
async def test_it_ends_up_with_the_state_of_the_server(steps: list[tuple[list[tuple[str, str | None]], Fault, bool]]) -> None:
    server = Server(list(steps))
    informer = Informer(Client(server, "t"), "nodes", Node)
    copy: dict[str, Node] = {}

    def tell(old: Node | None, new: Node | None) -> None:
        if old is not None:
            del copy[old.metadata.name]
        if new is not None:
            copy[new.metadata.name] = new

    informer.subscribe(tell)
    await play(informer, 3600.0)
    assert not server.steps
    wanted = {name: msgspec.convert(object_, Node) for name, object_ in server.objects.items()}
    assert informer.objects == wanted
    assert copy == wanted


@pytest.mark.parametrize("fault", [*BROKEN_LINES, *EXCEPTIONS, *REFUSALS, "closed at once"], ids=lambda fault: f"{fault!r:.60}")
def test_a_failure_that_lasts_is_logged_once_and_asked_again_ever_more_seldom(
    fault: Fault, caplog: pytest.LogCaptureFixture
) -> None:
    delays: list[float] = []

    async def sleep(seconds: float) -> None:
        delays.append(seconds)
        await asyncio.sleep(seconds)

    @virtual
    async def fail_for_an_hour() -> None:
        server = Server([([("a", "1")], fault, False)] * 1000)
        informer = Informer(Client(server, "t"), "nodes", Node, backoff=Backoff(random=lambda: 0.5), sleep=sleep)
        await play(informer, 3600.0)
        assert sum(informer.failures.values()) == len(delays)
        assert informer.watches + informer.lists < 400

    with caplog.at_level(logging.WARNING):
        fail_for_an_hour()
    assert delays[:4] == pytest.approx([0.3, 0.6, 1.2, 2.4])
    assert max(delays) <= 30
    assert 100 < len(delays) < 200
    assert 1 <= len(caplog.records) <= 3


@pytest.mark.parametrize(
    ("fault", "lists"),
    [
        (ConnectionResetError(), 1),
        (Response(503), 1),
        (Response(429), 1),
        (b'{"type":"ADDED","obj', 1),
        (HTML, 2),
        (Crash(), 2),
        (Response(504), 2),
        (Response(410), 2),
        ("text/html", 2),
        (b'{"type":"DELETED"}\n', 2),
    ],
    ids=repr,
)
@virtual
async def test_it_lists_again_only_where_there_is_a_doubt(fault: Fault, lists: int) -> None:
    server = Server([([("a", "1")], fault, False)])
    informer = Informer(Client(server, "t"), "nodes", Node)
    await informer.sync()
    await play(informer, 60.0)
    assert (informer.lists, set(informer.objects)) == (lists, {"a"})


@virtual
async def test_an_endless_line_is_given_up() -> None:
    read = [0]

    async def handle(request: Request) -> Answer:
        async def chunks() -> AsyncIterator[bytes]:
            while read[0] < 100:
                read[0] += 1
                yield b"x" * 1024 * 1024

        if request.flag("watch"):
            return Stream(chunks())
        return Response(200, b'{"items":[],"metadata":{"resourceVersion":"1"}}')

    informer = Informer(Client(handle, "t"), "nodes", Node)
    await play(informer, 0.1)
    assert read == [33]
    assert informer.failures == {"watch WatchError": 1}


def _bad(name: str, uid: str) -> bytes:
    return json.dumps({"metadata": {"name": name, "uid": uid}, "spec": {"podCIDRs": 7}}).encode()


@pytest.mark.parametrize("way", ["list", "watch"])
@virtual
async def test_an_object_that_the_model_can_not_hold_keeps_what_was_cached_of_it(way: str) -> None:
    """The former object stays while it is the same one; another one of its name takes it away; a removal needs no model."""
    informer = Informer(Client(Server([]), "t"), "nodes", Node)

    async def come(*objects: bytes) -> None:
        if way == "watch":
            informer.take([b'{"type":"MODIFIED","object":' + o + b"}" for o in objects])
            return
        body = b'{"items":[' + b",".join(objects) + b'],"metadata":{"resourceVersion":"1"}}'
        informer._client = Client(_answer(Response(200, body)), "t")
        await informer.sync()

    good = [b'{"metadata":{"name":"a","uid":"1"}}', b'{"metadata":{"name":"b","uid":"1"}}']
    await come(*good)
    await come(_bad("a", "1"), _bad("b", "2"), _bad("c", "1"))
    assert set(informer.objects) == {"a"}
    assert informer.failures == {"object ValidationError": 3}
    informer.take([b'{"type":"DELETED","object":' + _bad("a", "1") + b"}"])
    assert not informer.objects


def _answer(answer: Answer) -> Callable[[Request], Any]:
    async def handle(_: Request) -> Answer:
        return answer

    return handle


@virtual
async def test_a_subscriber_that_raises_ends_nothing() -> None:
    server = Server([])
    informer = Informer(Client(server, "t"), "nodes", Node)
    told: list[str] = []

    def bad(_: Node | None, __: Node | None) -> None:
        raise Crash

    informer.subscribe(bad)
    informer.subscribe(lambda _, new: told.append(new.metadata.name if new else "-"))
    server.change("a", "1")
    await informer.sync()
    server.change("b", "1")
    await play(informer, 1.0)
    assert told == ["a", "b"]
    assert list(informer.failures.values()) == [2]


@virtual
async def test_a_class_with_its_own_decoder_is_a_model() -> None:
    class Name(msgspec.Struct, frozen=True):
        metadata: Any

        @classmethod
        def from_json(cls, raw: bytes) -> Name:
            return cls(msgspec.json.decode(raw, type=Node).metadata)

    server = Server([])
    server.change("a", "1")
    informer = Informer(Client(server, "t"), "nodes", Name)
    await informer.sync()
    assert type(informer.objects["a"]) is Name


class Restored(Server):
    """An API server whose store is restored from a backup that was made when it had one object: of later versions a watch says nothing."""

    def __init__(self) -> None:
        super().__init__([])
        self.change("kept", "1")
        self.watched = list[asyncio.Future[None]]()
        self.backup = dict(self.objects), list(self.history), self.version
        for name in "abcdef":
            self.change(name, "1")

    def restore(self) -> None:
        self.objects, self.history, self.version = dict(self.backup[0]), list(self.backup[1]), self.backup[2]
        self.change("new", "2")

    async def _events(self, version: int) -> AsyncIterator[bytes]:
        self.watched.append(asyncio.get_running_loop().create_future())
        yield b"".join(self._since(version))
        await self.watched[-1]


@virtual
async def test_a_store_that_was_restored_is_listed_again_when_the_watch_is_opened_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = Restored()
    informer = Informer(Client(server, "t"), "nodes", Node)
    task = asyncio.ensure_future(informer.run())
    await asyncio.sleep(1.0)
    assert set(informer.objects) == {"kept", *"abcdef"}
    server.restore()
    server.watched[-1].set_exception(ConnectionResetError())
    await asyncio.sleep(10.0)
    assert set(informer.objects) == {"kept", "new"}
    assert sum("was restored from a backup" in one.message for one in caplog.records) == 1
    watches = informer.watches
    server.change("later", "3")
    server.watched[-1].set_result(None)
    await asyncio.sleep(60.0)
    assert set(informer.objects) == {"kept", "new", "later"} and informer.watches == watches + 1
    task.cancel()


@virtual
async def test_a_store_that_was_restored_is_not_taken_for_current_and_found_out_by_who_asks() -> None:
    """Nobody noticed, as when a proxy kept the connection."""
    server = Restored()
    informer = Informer(Client(server, "t"), "nodes", Node)
    task = asyncio.ensure_future(informer.run())
    await asyncio.sleep(1.0)
    server.restore()
    await asyncio.sleep(60.0)
    assert "new" not in informer.objects
    assert await informer.catch_up(ALL, 1.0)
    assert set(informer.objects) == {"kept", "new"}
    task.cancel()
