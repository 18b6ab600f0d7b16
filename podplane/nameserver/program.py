"""The name server: a process, or a thread of an agent's. It begins with the orders of who started it (`control`), and ends when that one
is gone."""

from __future__ import annotations

import asyncio
import datetime
import importlib
import logging
import os
import socket
import time
from collections import defaultdict
from collections.abc import Callable, Coroutine
from functools import partial

from podplane import __version__, pauses
from podplane.dns import search_path
from podplane.dns.config import Config
from podplane.dns.directory import POD_IP
from podplane.dns.message import name_of, text_of
from podplane.dns.resolv_conf import NodeDns
from podplane.event_loop import EventLoop
from podplane.kubeapi.authorization import Authorizer
from podplane.kubeapi.client import Client
from podplane.kubeapi.errors import ApiError
from podplane.kubeapi.events import Recorder
from podplane.kubeapi.retry import Backoff
from podplane.kubeapi.supervise import Supervisor
from podplane.kubeapi.transport import HttpTransport
from podplane.nameserver import control, query_log
from podplane.nameserver.answers import Answers
from podplane.nameserver.api_access import ApiAccess
from podplane.nameserver.clients import Clients
from podplane.nameserver.configuration import Configuration
from podplane.nameserver.explanation import Explainer
from podplane.nameserver.forwarder import Forwarder
from podplane.nameserver.machine import Machine
from podplane.nameserver.metrics import Counted
from podplane.nameserver.objects import Objects
from podplane.nameserver.openers import HostOpener
from podplane.nameserver.query_log import QueryLog
from podplane.nameserver.randomness import Randomness
from podplane.nameserver.rates import Rates
from podplane.nameserver.reports import Reports
from podplane.nameserver.sockets import Sockets
from podplane.nameserver.sources import Sources
from podplane.nameserver.state import State
from podplane.nameserver.upstream import Means
from podplane.nameserver.upstream_status import upstreams
from podplane.servers.dns import UdpServer
from podplane.servers.dns_counts import Counts
from podplane.servers.dns_tcp import TcpServer
from podplane.servers.http import HttpServer

log = logging.getLogger(__name__)
COMPONENT = "podplane-dns"


