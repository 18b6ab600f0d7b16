"""An API server on a real socket of 127.0.0.1, and commands in containers that do as the test says."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import datetime
import functools
import http.client
import ipaddress
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from podplane.apiserver.asgi import serve
from podplane.kubeapi.access import Access
from podplane.kubeapi.channels import STDOUT
from podplane.kubeapi.exec import ExecSession
from podplane.kubeapi.http import HttpClient
from podplane.kubeapi.messages import Handler
from podplane.kubeapi.requests import execute
from podplane.kubeapi.streams import ExecRequest, StreamError
from podplane.lab.certificates import Certificates, prepare
from tests.unit.apiserver.test_server import Api


@dataclass(eq=False)
class FakeExecution:
    """A command: what it writes, how it ends, and what was done to it. `echo` writes its input back, until it is closed."""

    said: list[tuple[int, bytes]] = field(default_factory=list)
    code: int = 0
    error: str = ""
    echo: bool = False
    lasts: bool = False
    input: bytearray = field(default_factory=bytearray)
    sizes: list[tuple[int, int]] = field(default_factory=list)
    abandoned: asyncio.Event = field(default_factory=asyncio.Event)
    input_closed: bool = False
    wake: asyncio.Event = field(default_factory=asyncio.Event)

    async def output(self) -> AsyncIterator[tuple[int, bytes]]:
        for channel, data in self.said:
            yield channel, data
        sent = 0
        while self.echo and not (self.input_closed and sent == len(self.input)):
            await self.wake.wait()
            self.wake.clear()
            data, sent = bytes(self.input[sent:]), len(self.input)
            if data:
                yield STDOUT, data
        if self.lasts:
            await asyncio.sleep(3600)

    async def write(self, data: bytes) -> None:
        self.input += data
        self.wake.set()

    def close_input(self) -> None:
        self.input_closed = True
        self.wake.set()

    def resize(self, columns: int, rows: int) -> None:
        self.sizes.append((columns, rows))

    async def outcome(self) -> tuple[int, str]:
        return self.code, self.error

    def abandon(self) -> None:
        self.abandoned.set()


@dataclass
class FakeStreams:
    """`NodeStreams` that starts the next of `executions`, or refuses when there is none."""

    executions: list[FakeExecution] = field(default_factory=list)
    asked: list[ExecRequest] = field(default_factory=list)

    def check(self, request: ExecRequest) -> None:
        if not self.executions:
            raise StreamError(f"container {request.container} is not valid for pod {request.pod}")

    def execute(self, request: ExecRequest) -> FakeExecution:
        self.asked.append(request)
        self.check(request)
        return self.executions.pop(0)


@dataclass
class Live:
    """An API server that is served; blocking clients of it run in threads."""

    api: Api
    port: int
    streams: FakeStreams

    def access(self, token: str = "secret") -> Access:
        """The way to it."""
        return access_to(self.port, token)

    async def call(self, use: Callable[[HttpClient], Any], token: str = "secret") -> Any:
        """Use a client in a thread."""
        client = HttpClient(self.access(token))
        try:
            return await asyncio.to_thread(use, client)
        finally:
            client.close()

    async def exec(self, execution: FakeExecution, talk: Callable[[ExecSession], Any], *command: str, **options: Any) -> Any:
        """Run a command in the pod `web`, and talk with it in a thread."""
        self.streams.executions.append(execution)
        request = execute("secret", "default", "web", command or ("cat",), **options)

        def converse() -> Any:
            session = ExecSession(self.access(), request)
            try:
                return talk(session)
            finally:
                session.close()

        return await asyncio.to_thread(converse)


def access_to(port: int, token: str = "secret") -> Access:
    """The way to a server of this process."""
    return Access("127.0.0.1", port, token, certificates().authority)


def connection(port: int) -> http.client.HTTPSConnection:
    """A plain HTTPS connection to a server of this process."""
    return http.client.HTTPSConnection("127.0.0.1", port, timeout=5, context=access_to(port).context())


@functools.cache
def certificates() -> Certificates:
    """A certificate for 127.0.0.1, made once."""
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return prepare(folder, ["localhost"], [ipaddress.ip_address("127.0.0.1")], datetime.datetime.now(datetime.UTC))


@contextlib.asynccontextmanager
async def served(handler: Handler) -> AsyncIterator[int]:
    """The port at which this handler is served."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        task = asyncio.ensure_future(serve(handler, [listener], certificates().certificate, certificates().key))
        try:
            yield port
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


@contextlib.asynccontextmanager
async def live() -> AsyncIterator[Live]:
    """A whole API server with the pod `default/web` on a node."""
    api, streams = Api(), FakeStreams()
    api.server.streams = streams
    await api.node("n1")
    await api.pod("web")
    async with served(api.server.handle) as port:
        yield Live(api, port, streams)
