"""The name server's process: it begins with the orders of who started it (`control`), and ends when that one is gone."""

from __future__ import annotations

import asyncio
import functools
import gc
import logging
import os
import socket
from collections import defaultdict

from podplane.dns.cluster import ClusterZone
from podplane.dns.message import name_of
from podplane.kubeapi.access import Access
from podplane.kubeapi.client import Client
from podplane.kubeapi.supervise import Supervisor
from podplane.kubeapi.transport import HttpTransport
from podplane.nameserver import control
from podplane.nameserver.answers import Answers
from podplane.nameserver.objects import Objects
from podplane.nameserver.resolver import Resolver
from podplane.nameserver.zones import Zones
from podplane.servers.dns import TcpServer, UdpServer

log = logging.getLogger(__name__)


def main(fd: int) -> None:
    """Serve by the orders that come over this socket, until its other end is closed."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    connection = socket.socket(fileno=fd)
    connection.set_inheritable(False)
    asyncio.run(_run(connection))


async def _run(connection: socket.socket) -> None:
    begin, _ = control.receive(connection)
    if not isinstance(begin, control.Begin):
        return
    server = NameServer(begin, connection)
    await server.start()
    gc.freeze()
    await server.run()


class NameServer:
    """All sockets, and what answers them."""

    def __init__(self, begin: control.Begin, connection: socket.socket) -> None:
        self._connection = connection
        access = Access(begin.api_host, begin.api_port, begin.api_token, begin.api_ca)
        self._objects = Objects(Client(HttpTransport(access), begin.api_token))
        zones = Zones([ClusterZone(name_of(begin.domain), self._objects.directory)])
        self._answers = Answers(Resolver([zones]), begin.networks)
        self._servers: dict[str, list[UdpServer | TcpServer]] = defaultdict(list)
        self._supervisor = Supervisor()
        self._listening: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Have the cluster's objects."""
        self._objects.subscribe(self._answers.changed)
        await self._objects.sync()
        for name, work in self._objects.watches.items():
            self._supervisor.add(name, work)

    async def run(self) -> None:
        """Follow orders, and serve."""
        self._connection.setblocking(False)
        asyncio.get_running_loop().add_reader(self._connection, self._take_orders)
        self._take_orders()
        control.send(self._connection, control.Ready())
        await self._supervisor.run()

    def _take_orders(self) -> None:
        while True:
            try:
                order, fds = control.receive(self._connection)
            except BlockingIOError:
                return
            if order is None:
                os._exit(0)  # who started it is gone, and the sockets with it
            self._follow(order, fds)

    def _follow(self, order: control.Order, fds: list[int]) -> None:
        if isinstance(order, control.Close):
            for server in self._servers.pop(order.node, ()):
                server.close()
        elif isinstance(order, control.Open):
            self._open(order, socket.socket(fileno=fds[0]))

    def _open(self, order: control.Open, bound: socket.socket) -> None:
        if order.protocol == control.UDP:
            self._servers[order.node].append(UdpServer(bound, self._answers.respond))
            return
        server = TcpServer(functools.partial(self._answers.respond, tcp=True))
        self._servers[order.node].append(server)
        task = asyncio.get_running_loop().create_task(server.listen(bound))
        self._listening.add(task)
        task.add_done_callback(self._listening.discard)
