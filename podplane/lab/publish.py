"""Services on the host's localhost: `podplane publish 8080:svc/web:80`.

The wish is an annotation of the Service (`8080:80`, several by comma), so it comes back with the lab. Each connection to the host's
127.0.0.1 goes on from a node to the Service's cluster IP, as any client's in the cluster would; its bytes pass through this process.
The answer is an annotation too: what is published, and why something isn't.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from podplane.kernel.namespace import Namespace
from podplane.kubeapi.client import Client
from podplane.kubeapi.errors import ApiError
from podplane.model.config import PUBLISH, PUBLISHED
from podplane.model.service import Service
from podplane.runtime.dial import DialError, dial

log = logging.getLogger(__name__)
LOCALHOST = "127.0.0.1"
CHUNK_BYTES = 64 * 1024
Place = tuple[str, int, int]
"""The path of a Service, the host's port, the Service's port."""


@dataclass(slots=True, eq=False)
class Publisher:
    """All that is published; its methods run on one event loop. `origin` is where connections come from."""

    client: Client
    origin: Callable[[], Namespace]
    services: Mapping[str, Service]
    _servers: dict[Place, asyncio.Server] = field(default_factory=dict)
    _wake: asyncio.Event = field(default_factory=asyncio.Event)

    def service_changed(self, old: Service | None, new: Service | None) -> None:
        """A Service came, changed or went."""
        if any(service is not None and _is_concerned(service) for service in (old, new)):
            self._wake.set()

    async def run(self) -> None:
        """Publish what is wished until cancelled."""
        while True:
            self._wake.clear()
            await self._see_to_all()
            await self._wake.wait()

    async def _see_to_all(self) -> None:
        concerned = {path: service for path, service in self.services.items() if _is_concerned(service)}
        places = {(path, *ports) for path, service in concerned.items() for ports in _wishes(service)}
        for place in self._servers.keys() - places:
            self._servers.pop(place).close()
        for path, service in concerned.items():
            problems = [await self._listen((path, *ports)) for ports in _wishes(service)]
            answer = "; ".join(filter(None, problems)) or service.metadata.annotations.get(PUBLISH, "")
            if service.metadata.annotations.get(PUBLISHED, "") != answer:
                await self._tell(service, answer)

    async def _listen(self, place: Place) -> str:
        """Be there for connections; what is wrong, if something is."""
        if place in self._servers:
            return ""
        try:
            listener = socket.create_server((LOCALHOST, place[1]))
        except (OSError, OverflowError) as error:
            number = error.errno if isinstance(error, OSError) else None
            why = os.strerror(number) if number else "a port is a number from 1 to 65535"
            return f"port {place[1]} of the host can't be had: {why}"
        self._servers[place] = await asyncio.start_server(lambda r, w: self._serve(place, r, w), sock=listener)
        return ""

    async def _tell(self, service: Service, answer: str) -> None:
        metadata = service.metadata
        body = {"metadata": {"annotations": {PUBLISHED: answer or None}}}
        try:
            await self.client.patch("services", metadata.namespace, metadata.name, body, uid=metadata.uid)
        except ApiError as error:
            log.warning("publish service=%s error=%s", metadata.path, error)

    async def _serve(self, place: Place, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one connection to the Service and back; of one that can't be reached, nothing comes."""
        service = self.services.get(place[0])
        with contextlib.closing(writer):
            try:
                address = service.spec.cluster_ip if service is not None else ""
                there = await asyncio.open_connection(sock=await dial(self.origin(), address, place[2]))
            except DialError as error:
                log.info("publish service=%s error=%s", place[0], error)
                writer.transport.abort()
                return
            with contextlib.closing(there[1]):
                await asyncio.gather(_copy(reader, there[1]), _copy(there[0], writer))


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


def _wishes(service: Service) -> Iterator[tuple[int, int]]:
    """(the host's port, the Service's port) of each wish that can be read."""
    for part in service.metadata.annotations.get(PUBLISH, "").split(","):
        host, _, port = part.strip().partition(":")
        if host.isdecimal() and port.isdecimal():
            yield int(host), int(port)
