"""The same client over both transports: a direct call of the API server, and HTTPS."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from podplane.apiserver import watch
from podplane.kubeapi import transport as transports
from podplane.kubeapi.client import Client
from podplane.kubeapi.errors import AlreadyExists, ApiError, Conflict, Gone, NotFound
from podplane.kubeapi.informer import Informer
from podplane.kubeapi.messages import Answer, Request, Stream
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
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


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


async def test_a_server_that_falls_silent_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transports, "QUIET_SECONDS", 0.1)

    async def handle(_: Request) -> Answer:
        async def chunks() -> AsyncIterator[bytes]:
            yield b"{}\n"
            await asyncio.sleep(30)

        return Stream(chunks())

    async with served(handle) as port:
        transport = HttpTransport(access_to(port))
        found = await Client(transport, "").watch("pods", "1")
        assert await anext(found) == b"{}\n"
        with pytest.raises(ApiError, match="does not answer"):
            await anext(found)
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
        monkeypatch.setattr("podplane.kubeapi.access.TOKEN_SECONDS", 0.0)
        assert json.loads(await client.list("pods"))["items"] == []
        file.unlink()
        with pytest.raises(ApiError, match="can't be read"):
            await client.list("pods")
        await transport.close()
