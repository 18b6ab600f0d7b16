"""Traffic while something else happens: run in the network of a pod, as a script.

    stream.py serve PORT                        sends back what comes over a connection, and in datagrams
    stream.py ask IP PORT SERVICE-IP PORT       sends over one standing connection to the first, and datagrams by the clock, and opens new
                                                connections to the second, which is a server of `tests.engines.image`

`serve` says that it listens, and `ask` that it was answered, by an empty line. It ends with its input, and says then, in JSON, how many
messages were answered over the connections, how many datagrams were sent and lost, and what went wrong.
"""

from __future__ import annotations

import json
import select
import socket
import sys
import threading
import time

BETWEEN_SECONDS, PATIENCE_SECONDS = 0.01, 2.0
REQUEST = b"GET / HTTP/1.0\r\n\r\n"


def is_over() -> bool:
    """Is the input closed?"""
    return bool(select.select([sys.stdin], [], [], 0)[0])


def echo_datagrams(port: int) -> None:
    """For ever."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as own:
        own.bind(("", port))
        while True:
            data, source = own.recvfrom(4096)
            own.sendto(data, source)


class Datagrams(threading.Thread):
    """A hundred a second, whatever becomes of the connections."""

    def __init__(self, ip: str, port: int) -> None:
        super().__init__()
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.connect((ip, port))
        self._socket.setblocking(False)
        self._is_over = threading.Event()
        self._answered: set[bytes] = set()
        self.sent = 0

    def run(self) -> None:
        """Until `end`."""
        began = time.monotonic()
        while not self._is_over.wait(max(0.0, began + self.sent * BETWEEN_SECONDS - time.monotonic())):
            try:
                self._socket.send(b"%08d" % self.sent)
            except OSError:
                pass  # it is lost
            self.sent += 1
            self._receive()

    def end(self) -> int:
        """Send no more: how many had no answer?"""
        self._is_over.set()
        self.join()
        time.sleep(PATIENCE_SECONDS / 4)
        self._receive()
        return self.sent - len(self._answered)

    def _receive(self) -> None:
        while True:
            try:
                self._answered.add(self._socket.recv(4096))
            except BlockingIOError:
                return
            except OSError:
                pass  # what was said of a former one


def serve(port: int) -> None:
    """One connection."""
    threading.Thread(target=echo_datagrams, args=(port,), daemon=True).start()
    with socket.create_server(("", port)) as listener:
        print(flush=True)
        connection, _ = listener.accept()
        while data := connection.recv(4096):
            connection.sendall(data)


def ask(ip: str, port: int, service: str, service_port: int) -> dict[str, object]:
    """Until the input is closed."""
    datagrams = Datagrams(ip, port)
    datagrams.start()
    try:
        answered, failures = ask_over_connections(ip, port, service, service_port)
    finally:
        lost = datagrams.end()
    return {"answered": answered, "failures": failures, "datagrams": datagrams.sent, "lost": lost}


def ask_over_connections(ip: str, port: int, service: str, service_port: int) -> tuple[int, list[str]]:
    """Until the input is closed, or the standing connection breaks."""
    standing = socket.create_connection((ip, port), PATIENCE_SECONDS)
    count, failures = 0, list[str]()
    while not is_over():
        try:
            message = b"%08d" % count
            standing.sendall(message)
            assert standing.recv(8, socket.MSG_WAITALL) == message
        except (OSError, AssertionError) as error:
            return count, [*failures, f"standing connection: {error!r}"]
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
    return count, failures


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(int(sys.argv[2]))
    else:
        print(json.dumps(ask(sys.argv[2], int(sys.argv[3]), sys.argv[4], int(sys.argv[5]))))
