"""Services on the host's localhost: `podplane publish 8080:svc/web:80`.

The requested ports are an annotation of the Service (`8080:80`, several by comma), so they come back with the lab. Each connection to
the host's 127.0.0.1 goes on from a node to the cluster IP of the Service, like that of any client in the cluster; its bytes pass through
this process. The result is an annotation too: the same text when that is published, else the text, NOT and why: so who asks can tell the
answer to this wish from the one to the wish before.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Callable, Iterator, Mapping

import msgspec

from podplane.kernel.namespace import Namespace
from podplane.kubeapi.client import Client
from podplane.kubeapi.errors import ApiError
from podplane.model.config import NOT_PUBLISHED as NOT
from podplane.model.config import PUBLISH, PUBLISHED
from podplane.model.service import Service
from podplane.runtime.dial import DialError, dial

log = logging.getLogger(__name__)
LOCALHOST = "127.0.0.1"
CHUNK_BYTES = 64 * 1024
Place = tuple[str, int, int]
"""The path of a Service, the host's port, the Service's port."""


class Publisher(msgspec.Struct, eq=False):
    """All that is published; its methods run on one event loop. `origin` is where connections come from."""

    client: Client
    origin: Callable[[], Namespace]
    services: Mapping[str, Service]
    _servers: dict[Place, asyncio.Server] = msgspec.field(default_factory=dict)
    _wake: asyncio.Event = msgspec.field(default_factory=asyncio.Event)

    def service_changed(self, old: Service | None, new: Service | None) -> None:
        """A Service came, changed or went."""
        if any(service is not None and _is_concerned(service) for service in (old, new)):
            self._wake.set()

    async def run(self) -> None:
        """Publish the requested ports until cancelled."""
        while True:
            self._wake.clear()
            await self._sync()
            await self._wake.wait()

    async def _sync(self) -> None:
        concerned = {path: service for path, service in self.services.items() if _is_concerned(service)}
        places = {(path, *ports) for path, service in concerned.items() for ports in _requested_ports(service)}
        for place in self._servers.keys() - places:
            self._servers.pop(place).close()
        for path, service in concerned.items():
            problems = [await self._listen((path, *ports)) for ports in _requested_ports(service)]
            wish, problem = service.metadata.annotations.get(PUBLISH, ""), "; ".join(filter(None, problems))
            answer = f"{wish}{NOT}{problem}" if problem else wish
            if service.metadata.annotations.get(PUBLISHED, "") != answer:
                await self._write_result(service, answer)

    async def _listen(self, place: Place) -> str:
        """Listen on the host's port; why that is not possible, or ""."""
        if place in self._servers:
            return ""
        try:
            listener = socket.create_server((LOCALHOST, place[1]))
        except (OSError, OverflowError) as error:
            number = error.errno if isinstance(error, OSError) else None
            why = os.strerror(number) if number else "a port is a number from 1 to 65535"
            return f"port {place[1]} of the host is not available: {why}"
        self._servers[place] = await asyncio.start_server(lambda r, w: self._serve(place, r, w), sock=listener)
        return ""

    async def _write_result(self, service: Service, answer: str) -> None:
        metadata = service.metadata
        body = {"metadata": {"annotations": {PUBLISHED: answer or None}}}
        try:
            await self.client.patch("services", metadata.namespace, metadata.name, body, uid=metadata.uid)
        except ApiError as error:
            log.warning("publish service=%s error=%s", metadata.path, error)

    async def _serve(self, place: Place, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Copy the bytes of one connection in both directions; without the Service, the connection is reset."""
        service = self.services.get(place[0])
        with contextlib.closing(writer):
            try:
                address = service.spec.cluster_ip if service is not None else ""
                upstream = await asyncio.open_connection(sock=await dial(self.origin(), address, place[2]))
            except DialError as error:
                log.info("publish service=%s error=%s", place[0], error)
                writer.transport.abort()
                return
            with contextlib.closing(upstream[1]):
                await asyncio.gather(_copy(reader, upstream[1]), _copy(upstream[0], writer))


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    """All bytes until the end; a connection that breaks ends both ways."""
    try:
        while data := await source.read(CHUNK_BYTES):
            target.write(data)
            await target.drain()
        if target.can_write_eof():
            target.write_eof()
    except OSError:
        target.transport.abort()


def _is_concerned(service: Service) -> bool:
    return not service.metadata.annotations.keys().isdisjoint((PUBLISH, PUBLISHED))


def _requested_ports(service: Service) -> Iterator[tuple[int, int]]:
    """(the host's port, the Service's port) of each entry of the annotation that can be parsed."""
    for part in service.metadata.annotations.get(PUBLISH, "").split(","):
        host, _, port = part.strip().partition(":")
        if host.isdecimal() and port.isdecimal():
            yield int(host), int(port)
