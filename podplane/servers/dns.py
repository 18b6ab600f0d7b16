"""Sockets that questions for names come by as datagrams (RFC 1035, 4.2.1).

Questions whose answers are kept are answered in batches, by whoever does the system calls (`Batches`); all others one by one, of each
client one in turn (`turns`). A client that asks more than can be answered loses its own questions, and nobody else's: the socket is read
first, and of a client that sends more than can be read, the kernel lets only a part into the socket (`crowd`).
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable, Mapping, MutableSequence, Sequence
from functools import partial
from typing import Protocol

from podplane.servers.crowd import Crowd, Limit, dropped
from podplane.servers.dns_counts import Counts, Lane
from podplane.servers.later import Later
from podplane.servers.turns import Turns

Response = bytes | Awaitable[bytes | None] | None
Respond = Callable[[bytes, str], Response]
"""(message, client's address) → the response, an awaitable of it, or None when there is none."""
Address = tuple[str, bytes]
"""A client: its IP address, and its socket address as the kernel has it."""
Reply = tuple[bytes, int, object]
"""A response without its id, the number of its kind, and what its keeper wants to know of it."""
BATCHES = 16
"""Batches at one go, so that others of the process have a turn."""
PENDING, PENDING_OF_CLIENT = 8192, 2048
"""Questions that were read and are to be answered one by one."""
SENT_AT_ONCE = 64
WORK_SECONDS = 0.002
"""For so long questions are answered one by one, before the socket is read again."""
RECEIVE_BYTES = 4 << 20
SO_RCVBUFFORCE = 33
"""socket(7); beyond the machine's limit, for who has CAP_NET_ADMIN there."""


class Quick(Protocol):
    """Answers that are kept, by the question without its id, and who may have them: by packed address, what its own are kept under."""

    @property
    def senders(self) -> Mapping[bytes, bytes]:
        """Clients that are known."""

    @property
    def replies(self) -> Mapping[bytes, Reply]:
        """Responses that are kept."""


class Exchanged(Protocol):
    """What became of a batch of datagrams."""

    @property
    def received(self) -> int:
        """All of them."""

    @property
    def answered(self) -> int:
        """Those that were answered."""

    @property
    def received_bytes(self) -> int:
        """Of all."""

    @property
    def answered_bytes(self) -> int:
        """Of their answers."""

    @property
    def others(self) -> list[tuple[bytes, Address]]:
        """Those that nothing is kept for."""


Send = Callable[[int, Sequence[tuple[bytes, bytes]]], int]
"""(descriptor, socket addresses with what is sent to them, `SENT_AT_ONCE` at most) → how many were sent, before one that can't be."""


class Batches(Protocol):
    """Receives datagrams, and sends answers that are kept."""

    @property
    def size(self) -> int:
        """Datagrams of one batch, at most: when there are less, the socket is empty."""

    def exchange(
        self, fd: int, senders: Mapping[bytes, bytes], replies: Mapping[bytes, Reply], counts: MutableSequence[int], /
    ) -> Exchanged | None:
        """(descriptor, senders, replies, counts by kind) → what became of what waited in the socket; None when nothing did."""

    def senders(self) -> Sequence[bytes]:
        """The packed addresses that the last batch came from."""


class UdpServer:
    """Answers datagrams of a bound socket, which is closed with it. To be made and used on an event loop."""

    def __init__(
        self,
        bound: socket.socket,
        batches: Batches,
        send: Send,
        limit: Limit,
        quick: Quick,
        respond: Respond,
        counts: Counts,
        lane: Lane,
    ) -> None:
        bound.setblocking(False)
        widen(bound)
        self._socket = bound
        self._batches = batches
        self._send_all = send
        self._quick = quick
        self._respond = respond
        self._counts = counts
        self._lane = lane
        self._turns: Turns[tuple[bytes, Address, float]] = Turns(PENDING, PENDING_OF_CLIENT)
        self._is_working = False
        self._unsent: list[tuple[bytes, bytes]] = []
        """Responses of this turn of the event loop, with who gets them."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        self._crowd = Crowd(bound, batches.senders, limit, lambda: bool(self._turns))
        self._dropped = partial(dropped, bound)
        lane.dropped.append(self._dropped)
        self._loop.add_reader(bound, self._read)

    def close(self) -> None:
        """Answer none any more; idempotent."""
        if self._socket.fileno() >= 0:
            self._flush()
            self._loop.remove_reader(self._socket)
            self._crowd.close()
            self._lane.dropped.remove(self._dropped)
            self._socket.close()
        self._turns.clear()
        for task in self._tasks:
            task.cancel()

    def _read(self) -> None:
        try:
            self._read_batches()
        finally:
            if self._turns and not self._is_working:
                self._work()

    def _read_batches(self) -> None:
        quick, lane, batches = self._quick, self._lane, self._batches
        for _ in range(BATCHES):
            started = time.perf_counter()
            done = batches.exchange(self._socket.fileno(), quick.senders, quick.replies, lane.by_kind)
            if done is None:
                self._crowd.empty(started)
                break
            lane.request_bytes += done.received_bytes
            if done.answered:
                lane.response_bytes += done.answered_bytes
                lane.durations.add(time.perf_counter() - started, done.answered)
            is_last = done.received < batches.size
            self._crowd.read(started, is_empty=is_last)
            self._take(done.others, started, at_once=is_last and not self._turns)
            if is_last:
                break

    def _take(self, others: Sequence[tuple[bytes, Address]], started: float, *, at_once: bool) -> None:
        """Answer what was received, for a moment; what is left then waits for its turn."""
        left = iter(others)
        try:
            for data, client in left if at_once else ():
                self._answer(data, client, started)
                if time.perf_counter() >= started + WORK_SECONDS:
                    break
        finally:  # whatever becomes of one question, the others are answered
            for data, client in left:
                if self._turns.put(client[0], (data, client, started)) is not None:
                    self._lane.silent += 1

    def _work(self) -> None:
        """Answer questions one by one, of each client one in turn, for a moment; then the socket is read again."""
        end = time.perf_counter() + WORK_SECONDS
        try:
            while self._turns:
                self._answer(*self._turns.take())
                if time.perf_counter() >= end:
                    break
        finally:  # whatever becomes of one question, the others are answered
            self._is_working = bool(self._turns)
            if self._is_working:
                self._loop.call_soon(self._work)

    def _answer(self, data: bytes, client: Address, started: float) -> None:
        response = self._respond(data, client[0])
        if isinstance(response, Later):
            response.then(partial(self._send, data, client, started))
        elif response is None or isinstance(response, bytes):
            self._send(data, client, started, response)
        else:
            task = self._loop.create_task(self._later(data, response, client, started))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _later(self, data: bytes, response: Awaitable[bytes | None], client: Address, started: float) -> None:
        self._send(data, client, started, await response)

    def _send(self, data: bytes, client: Address, started: float, response: bytes | None) -> None:
        lane = self._lane
        if response is None:
            lane.silent += 1
            return
        if not self._unsent:
            self._loop.call_soon(self._flush)
        self._unsent.append((client[1], response))
        lane.response_bytes += len(response)
        lane.by_kind[self._counts.kind(len(data), response)] += 1
        lane.durations.add(time.perf_counter() - started)

    def _flush(self) -> None:
        """Send what there is. One that can't be sent (to port 0, say) is left out, and its client asks again."""
        unsent, self._unsent = self._unsent, []
        while unsent and self._socket.fileno() >= 0:
            sent = self._send_all(self._socket.fileno(), unsent[:SENT_AT_ONCE])
            unsent = unsent[sent + (sent < min(SENT_AT_ONCE, len(unsent))) :]


def widen(bound: socket.socket) -> None:
    """Let more questions wait in a socket while the process does something else."""
    if bound.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) >= 2 * RECEIVE_BYTES:
        return  # the kernel doubles it, socket(7)
    try:
        bound.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BYTES)
    except PermissionError:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES)  # as much as the machine allows
