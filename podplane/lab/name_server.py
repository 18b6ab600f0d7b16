"""The lab's name server: one process for all nodes, with sockets that the lab keeps.

The sockets of a node are opened in its namespace, at the cluster IPs of the cluster's DNS and at the bridge's addresses, by which other
nodes reach it. They outlive the process: what is asked while it starts again waits in them and is answered then.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import msgspec

from podplane.dns.node import PORT
from podplane.kernel import interpreter
from podplane.kernel.namespace import Namespace
from podplane.model.config import NAME_SERVER_PORT
from podplane.nameserver import control

log = logging.getLogger(__name__)
MODULE = "podplane.nameserver.program"
FREEBIND = {4: (socket.IPPROTO_IP, 15), 6: (socket.IPPROTO_IPV6, 78)}
"""IP_FREEBIND, IPV6_FREEBIND: bind to an address that is not there yet, or not any more (ip(7))."""
BACKLOG = 128
Answering = Callable[[bool], None]
"""Told whether the server answers."""


def open_sockets(ips: Iterable[str]) -> list[tuple[str, socket.socket]]:
    """Bound sockets of both protocols at these addresses, each with its protocol; to be called in the namespace. OSError when a port is
    taken."""
    found: list[tuple[str, socket.socket]] = []
    for ip in ips:
        version = 6 if ":" in ip else 4
        for protocol, kind in ((control.UDP, socket.SOCK_DGRAM), (control.TCP, socket.SOCK_STREAM)):
            one = socket.socket(socket.AF_INET6 if version == 6 else socket.AF_INET, kind)
            found.append((protocol, one))
            one.setsockopt(*FREEBIND[version], 1)
            if kind == socket.SOCK_STREAM:
                one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            one.bind((ip, PORT))
            if kind == socket.SOCK_STREAM:
                one.listen(BACKLOG)
    return found


def open_reports(ips: Iterable[str]) -> list[tuple[str, socket.socket]]:
    """Listening sockets for HTTP at these addresses of the node; to be called in the namespace. OSError when the port is taken."""
    return [
        (control.HTTP, socket.create_server((ip, NAME_SERVER_PORT), family=socket.AF_INET6 if ":" in ip else socket.AF_INET))
        for ip in ips
    ]


@dataclass(slots=True)
class NameServer:
    """The process, and the sockets that it serves. `answering` is told when it begins to answer, and when it ends."""

    begin: control.Begin
    answering: Answering
    inside: tuple[str, ...] = ()
    """CIDRs of the lab: a server of one of these is reached from the first node, all others from the machine."""
    _first: Namespace | None = None
    _sockets: dict[str, list[tuple[str, socket.socket]]] = field(default_factory=dict)
    _connection: socket.socket | None = None
    _starts: int = 0
    ready: asyncio.Event = field(default_factory=asyncio.Event)

    def add(self, node: str, namespace: Namespace, ips: Iterable[str], node_ips: Iterable[str]) -> None:
        """Serve a node at these addresses, and tell about it at the node's own. OSError when it can't be."""
        self._sockets[node] = [
            *namespace.run(open_reports, tuple(node_ips)),
            *namespace.run(open_sockets, tuple(ips)),
        ]
        if self._connection is not None:
            if self._first is None:
                control.send(self._connection, control.Inside(self.inside), namespace.fd)
            self._hand_over(self._connection, node)
        self._first = self._first or namespace

    async def run(self) -> None:
        """Start the process, and wait for its end."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in (ours, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, control.MESSAGE_BYTES)
        with theirs:
            process = interpreter.start(MODULE, theirs)
        loop = asyncio.get_running_loop()
        try:
            self._connection = ours
            control.send(ours, msgspec.structs.replace(self.begin, restarts=self._starts))
            self._starts += 1
            if self._first is not None:
                control.send(ours, control.Inside(self.inside), self._first.fd)
            for node in self._sockets:
                self._hand_over(ours, node)
            ours.setblocking(False)
            loop.add_reader(ours, self._heard, ours)
            code = await process.exited
        finally:
            loop.remove_reader(ours)
            process.kill()
            self._connection = None
            ours.close()
            self.ready.clear()
            self.answering(False)
        raise RuntimeError(f"the name server ended with exit code {code}")

    def _heard(self, connection: socket.socket) -> None:
        try:
            data = connection.recv(control.MESSAGE_BYTES)
        except BlockingIOError:
            return
        if data:
            self.ready.set()
            self.answering(True)
        else:
            asyncio.get_running_loop().remove_reader(connection)

    def _hand_over(self, connection: socket.socket, node: str) -> None:
        for protocol, one in self._sockets[node]:
            control.send(connection, control.Open(node, protocol), one.fileno())
