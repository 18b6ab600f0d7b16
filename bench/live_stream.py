"""Pings of one address 100 times a second by the clock, and beside them lines over one connection to it; only the standard library, so
that it runs in a pod.

    live_stream.py IP [SECONDS [SIZE]]      for so long, else until standard input ends; with so many bytes in each ping

It prints "begun" once the connection is there, and at the end a JSON object: pings that were due, sent, and sent without an answer, and
lines that came back. A connection that breaks is an error.
"""

from __future__ import annotations

import json
import math
import select
import socket
import sys
import threading
import time

PORT, INTERVAL_SECONDS, LAST_SECONDS, USUAL_BYTES = 8080, 0.01, 0.5, 56
LINE = b"x" * 2000 + b"\n"
REQUESTS = {4: 8, 6: 128}
"""Types of echo requests (RFC 792, RFC 4443)."""


class Pings(threading.Thread):
    """Echo requests to an address, in a thread: whatever becomes of the connection, they go on. `due` are those that there was time for."""

    def __init__(self, ip: str, size: int) -> None:
        super().__init__()
        self._ip, self._size, self.sent, self.due = ip, size, 0, 0
        self._answered: set[int] = set()
        self._is_over = threading.Event()
        family, protocol, version = (
            (socket.AF_INET6, socket.IPPROTO_ICMPV6, 6) if ":" in ip else (socket.AF_INET, socket.IPPROTO_ICMP, 4)
        )
        self._type = REQUESTS[version]
        self._socket = socket.socket(family, socket.SOCK_DGRAM, protocol)
        self._socket.setblocking(False)

    def run(self) -> None:
        """Send, until `end`."""
        began = time.monotonic()
        while not self._is_over.wait(max(0.0, began + self.sent * INTERVAL_SECONDS - time.monotonic())):
            self._send()
            self._receive()
        self.due = int((time.monotonic() - began) / INTERVAL_SECONDS)

    def end(self) -> None:
        """Send no more, and wait for the last answers."""
        self._is_over.set()
        self.join()
        time.sleep(LAST_SECONDS)
        self._receive()

    def _send(self) -> None:
        head = bytes((self._type, 0, 0, 0, 0, 0)) + self.sent.to_bytes(2, "big")
        try:
            self._socket.sendto(head + bytes(self._size), (self._ip, 0))
        except OSError:
            pass  # nothing leads there: it is lost
        self.sent += 1

    def _receive(self) -> None:
        while True:
            try:
                self._answered.add(int.from_bytes(self._socket.recv(1 << 16)[6:8], "big"))
            except BlockingIOError:
                return
            except OSError:
                pass  # what was said of a former one

    @property
    def lost(self) -> int:
        """How many had no answer."""
        return self.sent - len(self._answered)


def main() -> None:
    """See above."""
    ip = sys.argv[1]
    end = time.monotonic() + float(sys.argv[2]) if len(sys.argv) > 2 else math.inf
    pings, lines = Pings(ip, int(sys.argv[3]) if len(sys.argv) > 3 else USUAL_BYTES), 0

    def is_over() -> bool:
        if end < math.inf:
            time.sleep(INTERVAL_SECONDS)
            return time.monotonic() > end
        return bool(select.select([sys.stdin], [], [], INTERVAL_SECONDS)[0])

    with socket.create_connection((ip, PORT), timeout=10) as stream:
        answers = stream.makefile("rb")
        print("begun", flush=True)
        pings.start()
        try:
            while not is_over():
                stream.sendall(LINE)
                if not answers.readline().endswith(LINE):
                    raise SystemExit("the connection broke")
                lines += 1
        finally:
            pings.end()
    print(json.dumps({"due": pings.due, "sent": pings.sent, "lost": pings.lost, "lines": lines}))


if __name__ == "__main__":
    main()
