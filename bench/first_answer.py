"""Asks addresses until each has answered, and says when that was; only the standard library, so that it runs in a pod.

For each line of its input, a JSON list of addresses, it prints the seconds of the machine's monotonic clock at which the last one had
answered over HTTP, or -1 after ten seconds. It asks some hundred times a second and waits between: who is measured needs the processor.
"""

from __future__ import annotations

import json
import socket
import sys
import time

PORT = 8080
REST_SECONDS, PATIENCE_SECONDS, GIVE_UP_SECONDS = 0.001, 0.005, 10.0
QUESTION = b"GET / HTTP/1.1\r\nHost: probe\r\n\r\n"


def answers(address: str, port: int = PORT) -> bool:
    """Does anybody answer there, at once?"""
    try:
        with socket.create_connection((address, port), PATIENCE_SECONDS) as connection:
            connection.sendall(QUESTION)
            return connection.recv(4096).startswith(b"HTTP/1.1 200")
    except OSError:
        return False


def when_all_answered(addresses: list[str], port: int = PORT, give_up: float = GIVE_UP_SECONDS) -> float:
    """The time at which each of these has answered once; -1 when one has not after so many seconds."""
    end, left = time.monotonic() + give_up, list(addresses)
    while time.monotonic() < end:
        left = [one for one in left if not answers(one, port)]
        if not left:
            return time.monotonic()
        time.sleep(REST_SECONDS)
    return -1.0


def main() -> None:
    """Serve questions until the input ends."""
    for line in sys.stdin:
        print(when_all_answered(json.loads(line)), flush=True)


if __name__ == "__main__":
    main()
