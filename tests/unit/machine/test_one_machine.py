"""Two machines with one Node name: the one that comes later finds the other, and changes nothing."""

from __future__ import annotations

import asyncio
import json
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
    for text in ("", "{", '{"id": "aaaa"}', '{"id": "a", "ip": "nonsense", "host": "h"}'):
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


async def test_who_answers_by_http_is_there_and_nobody_else() -> None:
    async def http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 503 Service Unavailable\r\n\r\n")
        writer.close()

    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    for handler, there in ((http, True), (mute, False)):
        server = await asyncio.start_server(handler, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        assert await answers("127.0.0.1", port, 0.2) is there
        server.close()
    assert await answers("127.0.0.1", port, 0.2) is False


def test_a_machine_is_known_by_its_boot_and_its_network_namespace(tmp_path: Path) -> None:
    boot = tmp_path / "boot_id"
    boot.write_text("5b0a\n")
    first = own_id(boot)
    assert first == own_id(boot) and len(first) == 12
    assert own_id(boot, str(tmp_path)) != first
    boot.write_text("77ee\n")
    assert own_id(boot) != first and one_machine.BOOT.exists()
