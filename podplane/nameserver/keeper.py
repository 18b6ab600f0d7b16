"""A name server's process, and the sockets that it serves, which who starts it keeps: a lab, for all its nodes, or an agent, for its own.

The sockets of a node are opened in its namespace, at the cluster IPs of the cluster's DNS and at the bridge's addresses, by which other
nodes reach it. They outlive the process: what is asked while it starts again waits in them and is answered then.

    starting ── Ready ──► serving ── ended, stopped, hung ──► starting       at once when it served for a while, else after a back-off
    a node's server answers when the process serves and nobody stopped it there; nodes are told that it does not only once it
    was away for AWAY_SECONDS, for a process that starts again is back sooner
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from socket import socket

import msgspec

from podplane.kernel import interpreter
from podplane.kernel.interpreter import Interpreter, Spawned
from podplane.kernel.namespace import Namespace
from podplane.kubeapi.retry import Backoff
from podplane.nameserver import control
from podplane.nameserver.bound import open_reports, open_sockets

log = logging.getLogger(__name__)
MODULE = "podplane.nameserver.program"
AWAY_SECONDS = 10.0
"""Of a lab alone: its nodes have one process, so none could answer for another, and all of them write that their server is away, and that
it is back. Agents go by what they are told at once (`agent.node`)."""
LINGER_SECONDS, ASKED_SECONDS = 1.0, 5.0
"""For so long a server that is to stop still answers: until all nodes send their questions elsewhere; the second where agents find that out
by three questions at the bridge's address, one a second, that nobody answers (`machine.name_server`)."""
SERVED_SECONDS = 1.0
"""A process that served for so long and ends is started again at once."""
BEAT_SECONDS, HUNG_BEATS, START_BEATS = 0.5, 6, 600
"""From one look at the process to the next; after so many without an answer it is killed; after so many if it has answered nothing yet.
Machines are busy at times: a process that only waits for its turn is slow, and not hung; one that is emulated takes minutes to start."""
LOWEST_SECONDS, HIGHEST_SECONDS = 0.1, 10.0
"""Of the back-off."""

Answering = Callable[[str, bool], None]
"""(node, whether its name server answers)"""


def spawn() -> Spawned:
    """Start the process; it waits to be told what to do. OSError when there can be none."""
    return interpreter.spawn(MODULE, control.MESSAGE_BYTES)


