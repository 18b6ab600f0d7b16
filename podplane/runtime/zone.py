"""`podplane/zone`: the name server of the host outside, for the zone `example.test`, over UDP and TCP.

podplane/zone IP...   the addresses that names of the zone have
"""

from __future__ import annotations

import contextlib
import signal
import socket
import sys
from collections.abc import Mapping

from podplane.kernel.zygote_child import Ready
from podplane.runtime.sockets import listener

PORT = 53
MAX_CONNECTIONS, IDLE_SECONDS = 64, 10.0


def main(argv: list[str], environment: Mapping[str, str], ready: Ready) -> int:
    """Serve until SIGTERM."""
    import threading  # here, and not in the zygote, of which each container is a copy; so are the others

    from podplane.dns import example_zone
    from podplane.dns.static_zone import StaticZone, respond

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    zone = example_zone.zone(argv[1:])
    udp, tcp = listener(socket.SOCK_DGRAM, PORT), listener(socket.SOCK_STREAM, PORT)
    for one in (udp, tcp):
        one.setblocking(True)
    room = threading.Semaphore(MAX_CONNECTIONS)

    def converse(connection: socket.socket, zone: StaticZone) -> None:
        with connection, contextlib.suppress(OSError, EOFError):
            connection.settimeout(IDLE_SECONDS)
            while True:
                length = int.from_bytes(_exactly(connection, 2), "big")
                response = respond(zone, _exactly(connection, length), tcp=True)
                if response is None:
                    break
                connection.sendall(len(response).to_bytes(2, "big") + response)
        room.release()

    def accept() -> None:
        while True:
            room.acquire()
            connection, _ = tcp.accept()
            threading.Thread(target=converse, args=(connection, zone), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    ready()
    while True:
        with contextlib.suppress(OSError):
            data, client = udp.recvfrom(4096)
            if (response := respond(zone, data)) is not None:
                udp.sendto(response, client)


def _exactly(connection: socket.socket, length: int) -> bytes:
    """So many bytes. EOFError when there are no more."""
    data = b""
    while len(data) < length:
        part = connection.recv(length - len(data))
        if not part:
            raise EOFError
        data += part
    return data
