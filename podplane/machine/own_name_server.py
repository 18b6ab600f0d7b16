"""The node's own name server, where the cluster's DNS is podplane's: a thread of the agent's process, with sockets that the agent keeps.

    whose the cluster's DNS is (`dns.standing`) ── podplane's ──► sockets are opened, it answers, pods are led to it
                                                └─ others' ─────► nothing of it is on the node, and why is said
    SIGTERM ──► pods are led to other nodes' servers; what they ask meanwhile is still answered

It is a thread with an event loop of its own, which has nothing of the agent's but the process: a process more would take 35 MB, of which a
fork shares little, because Python writes to what it reads (reference counts). The thread has no capability.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path

from podplane.agent.caches import Caches
from podplane.agent.node import NodeAgent
from podplane.agent.settings import Settings
from podplane.dns import resolv_conf, standing
from podplane.dns.node import PORT, SERVICE
from podplane.dns.resolv_conf import ResolvConf
from podplane.kernel import rights
from podplane.kernel.interpreter import Interpreter, connected
from podplane.kernel.namespace import Namespace
from podplane.kernel.syscalls import name_thread
from podplane.kubeapi.access import Access
from podplane.kubeapi.supervise import Supervisor
from podplane.model.config import NAME_SERVER_PORT
from podplane.model.objects import Node
from podplane.model.service import Service
from podplane.nameserver.control import MESSAGE_BYTES, Begin
from podplane.nameserver.keeper import NameServer
from podplane.pods.bridge import gateway_of
from podplane.state.value import canonical

log = logging.getLogger(__name__)
AWAY_SECONDS = 2.0
"""A process that was away for so long is said not to answer: a new one is there sooner, unless it waits for the API."""
SETTLE_SECONDS = 5.0
"""The agent waits so long for the process before it says that it is ready: others' servers answer meanwhile, if there are any."""
LOOK_SECONDS, TOLD_LOOKS = 0.05, 50
"""A server that is to end looks so often, and so many times at most, whether the API has it that other nodes are not to ask it."""
ANSWERED_SECONDS = 1.0
"""After so long nothing is under way of what nodes asked here before they knew better."""
RETRY_SECONDS = 5.0
"""From one try to open sockets to the next."""
RESOLV_CONF = Path("/etc/resolv.conf")
NAME = "name-server"
"""Of the thread, as `ps -L` shows it."""
END_SECONDS = 5.0
"""A thread that was told to end and has not by then hangs."""


