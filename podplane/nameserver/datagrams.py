"""Questions to one server as datagrams, from ports and with ids by chance.

Sockets are connected: the kernel takes datagrams of that server alone, and reports at once when nobody listens there. A new socket a
question would cost more than all the rest of it, so some dozens are shared while there is much to ask; each is closed after some uses, or
when it had none for a while. What comes with an unknown id, or for another question, is forged or late, and nobody hears of it.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import socket
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from podplane.dns import message as m
from podplane.dns import responses
from podplane.kernel.datagrams import COUNT, ID_BYTES, Incoming, Outgoing
from podplane.nameserver import failures
from podplane.nameserver.randomness import Randomness

log = logging.getLogger(__name__)
PORTS = 48
"""Sockets at a time."""
MOMENT_SECONDS = 0.001
"""So long questions go by one port, so that their answers are read at one go."""
USES = 256
"""Questions by one socket."""
IDLE_SECONDS = 10.0
SILENT_SECONDS = 2.0
"""After that nobody waits for an answer any more, and the server has failed once."""
SWEEP_SECONDS = 0.1
SILENCE = f"no answer within {SILENT_SECONDS:g} s"


Heard = Callable[[bytes | str | OSError, float], None]
"""Told (response, how long it took), or (what failed, how long that took)."""


class Pending(msgspec.Struct):
    """A question without an answer; `heard` is told once."""

    asked: bytes
    heard: Heard
    sent: float


class Batches:
    """What datagrams come and go by, of all sockets of a process."""

    def __init__(self) -> None:
        self.incoming, self.outgoing = Incoming(), Outgoing()


@dataclass(slots=True, eq=False)
class _Port:
    """A socket, and the questions that are on their way by it."""

    socket: socket.socket
    pending: dict[bytes, Pending] = field(default_factory=dict)
    """By their ids."""
    unsent: list[tuple[bytes, bytes]] = field(default_factory=list)
    """Of this turn, as `Outgoing` takes them."""
    uses: int = 0
    last: float = 0.0


class Datagrams:
    """The sockets to one server. `connect` gives a connected UDP socket, or raises OSError."""

    def __init__(self, connect: Callable[[], socket.socket], randomness: Randomness, batches: Batches) -> None:
        self._connect, self._randomness, self._batches = connect, randomness, batches
        self._loop = asyncio.get_running_loop()
        self._ports: list[_Port] = []
        self._used_up: list[_Port] = []
        """Those that only wait for answers."""
        self._of_moment: _Port | None = None
        self._moment_ends = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self.ignored = 0
        """Datagrams that answered nothing that was asked."""

    def ask(self, message: bytes, asked: bytes, heard: Heard) -> None:
        """Send a message, which has no id yet, at the end of this turn of the event loop. OSError when there is no socket: then `heard` is
        not told."""
        now = self._loop.time()
        port = self._of_moment
        if port is None or port.uses >= USES or now >= self._moment_ends:
            port, self._moment_ends = self._any_port(), now + MOMENT_SECONDS
            self._of_moment = port
        id_ = self._randomness.take(ID_BYTES)
        while id_ in port.pending:
            id_ = self._randomness.take(ID_BYTES)
        port.uses += 1
        port.last = now
        if not port.unsent:
            self._loop.call_soon(self._end_turn, port)
        port.unsent.append((b"", id_ + message))
        port.pending[id_] = Pending(asked, heard, now)
        if self._timer is None:
            self._timer = self._loop.call_later(SILENT_SECONDS, self._sweep)

    def close(self) -> None:
        """Close all; whoever waits is told."""
        for port in self._used_up + self._ports:
            self._close(port)
            self._fail(port, "its server is not asked any more")
        self._ports.clear()
        self._used_up.clear()
        self._of_moment = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _end_turn(self, port: _Port) -> None:
        unsent, port.unsent = port.unsent, []
        fd = port.socket.fileno()
        while unsent and fd >= 0:
            sent = self._batches.outgoing.send(fd, unsent[:COUNT])
            if sent < min(COUNT, len(unsent)):
                self._send(port, unsent[sent][1])
                sent += 1
            unsent = unsent[sent:]

    def _send(self, port: _Port, message: bytes) -> None:
        """Send one that was not sent with others, for the error that there is."""
        try:
            port.socket.send(message)
        except BlockingIOError:
            pass  # as if it were lost on its way
        except OSError as error:
            pending = port.pending.pop(message[:ID_BYTES], None)
            if pending is not None:
                _tell(pending, error, pending.sent)

    def _any_port(self) -> _Port:
        if len(self._ports) == PORTS:
            port = self._ports[self._randomness.number() % PORTS]
            if port.uses < USES:
                return port
            self._ports.remove(port)
            self._used_up.append(port)
        port = _Port(self._connect())
        self._ports.append(port)
        self._loop.add_reader(port.socket, self._read, port)
        return port

    def _read(self, port: _Port) -> None:
        try:
            received = self._batches.incoming.receive(port.socket.fileno())
        except OSError as error:  # an ICMP error about a question
            self._fail(port, failures.words(error))
            return
        now = self._loop.time()
        for data in received:
            id_ = data[:ID_BYTES]
            pending = port.pending.get(id_)
            if pending is None or not (responses.matches(data, pending.asked) or _may_answer(data, pending.asked)):
                self.ignored += 1
                continue
            del port.pending[id_]
            _tell(pending, data, now)

    def _fail(self, port: _Port, why: str) -> None:
        now = self._loop.time()
        failed, port.pending = port.pending, {}
        for pending in failed.values():
            _tell(pending, why, now)

    def _close(self, port: _Port) -> None:
        self._loop.remove_reader(port.socket)
        port.socket.close()

    def _sweep(self) -> None:
        """Tell those who wait too long; close sockets that nobody uses."""
        self._timer = None
        now = self._loop.time()
        for port in self._used_up + self._ports:
            for id_, pending in _silent(port, now):
                if port.pending.pop(id_, None) is not None:
                    _tell(pending, SILENCE, now)
        self._ports = self._without(self._ports, now - IDLE_SECONDS)
        self._used_up = self._without(self._used_up, now)
        if self._timer is None and (self._ports or self._used_up):
            first = min((_first_sent(port) for port in self._used_up + self._ports if port.pending), default=now + IDLE_SECONDS)
            due = min(first + SILENT_SECONDS - now, IDLE_SECONDS / 4)
            self._timer = self._loop.call_later(max(SWEEP_SECONDS, due), self._sweep)

    def _without(self, ports: list[_Port], last: float) -> list[_Port]:
        """Close those that wait for nothing and were not used since."""
        for port in ports:
            if not port.pending and port.last <= last:
                self._close(port)
        return [one for one in ports if one.pending or one.last > last]


def _tell(pending: Pending, said: bytes | str | OSError, now: float) -> None:
    """Tell who waits; a fault there is nobody else's."""
    try:
        pending.heard(said, now - pending.sent)
    except Exception:
        log.exception("a question to another server")


def _first_sent(port: _Port) -> float:
    """When the oldest question without an answer was sent: they are in this order."""
    return next(iter(port.pending.values())).sent


def _silent(port: _Port, now: float) -> list[tuple[bytes, Pending]]:
    """The questions that were sent too long ago."""
    return list(itertools.takewhile(lambda one: one[1].sent + SILENT_SECONDS <= now, port.pending.items()))


def _may_answer(data: bytes, asked: bytes) -> bool:
    """Is it a response to the question in another case, or one of a server that could not read it?"""
    is_error = len(data) == m.HEADER.size and data[2] & 0xF8 == m.QR >> 8 and data[3] & m.RCODE_MASK in (m.FORMERR, m.NOTIMP)
    return is_error or responses.matches(data[: m.HEADER.size] + data[m.HEADER.size :].lower(), asked.lower())
