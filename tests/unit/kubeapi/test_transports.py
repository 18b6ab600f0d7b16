"""The same client over both transports: a direct call of the API server, and HTTPS."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime
import gzip
import http.client
import io
import json
import socket
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from podplane.apiserver import watch
from podplane.kubeapi import transport as transport_module
from podplane.kubeapi import transport as transports
from podplane.kubeapi.access import Access
from podplane.kubeapi.client import Client, close
from podplane.kubeapi.errors import AlreadyExists, ApiError, Conflict, Gone, NotFound
from podplane.kubeapi.events import WARNING, Recorder
from podplane.kubeapi.http import HttpClient
from podplane.kubeapi.informer import Informer
from podplane.kubeapi.messages import Answer, Request, Response, Stream
from podplane.kubeapi.retry import Backoff
from podplane.kubeapi.transport import HttpTransport
from podplane.model.pod import Pod
from tests.unit.apiserver.live import access_to, served
from tests.unit.apiserver.test_server import POD, PODS, Api


@dataclasses.dataclass
class Way:
    """An API server, and a client of it."""

    api: Api
    client: Client
    stranger: Client


@pytest.fixture(params=["direct", "https"])
async def way(request: pytest.FixtureRequest) -> AsyncIterator[Way]:
    api = Api()
    if request.param == "direct":
        yield Way(api, Client(api.server.handle, "secret"), Client(api.server.handle, "wrong"))
        return
    async with served(api.server.handle) as port:
        own, other = HttpTransport(access_to(port)), HttpTransport(access_to(port, "wrong"))
        yield Way(api, Client(own, ""), Client(other, ""))
        await own.close()
        await other.close()


async def test_verbs(way: Way) -> None:
    client = way.client
    made = await client.create("pods", "default", {"metadata": {"name": "web"}, **POD})
    uid = made["metadata"]["uid"]
    with pytest.raises(AlreadyExists):
        await client.create("pods", "default", {"metadata": {"name": "web"}, **POD})
    with pytest.raises(Conflict):
        await client.patch_status("pods", "default", "web", {"phase": "Failed"}, "another")
    await client.patch_status("pods", "default", "web", {"phase": "Running"}, uid)
    (item,) = json.loads(await client.list("pods"))["items"]
    assert item["status"]["phase"] == "Running"
    await client.delete("pods", "default", "web", grace=0, uid=uid)
    with pytest.raises(NotFound):
        await client.delete("pods", "default", "web")
    with pytest.raises(ApiError) as refused:
        await way.stranger.list("pods")
    assert refused.value.code == 401


async def test_a_watch_is_chunks_and_a_refused_one_an_exception(way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    chunks = await way.client.watch("pods", str(way.api.store.version))
    await way.api.pod("web")
    assert json.loads(await anext(chunks))["object"]["metadata"]["name"] == "web"
    await chunks.aclose()  # type: ignore[attr-defined]  # a generator
    monkeypatch.setattr(way.api.server._records.hub, "_oldest", 5)
    with pytest.raises(Gone):
        await way.client.watch("pods", "1")
    with pytest.raises(ApiError) as refused:
        await way.stranger.watch("pods", "1")
    assert refused.value.code == 401


async def until(true: Callable[[], bool]) -> None:
    """Wait for it, five seconds at most."""
    async with asyncio.timeout(5):
        while not true():  # noqa: ASYNC110  # what is waited for has no event
            await asyncio.sleep(0.005)


async def test_a_cache_follows_resumes_and_lists_again(way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    """A watch that is cut is resumed; one whose version was forgotten begins with a list. Nothing is missed or told twice."""
    monkeypatch.setattr(watch, "BACKLOG_BYTES", 0)  # one line that waits cuts a watch off
    told: list[tuple[str, str]] = []

    def tell(old: Pod | None, new: Pod | None) -> None:
        pod = new or old
        assert pod is not None
        told.append(("-" if new is None else "+" if old is None else "~", pod.metadata.name))

    await way.api.pod("a")
    informer = Informer(way.client, "pods", Pod)
    informer.subscribe(tell)
    await informer.sync()
    task = asyncio.ensure_future(informer.run())
    try:
        await asyncio.sleep(0.02)
        for name in ("b", "c", "d"):
            await way.api.pod(name)
        await until(lambda: len(informer.objects) == 4)
        monkeypatch.setattr(watch, "BACKLOG_BYTES", 2**20)
        await way.api("DELETE", f"{PODS}/b", {"gracePeriodSeconds": 0})
        await until(lambda: len(informer.objects) == 3)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert told == [("+", "a"), ("+", "b"), ("+", "c"), ("+", "d"), ("-", "b")]


async def test_a_cache_lists_again_when_its_version_was_forgotten(way: Way) -> None:
    informer = Informer(way.client, "pods", Pod)
    await informer.sync()
    await way.api.pod("a")
    way.api.server._records.hub._oldest = way.api.store.version
    task = asyncio.ensure_future(informer.run())
    try:
        await until(lambda: set(informer.objects) == {"default/a"})
        await way.api.pod("b")
        await until(lambda: len(informer.objects) == 2)
        assert informer.lists == 2
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_events_are_written_and_counted(way: Way) -> None:
    pod = await way.api.pod("web")
    recorder = Recorder(way.client, "agent", lambda: datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC), "n1")
    for _ in range(3):
        await recorder.record("v1/Pod", pod["metadata"], "Refused", "no such port", WARNING)
    (event,) = json.loads(await way.client.list("events"))["items"]
    assert (event["count"], event["reason"], event["source"]) == (3, "Refused", {"component": "agent", "host": "n1"})


def watchers(api: Api) -> int:
    """The open watches of pods at the server."""
    return sum(len(own) for (resource, _, _), own in api.server._records.hub._watchers.items() if resource == "pods")


def connections(transport: HttpTransport) -> int:
    """The open connections of a transport."""
    return len(transport._pool.connections)  # type: ignore[attr-defined]  # nothing public tells


async def test_many_watches_of_one_transport_leave_room_for_requests_and_go_with_their_readers() -> None:
    api, many = Api(), 30
    async with served(api.server.handle) as port:
        transport = HttpTransport(access_to(port))
        client = Client(transport, "")
        informers = [Informer(client, "pods", Pod) for _ in range(many)]
        tasks = [asyncio.ensure_future(informer.run()) for informer in informers]
        await until(lambda: watchers(api) == many)
        await client.create("pods", "default", {"metadata": {"name": "web"}, **POD})
        await until(lambda: all(set(informer.objects) == {"default/web"} for informer in informers))
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await until(lambda: watchers(api) == 0)
        assert connections(transport) == 1, "the one of the create"
        assert not any(informer.failures for informer in informers)
        await transport.close()


async def test_a_watch_that_is_never_read_is_closed_too() -> None:
    api = Api()
    async with served(api.server.handle) as port:
        transport = HttpTransport(access_to(port))
        chunks = await Client(transport, "").watch("pods", str(api.store.version))
        await until(lambda: watchers(api) == 1)
        await close(chunks)
        await close(chunks)
        assert connections(transport) == 0
        await until(lambda: watchers(api) == 0)
        await transport.close()


async def test_a_closed_transport_ends_its_watches_and_takes_no_requests() -> None:
    api = Api()
    async with served(api.server.handle) as port:
        transport = HttpTransport(access_to(port))
        client = Client(transport, "")
        chunks = await client.watch("pods", str(api.store.version))
        reading = asyncio.ensure_future(anext(chunks))
        await until(lambda: watchers(api) == 1)
        await transport.close()
        with pytest.raises(ApiError) as ended:
            await asyncio.wait_for(reading, 5)
        assert ended.value.code == 503
        with pytest.raises(ApiError, match="were closed"):
            await client.list("pods")
        await until(lambda: watchers(api) == 0)


class Relay:
    """Passes connections on to a port, until they are cut: as a load balancer, or a network, that fails."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._writers: list[asyncio.StreamWriter] = []
        self.passes = True

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        if not self.passes:
            writer.transport.abort()
            return
        inner_reader, inner = await asyncio.open_connection("127.0.0.1", self._port)
        self._writers += (writer, inner)
        await asyncio.gather(self._pass(reader, inner), self._pass(inner_reader, writer))

    @staticmethod
    async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
        except OSError:
            pass
        writer.close()

    def cut(self) -> None:
        """Reset all connections."""
        self.passes = False
        for writer in self._writers:
            writer.transport.abort()


