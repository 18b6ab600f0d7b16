"""Load from a pod while something else happens, and what was lost of it: run in the network of the pod, as a script.

    load.py serve PORT        sends back what comes over each connection
    load.py ask WHAT          WHAT in JSON: the parameters of `ask` by name

`ask` sends ICMP echo requests to each of `pings`, messages over one standing connection to each of `streams`, and opens connections to
`services` in turns, which are servers of `tests.engines.image`; addresses are of IPv4 or IPv6. `rates` says how many a second, of each
kind. It says by an empty line that everybody has answered once, ends with its input, and says then, in JSON, how many there were of each
kind, and what was lost or went wrong.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

PATIENCE_SECONDS = 10.0
SO_RCVBUFFORCE, SOL_RAW, ICMP_FILTER, ICMPV6_FILTER = 33, 255, 1, 1
"""Of socket(7), raw(7), and RFC 3542."""
ALL_BUT_ECHO_REPLIES = struct.pack("I", 0xFFFFFFFE)
ALL_BUT_ECHO_REPLIES6 = ((1 << 256) - 1 ^ 1 << 129).to_bytes(32, "little")
"""Type 129; the kernel reads it as eight words in its own order of bytes, which is this one on common machines."""
REQUEST = b"GET / HTTP/1.0\r\n\r\n"
AT_ONCE = 4
"""Connections that are opened at one time."""
ECHO_REQUEST, ECHO_REQUEST6 = 0x0800, 0x8000
"""Type 8, code 0 (RFC 792); 128, 0 (RFC 4443), whose checksum the kernel writes."""


class Worker(threading.Thread):
    """One kind of load, to one place."""

    kind = ""

    def __init__(self, over: threading.Event, rate: float) -> None:
        super().__init__(daemon=True)
        self._over, self._rate = over, rate
        self.count, self.slowest = 0, 0.0
        self.wrong: list[str] = []
        self.has_begun = threading.Event()

    def ticks(self) -> Iterator[int]:
        """By the clock, until it is over; what was late is made up for."""
        began, number = time.monotonic(), 0
        while not self._over.wait(max(0.0, began + number / self._rate - time.monotonic())):
            yield number
            number += 1

    def timed(self, what: Callable[[], None]) -> bool:
        """Do it; False when it went wrong."""
        began = time.monotonic()
        try:
            what()
        except (OSError, EOFError) as error:
            self.wrong.append(f"{self.kind} after {self.count}: {error!r}")
            return False
        self.slowest = max(self.slowest, time.monotonic() - began)
        self.count += 1
        self.has_begun.set()
        return True


class Pings(Worker):
    """To several addresses in turns; the answers are read between."""

    kind = "ping"

    def __init__(self, over: threading.Event, rate: float, targets: list[str]) -> None:
        super().__init__(over, rate)
        self._sockets = {False: _raw(socket.AF_INET, socket.IPPROTO_ICMP), True: _raw(socket.AF_INET6, socket.IPPROTO_ICMPV6)}
        """By whether it is that of IPv6."""
        self._sockets[False].setsockopt(SOL_RAW, ICMP_FILTER, ALL_BUT_ECHO_REPLIES)
        self._sockets[True].setsockopt(socket.IPPROTO_ICMPV6, ICMPV6_FILTER, ALL_BUT_ECHO_REPLIES6)
        self._id = os.getpid() & 0xFFFF
        self._targets, self._left = targets, set[tuple[str, int]]()

    def run(self) -> None:
        """Until it is over, and the last answer had time to come."""
        for number in self.ticks():
            for target in self._targets:
                is_6 = ":" in target
                self._left.add((target, number & 0xFFFF))
                try:
                    self._sockets[is_6].sendto(echo_request(self._id, number & 0xFFFF, is_6=is_6), (target, 0))
                except OSError as error:
                    self.wrong.append(f"ping {target}: {error!r}")
                self.count += 1
            self._receive()
        end = time.monotonic() + PATIENCE_SECONDS
        while self._left and time.monotonic() < end:
            time.sleep(0.02)
            self._receive()
        self.wrong += [f"no answer of {target} to {number}" for target, number in sorted(self._left)]

    def _receive(self) -> None:
        for is_6, one in self._sockets.items():
            with contextlib.suppress(BlockingIOError):
                while True:
                    packet, source = one.recvfrom(256)
                    header = 0 if is_6 else 4 * (packet[0] & 15)
                    id_, number = struct.unpack_from("!HH", packet, header + 4)
                    if id_ == self._id:
                        self._left.discard((source[0], number))
                        self.has_begun.set()


def _raw(family: socket.AddressFamily, protocol: int) -> socket.socket:
    found = socket.socket(family, socket.SOCK_RAW, protocol)
    found.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 1 << 24)
    found.setblocking(False)
    return found


class Stream(Worker):
    """One standing connection."""

    kind = "stream"

    def __init__(self, over: threading.Event, rate: float, target: tuple[str, int]) -> None:
        super().__init__(over, rate)
        self._target = target

    def run(self) -> None:
        """Until it is over, or the connection ended."""
        with socket.create_connection(self._target, PATIENCE_SECONDS) as standing:
            standing.settimeout(3 * PATIENCE_SECONDS)
            for number in self.ticks():
                message = b"%08d" % number
                if not self.timed(lambda message=message: exchange(standing, message)):  # type: ignore[misc]
                    return


class Requests(Worker):
    """A new connection each, to several servers in turns."""

    kind = "request"

    def __init__(self, over: threading.Event, rate: float, targets: list[tuple[str, int]]) -> None:
        super().__init__(over, rate)
        self._targets = targets

    def run(self) -> None:
        """Until it is over."""
        for number in self.ticks():
            target = self._targets[number % len(self._targets)]
            self.timed(lambda target=target: self._ask(target))  # type: ignore[misc]

    def _ask(self, target: tuple[str, int]) -> None:
        with socket.create_connection(target, PATIENCE_SECONDS) as one:
            one.sendall(REQUEST)
            if not one.recv(4096):
                raise EOFError("no answer")


def echo_request(id_: int, number: int, *, is_6: bool) -> bytes:
    """With the checksum of RFC 1071."""
    if is_6:
        return struct.pack("!HHHH", ECHO_REQUEST6, 0, id_, number)
    total = ECHO_REQUEST + id_ + number
    total = (total & 0xFFFF) + (total >> 16)
    return struct.pack("!HHHH", ECHO_REQUEST, ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF, id_, number)


def exchange(connection: socket.socket, message: bytes) -> None:
    """EOFError when the connection ended."""
    connection.sendall(message)
    if connection.recv(len(message), socket.MSG_WAITALL) != message:
        raise EOFError("it has ended")


def echo(connection: socket.socket) -> None:
    """Until its end."""
    with connection:
        while data := connection.recv(4096):
            connection.sendall(data)


def retransmitted() -> int:
    """Segments that this network's TCP sent again: what was lost, or answered late."""
    head, values = (line.split() for line in Path("/proc/self/net/snmp").read_text().splitlines() if line.startswith("Tcp:"))
    return int(dict(zip(head, values, strict=True))["RetransSegs"])


