"""Datagrams between pods, a hundred a second, whatever happens meanwhile: run in the network of each pod, as a script.

    flow.py serve        answers what comes to port 9000, until its input is closed
    flow.py ask IP…      sends to each of these addresses until then

It says by an empty line that it has begun. At the end it says in JSON, by address, how many were sent, and which had no answer.
"""

from __future__ import annotations

import json
import select
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence

PORT = 9000
BETWEEN_SECONDS, PATIENCE_SECONDS = 0.01, 1.0
END_SECONDS = 20.0
Lost = Mapping[str, tuple[int, list[int]]]
"""Address → how many were sent, and the numbers of those that had no answer."""


def server(family: socket.AddressFamily) -> socket.socket:
    """A socket that everybody reaches at the port."""
    own = socket.socket(family, socket.SOCK_DGRAM)
    if family == socket.AF_INET6:
        own.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    own.bind(("", PORT))
    return waiting(own)


def waiting(own: socket.socket) -> socket.socket:
    """A socket that never waits, and keeps what comes while this process has no turn."""
    own.setblocking(False)
    own.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)  # what the machine allows of it
    return own


class Flow:
    """What is sent to one address, and what comes back."""

    def __init__(self, ip: str) -> None:
        self.ip = ip
        self.socket = waiting(socket.socket(socket.AF_INET6 if ":" in ip else socket.AF_INET, socket.SOCK_DGRAM))
        self.sent = 0
        self.answered: set[bytes] = set()

    def send(self) -> None:
        """One more; what can't be sent is lost."""
        try:
            self.socket.sendto(b"%08d" % self.sent, (self.ip, PORT))
        except OSError:
            pass
        self.sent += 1

    def lost(self) -> list[int]:
        """The numbers of those that had no answer."""
        return [number for number in range(self.sent) if b"%08d" % number not in self.answered]

    def receive(self) -> None:
        """All that is there."""
        while True:
            try:
                self.answered.add(self.socket.recv(64))
            except BlockingIOError:
                return
            except OSError:
                pass  # what was said of a former one


def answer(own: socket.socket) -> None:
    """All that is there."""
    while True:
        try:
            data, source = own.recvfrom(64)
            own.sendto(data, source)
        except BlockingIOError:
            return
        except OSError:
            pass


def exchange(servers: Sequence[socket.socket], flows: Sequence[Flow], until: float) -> None:
    """Answer and receive until then."""
    while (left := until - time.monotonic()) > 0:
        ready, _, _ = select.select([*servers, *(one.socket for one in flows)], [], [], left)
        for one in servers:
            if one in ready:
                answer(one)
        for flow in flows:
            if flow.socket in ready:
                flow.receive()


def is_over() -> bool:
    """Is the input closed?"""
    return bool(select.select([sys.stdin], [], [], 0)[0])


def main(what: str, ips: Sequence[str]) -> None:
    """Until the input is closed, and a while longer for what is on the way."""
    servers = [server(socket.AF_INET), server(socket.AF_INET6)] if what == "serve" else []
    flows = [*map(Flow, ips)]
    print(flush=True)
    due = time.monotonic()
    while not is_over():
        for flow in flows:
            flow.send()
        due = max(due + BETWEEN_SECONDS, time.monotonic() - PATIENCE_SECONDS)
        exchange(servers, flows, max(due, time.monotonic() + 0.001))
    exchange(servers, flows, time.monotonic() + PATIENCE_SECONDS)
    print(json.dumps({one.ip: (one.sent, one.lost()) for one in flows}))


def begun(process: subprocess.Popen[str]) -> subprocess.Popen[str]:
    """It, once it has begun."""
    assert process.stdout is not None and process.stdout.readline() == "\n", "it did not begin"
    return process


def ended(*processes: subprocess.Popen[str]) -> list[Lost]:
    """What each of them says at its end. Who answers goes on for a while after whoever asks has ended."""
    for one in processes:
        assert one.stdin is not None
        one.stdin.close()
    found = []
    for one in processes:
        assert one.stdout is not None
        found.append(json.loads(one.stdout.read()))
        one.wait(END_SECONDS)
    return found


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
