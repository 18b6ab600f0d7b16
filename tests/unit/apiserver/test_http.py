"""The API over HTTP on a real socket: verbs, refusals as exceptions, watches in chunks, and requests that make no sense."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Callable, MutableMapping
from typing import Any

import pytest

from podplane.apiserver import watch
from podplane.apiserver.asgi import Adapter, serve
from podplane.apiserver.server import MAX_BODY_BYTES
from podplane.kubeapi import http as cluster_http
from podplane.kubeapi.errors import AlreadyExists, ApiError, Conflict, NotFound
from podplane.kubeapi.http import HttpClient
from podplane.kubeapi.messages import Answer, Request, Response, Stream
from tests.unit.apiserver.live import Live, access_to, certificates, connection, live, served
from tests.unit.apiserver.test_server import POD, PODS

Object = dict[str, Any]


@pytest.fixture
async def lab() -> AsyncIterator[Live]:
    async with live() as lab:
        yield lab


async def raw(port: int, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, Any]:
    """Status and JSON (or text) of an answer to a request as it is."""

    def ask() -> tuple[int, Any]:
        with contextlib.closing(connection(port)) as plain:
            plain.request(method, path, body, {"authorization": "Bearer secret", **headers})
            answer = plain.getresponse()
            text = answer.read()
            return answer.status, json.loads(text) if answer.headers.get_content_type() == "application/json" else text

    return await asyncio.to_thread(ask)


async def test_verbs(lab: Live) -> None:
    def use(client: HttpClient) -> None:
        made = client.create("pods", "default", {"metadata": {"name": "db", "labels": {"app": "db"}}, **POD})
        assert client.get("pods", "default", "db") == made
        assert [pod["metadata"]["name"] for pod in client.objects("pods", "default")] == ["db", "web"]
        assert client.objects("pods", labelSelector="app in (db, x)") == [made]
        assert client.objects("pods", "kube-system") == []
        client.delete("pods", "default", "db", grace=0, uid=made["metadata"]["uid"])
        assert [node["metadata"]["name"] for node in client.objects("nodes")] == ["n1"]

    await lab.call(use)
    assert await lab.api.names(PODS) == ["web"]


Refused = Callable[[HttpClient], Any]


@pytest.mark.parametrize(
    ("use", "kind", "code", "message"),
    [
        (lambda c: c.get("pods", "default", "nope"), NotFound, 404, 'pods "nope" not found'),
        (lambda c: c.create("nodes", "", {"metadata": {"name": "n1"}}), AlreadyExists, 409, 'nodes "n1" already exists'),
        (
            lambda c: c.delete("pods", "default", "web", uid="another"),
            Conflict,
            409,
            "the uid in the precondition .another. is not",
        ),
        (lambda c: c.create("nodes", "", {"metadata": {"name": "N 1"}}), ApiError, 422, "metadata.name"),
        (lambda c: c.objects("pods", labelSelector="("), ApiError, 400, "label selector"),
        (lambda c: c.delete("namespaces", "", "default"), ApiError, 403, "may not be deleted"),
        (
            lambda c: c.create("nodes", "", {"metadata": {"name": "n2"}, "x": "y" * MAX_BODY_BYTES}),
            ApiError,
            413,
            "larger than",
        ),
    ],
)
async def test_refusals_are_exceptions(lab: Live, use: Refused, kind: type[ApiError], code: int, message: str) -> None:
    def refused(client: HttpClient) -> ApiError:
        with pytest.raises(kind, match=message) as error:
            use(client)
        assert client.get("nodes", "", "n1")["kind"] == "Node"  # the connection is as good as before
        return error.value

    error = await lab.call(refused)
    assert (error.code, type(error)) == (code, kind)


@pytest.mark.parametrize("token", ["", "wrong", "secret2"])
async def test_without_the_token_nothing_is_said(lab: Live, token: str) -> None:
    def use(client: HttpClient) -> None:
        for ask in (
            lambda: client.objects("pods"),
            lambda: client.get("nodes", "", "n1"),
            lambda: client.get("nodes", "", "n9"),
        ):
            with pytest.raises(ApiError) as refused:
                ask()
            assert (refused.value.code, refused.value.reason) == (401, "Unauthorized")

    await lab.call(use, token)


async def test_no_part_of_an_answer_waits_for_an_acknowledgement() -> None:
    """Connections that the server accepts have TCP_NODELAY (a client that delays acknowledgements would wait 40 ms)."""

    async def handle(_: Request) -> Answer:
        return Response(200)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        task = asyncio.ensure_future(serve(handle, [listener.dup()], certificates().certificate, certificates().key))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        with socket.create_connection(listener.getsockname()[:2]), listener.accept()[0] as accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


async def test_nobody_at_home_is_an_api_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(ApiError, match=f"127.0.0.1:{port} does not answer") as refused:
        HttpClient(access_to(port)).objects("pods")
    assert refused.value.code == 503


@pytest.mark.parametrize(
    ("method", "path", "body", "code", "reason"),
    [
        ("POST", "/api/v1/nodes", b"{broken", 400, "BadRequest"),
        ("POST", "/api/v1/nodes", b"[]", 400, "BadRequest"),
        ("POST", "/api/v1/nodes", b"", 400, "BadRequest"),
        ("PUT", "/api/v1/nodes", b"{}", 405, "MethodNotAllowed"),
        ("OPTIONS", "/api/v1/nodes", None, 405, "MethodNotAllowed"),
        ("GET", "/nosuch", None, 404, "NotFound"),
        ("GET", "/api/v2/nodes", None, 404, "NotFound"),
        ("GET", "/api/v1/nodes/n1/proxy", None, 503, "ServiceUnavailable"),
        ("GET", "/api/v1/nodes/a/b/c/d", None, 404, "NotFound"),
        ("GET", "/api/v1/nodes/%2e%2e%2Fpods", None, 404, "NotFound"),
        ("GET", "/%F0%9F%90%B3", None, 404, "NotFound"),
    ],
)
async def test_every_refusal_is_a_status(lab: Live, method: str, path: str, body: bytes | None, code: int, reason: str) -> None:
    status, found = await raw(lab.port, method, path, body)
    assert (status, found["kind"], found["code"], found["reason"]) == (code, "Status", code, reason)


async def test_a_body_of_another_kind_is_not_taken(lab: Live) -> None:
    made = b'{"metadata": {"name": "n2"}}'
    assert (await raw(lab.port, "POST", "/api/v1/nodes", made, **{"content-type": "application/cbor"}))[0] == 415
    assert (await raw(lab.port, "POST", "/api/v1/nodes", made, **{"content-type": "application/json; charset=utf-8"}))[0] == 201


@pytest.mark.parametrize(
    ("method", "path", "line"),
    [
        ("GET", "/readyz", "200 OK"),
        ("POST", PODS, "400 Bad Request"),
        ("GET", f"{PODS}/none", "404 Not Found"),
        ("PUT", PODS, "405 Method Not Allowed"),
    ],
)
async def test_the_status_has_its_reason(lab: Live, method: str, path: str, line: str) -> None:
    def ask() -> str:
        with contextlib.closing(connection(lab.port)) as plain:
            plain.request(method, path, b"[]", {"authorization": "Bearer secret"})
            answer = plain.getresponse()
            return f"{answer.status} {answer.reason}"

    assert await asyncio.to_thread(ask) == line


async def test_health_and_version_need_no_token(lab: Live) -> None:
    for path in ("/healthz", "/livez", "/readyz"):
        assert await raw(lab.port, "GET", path, authorization="") == (200, b"ok")
        assert await raw(lab.port, "GET", f"{path}/", authorization="") == (200, b"ok")
    assert (await raw(lab.port, "GET", "/version", authorization=""))[1]["major"] == "1"


async def test_discovery_names_what_is_served(lab: Live) -> None:
    _, found = await raw(lab.port, "GET", "/api/v1")
    rows = {row["name"]: row["namespaced"] for row in found["resources"]}
    assert {name: rows[name] for name in ("namespaces", "nodes", "pods", "pods/exec", "services")} == {
        "namespaces": False,
        "nodes": False,
        "pods": True,
        "pods/exec": True,
        "services": True,
    }
    assert (await raw(lab.port, "GET", "/api"))[1]["versions"] == ["v1"]


async def test_a_body_in_chunks_is_one_body(lab: Live) -> None:
    def ask() -> int:
        headers = {"authorization": "Bearer secret", "transfer-encoding": "chunked"}
        parts = iter([b'{"metadata": ', b'{"name": "n2"}', b"}"])
        with contextlib.closing(connection(lab.port)) as plain:
            plain.request("POST", "/api/v1/nodes", parts, headers, encode_chunked=True)
            return plain.getresponse().status

    assert await asyncio.to_thread(ask) == 201


class Watch:
    """A watch over a plain connection, line by line."""

    def __init__(self, port: int, query: str) -> None:
        self.connection = connection(port)
        self.connection.request("GET", f"{PODS}?watch=true&{query}", headers={"authorization": "Bearer secret"})
        self.answer = self.connection.getresponse()

    def next(self) -> tuple[str, str]:
        event = json.loads(self.answer.readline())
        return event["type"], event["object"]["metadata"]["name"]


async def test_a_watch_comes_in_chunks_as_things_happen(lab: Live) -> None:
    stream = await asyncio.to_thread(Watch, lab.port, "resourceVersion=0")
    assert stream.answer.headers["transfer-encoding"] == "chunked"
    assert stream.answer.headers["content-type"] == "application/json"
    assert await asyncio.to_thread(stream.next) == ("ADDED", "web")
    for name in ("a", "b"):
        await lab.api.pod(name)
        assert await asyncio.to_thread(stream.next) == ("ADDED", name)
    await lab.api("DELETE", f"{PODS}/a", {"gracePeriodSeconds": 0})
    assert await asyncio.to_thread(stream.next) == ("DELETED", "a")
    stream.connection.close()


async def test_a_watch_ends_in_good_order_after_its_time(lab: Live) -> None:
    stream = await asyncio.to_thread(Watch, lab.port, f"resourceVersion={lab.api.store.version}&timeoutSeconds=0.01")
    assert await asyncio.to_thread(stream.answer.read) == b""
    stream.connection.close()


async def test_a_watch_from_too_long_ago_is_a_410_before_it_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "HISTORY", 2)
    async with live() as lab:
        status, found = await raw(lab.port, "GET", f"{PODS}?watch=true&resourceVersion=1")
        assert (status, found["reason"]) == (410, "Expired")


async def test_a_client_that_goes_away_ends_its_stream() -> None:
    ended = asyncio.Event()

    async def chunks() -> AsyncIterator[bytes]:
        try:
            yield b"first\n"
            await asyncio.sleep(3600)
        finally:
            ended.set()

    async def handle(_: Request) -> Answer:
        return Stream(chunks())

    async with served(handle) as port:
        stream = await asyncio.to_thread(Watch, port, "")
        assert await asyncio.to_thread(stream.answer.readline) == b"first\n"
        stream.answer.close()
        stream.connection.close()
        await asyncio.wait_for(ended.wait(), 2)


async def test_what_the_core_is_asked_is_what_was_sent() -> None:
    asked: list[Request] = []

    async def handle(request: Request) -> Answer:
        asked.append(request)
        return Response(200, b'{"items":[]}')

    async with served(handle) as port:
        await raw(port, "PATCH", "/a%20b/%C3%A4?x=1&x=2&empty=&c=a%2Bb+c", b"body", **{"X-Some-Header": "Käse"})
    (request,) = asked
    assert (request.method, request.path, request.body) == ("PATCH", "/a b/ä", b"body")
    assert request.query == {"x": ["1", "2"], "empty": [""], "c": ["a+b c"]}
    assert request.headers["x-some-header"] == "Käse"
    assert (request.parameter("x"), request.parameter("none", "default")) == ("1", "default")


async def adapted(handler: Callable[[Request], Any], *messages: MutableMapping[str, Any]) -> list[MutableMapping[str, Any]]:
    """What the adapter sends when these messages come."""
    incoming, sent = list(messages), list[MutableMapping[str, Any]]()

    async def receive() -> MutableMapping[str, Any]:
        return incoming.pop(0)

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "DELETE", "path": "/x", "query_string": b"", "headers": []}
    await Adapter(handler)(scope, receive, send)
    return sent


async def test_a_request_that_breaks_off_is_not_carried_out() -> None:
    asked: list[Request] = []

    async def handle(request: Request) -> Answer:
        asked.append(request)
        return Response(200)

    await adapted(handle, {"type": "http.request", "body": b"", "more_body": True}, {"type": "http.disconnect"})
    assert asked == []


async def test_a_body_is_read_only_as_far_as_it_may_be() -> None:
    asked: list[int] = []

    async def handle(request: Request) -> Answer:
        asked.append(len(request.body))
        return Response(413)

    part: MutableMapping[str, Any] = {"type": "http.request", "body": b"x" * 2**20, "more_body": True}
    await adapted(handle, *([part] * 100))
    assert MAX_BODY_BYTES < asked[0] <= MAX_BODY_BYTES + 2**20


async def test_poll_asks_until_it_is_so(lab: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_http, "POLL_SECONDS", 0.001)
    loop = asyncio.get_running_loop()

    def use(client: HttpClient) -> list[int]:
        counts: list[int] = []
        for pods in client.poll("pods", "default", lambda pods: len(pods) == 3, seconds=5):
            if len(pods) < 3 and (not counts or counts[-1] != len(pods)):
                asyncio.run_coroutine_threadsafe(lab.api.pod(f"more{len(pods)}"), loop).result()
            counts.append(len(pods))
        return counts

    counts = await lab.call(use)
    assert sorted(set(counts)) == [1, 2, 3]
    assert counts.count(3) == 1


async def test_poll_gives_up_after_its_time(lab: Live) -> None:
    counts = await lab.call(lambda client: [len(pods) for pods in client.poll("pods", "", lambda _: False, seconds=0.03)])
    assert counts
    assert set(counts) == {1}
