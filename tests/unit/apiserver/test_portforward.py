"""Port-forwards: connections of a client to ports of a pod, over both protocols, with a pod that the test plays."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest

from podplane.apiserver import portforward
from podplane.apiserver.portforward import Channels, Tunnel
from podplane.apiserver.problems import Problem
from podplane.kubeapi import spdy
from podplane.kubeapi.messages import Request
from podplane.kubeapi.streams import StreamError
from tests.unit.kubeapi.test_spdy import Client, control, data

POD = {"metadata": {"namespace": "default", "name": "web", "uid": "u"}, "status": {"phase": "Running"}}


class Pod:
    """A connection to a pod: what was sent to it, and what it says."""

    def __init__(self) -> None:
        self.received, self.ended, self.closed = b"", False, False
        self.says: asyncio.Queue[bytes] = asyncio.Queue()

    async def read(self) -> bytes:
        return await self.says.get()

    async def write(self, content: bytes) -> None:
        self.received += content

    def end_writing(self) -> None:
        self.ended = True

    def close(self) -> None:
        self.closed = True


class Rig:
    """A client's side of the messages, and the connections that were opened."""

    def __init__(self) -> None:
        self.pods: dict[int, list[Pod]] = {}
        self._in: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.sent: list[bytes] = []

    async def open(self, port: int) -> Pod:
        if port == 9:
            raise StreamError("connection refused")
        self.pods.setdefault(port, []).append(pod := Pod())
        return pod

    async def receive(self) -> bytes | None:
        return await self._in.get()

    async def send(self, content: bytes) -> None:
        self.sent.append(content)

    def say(self, *messages: bytes | None) -> None:
        for message in messages:
            self._in.put_nowait(message)

    async def until(self, holds: Callable[[], bool]) -> None:
        for _ in range(1000):
            if holds():
                return
            await asyncio.sleep(0)
        raise AssertionError("it never holds")


def pair(client: Client, first: int, port: int, number: int) -> bytes:
    headers = {"port": str(port), "requestid": str(number)}
    return client.open(first, {"streamtype": "error", **headers}, 1) + client.open(first + 2, {"streamtype": "data", **headers})


@contextlib.asynccontextmanager
async def served(rig: Rig, serving: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    task = asyncio.ensure_future(serving)
    yield
    rig.say(None)
    await asyncio.wait_for(task, 5)


async def test_two_connections_of_one_tunnel_are_kept_apart() -> None:
    rig, client = Rig(), Client()
    async with served(rig, Tunnel(rig, rig.open).serve()):
        rig.say(pair(client, 1, 80, 0), pair(client, 5, 80, 1), data(3, b"one"), data(7, b"two"))
        await rig.until(lambda: [pod.received for pod in rig.pods.get(80, ())] == [b"one", b"two"])
        rig.pods[80][1].says.put_nowait(b"answer")
        await rig.until(lambda: data(7, b"answer") in rig.sent)
        rig.say(data(3, b"", 1))
        await rig.until(lambda: rig.pods[80][0].ended)
        assert not rig.pods[80][0].closed, "the pod may still answer"
        rig.pods[80][0].says.put_nowait(b"")
        await rig.until(lambda: data(3, b"", 1) in rig.sent and data(1, b"", 1) in rig.sent)
        await rig.until(lambda: rig.pods[80][0].closed)
        assert not rig.pods[80][1].closed
    assert rig.pods[80][1].closed, "connections end with their client"


async def test_a_port_that_refuses_is_said_on_the_error_stream() -> None:
    rig = Rig()
    async with served(rig, Tunnel(rig, rig.open).serve()):
        rig.say(pair(Client(), 1, 9, 0))
        await rig.until(lambda: data(1, b"connection refused", 1) in rig.sent)


async def test_pings_are_answered_and_nonsense_ends_the_tunnel() -> None:
    rig = Rig()
    serving = asyncio.ensure_future(Tunnel(rig, rig.open).serve())
    rig.say(control(6, struct.pack(">I", 1)))
    await rig.until(lambda: control(6, struct.pack(">I", 1)) in rig.sent)
    rig.say(control(1, bytes(10), version=2))
    await asyncio.wait_for(serving, 5)
    assert rig.sent[-1][:4] == struct.pack(">HH", 0x8003, spdy.GOAWAY)


async def test_streams_without_a_port_and_too_many_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(portforward, "MAX_CONNECTIONS", 2)
    rig, client = Rig(), Client()
    async with served(rig, Tunnel(rig, rig.open).serve()):
        rig.say(client.open(1, {"streamtype": "data", "port": "http", "requestid": "0"}))
        rig.say(*(pair(client, 3 + 4 * number, 80, number) for number in range(3)))
        refused = [control(3, struct.pack(">II", stream, spdy.REFUSED_STREAM)) for stream in (1, 11, 13)]
        await rig.until(lambda: set(refused) <= set(rig.sent))
        await rig.until(lambda: len(rig.pods.get(80, ())) == 2)


async def test_channels_carry_a_pair_for_each_port() -> None:
    rig = Rig()
    async with served(rig, Channels(rig, rig.open, [80, 9]).serve()):
        await rig.until(lambda: len(rig.sent) >= 5)
        begun = [bytes([channel]) + port.to_bytes(2, "little") for channel, port in ((0, 80), (1, 80), (2, 9), (3, 9))]
        assert [message for message in rig.sent if len(message) == 3] == begun
        await rig.until(lambda: b"\x03connection refused" in rig.sent)
        rig.say(b"\x00hello", b"\x00", b"\x63lost")
        await rig.until(lambda: rig.pods[80][0].received == b"hello")
        rig.pods[80][0].says.put_nowait(b"world")
        await rig.until(lambda: b"\x00world" in rig.sent)
    assert rig.pods[80][0].closed


@pytest.mark.parametrize(
    ("pod", "request_", "why"),
    [
        (POD, Request("GET", "/x"), "needs an upgrade"),
        (POD, Request("GET", "/x", upgrade=True, protocols=("v5.channel.k8s.io",)), "needs an upgrade"),
        (POD, Request("GET", "/x", upgrade=True, protocols=(portforward.CHANNELS[0],)), '"ports" is required'),
        (POD, Request("GET", "/x", {"ports": ["0"]}, upgrade=True, protocols=(portforward.CHANNELS[0],)), "1 to 65535"),
        (
            POD,
            Request("GET", "/x", {"ports": ["80" + "0" * 5000]}, upgrade=True, protocols=(portforward.CHANNELS[0],)),
            "1 to 65535",
        ),
        (
            POD,
            Request("GET", "/x", {"ports": ["00008" + "0" * 5000]}, upgrade=True, protocols=(portforward.CHANNELS[0],)),
            "1 to 65535",
        ),
        (POD, Request("GET", "/x", {"ports": ["80,x"]}, upgrade=True, protocols=(portforward.CHANNELS[0],)), "'x' as a port"),
        (POD, Request("GET", "/x", {"ports": ["1"] * 101}, upgrade=True, protocols=(portforward.CHANNELS[0],)), "at most 100"),
        (
            {**POD, "status": {"phase": "Pending"}},
            Request("GET", "/x", upgrade=True, protocols=(portforward.TUNNEL,)),
            "Current status=Pending",
        ),
    ],
)
def test_what_is_refused_says_why(pod: dict[str, Any], request_: Request, why: str) -> None:
    with pytest.raises(Problem, match=why):
        portforward.forward(pod, object(), request_)  # type: ignore[arg-type]  # it is not asked
