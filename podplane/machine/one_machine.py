"""One Node, one machine: an agent says on its Node which machine it is on, and one on another machine finds that there.

    no annotation, or this machine's ──────────────────────────────► this one
    another machine's, and nothing answers at its address ─────────► that is gone: this one takes its place
    another machine's, and an agent answers there ─────────────────► two with one name: the one that comes later changes nothing

Kubelets of both write the Node by turns, so its own addresses say nothing. A machine is known by its boot and its network namespace:
machines that are copies of each other have the same machine-id, and nodes of a lab, or of kind, are on one kernel.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated

import msgspec

from podplane.kubeapi.cache import Cache
from podplane.kubeapi.client import Client
from podplane.kubeapi.errors import ApiError
from podplane.model.config import AGENT_PORT, MACHINE
from podplane.model.objects import Node
from podplane.servers.http import SERVER
from podplane.state.network import Address
from podplane.state.value import Value, address_of

log = logging.getLogger(__name__)
BOOT = Path("/proc/sys/kernel/random/boot_id")
NAMESPACE = "/proc/thread-self/ns/net"
ANSWER_SECONDS, LOOK_SECONDS = 2.0, 60.0
"""As long as an answer is waited for; between two looks while another machine has the Node."""
QUESTION = b"GET /livez HTTP/1.0\r\n\r\n"
HEAD_BYTES = 8 * 1024
"""Of an answer as much is read at most until its header ends."""


class Machine(msgspec.Struct, frozen=True):
    """Who has a Node: `id` tells machines apart, `ip` and `port` are where the agent answers, `host` is the host name."""

    id: str
    ip: str
    host: str
    port: Annotated[int, msgspec.Meta(ge=1, le=65535)] = AGENT_PORT

    def __str__(self) -> str:
        return f"{self.host} ({self.ip}, {self.id})"


def own_id(boot: Path = BOOT, namespace: str = NAMESPACE) -> str:
    """The same as long as this boot and this network namespace last."""
    found = os.stat(namespace)
    text = f"{boot.read_text().strip()} {found.st_dev} {found.st_ino}"
    return hashlib.blake2s(text.encode(), digest_size=6).hexdigest()


def machine_of(node: Node) -> Machine | None:
    """The machine that a Node's annotation names; None without one that makes sense."""
    try:
        found = msgspec.json.decode(node.metadata.annotations.get(MACHINE, ""), type=Machine)
        ip = address_of(found.ip)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    return None if ip.is_loopback or ip.is_unspecified or ip.is_multicast else found


async def answers(ip: str, port: int, seconds: float = ANSWER_SECONDS) -> bool:
    """Does an agent of podplane answer there? Other programs answer by HTTP, too: an API server at its port, say."""
    writer = None
    with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        async with asyncio.timeout(seconds):
            reader, writer = await asyncio.open_connection(ip, port, limit=HEAD_BYTES)
            writer.write(QUESTION)
            head = await reader.readuntil(b"\r\n\r\n")
            writer.close()
            return _is_podplanes(head)
    if writer is not None:
        writer.close()
    return False


def _is_podplanes(head: bytes) -> bool:
    """Does the header of an answer say that podplane sends it?"""
    status, *lines = head.split(b"\r\n")
    said = (line.partition(b":") for line in lines)
    servers = [value.strip() for name, _, value in said if name.lower() == b"server"]
    return status.startswith(b"HTTP/1.") and servers == [SERVER.encode()]


class OneMachine:
    """Of the Node with this name; its methods run on one event loop. `is_there`: does an agent answer at this address and port? `port`
    is this one's."""

    def __init__(
        self,
        client: Client,
        nodes: Mapping[str, Node],
        node_name: str,
        own: str,
        is_there: Callable[[str, int], Awaitable[bool]] = answers,
        host: str = "",
        port: int = AGENT_PORT,
    ) -> None:
        self._client, self._nodes, self._node_name = client, nodes, node_name
        self._own, self._host = own, host or socket.gethostname()
        self._is_there, self._port = is_there, port
        self.found = ""
        """That another machine has the Node, while this one's agent runs; "" when none has."""

    async def problem(self, node: Node, values: Iterable[Value]) -> str:
        """That another machine has this Node, with both; "" when none has. `values` are this machine's addresses, among others."""
        said = machine_of(node)
        own = [
            str(one.ip) for one in values if isinstance(one, Address) and not one.ip.is_loopback and not one.ip.is_link_local
        ]
        if said is None or said.id == self._own or said.ip in own or self._is_of_others(said.ip):
            return ""
        if not await self._is_there(said.ip, said.port):
            return ""
        this = Machine(self._own, own[0] if own else "no address", self._host)
        return (
            f"two machines are the Node {self._node_name}: {said}, whose agent answers, and {this}: give the latter's kubelet and agent "
            "another name (--hostname-override, --node-name), or stop the former"
        )

    def _is_of_others(self, ip: str) -> bool:
        """Has another Node this address by now?"""
        return any(ip in node.internal_ips for name, node in self._nodes.items() if name != self._node_name)

    async def keep(self, nodes: Cache[Node], values: Callable[[], Iterable[Value]], tell: Callable[[str], None]) -> None:
        """Say on the Node that it is this machine, again whenever that is not there any more, until cancelled; `tell` that another one has
        come meanwhile."""
        changed = asyncio.Event()
        changed.set()
        nodes.subscribe(lambda old, new: changed.set() if (new or old).metadata.name == self._node_name else None)  # type: ignore[union-attr]  # one is there
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS if self.found else None):
                    await changed.wait()
            changed.clear()
            node = self._nodes.get(self._node_name)
            if node is not None and node.internal_ips and machine_of(node) != self._this(node):
                await self._claim(node, await asyncio.to_thread(lambda: list(values())), tell)

    def _this(self, node: Node) -> Machine:
        return Machine(self._own, node.internal_ips[0], self._host, self._port)

    async def _claim(self, node: Node, values: Iterable[Value], tell: Callable[[str], None]) -> None:
        self.found = await self.problem(node, values)
        if self.found:
            log.warning("%s", self.found)
            tell(self.found)
            return
        body = {"metadata": {"annotations": {MACHINE: msgspec.json.encode(self._this(node)).decode()}}}
        with contextlib.suppress(ApiError):  # the API is away: the Node comes again with it
            await self._client.patch("nodes", "", node.metadata.name, body, uid=node.metadata.uid)