class NameServer(msgspec.Struct, eq=False):
    """The process, and the sockets that it serves; its methods run on one event loop.

    `answering` is told of each node whether its server answers, whenever that changes.
    """

    begin: control.Begin
    answering: Answering
    inside: tuple[str, ...] = ()
    """CIDRs of the lab: a server of one of these is reached from the first node, all others from the machine."""
    is_asked: bool = False
    """Do agents, which are processes, find out by themselves which nodes have a server?"""
    away_seconds: float = 0.0
    """In the place of AWAY_SECONDS, where it is not 0: an agent has its own process, and other nodes have theirs."""
    start: Callable[[], Interpreter] = lambda: interpreter.follow(spawn())
    """Starts the process, which waits to be told what to do. OSError when there can be none."""
    hosts: Callable[[], Iterable[str]] = lambda: ()
    """Addresses of the cluster's nodes as they are now, whose hosts are answered; of those in networks of `begin` none is needed."""
    ready: asyncio.Event = msgspec.field(default_factory=asyncio.Event)
    """The process serves."""
    _restarts: int = -1
    _sockets: dict[str, list[tuple[str, socket]]] = msgspec.field(default_factory=dict)
    _stopped: set[str] = msgspec.field(default_factory=set)
    """Nodes that have no server now, because somebody stopped it."""
    _cut: set[str] = msgspec.field(default_factory=set)
    """Nodes that do not reach the API."""
    _is_told_cut: bool = False
    """Was the process told that it does not reach the API?"""
    _is_here: bool | None = None
    """Does the process serve, or did it a moment ago? Not known at the start."""
    _told: dict[str, bool] = msgspec.field(default_factory=dict)
    _gate: Namespace | None = None
    """Of a node that is there; at the start the first one's."""
    _places: dict[str, Namespace] = msgspec.field(default_factory=dict)
    _sender: control.Sender | None = None
    _process: Interpreter | None = None
    _ready_at: float | None = None
    _has_begun: bool = False
    """Does it follow orders? It may wait for the API all the same."""
    _has_answered: bool = True
    """Has it answered the last Ping?"""

    def add(self, node: str, namespace: Namespace, ips: Iterable[str], node_ips: Iterable[str]) -> None:
        """Serve a node at these addresses, and tell about it at the node's own. OSError when it can't be."""
        reports = namespace.run(open_reports, tuple(node_ips))
        self._sockets[node] = [*reports, *namespace.run(open_sockets, tuple(ips))]
        self._places[node] = namespace
        if self._gate is None:
            self._gate = namespace
            self._send_inside()
        self._send_reach()
        self._open(node)
        self._tell(node)

    def remove(self, node: str) -> None:
        """Serve a node no longer: its machine is gone, and with it its sockets. Idempotent."""
        self._close(node)
        for _, one in self._sockets.pop(node, ()):
            one.close()
        gate = self._places.pop(node, None)
        self._stopped.discard(node)
        self._cut.discard(node)
        self._told.pop(node, None)
        if gate is not None and gate is self._gate:
            self._gate = next(iter(self._places.values()), None)
            self._send_inside()
        self._send_reach()

    def hosts_changed(self, come: Iterable[str], gone: Iterable[str]) -> None:
        """Nodes have these addresses now, and none has those any more."""
        if self._sender is not None:
            for order in control.hosts(come, gone):
                self._sender.send(order)

    async def stop(self, node: str) -> None:
        """Answer none of this node's questions; idempotent. What is asked meanwhile waits in its sockets.

        Nodes are told first, and what they ask is still answered for a while: where agents find out by themselves, at the cluster IPs only.
        """
        has_begun = node in self._stopped
        self._stopped.add(node)
        self._tell(node)
        if self.is_asked and not has_begun:
            self._close(node)
            self._send_open(node, [one for one in self._sockets[node] if self._is_for_pods(*one)])
        await asyncio.sleep(ASKED_SECONDS if self.is_asked else LINGER_SECONDS)
        if node in self._stopped:
            self._close(node)

    def resume(self, node: str) -> None:
        """Undo a stop; of a node that was not stopped, nothing happens."""
        if node in self._stopped:
            self._stopped.remove(node)
            self._close(node)  # a stop that is not over has not done so
            self._open(node)
            self._tell(node)

    def cut(self, node: str) -> None:
        """This node does not reach the API. The process, which is that of all nodes, does until none of them does."""
        self._cut.add(node)
        self._send_reach()

    def join(self, node: str) -> None:
        """Undo a cut."""
        if node in self._cut:
            self._cut.remove(node)
            self._send_reach()

    def kill(self) -> int:
        """SIGKILL to the process, as an accident; its id, 0 when there is none."""
        if self._process is None:
            return 0
        self._process.kill()
        return self._process.pid

    async def run(self) -> None:
        """Keep the process running until cancelled."""
        backoff, loop = Backoff(LOWEST_SECONDS, HIGHEST_SECONDS), asyncio.get_running_loop()
        while True:
            self._restarts += 1
            try:
                served = await self._serve(self.start())
            except OSError as error:
                log.warning("name server can't be started: %s", error)
                served = 0.0
            if served < SERVED_SECONDS:
                await asyncio.sleep(backoff.delay(loop.time()))

    async def _serve(self, process: Interpreter) -> float:
        """From the first order to the process's end; for how long it served, in seconds."""
        loop = asyncio.get_running_loop()
        self._process, self._sender = process, control.Sender(process.connection)
        self._sender.send(msgspec.structs.replace(self.begin, restarts=self._restarts))
        self.hosts_changed(self.hosts(), ())
        self._send_inside()
        self._send_reach()
        for node in self._sockets:
            self._open(node)
        loop.add_reader(process.connection, self._heard, process.connection)
        away = loop.call_later(self.away_seconds or AWAY_SECONDS, self._went)
        watch = loop.create_task(self._watch(process, self._sender))
        try:
            code = await asyncio.shield(process.exited)
            log.warning("name server pid=%d ended exit_code=%d", process.pid, code)
            return 0.0 if self._ready_at is None else loop.time() - self._ready_at
        finally:
            away.cancel()
            watch.cancel()
            self._sender.close()
            self._process, self._sender, self._ready_at = None, None, None
            self._has_answered, self._has_begun, self._is_told_cut = True, False, False
            self.ready.clear()
            loop.remove_reader(process.connection)
            process.connection.close()
            process.kill()

    async def _watch(self, process: Interpreter, sender: control.Sender) -> None:
        """Kill a process that was stopped, or hangs."""
        beats = 0
        while True:
            await asyncio.sleep(BEAT_SECONDS)
            if self._has_answered:
                self._has_answered, beats = False, 0
                sender.send(control.Ping())
            is_slow = beats >= (HUNG_BEATS if self._has_begun else START_BEATS)
            if process.is_stopped or is_slow:
                log.warning("name server pid=%d %s", process.pid, "does not answer" if is_slow else "was stopped by a signal")
                process.kill()
                return
            beats += 1

    def _heard(self, connection: socket) -> None:
        try:
            news = control.receive_news(connection)
        except BlockingIOError:
            return
        except OSError:  # it ended with unread orders
            news = None
        loop = asyncio.get_running_loop()
        match news:
            case control.Ready():
                self._ready_at, self._is_here, self._has_begun = loop.time(), True, True
                self.ready.set()
                self._tell_all()
            case control.Pong():
                self._has_answered = self._has_begun = True
            case None:
                loop.remove_reader(connection)

    def _went(self) -> None:
        """It is time to say so, unless the process is back."""
        if not self.ready.is_set():
            self._is_here = False
            self._tell_all()

    def _tell_all(self) -> None:
        for node in self._sockets:
            self._tell(node)

    def _tell(self, node: str) -> None:
        answers = False if node in self._stopped else self._is_here
        if answers is not None and self._told.get(node) != answers:
            self._told[node] = answers
            self.answering(node, answers)

    def _send_inside(self) -> None:
        if self._sender is not None and self._gate is not None and self.inside:
            self._sender.send(control.Inside(self.inside), self._gate.fd)

    def _close(self, node: str) -> None:
        if self._sender is not None:
            self._sender.send(control.Close(node))

    def _send_reach(self) -> None:
        is_cut = bool(self._sockets) and self._sockets.keys() <= self._cut
        if self._sender is not None and is_cut != self._is_told_cut:
            self._is_told_cut = is_cut
            self._sender.send(control.Reach(not is_cut))

    def _is_for_pods(self, protocol: str, one: socket) -> bool:
        """Is it at a cluster IP, or for reports?"""
        return protocol == control.HTTP or one.getsockname()[0] in self.begin.ips

    def _open(self, node: str) -> None:
        if node not in self._stopped:
            self._send_open(node, self._sockets[node])

    def _send_open(self, node: str, bound: list[tuple[str, socket]]) -> None:
        if self._sender is not None:
            order = control.Open(node, tuple(protocol for protocol, _ in bound))
            self._sender.send(order, *(one.fileno() for _, one in bound))
