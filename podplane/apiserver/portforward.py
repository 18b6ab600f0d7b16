"""`pods/portforward`: connections to ports of a pod, over either of the two protocols that clients speak.

    SPDY/3.1+portforward.k8s.io   SPDY in the messages of a WebSocket: a pair of streams (error, data) for each connection (kubectl)
    v4.channel.k8s.io             a pair of channels (data, error) for each port of the query, one connection each (Python clients);
                                  in base64, and without a sub-protocol, too

Sources: KEP-4006; k8s.io/client-go, tools/portforward; k8s.io/kubelet, cri/streaming/portforward (websocket.go).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import msgspec

from podplane.apiserver import websockets
from podplane.apiserver.decoding import MAX_DIGITS
from podplane.apiserver.problems import Problem
from podplane.apiserver.together import until_one_ends
from podplane.kubeapi import spdy
from podplane.kubeapi.messages import Messages, Request, Upgrade
from podplane.kubeapi.streams import Connection, NodeStreams, StreamError

TUNNEL = "SPDY/3.1+portforward.k8s.io"
CHANNELS = ("v4.channel.k8s.io", "v4.base64.channel.k8s.io", "")
MAX_PORTS = 100
MAX_CONNECTIONS = 1000
"""Of one client at one time."""

Open = Callable[[int], Awaitable[Connection]]


def forward(pod: dict[str, Any], streams: NodeStreams | None, request: Request) -> Upgrade:
    """Connections into a pod. Problem when that can't be."""
    protocol = websockets.choose(request, CHANNELS, TUNNEL)
    if not request.upgrade or protocol is None:
        offered = f"one of the sub-protocols {', '.join((TUNNEL, *filter(None, CHANNELS)))}"
        raise Problem("BadRequest", f"port forwarding needs an upgrade to a WebSocket of {offered}")
    if streams is None:
        raise Problem("ServiceUnavailable", "this API server reaches no node")
    if pod.get("status", {}).get("phase") != "Running":
        state = pod.get("status", {}).get("phase")
        raise Problem("BadRequest", f"unable to forward port because pod is not running. Current status={state}")
    nodes, namespace, name = streams, pod["metadata"]["namespace"], pod["metadata"]["name"]

    async def open_port(port: int) -> Connection:
        try:
            return await nodes.connect(namespace, name, port)
        except StreamError as error:
            raise StreamError(f"error forwarding port {port} to pod {name}, uid {pod['metadata']['uid']}: {error}") from None

    if protocol == TUNNEL:
        return Upgrade(protocol, lambda messages: Tunnel(messages, open_port).serve())
    ports = _ports(request)
    return websockets.upgraded(protocol, lambda messages: Channels(messages, open_port, ports).serve())


def _ports(request: Request) -> list[int]:
    texts = [text for value in request.query.get("ports", ()) for text in value.split(",")]
    if not texts:
        raise Problem("BadRequest", 'query parameter "ports" is required')
    if len(texts) > MAX_PORTS:
        raise Problem("BadRequest", f"{len(texts)} ports: at most {MAX_PORTS} can be forwarded by one request")
    for text in texts:
        if not (text.isascii() and text.isdecimal() and len(text) <= MAX_DIGITS) or not 0 < int(text) < 1 << 16:
            raise Problem("BadRequest", f"unable to parse {text!r} as a port: it is a number from 1 to 65535")
    return [int(text) for text in texts]


class Tasks:
    """Tasks of one client: all of them end with it."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def add(self, work: Coroutine[Any, Any, None]) -> None:
        """Run it until it ends, or the client does."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def end(self) -> None:
        """Cancel all and wait for them."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


class _Pair(msgspec.Struct, eq=False):
    """The streams of one forwarded connection, by SPDY's numbers, and what came for it before it stood."""

    error: int = 0
    data: int = 0
    port: int = 0
    input: asyncio.Queue[bytes] = msgspec.field(default_factory=lambda: asyncio.Queue(16))
    begun: bool = False


