"""Two machines with one Node name: the one that comes later finds the other, and changes nothing."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from podplane.kubeapi.client import Client
from podplane.kubeapi.errors import ApiError
from podplane.machine import one_machine
from podplane.machine.one_machine import Machine, OneMachine, answers, machine_of, own_id
from podplane.model.config import MACHINE
from podplane.model.objects import Node
from podplane.servers.http import Call, HttpServer, Reply
from podplane.state.network import Address
from podplane.state.value import address_of
from tests.plans import node
from tests.unit.agent.rig import caches_of

V4 = (4,)
FIRST, SECOND = Machine("aaaa", "192.168.1.10", "one"), Machine("bbbb", "192.168.1.77", "two")
ADDRESSES = [Address(link="eth0", ip=address_of(ip), prefix_length=24) for ip in ("127.0.0.1", "192.168.1.77")]


def said(machine: Machine | str, number: int = 1) -> Node:
    found = node(number, V4)
    text = machine if isinstance(machine, str) else msgspec.json.encode(machine).decode()
    annotations = {**found.metadata.annotations, MACHINE: text}
    return msgspec.structs.replace(found, metadata=msgspec.structs.replace(found.metadata, annotations=annotations))


class FakeApi(Client):
    def __init__(self) -> None:
        self.patches: list[Any] = []
        self.fails = False

    async def patch(self, resource: str, namespace: str, name: str, body: Mapping[str, Any], **_: object) -> dict[str, Any]:
        if self.fails:
            raise ApiError(503, "Unavailable", "")
        self.patches.append(json.loads(body["metadata"]["annotations"][MACHINE]))
        return {}


def second(*nodes: Node, alive: bool = True, api: FakeApi | None = None) -> OneMachine:
    async def is_there(ip: str, port: int) -> bool:
        return port == 10256 and alive and ip == FIRST.ip

    caches = caches_of(*nodes)
    return OneMachine(api or FakeApi(), caches.nodes.objects, "node1", SECOND.id, is_there, SECOND.host)


async def test_the_second_machine_is_told_with_both() -> None:
    found = said(FIRST)
    line = await second(found).problem(found, ADDRESSES)
    assert line.startswith(
        "two machines are the Node node1: one (192.168.1.10, aaaa), whose agent answers, and two (192.168.1.77, bbbb): "
    )


async def test_a_machine_that_is_gone_or_the_same_gives_way() -> None:
    first = said(FIRST)
    assert await second(first, alive=False).problem(first, ADDRESSES) == "", "nothing answers there"
    own = said(SECOND)
    assert await second(own).problem(own, ADDRESSES) == "", "it is this one"
    booted = said(Machine("cccc", "192.168.1.77", "two"))
    assert await second(booted).problem(booted, ADDRESSES) == "", "it is this one before it booted"
    other = node(2, V4)
    moved = msgspec.structs.replace(other, status=first.status)
    assert await second(first, moved).problem(first, ADDRESSES) == "", "another Node has that address by now"
    ports = (f'{{"id": "a", "ip": "192.168.1.10", "host": "h", "port": {port}}}' for port in (0, -1, 65536, 99999999))
    places = (f'{{"id": "a", "ip": "{ip}", "host": "h"}}' for ip in ("nonsense", "127.0.0.1", "::", "ff02::1"))
    deep = '{"x": ' + "[" * 100_000
    for text in ("", "{", '{"id": "aaaa"}', deep, *ports, *places):
        assert machine_of(said(text)) is None and await second(said(text)).problem(said(text), ADDRESSES) == ""


async def test_a_node_says_whose_it_is_and_is_not_taken_from_one_that_lives() -> None:
    caches, api, told = caches_of(node(1, V4)), FakeApi(), list[str]()
    alive = False

    async def is_there(ip: str, port: int) -> bool:
        return alive

    tested = OneMachine(api, caches.nodes.objects, "node1", SECOND.id, is_there, SECOND.host)
    api.fails = True
    keeping = asyncio.create_task(tested.keep(caches.nodes, lambda: ADDRESSES, told.append))
    await asyncio.sleep(0.05)
    assert not keeping.done() and not api.patches, "an API that is away ends nothing"
    api.fails = False
    caches.nodes.set(said("{}"))
    await until(lambda: bool(api.patches))
    assert api.patches == [{"id": "bbbb", "ip": "192.168.1.10", "host": "two", "port": 10256}]
    alive = True
    caches.nodes.set(said(FIRST))
    await until(lambda: bool(told))
    assert tested.found == told[0] and told[0].startswith("two machines are the Node node1") and len(api.patches) == 1
    keeping.cancel()


async def until(condition: Any) -> None:
    for _ in range(10_000):
        if condition():
            return
        await asyncio.sleep(0.001)
    raise AssertionError("it did not happen")


async def test_an_agent_that_answers_is_there_and_no_other_program() -> None:
    async def answered(text: bytes) -> bool:
        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(text)
            writer.close()

        server = await asyncio.start_server(handle, "127.0.0.1", 0)
        try:
            return await answers("127.0.0.1", server.sockets[0].getsockname()[1], 0.5)
        finally:
            server.close()

    for begin in (b"HTTP/1.1 503 Service Unavailable\r\n", b"HTTP/1.0 200 OK\r\n"):
        assert await answered(begin + b"server: podplane\r\n\r\n")
        assert not await answered(begin + b"\r\n"), "an API server at its port, to a client without TLS"
        assert not await answered(begin + b"server: nginx\r\nx: server: podplane\r\n\r\n")
        assert not await answered(begin + b"x: " + b"y" * 100_000), "it ends"
    assert not await answered(b"server: podplane\r\nserver: podplane\r\n\r\n")


async def test_the_server_of_agents_is_known_and_who_is_silent_is_not_there() -> None:
    async def ready(call: Call) -> Reply:
        return Reply(503)

    server, sockets = HttpServer(ready), [socket.create_server(("127.0.0.1", 0))]
    port = sockets[0].getsockname()[1]
    await server.listen(sockets)
    assert await answers("127.0.0.1", port)
    server.close()
    assert not await answers("127.0.0.1", port, 0.2)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        assert not await answers("127.0.0.1", mute.getsockname()[1], 0.2)


def test_a_machine_is_known_by_its_boot_and_its_network_namespace(tmp_path: Path) -> None:
    boot = tmp_path / "boot_id"
    boot.write_text("5b0a\n")
    first = own_id(boot)
    assert first == own_id(boot) and len(first) == 12
    assert own_id(boot, str(tmp_path)) != first
    boot.write_text("77ee\n")
    assert own_id(boot) != first and one_machine.BOOT.exists()
