"""Asks over and over from inside a pod whether it reaches another one; only the standard library, so that any Python there runs it.

policy_tool.py ADDRESS PORT      sends a datagram from a fresh port each 2 ms to a server that answers, and prints a line for each
                                 change: the time (CLOCK_MONOTONIC, which is the machine's) of the first one that went otherwise than
                                 those before it, and "reached" or "denied". It ends when its standard input does.
"""

from __future__ import annotations

import itertools
import select
import socket
import sys
import time
from collections import deque

EVERY, PATIENCE = 0.002, 1.0
"""Seconds between datagrams, and without an answer until one counts as denied."""
PORTS = range(10_000, 65_536)
"""In turns, so that a connection of one that was reached is forgotten when its turn comes again."""


def main(ip: str, port: int) -> None:
    """Until standard input ends."""
    waiting: deque[tuple[float, socket.socket]] = deque()
    state, due, ports = "", time.monotonic(), itertools.cycle(PORTS)
    while not select.select([sys.stdin], [], [], max(due - time.monotonic(), 0))[0]:
        due = max(due + EVERY, time.monotonic() - EVERY)
        asking = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        asking.setblocking(False)
        asking.bind(("", next(ports)))
        asking.connect((ip, port))
        waiting.append((time.monotonic(), asking))
        asking.send(b"?")
        while waiting and (answer := _outcome(*waiting[0])):
            sent, done = waiting.popleft()
            done.close()
            if answer != state:
                state = answer
                print(f"{sent:.6f} {state}", flush=True)


def _outcome(sent: float, asking: socket.socket) -> str:
    """What became of a datagram; nothing while it may still be answered."""
    try:
        return "reached" if asking.recv(512) else ""
    except BlockingIOError:
        return "denied" if time.monotonic() - sent > PATIENCE else ""
    except OSError:  # it was rejected
        return "denied"


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