def serve(port: int) -> None:
    """As long as the input is open."""
    listener = socket.create_server(("", port), family=socket.AF_INET6, backlog=64, dualstack_ipv6=True)
    print(flush=True)

    def accept() -> None:
        while True:
            threading.Thread(target=echo, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    sys.stdin.read()


def ask(
    pings: list[str], streams: list[tuple[str, int]], services: list[tuple[str, int]], rates: list[float]
) -> dict[str, object]:
    """As long as the input is open."""
    over = threading.Event()
    workers: list[Worker] = [Pings(over, rates[0], pings)] if pings else []
    workers += [Stream(over, rates[1], (ip, port)) for ip, port in streams]
    workers += [Requests(over, rates[2] / AT_ONCE, [(ip, port) for ip, port in services]) for _ in range(AT_ONCE)]
    for one in workers:
        one.start()
    for one in workers:
        one.has_begun.wait(3 * PATIENCE_SECONDS)
    began, before = time.monotonic(), retransmitted()
    print(flush=True)
    sys.stdin.read()
    seconds = time.monotonic() - began
    over.set()
    for one in workers:
        one.join(3 * PATIENCE_SECONDS)
    found: dict[str, object] = {
        kind: sum(one.count for one in workers if one.kind == kind) for kind in ("ping", "stream", "request")
    }
    slowest = {kind: max((one.slowest for one in workers if one.kind == kind), default=0.0) for kind in ("stream", "request")}
    found["retransmitted"] = retransmitted() - before
    return found | {"seconds": seconds, "slowest": slowest, "wrong": [line for one in workers for line in one.wrong]}


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(int(sys.argv[2]))
    else:
        print(json.dumps(ask(**json.loads(sys.argv[2]))))