async def test_a_connection_that_is_reset_is_opened_again_and_the_watch_goes_on_where_it_was() -> None:
    api = Api()
    async with served(api.server.handle) as port:
        relay = Relay(port)
        front = await asyncio.start_server(relay.serve, "127.0.0.1", 0)
        transport = HttpTransport(access_to(front.sockets[0].getsockname()[1]))
        informer = Informer(Client(transport, ""), "pods", Pod, backoff=Backoff(0.01, 0.05))
        task = asyncio.ensure_future(informer.run())
        await until(lambda: watchers(api) == 1)
        relay.cut()
        await until(lambda: watchers(api) == 0 and sum(informer.failures.values()) > 2)
        await api.pod("web")
        relay.passes = True
        await until(lambda: set(informer.objects) == {"default/web"})
        assert informer.lists == 1
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await transport.close()
        relay.cut()
        front.close()


@pytest.mark.parametrize("content_type", ["text/html", "", "application/vnd.kubernetes.protobuf"])
async def test_a_watch_of_another_content_type_is_refused_and_its_connection_closed(content_type: str) -> None:
    async def handle(request: Request) -> Answer:
        async def chunks() -> AsyncIterator[bytes]:
            yield b"<html>"
            await asyncio.sleep(30)

        return Stream(chunks(), content_type=content_type) if request.flag("watch") else Response(200, b"<html>", "text/html")

    async with served(handle) as port:
        transport = HttpTransport(access_to(port))
        client = Client(transport, "")
        with pytest.raises(ApiError, match="was answered with"):
            await client.watch("pods", "1")
        assert connections(transport) == 0
        with pytest.raises(ApiError, match="not the API's"):
            await client.get("pods", "default", "web")
        with pytest.raises(ApiError, match="not the API's"):
            await Informer(client, "pods", Pod).sync()
        await transport.close()


