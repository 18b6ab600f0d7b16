"""The `proxy` subresource: what servers see of a request, whose credential, and what comes back of their answers."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import http.client
import json
import logging
import zlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from podplane.apiserver.proxy_pages import MAX_PAGE_BYTES
from podplane.kubeapi.messages import Request, Response, Stream
from podplane.kubeapi.streams import StreamError
from podplane.model.config import AGENT_PORT
from tests.unit.apiserver.live import connection, served
from tests.unit.apiserver.test_server import PODS, Api

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-type: text/plain\r\nset-cookie: a\r\nretry-after: 1\r\n\r\nhi"
SERVICES = "/api/v1/namespaces/default/services"


class Connection:
    """A connection to a server that says these pieces, one after the other, and then nothing, or closes."""

    def __init__(self, *said: bytes, closes: bool = True) -> None:
        self.said, self.closes = list(said), closes
        self.request = b""
        self.asked = asyncio.Event()
        self.is_closed = False

    async def write(self, data: bytes) -> None:
        self.request += data
        self.asked.set()

    async def read(self) -> bytes:
        if not self.said and not self.closes:
            await asyncio.sleep(3600)
        return self.said.pop(0) if self.said else b""

    def close(self) -> None:
        self.is_closed = True


class Network:
    """The way to all nodes and pods."""

    def __init__(self, *said: bytes, closes: bool = True) -> None:
        self.connection = Connection(*(said or (ANSWER,)), closes=closes)
        self.dialled: list[tuple[Any, ...]] = []

    async def dial(self, host: str, port: int, *, tls: bool = False) -> Connection:
        self.dialled.append((host, port, *(["tls"] if tls else [])))
        return self.connection

    async def reach(self, namespace: str, pod: str, host: str, port: int, *, tls: bool = False) -> Connection:
        self.dialled.append((namespace, pod, host, port, *(["tls"] if tls else [])))
        return self.connection

    def header(self, name: str) -> str:
        """What the server saw in a header; "" when there was none."""
        lines = self.connection.request.decode("latin-1").partition("\r\n\r\n")[0].split("\r\n")
        return next((value for key, _, value in (line.partition(": ") for line in lines) if key.lower() == name), "")


async def text(answer: Any) -> bytes:
    """The whole of an answer."""
    if isinstance(answer, Response):
        return answer.body
    assert isinstance(answer, Stream)
    return b"".join([chunk async for chunk in answer.chunks])


async def with_pod(network: Network) -> Api:
    """An API server with a pod `web` that has an address and two ports, and a Service of it."""
    api = Api()
    api.server.streams = network  # type: ignore[assignment]  # only `dial` and `reach` are used
    await api.pod("web", containers=[{"name": "a", "image": "x", "ports": [{"containerPort": 8080}, {"containerPort": 9}]}])
    status = {"phase": "Running", "podIP": "10.244.1.2", "podIPs": [{"ip": "10.244.1.2"}]}
    await api("PATCH", f"{PODS}/web/status", {"status": status})
    return api


async def ask(api: Api, path: str, method: str = "GET", **more: Any) -> Any:
    """An answer over HTTP, as far as a path, a query and headers of the client matter."""
    headers = {"authorization": "Bearer secret", **more.pop("headers", {})}
    return await api.server.handle(Request(method, path, {}, headers, **more))


async def proxied(port: int) -> tuple[Api, Network]:
    """A user asked node n1 something at this port."""
    api, network = Api(), Network()
    api.server.streams = network  # type: ignore[assignment]  # only `dial` is used
    status = {"addresses": [{"type": "InternalIP", "address": "192.168.1.10"}]}
    await api("POST", "/api/v1/nodes", {"metadata": {"name": "n1"}, "status": status})
    answer = await ask(api, f"/api/v1/nodes/n1:{port}/proxy/traffic")
    assert (answer.status, await text(answer), answer.content_type) == (200, b"hi", "text/plain")
    assert answer.headers == (("content-length", "2"), ("set-cookie", "a"), ("retry-after", "1"))
    assert network.dialled == [("192.168.1.10", port)] and network.connection.is_closed
    return api, network


def bearer(network: Network) -> str:
    """The token that the server saw."""
    return network.header("authorization").removeprefix("Bearer ")


async def test_the_agent_sees_a_credential_of_the_api_server_and_not_the_users() -> None:
    api, network = await proxied(AGENT_PORT)
    token = bearer(network)
    assert len(token) > 30 and b"secret" not in network.connection.request
    review = await api("POST", "/apis/authentication.k8s.io/v1/tokenreviews", {"spec": {"token": token}})
    assert review["status"]["user"]["username"] == "kube-apiserver-kubelet-client"


async def test_that_credential_opens_nothing_in_the_api_itself() -> None:
    api, network = await proxied(AGENT_PORT)
    answer = await api.answer("GET", "/api/v1/nodes", token=bearer(network))
    assert answer.status == 401


@pytest.mark.parametrize("port", [80, 10250, 32000])
async def test_others_on_the_node_see_no_credential(port: int) -> None:
    _, network = await proxied(port)
    assert b"authorization" not in network.connection.request


async def test_each_api_server_has_a_credential_of_its_own() -> None:
    first, second = (await proxied(AGENT_PORT))[1], (await proxied(AGENT_PORT))[1]
    assert bearer(first) != bearer(second)
    answer = await Api().answer(
        "POST", "/apis/authentication.k8s.io/v1/tokenreviews", {"spec": {"token": bearer(first)}, "metadata": {}}
    )
    assert json.loads(answer.body)["status"]["authenticated"] is False


async def test_a_pod_on_the_agents_port_sees_no_credential_at_all() -> None:
    network = Network()
    api = await with_pod(network)
    assert (await ask(api, f"{PODS}/web:{AGENT_PORT}/proxy/")).status == 200
    assert network.dialled == [("default", "web", "10.244.1.2", AGENT_PORT)] and bearer(network) == ""


async def test_a_server_sees_the_request_as_the_client_made_it() -> None:
    network = Network()
    api = await with_pod(network)
    headers = {
        "host": "127.0.0.1:6443",
        "accept": "a/b",
        "connection": "keep-alive, x-mine",
        "x-mine": "1",
        "te": "trailers",
        "x-forwarded-for": "1.2.3.4",
        "content-length": "4",
    }
    more: dict[str, Any] = {"headers": headers, "body": b"body", "raw_query": "b=%2F&a&b=2", "source": "127.0.0.1"}
    answer = await ask(api, f"{PODS}/https:web:443/proxy/a b/ü/", "POST", **more)
    assert (answer.status, await text(answer)) == (200, b"hi")
    assert network.dialled == [("default", "web", "10.244.1.2", 443, "tls")]
    head, _, body = network.connection.request.partition(b"\r\n\r\n")
    assert head.split(b"\r\n")[0] == b"POST /a%20b/%C3%BC/?b=%2F&a&b=2 HTTP/1.1" and body == b"body"
    assert [network.header(name) for name in ("x-mine", "te", "connection", "authorization")] == ["", "", "close", ""]
    assert (network.header("host"), network.header("accept")) == ("127.0.0.1:6443", "a/b")
    assert network.header("x-forwarded-for") == "1.2.3.4, 127.0.0.1" and network.header("content-length") == "4"
    assert network.header("x-forwarded-uri") == f"{PODS}/https:web:443/proxy/a%20b/%C3%BC/"


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
async def test_every_method_is_passed_on(method: str) -> None:
    network = Network()
    answer = await ask(await with_pod(network), f"{PODS}/web/proxy/x", method)
    assert answer.status == 200 and await text(answer) == (b"" if method == "HEAD" else b"hi")
    assert network.connection.request.startswith(f"{method} /x HTTP/1.1\r\n".encode())


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_a_path_without_its_slash_is_sent_to_the_one_with_it(method: str) -> None:
    network = Network()
    answer = await ask(await with_pod(network), f"{PODS}/web/proxy", method, raw_query="a=%20")
    assert answer.status == 301 and answer.headers == (("location", f"{PODS}/web/proxy/?a=%20"),) and not network.dialled


async def test_other_methods_need_no_slash() -> None:
    network = Network()
    assert (await ask(await with_pod(network), f"{PODS}/web/proxy", "POST")).status == 200
    assert network.connection.request.startswith(b"POST / HTTP/1.1\r\n")


@pytest.mark.parametrize(
    ("coding", "encode", "decode"),
    [("", bytes, bytes), ("gzip", gzip.compress, gzip.decompress), ("deflate", zlib.compress, zlib.decompress)],
)
async def test_links_of_a_page_lead_through_the_api(coding: str, encode: Any, decode: Any) -> None:
    page = encode(b'<a href="/x">')
    head = "HTTP/1.1 200 OK\r\ncontent-type: Text/HTML; charset=utf-8\r\n" + (
        f"content-encoding: {coding}\r\n" if coding else ""
    )
    network = Network(head.encode() + f"content-length: {len(page)}\r\n\r\n".encode() + page)
    answer = await ask(await with_pod(network), f"{PODS}/web/proxy/")
    assert decode(await text(answer)) == f'<a href="{PODS}/web/proxy/x">'.encode()
    assert "content-length" not in dict(answer.headers) and network.connection.is_closed


def page_of(head: bytes, page: bytes) -> Network:
    """A server whose answer is this page, in pieces as a socket has them."""
    pieces = [page[start : start + 65536] for start in range(0, len(page), 65536)]
    return Network(
        b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\n" + head + b"content-length: %d\r\n\r\n" % len(page), *pieces
    )


LINK = b'<a href="/x">'
LARGE = LINK + b" " * MAX_PAGE_BYTES


PAGES: dict[str, tuple[bytes, Callable[[], bytes]]] = {
    "plain": (b"", lambda: LARGE),
    "gzip": (b"gzip", lambda: gzip.compress(LARGE, mtime=0)),
    "a bomb": (b"gzip", lambda: gzip.compress(b" " * (256 << 20), 1, mtime=0)),
    "two in one": (b"gzip", lambda: gzip.compress(LINK, mtime=0) * 2),
    "stored": (b"deflate", lambda: zlib.compress(LARGE, 0)),
}


@pytest.mark.parametrize("name", PAGES)
async def test_a_page_that_is_too_large_passes_as_it_is(name: str) -> None:
    coding, made = PAGES[name]
    page = made()
    network = page_of(b"content-encoding: " + coding + b"\r\n" if coding else b"", page)
    answer = await ask(await with_pod(network), f"{PODS}/web/proxy/")
    assert len(network.connection.said) >= len(page) // 65536 - MAX_PAGE_BYTES // 65536 - 1  # no more is held than the limit
    assert await text(answer) == page and network.connection.is_closed
    assert dict(answer.headers)["content-length"] == str(len(page))


@pytest.mark.parametrize("coding", ["", "gzip"])
async def test_others_run_while_a_pages_links_are_changed(coding: str) -> None:
    """Half a megabyte of tags that never end took a quarter of an hour, and nothing else ran."""
    page = LINK + b"<a <a href='/y' " * (MAX_PAGE_BYTES // 32)
    head = f"content-encoding: {coding}\r\n" if coding else ""
    network = page_of(head.encode(), gzip.compress(page) if coding else page)
    api, turns = await with_pod(network), 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    running = asyncio.ensure_future(others())
    came = await text(await ask(api, f"{PODS}/web/proxy/"))
    running.cancel()
    assert (gzip.decompress(came) if coding else came).startswith(b'<a href="' + PODS.encode() + b"/web/proxy/x") and turns > 5


async def test_others_run_while_a_server_says_one_byte_at_a_time() -> None:
    network = Network(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 1000 + b"0\r\n\r\n")
    answer, turns = await ask(await with_pod(network), f"{PODS}/web/proxy/"), 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    running = asyncio.ensure_future(others())
    assert await text(answer) == b"x" * 1000 and turns > 10
    running.cancel()


@pytest.mark.parametrize(("coding", "kind"), [("br", "text/html"), ("", "text/plain"), ("", "application/json")])
async def test_what_is_no_page_that_can_be_read_passes_as_it_is(coding: str, kind: str) -> None:
    head = f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: 13\r\n"
    head += f"content-encoding: {coding}\r\n" if coding else ""
    network = Network(head.encode() + b'\r\n<a href="/x">')
    answer = await ask(await with_pod(network), f"{PODS}/web/proxy/")
    assert await text(answer) == b'<a href="/x">' and dict(answer.headers)["content-length"] == "13"


async def test_a_redirect_leads_through_the_api() -> None:
    network = Network(b"HTTP/1.1 302 Found\r\nlocation: http://10.244.1.2:8080/login?a=b\r\ncontent-length: 0\r\n\r\n")
    answer = await ask(await with_pod(network), f"{PODS}/web/proxy/")
    assert (answer.status, dict(answer.headers)["location"]) == (302, f"{PODS}/web/proxy/login?a=b")


async def test_an_answer_that_goes_on_comes_piece_by_piece_until_the_client_leaves() -> None:
    network = Network(b"HTTP/1.1 200 OK\r\n\r\none", b"two", closes=False)
    answer = await ask(await with_pod(network), f"{PODS}/web/proxy/")
    assert isinstance(answer, Stream)
    chunks = answer.chunks
    assert [await anext(chunks), await anext(chunks)] == [b"one", b"two"] and not network.connection.is_closed
    assert isinstance(chunks, AsyncIterator)
    await chunks.aclose()  # type: ignore[attr-defined]  # it is a generator
    assert network.connection.is_closed


async def test_a_client_that_leaves_ends_the_wait_for_an_answer() -> None:
    network, left = Network(b"HTTP/1.1 100 Continue\r\n\r\n", closes=False), asyncio.Event()

    async def gone() -> None:
        await left.wait()

    asked = asyncio.ensure_future(ask(await with_pod(network), f"{PODS}/web/proxy/", gone=gone))
    await network.connection.asked.wait()
    assert not asked.done()
    left.set()
    assert (await asked).status == 503 and network.connection.is_closed


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (b"", "10.244.1.2:8080 closed the connection without an answer"),
        (b"HTTP/1.1 2", "10.244.1.2:8080 closed the connection without an answer"),
        (b"SSH-2.0\r\n\r\n", "error trying to reach service: "),
        (b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 9\r\n\r\nx", "error trying to reach service: "),
        (b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-encoding: gzip\r\n\r\nx", "error trying to reach service: "),
    ],
)
async def test_no_answer_is_a_service_unavailable(said: bytes, why: str) -> None:
    network = Network(said)
    answer = await ask(await with_pod(network), f"{PODS}/web/proxy/")
    status = json.loads(await text(answer))
    assert (status["code"], status["reason"]) == (503, "ServiceUnavailable") and why in status["message"]
    assert network.connection.is_closed


async def test_a_server_that_refuses_is_a_service_unavailable() -> None:
    class Closed(Network):
        async def reach(self, *_: Any, **__: Any) -> Connection:
            raise StreamError("dial tcp 10.244.1.2:8080: connect: connection refused")

    answer = await ask(await with_pod(Closed()), f"{PODS}/web/proxy/")
    assert (
        json.loads(answer.body)["message"]
        == "error trying to reach service: dial tcp 10.244.1.2:8080: connect: connection refused"
    )


@pytest.mark.parametrize(
    ("query", "sent"),
    [("a=\xc3\xa9", "a=%C3%A9"), ("\x7f", "%7F"), ("\xff \x01", "%FF%20%01"), ("a=%2F&a[]={}|'\"^`<>", "a=%2F&a[]={}|'\"^`<>")],
)
async def test_a_query_goes_on_as_it_came_but_for_what_no_request_line_holds(query: str, sent: str) -> None:
    network = Network()
    api = await with_pod(network)
    assert (await ask(api, f"{PODS}/web/proxy/", raw_query=query)).status == 200
    assert network.connection.request.startswith(f"GET /?{sent} HTTP/1.1\r\n".encode())
    assert (await ask(api, f"{PODS}/web/proxy", raw_query=query)).headers == (("location", f"{PODS}/web/proxy/?{sent}"),)


@pytest.mark.parametrize("headers", [{"x": "a\x0bb"}, {"a b": "c"}, {"host": "a\nb"}])
async def test_a_request_that_is_no_http_is_a_bad_request(headers: dict[str, str]) -> None:
    network = Network()
    refused = await ask(await with_pod(network), f"{PODS}/web/proxy/", headers=headers)
    assert (refused.status, json.loads(refused.body)["reason"]) == (400, "BadRequest") and not network.dialled


@pytest.mark.parametrize(
    "said",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\nno chunk",
        b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 2000009\r\n\r\n" + b"x" * 2_000_000,
    ],
)
async def test_an_answer_that_breaks_off_breaks_off_for_the_client(said: bytes, caplog: pytest.LogCaptureFixture) -> None:
    network = Network(said)
    api = await with_pod(network)
    answer = await ask(api, f"{PODS}/web/proxy/")
    with pytest.raises(StreamError):
        await text(answer)
    network.connection = Connection(said)
    with caplog.at_level(logging.WARNING):
        status, _, error = await over_https(api, f"{PODS}/web/proxy/")
    assert status == 200 and isinstance(error, http.client.IncompleteRead) and network.connection.is_closed
    assert "answer cut off why=" in caplog.text and "Traceback" not in caplog.text


async def over_https(api: Api, path: str, method: str = "GET") -> tuple[int, bytes, Exception | None]:
    """Status and body, as a client sees it, and how the body breaks off."""

    def read(port: int) -> tuple[int, bytes, Exception | None]:
        with contextlib.closing(connection(port)) as plain:
            plain.request(method, path, headers={"authorization": "Bearer secret"})
            answer = plain.getresponse()
            try:
                return answer.status, answer.read(), None
            except http.client.HTTPException as error:
                return answer.status, b"", error

    async with served(api.server.handle) as port:
        return await asyncio.to_thread(read, port)


@pytest.mark.parametrize(
    ("said", "status", "body"),
    [
        (b"HTTP/1.1 304 Not Modified\r\ncontent-length: 9\r\n\r\n", 304, b""),
        (b"HTTP/1.1 304 Not Modified\r\ncontent-type: text/html\r\ncontent-encoding: gzip\r\n\r\n", 304, b""),
        (b"HTTP/1.1 204 No Content\r\ncontent-length: 0\r\n\r\n", 204, b""),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n", 200, b"hi"),
        (b"HTTP/1.1 599 Odd\r\ncontent-type: text/\xe9\r\nx: \xe9\r\n\r\nhi", 599, b"hi"),
        (b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\n\r\n<![a b]>", 200, b"<![a b]>"),
    ],
)
async def test_odd_answers_come_to_the_client(said: bytes, status: int, body: bytes, caplog: pytest.LogCaptureFixture) -> None:
    assert await over_https(await with_pod(Network(said)), f"{PODS}/web/proxy/") == (status, body, None)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize(
    "said",
    [
        b"HTTP/1.1 600 Odd\r\n\r\n",
        b"HTTP/1.1 999 Odd\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: a\x01b\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-type: text/\x7f\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nlocation: /\x02\r\n\r\n",
    ],
)
async def test_answers_that_are_no_http_are_a_service_unavailable(said: bytes, caplog: pytest.LogCaptureFixture) -> None:
    status, body, _ = await over_https(await with_pod(Network(said)), f"{PODS}/web/proxy/")
    assert status == 503 and b"error trying to reach service: " in body
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_what_is_no_method_of_http_and_what_would_be_a_websocket_is_refused() -> None:
    network = Network()
    api = await with_pod(network)
    assert (await ask(api, f"{PODS}/web/proxy/", "BREW")).status == 405
    refused = await ask(api, f"{PODS}/web/proxy/", upgrade=True)
    assert refused.status == 400 and "WebSocket" in json.loads(refused.body)["message"] and not network.dialled


async def test_a_service_leads_to_its_pod() -> None:
    network = Network()
    api = await with_pod(network)
    ports = [{"name": "web", "port": 80, "targetPort": 8080}]
    await api("POST", SERVICES, {"metadata": {"name": "s"}, "spec": {"ports": ports}})
    target = {"kind": "Pod", "namespace": "default", "name": "web"}
    subset = {"addresses": [{"ip": "10.244.1.2", "targetRef": target}], "ports": [{"name": "web", "port": 8080}]}
    await api("POST", "/api/v1/namespaces/default/endpoints", {"metadata": {"name": "s"}, "subsets": [subset]})
    for id_ in ("s:80", "s:web"):
        answer = await ask(api, f"{SERVICES}/{id_}/proxy/")
        assert (answer.status, await text(answer)) == (200, b"hi"), id_
        network.connection = Connection(ANSWER)
    assert network.dialled == [("default", "web", "10.244.1.2", 8080)] * 2


async def test_who_is_nobody_reaches_nothing() -> None:
    network = Network()
    api = await with_pod(network)
    answer = await ask(api, f"{PODS}/web/proxy/", headers={"authorization": "Bearer wrong"})
    assert answer.status == 401 and not network.dialled


async def test_it_is_discovered() -> None:
    found = {entry["name"]: entry for entry in (await Api()("GET", "/api/v1"))["resources"]}
    for plural, kind in (("pods", "PodProxyOptions"), ("services", "ServiceProxyOptions"), ("nodes", "NodeProxyOptions")):
        entry = found[f"{plural}/proxy"]
        assert (entry["kind"], entry["verbs"]) == (kind, ["create", "delete", "get", "patch", "update"])
