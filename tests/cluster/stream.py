"""Traffic while something else happens: run in the network of a pod, as a script.

    stream.py serve PORT                        sends back what comes over a connection
    stream.py ask IP PORT SERVICE-IP PORT       sends over one standing connection to the first, and opens new ones to the second, which
                                                is a server of `tests.engines.image`

`serve` says that it listens, and `ask` that it was answered, by an empty line. It ends with its input, and says then, in JSON, how many
messages were answered over each, and what went wrong.
"""

from __future__ import annotations

import json
import select
import socket
import sys
import time

BETWEEN_SECONDS, PATIENCE_SECONDS = 0.01, 2.0
REQUEST = b"GET / HTTP/1.0\r\n\r\n"


def is_over() -> bool:
    """Is the input closed?"""
    return bool(select.select([sys.stdin], [], [], 0)[0])


def serve(port: int) -> None:
    """One connection."""
    with socket.create_server(("", port)) as listener:
        print(flush=True)
        connection, _ = listener.accept()
        while data := connection.recv(4096):
            connection.sendall(data)


def ask(ip: str, port: int, service: str, service_port: int) -> dict[str, object]:
    """Until the input is closed."""
    standing = socket.create_connection((ip, port), PATIENCE_SECONDS)
    count, failures = 0, list[str]()
    while not is_over():
        try:
            message = b"%08d" % count
            standing.sendall(message)
            assert standing.recv(8, socket.MSG_WAITALL) == message
        except (OSError, AssertionError) as error:
            return {"answered": count, "failures": [*failures, f"standing connection: {error!r}"]}
        try:
            with socket.create_connection((service, service_port), PATIENCE_SECONDS) as one:
                one.sendall(REQUEST)
                assert one.recv(4096)
        except (OSError, AssertionError) as error:
            failures.append(f"new connection: {error!r}")
        count += 1
        if count == 1:
            print(flush=True)
        time.sleep(BETWEEN_SECONDS)
    return {"answered": count, "failures": failures}


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(int(sys.argv[2]))
    else:
        print(json.dumps(ask(sys.argv[2], int(sys.argv[3]), sys.argv[4], int(sys.argv[5]))))