async def test_nobody_at_home_and_a_stranger_at_home() -> None:
    api = Api()
    async with served(api.server.handle) as port:
        nobody = dataclasses.replace(access_to(port), ca="")
        stranger = HttpTransport(nobody)
        with pytest.raises(ApiError, match="certificate") as refused:
            await Client(stranger, "").list("pods")
        assert refused.value.code == 503
        await stranger.close()
        access = access_to(port)
    gone = HttpTransport(access)
    with pytest.raises(ApiError, match="does not answer"):
        await Client(gone, "").list("pods")
    await gone.close()


async def test_a_watch_of_a_server_that_falls_silent_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transports, "QUIET_SECONDS", 0.1)

    async def handle(_: Request) -> Answer:
        async def chunks() -> AsyncIterator[bytes]:
            yield b"{}\n"
            await asyncio.sleep(30)

        return Stream(chunks())

    async with served(handle) as port:
        transport = HttpTransport(access_to(port))
        found = await Client(transport, "").watch("pods", "1")
        assert [chunk async for chunk in found] == [b"{}\n"]
        await transport.close()


@pytest.mark.parametrize("refused", [False, True])
async def test_what_a_server_packs_is_unpacked(refused: bool) -> None:
    body = b"no gzip" if refused else gzip.compress(b'{"items": []}' * 1000)

    async def handle(request: Request) -> Answer:
        assert request.headers["accept-encoding"] == "gzip"
        return Response(200, body, headers=(("content-encoding", "gzip"),))

    async with served(handle) as port:
        transport = HttpTransport(access_to(port))
        if refused:
            with pytest.raises(ApiError, match="does not answer"):
                await Client(transport, "").list("pods")
        else:
            assert await Client(transport, "").list("pods") == b'{"items": []}' * 1000
        await transport.close()


@pytest.mark.parametrize("closes", [True, False])
async def test_a_server_that_does_not_finish_the_handshake_is_no_server(closes: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transports, "CONNECT_SECONDS", 0.1)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        if closes:
            writer.transport.abort()
        else:
            await reader.read()
            writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        transport = HttpTransport(Access("127.0.0.1", server.sockets[0].getsockname()[1], token="secret"))
        async with asyncio.timeout(5):
            for _ in range(2):
                with pytest.raises(ApiError, match="does not answer"):
                    await Client(transport, "").list("pods")
            assert connections(transport) == 0
            await transport.close()


async def test_an_idle_connection_that_the_server_closed_is_not_used_again() -> None:
    async with served(Api().server.handle) as port:
        relay = Relay(port)
        front = await asyncio.start_server(relay.serve, "127.0.0.1", 0)
        transport = HttpTransport(access_to(front.sockets[0].getsockname()[1]))
        client = Client(transport, "")
        await client.list("pods")
        relay.cut()
        relay.passes = True
        await until(lambda: all(one.has_expired() for one in transport._pool.connections))
        await client.list("pods")
        assert connections(transport) == 1
        await transport.close()
        relay.cut()
        front.close()


async def test_the_kernel_looks_after_connections_that_nothing_comes_by() -> None:
    async with served(Api().server.handle) as port:
        transport = HttpTransport(access_to(port))
        await Client(transport, "").list("pods")
        (connection,) = transport._pool.connections  # type: ignore[attr-defined]  # nothing public tells
        stream = connection._connection._network_stream
        opened = stream.get_extra_info("socket")
        assert opened.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        idle, between, count = (
            opened.getsockopt(socket.IPPROTO_TCP, one)
            for one in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
        )
        assert idle + between * count <= 20 < transports.QUIET_SECONDS
        await transport.close()


