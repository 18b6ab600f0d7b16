"""A node's network that attaches nothing, and a server of it."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Collection
from pathlib import Path
from typing import Any

import msgspec

from podplane.cni.network import Attached, Attachment, NetworkError, Unready
from podplane.cni.server import Server
from podplane.kernel.namespace import CurrentNamespace, Workers

Id = tuple[str, str]


class FakeNetwork:
    """`NodeNetwork`: who is attached, and all that was asked."""

    def __init__(self) -> None:
        self.attached: dict[Id, Attachment] = {}
        self.asked: list[tuple[Any, ...]] = []
        self.error: Exception | None = None
        self.beginning: Exception | None = None
        """Why it is not known what is attached."""
        self.reason: Unready | None = None
        self.gate = asyncio.Event()
        """While it is not set, an ADD waits."""
        self.gate.set()

    async def begun(self) -> None:
        """At once, unless there is an error."""
        if self.beginning is not None:
            raise self.beginning

    async def add(self, request: Attachment) -> Attached:
        self.asked.append(("add", request))
        os.fstat(request.netns.fd)
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        self.attached[request.id] = request
        return self._described(request)

    async def delete(self, request: Attachment) -> None:
        self.asked.append(("delete", request.id))
        self.attached.pop(request.id, None)

    async def check(self, request: Attachment) -> None:
        self.asked.append(("check", request.id, request.mtu))
        if self.error is not None:
            raise self.error

    async def gc(self, keep: Collection[Attachment]) -> None:
        self.asked.append(("gc", {one.id for one in keep}))
        kept = {one.id for one in keep}
        self.attached = {id_: one for id_, one in self.attached.items() if id_ in kept}

    def find(self, id_: Id) -> Attached | None:
        found = self.attached.get(id_)
        return None if found is None else self._described(found)

    def attachments(self) -> Collection[Attachment]:
        return list(self.attached.values())

    def unready(self) -> Unready | None:
        return self.reason

    def _described(self, request: Attachment) -> Attached:
        number = int(request.container_id.strip("c")) if request.container_id.strip("c").isdecimal() else 9
        ips = (f"10.244.1.{number}", f"fd00:10:244:1::{number}")
        return Attached(ips, request.ifname, "0a:58:0a:f4:01:02", ("10.244.1.1", "fd00:10:244:1::1"), True, "pp1", 1500)


@contextlib.asynccontextmanager
async def serving(path: Path, network: FakeNetwork, user: int | None = None) -> AsyncIterator[Server]:
    """A server of it; the node's namespace is this process's."""
    node, workers = CurrentNamespace(), Workers(1)
    server = Server(network, node, workers, user=os.getuid() if user is None else user)
    server.start(path)
    try:
        yield server
    finally:
        await server.close()
        workers.close()
        node.close()


def refused() -> NetworkError:
    return NetworkError("pod default/web: the kernel refused it")


def configuration(version: str = "1.1.0", **fields: Any) -> bytes:
    """A plugin's configuration as a runtime sends it."""
    return msgspec.json.encode({"cniVersion": version, "name": "podplane", "type": "podplane-cni"} | fields)
