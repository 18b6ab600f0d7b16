"""`podplane/echo`: answers over TCP, UDP and HTTP on one port with its own name and the source address that it saw.

    HTTP   any request   → a JSON object: name, source, port
    TCP    each line     → "<name> <source address> <source port> <the line>"
    UDP    each datagram → the same

So whoever asks knows which pod answered, and whether an address was translated on the way. The port is $PORT, 8080 without.
"""

from __future__ import annotations

import json
import selectors
import signal
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from podplane.kernel.zygote_child import Ready
from podplane.runtime.sockets import caller, listener

PORT = 8080
MAX_LINE = 64 * 1024
METHODS = (b"GET ", b"HEAD ", b"POST ", b"PUT ", b"DELETE ", b"PATCH ", b"OPTIONS ")


@dataclass(slots=True)
class Connection:
    """One TCP connection, and what it sent that is not answered yet."""

    sock: socket.socket
    source: tuple[str, int]
    received: bytes = b""
    unsent: bytes = b""
    last: bool = False


def main(argv: list[str], environment: Mapping[str, str], ready: Ready) -> int:
    """Serve until SIGTERM."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    port = int(environment.get("PORT") or PORT)
    server = Echo(socket.gethostname(), listener(socket.SOCK_STREAM, port), listener(socket.SOCK_DGRAM, port))
    ready()
    server.run()
    return 0


class Echo:
    """The server; one thread, as many connections as there are descriptors."""

    def __init__(self, name: str, tcp: socket.socket, udp: socket.socket) -> None:
        self._name = name
        self._tcp, self._udp = tcp, udp
        self._selector = selectors.DefaultSelector()
        self._selector.register(tcp, selectors.EVENT_READ, self._accept)
        self._selector.register(udp, selectors.EVENT_READ, self._datagram)

    def run(self) -> None:
        """Serve for ever."""
        while True:
            for key, _ in self._selector.select():
                if isinstance(key.data, Connection):
                    (self._flush if key.data.unsent else self._serve)(key.data)
                else:
                    key.data()

    def _accept(self) -> None:
        try:
            sock, address = self._tcp.accept()
        except OSError:
            return
        sock.setblocking(False)
        self._selector.register(sock, selectors.EVENT_READ, Connection(sock, caller(address)))

    def _datagram(self) -> None:
        try:
            data, address = self._udp.recvfrom(MAX_LINE)
            self._udp.sendto(self._line(caller(address), data), address)
        except OSError:
            return

    def _serve(self, connection: Connection) -> None:
        try:
            data = connection.sock.recv(MAX_LINE)
            connection.received += data
            connection.last = not data or not self._answer(connection)
        except BlockingIOError:
            return
        except OSError:
            connection.last = True
        self._flush(connection)

    def _flush(self, connection: Connection) -> None:
        """Send what can be sent now; who doesn't read his answers isn't asked for more."""
        try:
            connection.unsent = connection.unsent[connection.sock.send(connection.unsent) :] if connection.unsent else b""
        except BlockingIOError:
            pass
        except OSError:
            connection.unsent, connection.last = b"", True
        if connection.last and not connection.unsent:
            self._selector.unregister(connection.sock)
            connection.sock.close()
        else:
            events = selectors.EVENT_WRITE if connection.unsent else selectors.EVENT_READ
            self._selector.modify(connection.sock, events, connection)

    def _answer(self, connection: Connection) -> bool:
        """Answer what has come whole; False when the connection is done."""
        if connection.received.startswith(METHODS):
            if b"\r\n\r\n" not in connection.received and b"\n\n" not in connection.received:
                return len(connection.received) < MAX_LINE
            connection.unsent = self._http(connection)
            return False
        *lines, connection.received = connection.received.split(b"\n")
        connection.unsent = b"".join(self._line(connection.source, line) + b"\n" for line in lines)
        return len(connection.received) < MAX_LINE

    def _http(self, connection: Connection) -> bytes:
        source, port = connection.source
        body = json.dumps({"name": self._name, "source": source, "port": port}).encode() + b"\n"
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        return head.encode() + (b"" if connection.received.startswith(b"HEAD ") else body)

    def _line(self, source: tuple[str, int], data: bytes) -> bytes:
        return f"{self._name} {source[0]} {source[1]} ".encode() + data