class OwnNameServer:
    """That of one node; its methods run on one event loop. To be made before the node's agent starts, which waits for its name server."""

    def __init__(
        self,
        agent: NodeAgent,
        settings: Settings,
        access: Access,
        caches: Caches,
        namespace: Namespace,
        start: Callable[[], Interpreter],
        tell: Callable[[str], None],
    ) -> None:
        """`start` starts the process; `tell` is told why names are not answered here."""
        self._agent, self._access, self._caches, self._namespace, self._tell = agent, access, caches, namespace, tell
        self._dns = settings.dns
        self._keeper = NameServer(
            self._begin(settings), self._answers, away_seconds=AWAY_SECONDS, start=start, hosts=self._hosts
        )
        self._concerned = caches.services.index(lambda one: (SERVICE,) if standing.concerns(one, self._dns) else ())
        self._opened: tuple[tuple[str, ...], tuple[str, ...]] | None = None
        """Addresses of the node where questions are answered, and where the server is told about."""
        self._is_ending = self._is_leaving = False
        self._wake, self._settled = asyncio.Event(), asyncio.Event()
        self.problem = ""
        """Why names are not answered here."""
        caches.services.subscribe(self._service_changed)
        caches.nodes.subscribe(self._node_changed)
        agent.name_server_changed(answers=False)

    def _begin(self, settings: Settings) -> Begin:
        network, dns = settings.network, settings.dns
        own = (*network.cluster_cidrs, *network.service_cidrs)
        clients = dict.fromkeys((*network.cluster_cidrs, *network.subnets, *dns.ips))
        return Begin(self._access, dns.domain, tuple(clients), own, ips=dns.ips, machine=_machine())

    def _hosts(self) -> Iterator[str]:
        """Where hosts of nodes may ask from."""
        return (canonical(ip) for node in self._caches.nodes.objects.values() for ip in node.internal_ips)

    @property
    def problems(self) -> list[str]:
        """The same, as a list."""
        return [self.problem] if self.problem else []

    async def begin(self, supervisor: Supervisor) -> None:
        """Begin, as far as names are to be answered here; the rest is done by tasks of the supervisor."""
        await self.look()
        supervisor.add("name server", self.run)
        supervisor.add("name server's process", self._keeper.run)

    def follow(self, settings: Settings) -> None:
        """The agent starts anew with these settings."""
        if (begin := self._begin(settings)) != self._keeper.begin:
            self._keeper.begin = begin
            self._keeper.kill()

    async def run(self) -> None:
        """Serve while that is to be, until cancelled."""
        while True:
            self._wake.clear()
            await self.look()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(RETRY_SECONDS if self.problem else None):
                    await self._wake.wait()

    async def look(self) -> None:
        """Look whether names are to be answered here, and see to it."""
        if self._is_ending:
            return
        problem = standing.why_not(self._concerned.get(SERVICE).values(), self._dns) or self._open()
        self._agent.names_changed(may_answer=not problem)
        self._say(problem)
        if problem and self._opened is not None:
            self._opened = None
            await self._leave()
            self._keeper.remove(self._agent.name)

    async def settled(self) -> None:
        """Wait until the server answers, or will not soon."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SETTLE_SECONDS):
                await self._settled.wait()

    async def stop(self) -> None:
        """Have pods led elsewhere, and answer until they are; the agent still runs meanwhile."""
        self._is_ending = True
        if self._opened is not None:
            await self._leave()

    async def _leave(self) -> None:
        """First nothing new is led here; then, what was is answered by now, nothing at all is. Until all nodes know it, it answers."""
        self._is_leaving = True
        self._answers(self._agent.name, False)
        await self._known(lambda: not self._agent.is_name_server_offered)
        await asyncio.sleep(ANSWERED_SECONDS)
        self._is_leaving = False
        self._answers(self._agent.name, False)
        await self._known(lambda: not self._agent.is_name_server_in_use)
        await self._keeper.stop(self._agent.name)

    async def _known(self, is_so: Callable[[], bool]) -> None:
        """Wait until the API has told it, but not for long."""
        for _ in range(TOLD_LOOKS):
            if is_so():
                break
            await asyncio.sleep(LOOK_SECONDS)

    def _open(self) -> str:
        """Have sockets at the node's addresses; why that can't be."""
        node = self._caches.nodes.objects.get(self._agent.name)
        if node is None:
            return ""
        blocks = list(map(ipaddress.ip_network, node.spec.pod_cidrs))
        versions = {block.version for block in blocks}
        ips = [ip for ip in self._dns.ips if ipaddress.ip_address(ip).version in versions]
        wanted = (*ips, *(str(gateway_of(block)) for block in blocks)), node.internal_ips
        if wanted == self._opened:
            return ""
        if self._opened is not None:
            self._keeper.remove(self._agent.name)
            self._opened = None
        try:
            self._keeper.add(self._agent.name, self._namespace, *wanted)
        except OSError as error:
            return _refused(error)
        self._opened = wanted
        return ""

    def _answers(self, node: str, answers: bool) -> None:
        self._agent.name_server_changed(answers=answers, ends=self._is_leaving)
        if answers:
            self._settled.set()

    def _say(self, problem: str) -> None:
        if problem:
            self._settled.set()
        if problem != self.problem:
            self.problem = problem
            log.warning("name server: %s", problem or "names are answered here again")
            if problem:
                self._tell(problem)

    def _service_changed(self, old: Service | None, new: Service | None) -> None:
        if any(one is not None and standing.concerns(one, self._dns) for one in (old, new)):
            self._wake.set()

    def _node_changed(self, old: Node | None, new: Node | None) -> None:
        if any(one is not None and one.metadata.name == self._agent.name for one in (old, new)):
            self._wake.set()
        ips = [one.internal_ips if one is not None else () for one in (old, new)]
        if ips[0] != ips[1]:
            told = set(map(canonical, chain(*ips)))
            gone = {ip for ip in told if not self._caches.nodes_by_ip.get(ip)}
            self._keeper.hosts_changed(told - gone, gone)


def _refused(error: OSError) -> str:
    why = error.strerror or str(error)
    if error.errno == errno.EACCES:
        why += ": it needs CAP_NET_BIND_SERVICE"
    elif error.errno == errno.EADDRINUSE:
        why += ": another program of the node has it"
    return f"podplane's name server can't open port {PORT} at its addresses, or {NAME_SERVER_PORT} at the node's: {why}"


def _machine() -> ResolvConf:
    """The resolv.conf of this process, which in a pod of dnsPolicy Default is that which the kubelet was given."""
    try:
        return resolv_conf.read(RESOLV_CONF.read_text(errors="replace"))
    except OSError:
        return ResolvConf()


class InThread(Interpreter):
    """A name server that is a thread of this process, in the place of a process of its own."""

    def kill(self) -> None:
        """Have it end, which takes a moment. One that hangs can't be ended alone: then this process ends, and is started again by its
        manager."""
        if not self.exited.done():
            with contextlib.suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)
            asyncio.get_running_loop().call_later(END_SECONDS, self._ended)

    def _ended(self) -> None:
        if not self.exited.done():
            log.critical("the name server hangs: the agent ends with it, to be started again")
            os.kill(os.getpid(), signal.SIGTERM)

    @property
    def is_stopped(self) -> bool:
        """A thread is not stopped alone."""
        return False


def start() -> Interpreter:
    """Start it, on an event loop of its own. OSError when there can be none."""
    from podplane.nameserver import program  # who has no name server has not its modules

    loop = asyncio.get_running_loop()
    ours, theirs = connected(MESSAGE_BYTES)
    found = InThread(os.getpid(), ours, loop.create_future())

    def ended(code: int) -> None:
        if not found.exited.done():
            found.exited.set_result(code)

    def run(fd: int) -> None:
        code = 1
        try:
            name_thread(NAME)
            rights.give_up()
            program.serve(fd)
            code = 0
        except Exception:
            log.exception("name server")
        finally:
            with contextlib.suppress(RuntimeError):  # the process ends, and its loop did
                loop.call_soon_threadsafe(ended, code)

    threading.Thread(target=run, args=(theirs.detach(),), name=NAME, daemon=True).start()
    return found
