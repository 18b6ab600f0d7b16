"""The API is away for a while: the name server goes on with what it knew, and learns what changed soon after."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine
from typing import Any

import dns.message
import pytest

from podplane.dns import message as m
from podplane.kubeapi.client import Client
from podplane.kubeapi.errors import ApiError
from podplane.kubeapi.messages import Answer, Handler, Request, Stream
from podplane.nameserver.api_access import ApiAccess
from podplane.nameserver.objects import HIGHEST_SECONDS, Objects
from podplane.nameserver.resolver import Client as Asking
from podplane.nameserver.sources import Sources
from tests.unit.nameserver.rig import Rig
from tests.unit.virtual_time import virtual

SERVICES = "/api/v1/namespaces/default/services"


class Transport:
    """Connections that are open until they are closed; watches end then."""

    def __init__(self, handler: Handler) -> None:
        self.handler, self.is_closed = handler, asyncio.Event()

    async def __call__(self, request: Request) -> Answer:
        assert not self.is_closed.is_set()
        answer = await self.handler(request)
        return Stream(self._chunks(answer.chunks)) if isinstance(answer, Stream) else answer

    async def _chunks(self, chunks: AsyncIterator[bytes]) -> AsyncGenerator[bytes]:
        closed = asyncio.ensure_future(self.is_closed.wait())
        while True:
            chunk = asyncio.ensure_future(anext(chunks))  # type: ignore[arg-type]  # it is awaitable
            await asyncio.wait((chunk, closed), return_when=asyncio.FIRST_COMPLETED)
            if not chunk.done():
                chunk.cancel()
                raise ApiError(503, "ServiceUnavailable", "the connection was closed")
            yield chunk.result()

    async def close(self) -> None:
        self.is_closed.set()


class Cuttable:
    """A way to the API of a rig; `made` are its transports."""

    def __init__(self, rig: Rig) -> None:
        self.rig, self.made = rig, list[Transport]()
        self.tasks: list[asyncio.Task[None]] = []
        self.access = ApiAccess(self._make, self._close)

    def _make(self) -> Transport:
        self.made.append(Transport(self.rig.api.server.call))
        return self.made[-1]

    def _close(self, work: Coroutine[Any, Any, None]) -> None:
        self.tasks.append(asyncio.get_running_loop().create_task(work))


async def test_nothing_passes_while_it_is_cut() -> None:
    way = Cuttable(Rig())
    client = Client(way.access, "server")
    assert await client.get("namespaces", "", "default")
    way.access.cut()
    way.access.cut()
    with pytest.raises(ApiError, match="a fault cuts it off") as refused:
        await client.get("namespaces", "", "default")
    assert refused.value.code == 503
    await asyncio.gather(*way.tasks)
    assert way.made[0].is_closed.is_set() and len(way.tasks) == 1
    way.access.join()
    way.access.join()
    assert await client.get("namespaces", "", "default")
    assert len(way.made) == 2


@virtual
async def test_after_minutes_without_the_api_names_are_right_again_soon() -> None:
    """coredns/coredns#3879, #5642: until then they are what they were."""
    rig = Rig()
    way = Cuttable(rig)
    objects = Objects(Client(way.access, "server"))
    changed: list[str] = []
    objects.subscribe(changed.append)
    sources = Sources(m.name_of("cluster.local"), objects.directory, ("10.96.0.0/16",))

    def answer(name: str) -> tuple[int, list[str]]:
        query = m.read_query(dns.message.make_query(f"{name}.default.svc.cluster.local", "A").to_wire())
        found = sources.answer(query, Asking("10.244.1.2"))
        assert isinstance(found, m.Answer)
        return found.rcode, [".".join(map(str, one.data)) for one in found.records]

    async def make(name: str, ip: str) -> None:
        await rig.api("POST", SERVICES, {"metadata": {"name": name}, "spec": {"clusterIP": ip, "ports": [{"port": 80}]}})

    for name, ip in (("old", "10.96.7.1"), ("moves", "10.96.7.2")):
        await make(name, ip)
    await objects.sync()
    tasks = [asyncio.ensure_future(work()) for work in objects.watches.values()]
    await asyncio.sleep(1)
    way.access.cut()
    await asyncio.sleep(1)
    await rig.api("DELETE", f"{SERVICES}/old")
    await rig.api("DELETE", f"{SERVICES}/moves")
    await make("moves", "10.96.7.3")
    await make("new", "10.96.7.4")
    for _ in range(10):
        await asyncio.sleep(60)
        known = [answer(name) for name in ("old", "moves", "new")]
        assert known == [(m.NOERROR, ["10.96.7.1"]), (m.NOERROR, ["10.96.7.2"]), (m.NXDOMAIN, [])]
    changed.clear()
    way.access.join()
    await asyncio.sleep(HIGHEST_SECONDS + 0.1)
    assert [answer(name) for name in ("old", "moves", "new")] == [
        (m.NXDOMAIN, []),
        (m.NOERROR, ["10.96.7.3"]),
        (m.NOERROR, ["10.96.7.4"]),
    ]
    assert {f"service/default/{name}" for name in ("old", "moves", "new")} <= set(changed), "what is kept of them goes"
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, *way.tasks, return_exceptions=True)
