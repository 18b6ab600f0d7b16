"""One end of a TCP measurement; only the standard library, so that any Python in any namespace runs it.

tool.py server PORT        serves all three kinds until it is killed
tool.py client PORT        for each line "IP KIND SECONDS" of its input, prints bytes, round trips, or connections a second

Server and client keep to a CPU each, where there are two, so that rounds differ in the path and not in the scheduler's choices.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import time

CHUNK = 1 << 18
SINK, ECHO, CLOSE = b"s", b"e", b"c"
KINDS = {"throughput": SINK, "round-trips": ECHO, "connections": CLOSE}


def serve(port: int) -> None:
    """The first byte of a connection says what its server does: swallow, echo, or close."""
    listener = socket.create_server(("::", port), family=socket.AF_INET6, backlog=4096, dualstack_ipv6=True)
    while True:
        connection, _ = listener.accept()
        kind = connection.recv(1)
        if kind == CLOSE or not kind:
            connection.close()
        else:
            threading.Thread(target=_converse, args=(connection, kind), daemon=True).start()


def _converse(connection: socket.socket, kind: bytes) -> None:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    buffer = memoryview(bytearray(CHUNK))
    with connection:
        try:
            while size := connection.recv_into(buffer):
                if kind == ECHO:
                    connection.sendall(buffer[:size])
        except OSError:
            return


def _connect(ip: str, port: int, kind: bytes) -> socket.socket:
    sock = socket.create_connection((ip, port), 10)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.sendall(kind)
    return sock


def client(ip: str, port: int, kind: str, seconds: float) -> float:
    """How much a second."""
    end = time.monotonic() + seconds
    began, count = time.monotonic(), 0
    if kind == "connections":
        while time.monotonic() < end:
            with _connect(ip, port, CLOSE) as sock:
                sock.recv(1)
            count += 1
    else:
        data = bytes(CHUNK if kind == "throughput" else 1)
        with _connect(ip, port, KINDS[kind]) as sock:
            began = time.monotonic()
            while time.monotonic() < end:
                sock.sendall(data)
                if kind == "round-trips":
                    sock.recv(1)
                count += len(data)
    return count / (time.monotonic() - began)


def pin(which: int) -> None:
    """Keep to one of the CPUs that this process may use."""
    cpus = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cpus[which % len(cpus)]})


if __name__ == "__main__":
    pin(0 if sys.argv[1] == "server" else 1)
    if sys.argv[1] == "server":
        serve(int(sys.argv[2]))
    else:
        for line in sys.stdin:
            ip, kind, seconds = line.split()
            print(client(ip, int(sys.argv[2]), kind, float(seconds)), flush=True)