def main(fd: int) -> None:
    """A process that serves by the orders that come over this socket, until its other end is closed."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    importlib.import_module(
        "podplane.kubeapi.connections"
    )  # by which the API is asked: now, while who started this is not ready either
    serve(fd, pauses.shorten, lambda: os._exit(0))  # who started it is gone, and the sockets with it


def serve(fd: int, begun: Callable[[], None] = lambda: None, gone: Callable[[], None] = lambda: None) -> None:
    """The same in a thread of any process. Calls `begun` when the cluster's objects are there, and `gone` when the other end is closed,
    before it lets go of what it has."""
    logging.getLogger(query_log.__name__).setLevel(logging.INFO)
    connection = socket.socket(fileno=fd)
    connection.set_inheritable(False)
    with connection, asyncio.Runner(loop_factory=EventLoop) as runner:
        runner.run(_run(connection, begun, gone))


async def _run(connection: socket.socket, begun: Callable[[], None], told: Callable[[], None]) -> None:
    begin, _ = control.receive(connection)
    if not isinstance(begin, control.Begin):
        return
    server = NameServer(begin, connection)
    serving = asyncio.ensure_future(_serve(server, begun))
    gone = asyncio.ensure_future(server.gone.wait())
    try:
        await asyncio.wait((serving, gone), return_when=asyncio.FIRST_COMPLETED)
        if serving.done():
            await serving  # it failed
        told()
    finally:
        for task in (serving, gone):
            task.cancel()
        await server.close()


async def _serve(server: NameServer, begun: Callable[[], None]) -> None:
    await server.start()
    begun()
    await server.run()


class NameServer:
    """All sockets, and what answers them."""

    def __init__(self, begin: control.Begin, connection: socket.socket) -> None:
        self._connection = connection
        self._api = ApiAccess(partial(HttpTransport, begin.access), self._begin)
        self._client = Client(self._api, "")
        self._objects = Objects(self._client)
        domain = name_of(begin.domain)
        recorder = Recorder(self._client, COMPONENT, lambda: datetime.datetime.now(datetime.UTC))
        self._configuration = Configuration(self._client, recorder, domain, begin.ips)
        self._forwarder = Forwarder(Means(HostOpener(), Randomness()), Machine())
        for ip in begin.ips:
            self._forwarder.own(ip)
        machine = search_path.of_conf(begin.machine)
        self._sources = Sources(domain, self._objects.directory, begin.cluster, self._forwarder, machine.domains)
        self.counts = Counts()
        clients = Clients(self._objects.directory, NodeDns(begin.ips, begin.domain, begin.machine))
        version = f"podplane {__version__}"
        self._answers = Answers(
            self._sources,
            begin.networks,
            self.counts,
            version=version,
            identify=clients.identify,
            pass_on=self._sources.pass_on,
        )
        self._forwarder.subscribe(self._answers.forget_others)
        self._query_log = QueryLog()
        self._sockets = Sockets(self._answers, self.counts)
        self._explainer = Explainer(self._sources, self._answers.client, self._objects.directory, domain)
        self._rates = Rates(self.counts)
        self._counted = Counted(self.counts, self._forwarder, lambda: self._answers.kept)
        self._servers: dict[str, list[UdpServer | TcpServer | HttpServer]] = defaultdict(list)
        self._reports: dict[str, Reports] = {}
        self._supervisor = Supervisor()
        self._state = State(
            self._objects,
            self._configuration,
            [text_of(domain), *(f"names of addresses in {cidr}" for cidr in begin.cluster)],
            lambda: upstreams(self._forwarder.groups, time.time()),
            self._counted.memory,
            self._supervisor.report,
            lambda: self._client.contact,
            self._rates,
            begin.restarts,
        )
        self._waiting: list[tuple[str, str, socket.socket]] = []
        """Sockets of questions that come before there are answers."""
        self.gone = asyncio.Event()
        """Who started it is."""
        self._listening: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Have the cluster's objects. Who asks by HTTP is told meanwhile what is missing."""
        self._connection.setblocking(False)
        asyncio.get_running_loop().add_reader(self._connection, self._take_orders)
        self._objects.subscribe(self._answers.changed)
        self._objects.subscribe(self._who_asks_changed)
        self._configuration.subscribe(self._configured)
        await self._sync()
        for name, work in (self._objects.watches | self._configuration.watches).items():
            self._supervisor.add(name, work)
        self._supervisor.add("rates", self._rates.run)
        self._supervisor.add("look at the machine's resolv.conf", self._forwarder.run)

    async def _sync(self) -> None:
        """List everything; while the API is away, again and again."""
        backoff, loop = Backoff(), asyncio.get_running_loop()
        while True:
            done = await asyncio.gather(self._objects.sync(), self._configuration.sync(), return_exceptions=True)
            errors = [one for one in done if isinstance(one, BaseException)]
            if not errors:
                return
            if not isinstance(errors[0], ApiError):
                raise errors[0]
            log.warning("the cluster's objects can't be listed: %s", errors[0])
            await asyncio.sleep(backoff.delay(loop.time()))

    async def run(self) -> None:
        """Serve."""
        self._take_orders()
        self._state.ready()
        for node, protocol, bound in self._waiting:
            self._open(node, protocol, bound)
        self._waiting.clear()
        control.send(self._connection, control.Ready())
        await self._supervisor.run()

    def _who_asks_changed(self, key: str) -> None:
        if key.startswith(POD_IP):
            self._answers.forget_client(key.removeprefix(POD_IP))

    async def _configured(self, config: Config) -> None:
        """Go by another configuration; what is on its way goes on."""
        resolver = await asyncio.to_thread(self._sources.resolver, config)
        self._forwarder.configure(config)
        self._sources.use(resolver)
        self._query_log.configure(config.log)
        self._answers.log_to(self._query_log if self._query_log.is_on else None)

    def _take_orders(self) -> None:
        while True:
            try:
                order, fds = control.receive(self._connection)
            except BlockingIOError:
                return
            except ConnectionError:  # it ended before it read all
                order, fds = None, []
            if order is None:
                asyncio.get_running_loop().remove_reader(self._connection)
                self.gone.set()
                return
            self._follow(order, fds)

    def _follow(self, order: control.Order, fds: list[int]) -> None:
        match order:
            case control.Open(node=node, protocols=protocols):
                for protocol, fd in zip(protocols, fds, strict=True):
                    self._open(node, protocol, socket.socket(fileno=fd))
            case control.Close(node=node):
                self._close(node)
            case control.Ping():
                control.send(self._connection, control.Pong())
            case control.Hosts(come=come, gone=gone):
                self._answers.hosts_changed(come, gone)
            case control.Inside(networks=networks):
                self._forwarder.reach(networks, fds[0])
            case control.Reach(api=api):
                self._api.join() if api else self._api.cut()

    async def close(self) -> None:
        """Let go of all sockets and connections."""
        for node in {*self._servers, *(node for node, _, _ in self._waiting)}:
            self._close(node)
        await self._supervisor.close()
        await self._api.close()

    def _close(self, node: str) -> None:
        for server in self._servers.pop(node, ()):
            server.close()
        self.counts.forget(node)
        for one in [one for one in self._waiting if one[0] == node]:
            self._waiting.remove(one)
            one[2].close()

    def _open(self, node: str, protocol: str, bound: socket.socket) -> None:
        if protocol == control.HTTP:
            self._report(node, bound)
            return
        self._forwarder.own(bound.getsockname()[0])
        if self._state.missing():
            self._waiting.append((node, protocol, bound))
            return
        serve = self._sockets.datagrams if protocol == control.UDP else self._sockets.connections
        self._servers[node].append(serve(node, bound))

    def _report(self, node: str, bound: socket.socket) -> None:
        if node not in self._reports:
            authorizer = Authorizer(self._client, node)
            self._reports[node] = Reports(node, self._state, self._counted, self._explainer, self._query_log, authorizer)
        server = HttpServer(self._reports[node].answer)
        self._servers[node].append(server)
        self._begin(server.listen([bound]))

    def _begin(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._listening.add(task)
        task.add_done_callback(self._listening.discard)
