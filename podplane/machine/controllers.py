"""The controllers of a cluster as a process: `podplane controllers`. Of several processes one decides, and the others wait for their turn.

    Lease ──► leads: lists, watches ──► `Watched` ──► `Manager`: decisions ──► writes, as long as it leads (`Fence`)
    SIGTERM: what is under way ends, events that wait are written, and the Lease has no holder
    SIGKILL: another one leads when the Lease was not renewed for its duration
    the API is away: nothing is written; who led does so again, or another one, once it answers

Who does not lead watches nothing: it asks for the Lease, and answers on its port.
"""

from __future__ import annotations

import asyncio
import datetime
import logging
import os
import signal
import socket
import time
import uuid
from collections.abc import Sequence

from podplane import loop_turns, pauses
from podplane.controllers import load_balancer, node_block
from podplane.controllers.decision import Cluster, ControllerOf
from podplane.controllers.leadership import Fence, Leadership
from podplane.controllers.manager import Manager
from podplane.controllers.node_blocks import NodeBlocks
from podplane.controllers.parts import Seen
from podplane.controllers.watched import Watched
from podplane.kubeapi.access import Access
from podplane.kubeapi.client import Client
from podplane.kubeapi.errors import ApiError
from podplane.kubeapi.event_queue import EventQueue
from podplane.kubeapi.events import Recorder
from podplane.kubeapi.informer import Informer
from podplane.kubeapi.retry import Backoff, FailureLog
from podplane.kubeapi.supervise import Supervisor
from podplane.kubeapi.transport import HttpTransport
from podplane.machine import cidrs
from podplane.machine.configuration import LEVELS
from podplane.machine.controllers_configuration import ControllersConfiguration
from podplane.machine.errors import MachineError
from podplane.servers.http import Call, HttpServer, Reply, listeners
from podplane.state.value import network_of

log = logging.getLogger(__name__)
COMPONENT = "podplane-controllers"
HIGHEST_SECONDS = 5.0
"""The longest wait between two tries to list."""
HEARD_SECONDS = 30.0
"""Who has not had an answer of the API for so long is not ready."""


def now() -> datetime.datetime:
    """The time of the clock."""
    return datetime.datetime.now(datetime.UTC)


def run(access: Access, configuration: ControllersConfiguration) -> None:
    """Be one of the controllers' processes until SIGTERM. MachineError when it can't be."""
    logging.basicConfig(level=LEVELS[configuration.log_level], format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("httpcore2").setLevel(logging.WARNING)  # it has a line for each request
    pauses.shorten()
    with asyncio.Runner(loop_factory=loop_turns.loop_factory(os.environ)) as runner:
        runner.run(Program(access, configuration).run())


class Program:
    """The process; `run` is its life."""

    def __init__(self, access: Access, configuration: ControllersConfiguration) -> None:
        self._configuration = configuration
        self._transport = HttpTransport(access)
        self._own = Client(self._transport, "")
        identity = f"{socket.gethostname()}_{uuid.uuid4()}"
        self._leadership = Leadership(self._own, identity, now, configuration.lease_seconds)
        self._server = HttpServer(self._answer)
        self._is_current = False
        self._failures = FailureLog(log, "controllers")

    async def run(self) -> None:
        """Take part until SIGTERM."""
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, ended.set)
        await self._listen()
        tasks = [loop.create_task(self._leadership.run(self._lead)), loop.create_task(ended.wait())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._server.close()
            await self._transport.close()

    async def _listen(self) -> None:
        if port := self._configuration.health_port:
            try:
                await self._server.listen(listeners(port, (4,), local=True))
            except OSError as error:
                raise MachineError(f"port {port} of 127.0.0.1: {error.strerror}: give another `health_port`") from None

    async def _answer(self, call: Call) -> Reply:
        """/livez: it runs; /readyz: the API answers, and who leads knows the cluster; /leader: who leads."""
        match call.path.strip("/"):
            case "livez":
                return _said("")
            case "healthz" | "readyz":
                return _said(self._why_not_ready())
            case "leader":
                return Reply(200, f"{self._leadership.holder}\n".encode(), "text/plain; charset=utf-8")
        return Reply(404, b"404 page not found\n", "text/plain")

    def _why_not_ready(self) -> str:
        contact = self._own.contact
        if contact is None or not contact.is_reached or time.monotonic() - contact.at > HEARD_SECONDS:
            return f"the API does not answer{f': {contact.error}' if contact is not None and contact.error else ''}"
        if self._leadership.seconds_left > 0 and not self._is_current:
            return "it leads, and lists the cluster still"
        return ""

    # Leading.

    async def _lead(self) -> None:
        """Decide until cancelled."""
        client = Client(Fence(self._transport, self._leadership), "")
        watched = Watched(await self._node_blocks(client))
        informers, supervisor = list(watched.informers(client)), Supervisor()
        events = EventQueue(Recorder(client, COMPONENT, now, one_of_many=True))
        try:
            await self._listed(informers)
            controllers = self._controllers()
            manager = Manager(
                controllers, watched, {one.name: (client, events) for one in controllers}, written=watched.written
            )
            watched.observer = manager.observe
            manager.begin()
            self._is_current = True
            for informer in informers:
                supervisor.add(informer.resource, informer.run)
            supervisor.add("controllers", manager.run)
            supervisor.add("events", events.run)
            await asyncio.get_running_loop().create_future()
        finally:
            self._is_current = False
            await supervisor.remove("controllers")
            await events.settled()
            await supervisor.close()
            events.close()

    def _controllers(self) -> Sequence[ControllerOf[Cluster]]:
        found: list[ControllerOf[Cluster]] = []
        if self._configuration.node_blocks is not None:
            found.append(node_block.CONTROLLER)
        if self._configuration.load_balancers:
            found += [load_balancer.CONTROLLER, load_balancer.POOL_CONTROLLER]
        return found

    async def _node_blocks(self, client: Client) -> NodeBlocks:
        """Those of the configuration, unless the cluster says that kube-controller-manager gives blocks."""
        if self._configuration.node_blocks is None:
            return NodeBlocks()
        backoff, loop = Backoff(highest=HIGHEST_SECONDS), asyncio.get_running_loop()
        while True:
            try:
                kubeadm = await cidrs.kubeadm_config(client)
            except ApiError as error:
                self._failures.note(type(error).__name__, error, loop.time())
                await asyncio.sleep(backoff.delay(loop.time()))
                continue
            if refusal := cidrs.other_allocator(kubeadm):
                log.error("no node gets a block: %s", refusal)
            services = map(network_of, cidrs.of_kubeadm(kubeadm).service)
            return NodeBlocks(self._configuration.node_blocks.ranges, refusal, services)

    async def _listed(self, informers: Sequence[Informer[Seen]]) -> None:
        """Wait until everything was listed once."""
        backoff, loop = Backoff(highest=HIGHEST_SECONDS), asyncio.get_running_loop()
        while left := [one for one in informers if not one.is_synced]:
            for answer in await asyncio.gather(*(one.sync() for one in left), return_exceptions=True):
                if isinstance(answer, BaseException) and not isinstance(answer, ApiError):
                    raise answer
                if answer is not None:
                    self._failures.note(type(answer).__name__, answer, loop.time())
            if any(not one.is_synced for one in left):
                await asyncio.sleep(backoff.delay(loop.time()))


def _said(why_not: str) -> Reply:
    return Reply(503 if why_not else 200, f"{why_not or 'ok'}\n".encode(), "text/plain; charset=utf-8")
