"""A thousand datagrams a second from one socket to another, until standard input ends: `python -m bench.datagrams CLIENT SERVER`, of
descriptors. Prints how many were lost, as JSON."""

from __future__ import annotations

import json
import select
import socket
import sys
import time

INTERVAL = 0.001
LAST_SECONDS = 0.5
"""The last datagrams have so long to arrive."""


def main() -> None:
    """Send and receive."""
    client, server = (socket.socket(fileno=int(fd)) for fd in sys.argv[1:3])
    server.setblocking(False)
    sent = received = 0
    due = time.monotonic()
    while not select.select([sys.stdin], [], [], 0)[0]:
        client.send(b"podplane")
        sent += 1
        received += _received(server)
        due += INTERVAL
        time.sleep(max(0.0, due - time.monotonic()))
    end = time.monotonic() + LAST_SECONDS
    while received < sent and time.monotonic() < end:
        received += _received(server)
        time.sleep(INTERVAL)
    print(json.dumps({"sent": sent, "lost": sent - received}))


def _received(server: socket.socket) -> int:
    count = 0
    while True:
        try:
            server.recv(64)
        except BlockingIOError:
            return count
        count += 1


if __name__ == "__main__":
    main()