async def test_a_token_in_a_file_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "token"
    file.write_text("wrong\n")
    api = Api()
    async with served(api.server.handle) as port:
        access = dataclasses.replace(access_to(port), token="", token_file=str(file))
        transport = HttpTransport(access)
        client: Any = Client(transport, "")
        with pytest.raises(ApiError, match="Unauthorized"):
            await client.list("pods")
        file.write_text("secret\n")
        assert json.loads(await client.list("pods"))["items"] == [], "one that was refused is read again at once"
        monkeypatch.setattr("podplane.kubeapi.access.TOKEN_SECONDS", 0.0)
        assert json.loads(await client.list("pods"))["items"] == []
        file.unlink()
        with pytest.raises(ApiError, match="can't be read"):
            await client.list("pods")
        await transport.close()


async def test_the_path_of_a_server_goes_before_every_path() -> None:
    """As behind a proxy that serves several clusters (a kubeconfig's `server: https://proxy/k8s/x`)."""
    asked: list[str] = []

    async def handle(request: Request) -> Answer:
        asked.append(request.path)
        return Response(200, b'{"items": []}')

    async with served(handle) as port:
        access = dataclasses.replace(access_to(port), prefix="/k8s/x")
        transport, blocking = HttpTransport(access), HttpClient(access)
        await Client(transport, "").list("pods")
        assert await asyncio.to_thread(blocking.objects, "pods") == []
        blocking.close()
        await transport.close()
    assert asked == ["/k8s/x/api/v1/pods"] * 2


@pytest.mark.parametrize("ahead", [600.0, -600.0])
async def test_a_transport_knows_how_far_the_clock_of_its_machine_is_off(ahead: float, monkeypatch: pytest.MonkeyPatch) -> None:
    async def handle(request: Request) -> Answer:
        return Response(200, b'{"items": []}')

    here = SimpleNamespace(time=lambda: time.time() + ahead)
    monkeypatch.setattr(transport_module, "time", here)
    async with served(handle) as port:
        transport = HttpTransport(access_to(port))
        assert transport.skew == 0, "nobody has said anything yet"
        await Client(transport, "").list("pods")
        assert abs(transport.skew - ahead) < 60
        await transport.close()


def test_a_client_knows_the_clock_of_the_api(monkeypatch: pytest.MonkeyPatch) -> None:
    """As kube-apiserver says it, with a refusal as well."""
    blocking, answers = HttpClient(access_to(1)), [b"403 Forbidden\r\nDate: Sun, 01 Mar 2026 12:00:00 GMT", b"200 OK"]

    class Sock:
        def makefile(self, mode: str) -> io.BytesIO:
            return io.BytesIO(b"HTTP/1.1 " + answers.pop(0) + b"\r\nContent-Length: 2\r\n\r\n{}")

    def answer() -> http.client.HTTPResponse:
        found = http.client.HTTPResponse(Sock())  # type: ignore[arg-type]
        found.begin()
        return found

    monkeypatch.setattr(blocking._connection, "request", lambda *_: None)
    monkeypatch.setattr(blocking._connection, "getresponse", answer)
    assert blocking.date == ""
    with pytest.raises(ApiError):
        blocking.version()
    assert blocking.date == "Sun, 01 Mar 2026 12:00:00 GMT"
    blocking.version()
    assert blocking.date == ""


@pytest.mark.parametrize(("version", "kind"), [(b'{"gitVersion": "v1.36.3"}', NotFound), (b"<html>", ApiError)])
async def test_what_the_api_does_not_serve_is_not_found_and_what_another_server_says_is_no_answer(
    version: bytes, kind: type[ApiError]
) -> None:
    """kube-apiserver says it in plain text."""

    async def handle(request: Request) -> Answer:
        return Response(200, version) if request.path == "/version" else Response(404, b"404 page not found\n", "text/plain")

    async with served(handle) as port:
        blocking = HttpClient(access_to(port))
        with pytest.raises(ApiError) as error:
            await asyncio.to_thread(blocking.objects, "clusternetworkpolicies.policy.networking.k8s.io")
        blocking.close()
    assert type(error.value) is kind and error.value.code == 404


async def test_a_client_knows_whether_the_api_answered(way: Way) -> None:
    assert way.client.contact is None
    await way.client.list("pods")
    assert way.client.contact is not None and way.client.contact.is_reached
    with pytest.raises(ApiError):
        await way.stranger.list("pods")
    assert way.stranger.contact is not None and way.stranger.contact.is_reached  # a refusal is an answer


async def test_a_client_knows_why_the_api_did_not_answer() -> None:
    async with served(Api().server.handle) as port:
        pass
    transport = HttpTransport(access_to(port))
    client = Client(transport, "")
    for call in (client.list("pods"), client.watch("pods", "1")):
        with pytest.raises(ApiError):
            await call
        assert client.contact is not None and not client.contact.is_reached and "does not answer" in client.contact.error
    await transport.close()
