"""Pings of one address 100 times a second, and a line over one connection to it after each, until standard input ends; only the standard
library, so that it runs in a pod.

It prints "begun" once the connection is there, and at the end a JSON object: pings sent, pings without an answer, lines that came back. A
connection that breaks is an error.
"""

from __future__ import annotations

import json
import select
import socket
import sys
import time

PORT, INTERVAL_SECONDS, LAST_SECONDS = 8080, 0.01, 0.5
LINE = b"x" * 2000 + b"\n"
REQUESTS = {4: 8, 6: 128}
"""Types of echo requests (RFC 792, RFC 4443)."""


class Pings:
    """Echo requests to an address, of which it is known which were answered."""

    def __init__(self, ip: str) -> None:
        self._ip, self.sent = ip, 0
        self._answered: set[int] = set()
        family, protocol = (socket.AF_INET6, socket.IPPROTO_ICMPV6) if ":" in ip else (socket.AF_INET, socket.IPPROTO_ICMP)
        self._type = REQUESTS[6 if ":" in ip else 4]
        self._socket = socket.socket(family, socket.SOCK_DGRAM, protocol)
        self._socket.setblocking(False)

    def send(self) -> None:
        """One more."""
        self._socket.sendto(bytes((self._type, 0, 0, 0, 0, 0)) + self.sent.to_bytes(2, "big") + bytes(56), (self._ip, 0))
        self.sent += 1

    def receive(self) -> None:
        """What has come."""
        while True:
            try:
                self._answered.add(int.from_bytes(self._socket.recv(4096)[6:8], "big"))
            except BlockingIOError:
                return

    @property
    def lost(self) -> int:
        """How many had no answer yet."""
        return self.sent - len(self._answered)


def main() -> None:
    """See above."""
    ip = sys.argv[1]
    pings, lines = Pings(ip), 0
    with socket.create_connection((ip, PORT), timeout=10) as stream:
        answers = stream.makefile("rb")
        print("begun", flush=True)
        while not select.select([sys.stdin], [], [], INTERVAL_SECONDS)[0]:
            pings.send()
            stream.sendall(LINE)
            if not answers.readline().endswith(LINE):
                raise SystemExit("the connection broke")
            lines += 1
            pings.receive()
    time.sleep(LAST_SECONDS)
    pings.receive()
    print(json.dumps({"sent": pings.sent, "lost": pings.lost, "lines": lines}))


if __name__ == "__main__":
    main()