class Tunnel:
    """SPDY in a WebSocket."""

    def __init__(self, messages: Messages, open_port: Open) -> None:
        self._messages, self._open = messages, open_port
        self._spdy = spdy.Server()
        self._pairs: dict[str, _Pair] = {}
        self._by_stream: dict[int, _Pair] = {}
        self._tasks = Tasks()

    async def serve(self) -> None:
        """Serve until the client leaves."""
        try:
            while (message := await self._messages.receive()) is not None:
                for event in self._spdy.receive(message):
                    if not await self._handle(event):
                        return
        finally:
            await self._tasks.end()

    async def _handle(self, event: spdy.Event) -> bool:
        """Do what an event asks for; False when it was the last."""
        match event:
            case spdy.Opened(stream, headers, _):
                await self._opened(stream, headers)
            case spdy.Data(stream, data, end):
                await self._received(stream, data, end)
            case spdy.Reset(stream, _):
                await self._received(stream, b"", True)
            case spdy.Pinged(number):
                await self._messages.send(self._spdy.pong(number))
            case spdy.Broken(_):
                await self._messages.send(self._spdy.go_away(spdy.PROTOCOL_ERROR))
                return False
        return True

    async def _opened(self, stream: int, headers: Any) -> None:
        kind, port = headers.get("streamtype", ""), headers.get("port", "")
        key = headers.get("requestid", "")
        is_too_many = key not in self._pairs and len(self._pairs) >= MAX_CONNECTIONS
        if kind not in ("error", "data") or not port.isdecimal() or len(port) > 5 or is_too_many:
            await self._messages.send(self._spdy.reset(stream, spdy.REFUSED_STREAM))
            return
        pair = self._pairs.setdefault(key, _Pair())
        pair.port = int(port)
        setattr(pair, kind, stream)
        self._by_stream[stream] = pair
        await self._messages.send(self._spdy.reply(stream))
        if pair.error and pair.data and not pair.begun:
            pair.begun = True
            self._tasks.add(self._carry(key, pair))

    async def _received(self, stream: int, data: bytes, end: bool) -> None:
        pair = self._by_stream.get(stream)
        if pair is None or stream != pair.data:
            return
        if data:
            await pair.input.put(data)
        if end:
            await pair.input.put(b"")

    async def _carry(self, key: str, pair: _Pair) -> None:
        """One connection from its beginning to its end."""
        try:
            connection = await self._open(pair.port)
        except StreamError as error:
            await self._messages.send(self._spdy.data(pair.error, str(error).encode(), end=True))
            await self._messages.send(self._spdy.data(pair.data, b"", end=True))
            self._forget(key, pair)
            return
        writer = asyncio.ensure_future(_write(connection, pair.input))
        try:
            while data := await connection.read():
                await self._messages.send(self._spdy.data(pair.data, data))
            await self._messages.send(self._spdy.data(pair.data, b"", end=True))
            await self._messages.send(self._spdy.data(pair.error, b"", end=True))
        finally:
            writer.cancel()
            await asyncio.gather(writer, return_exceptions=True)
            connection.close()
            self._forget(key, pair)

    def _forget(self, key: str, pair: _Pair) -> None:
        self._pairs.pop(key, None)
        self._by_stream.pop(pair.error, None)
        self._by_stream.pop(pair.data, None)
        while not pair.input.empty():  # whoever waits to put more may go on
            pair.input.get_nowait()


async def _write(connection: Connection, source: asyncio.Queue[bytes]) -> None:
    while data := await source.get():
        await connection.write(data)
    connection.end_writing()


class Channels:
    """A pair of channels for each port."""

    def __init__(self, messages: Messages, open_port: Open, ports: list[int]) -> None:
        self._messages, self._open, self._ports = messages, open_port, ports
        self._inputs: list[asyncio.Queue[bytes]] = [asyncio.Queue(16) for _ in ports]

    async def serve(self) -> None:
        """Serve until the client leaves, or all connections have ended: that is how it learns of their ends."""
        for number, port in enumerate(self._ports):
            for channel in (2 * number, 2 * number + 1):
                await self._messages.send(bytes([channel]) + port.to_bytes(2, "little"))
        await until_one_ends(
            self._read(), asyncio.gather(*(self._carry(number, port) for number, port in enumerate(self._ports)))
        )

    async def _read(self) -> None:
        while (message := await self._messages.receive()) is not None:
            if message and message[0] % 2 == 0 and message[0] // 2 < len(self._ports) and len(message) > 1:
                await self._inputs[message[0] // 2].put(message[1:])

    async def _carry(self, number: int, port: int) -> None:
        try:
            connection = await self._open(port)
        except StreamError as error:
            await self._messages.send(bytes([2 * number + 1]) + str(error).encode())
            return
        writer = asyncio.ensure_future(_write(connection, self._inputs[number]))
        try:
            while data := await connection.read():
                await self._messages.send(bytes([2 * number]) + data)
        finally:
            writer.cancel()
            await asyncio.gather(writer, return_exceptions=True)
            connection.close()
