"""Questions for names while something else happens, and a name server of others: run in the network of a pod, or of a machine, as a script.

    questions.py serve ADDRESS                answers each question for an A record, at port 53, with this address
    questions.py ask SERVER RATE NAME...      asks for these names in turn, so many questions a second, each from a port of its own

Both say by an empty line that they listen, or were answered, and end with their input. `ask` says then, in JSON, how many questions it
asked, what went wrong with how many, the longest time until an answer in seconds, and which addresses were told how often, by name.
"""

from __future__ import annotations

import collections
import json
import selectors
import socket
import struct
import sys
import time

PORT = 53
PATIENCE_SECONDS = 5.0
"""glibc's (resolv.conf(5), timeout)."""
HEADER, FOUND, TTL = 12, b"\xc0\x0c\0\1\0\1", 5


def serve(address: str) -> None:
    """Until the input is closed."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as own, selectors.DefaultSelector() as selector:
        own.bind(("", PORT))
        selector.register(own, selectors.EVENT_READ)
        selector.register(sys.stdin, selectors.EVENT_READ)
        print(flush=True)
        while sys.stdin not in (key.fileobj for key, _ in selector.select()):
            question, source = own.recvfrom(512)
            own.sendto(answer(question, address), source)


def answer(message: bytes, address: str) -> bytes:
    """One A record, whatever was asked for."""
    end = message.index(b"\0", HEADER) + 5
    counts = struct.pack(">HHHH", 1, 1, 0, 0)
    record = FOUND + struct.pack(">IH", TTL, 4) + socket.inet_aton(address)
    return message[:2] + b"\x84\x00" + counts + message[HEADER:end] + record


def question(number: int, name: str) -> bytes:
    """For its A records."""
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return struct.pack(">HHHHHH", number & 0xFFFF, 0x0100, 1, 0, 0, 0) + labels + b"\0\0\1\0\1"


def said(message: bytes) -> str:
    """The last address of a response, or its code."""
    code, records = message[3] & 15, struct.unpack_from(">H", message, 6)[0]
    return socket.inet_ntoa(message[-4:]) if records and not code else f"code {code}"


class Asking:
    """Questions on their way, and what became of the others."""

    def __init__(self, server: str, names: list[str]) -> None:
        self.server, self.names = server, names
        self.selector = selectors.DefaultSelector()
        self.asked, self.longest = 0, 0.0
        self.failures: collections.Counter[str] = collections.Counter()
        self.told = {name: collections.Counter[str]() for name in names}
        self.open: dict[socket.socket, tuple[float, str]] = {}

    def ask(self) -> None:
        """One question more."""
        one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        one.setblocking(False)
        name = self.names[self.asked % len(self.names)]
        self.asked += 1
        try:
            one.connect((self.server, PORT))
            one.send(question(self.asked, name))
        except OSError as error:
            self.failures[f"send: {error.strerror}"] += 1
            one.close()
            return
        self.open[one] = (time.monotonic(), name)
        self.selector.register(one, selectors.EVENT_READ)

    def read(self, seconds: float) -> None:
        """Take answers for so long."""
        for key, _ in self.selector.select(max(0.0, seconds)):
            one = key.fileobj
            assert isinstance(one, socket.socket)
            began, name = self.open[one]
            try:
                self.told[name][said(one.recv(4096))] += 1
                self.longest = max(self.longest, time.monotonic() - began)
            except OSError as error:
                self.failures[f"{error.strerror}"] += 1
            self._close(one)

    def give_up(self) -> None:
        """Those that nobody answered in time."""
        old = time.monotonic() - PATIENCE_SECONDS
        for one in [one for one, (began, _) in self.open.items() if began < old]:
            self.failures["no answer"] += 1
            self._close(one)

    def _close(self, one: socket.socket) -> None:
        self.selector.unregister(one)
        del self.open[one]
        one.close()


def ask(server: str, rate: float, names: list[str]) -> dict[str, object]:
    """Until the input is closed."""
    asking, began, is_said = Asking(server, names), time.monotonic(), False
    with selectors.DefaultSelector() as stdin:
        stdin.register(sys.stdin, selectors.EVENT_READ)
        while not stdin.select(0):
            if (wait := began + asking.asked / rate - time.monotonic()) <= 0:
                asking.ask()
                asking.give_up()
            asking.read(min(max(wait, 0.0), 1 / rate))
            if not is_said and any(asking.told.values()):
                is_said = print(flush=True) is None
    while asking.open:
        asking.read(0.1)
        asking.give_up()
    return {"asked": asking.asked, "failures": asking.failures, "longest": round(asking.longest, 3), "told": asking.told}


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2])
    else:
        print(json.dumps(ask(sys.argv[2], float(sys.argv[3]), sys.argv[4:])))
