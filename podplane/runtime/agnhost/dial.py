"""The `/dial` of netexec: asks another server, as often as wanted, over HTTP, UDP or SCTP. It waits, so it runs in a fork."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from podplane.runtime.agnhost.reasons import reason
from podplane.runtime.http_server import Request, Response, as_json

SECONDS = 5.0
"""How long one try may take."""
MAX_TRIES = 10_000
MAX_ANSWER_BYTES = 1024 * 1024
MESSAGE_BYTES = 2048
CHUNK_BYTES = 64 * 1024
LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,18})[ \t]*(?:\r\n|$)", re.IGNORECASE)

Endpoint = tuple[socket.AddressFamily, tuple[str, int]]


@dataclass(frozen=True, slots=True)
class Call:
    """What is to be asked of whom, and how often."""

    host: str
    port: str
    request: str
    protocol: str = "http"
    tries: int = 1

    @classmethod
    def of(cls, request: Request) -> Call:
        """The call that a request asks for. ValueError when it doesn't say what is needed."""
        tries = request.parameter("tries") or "1"
        if not (tries.isascii() and tries.isdigit() and len(tries) <= len(str(MAX_TRIES)) and int(tries) <= MAX_TRIES):
            raise ValueError(f"tries parameter is invalid: {json.dumps(tries)} is not a number from 0 to {MAX_TRIES}")
        if not request.parameter("request"):
            raise ValueError("request parameter not specified")
        protocol = request.parameter("protocol").lower() or "http"
        if protocol not in DIALERS:
            raise ValueError(f"unsupported protocol {json.dumps(protocol)}: it is one of {', '.join(DIALERS)}")
        return cls(request.parameter("host"), request.parameter("port"), request.parameter("request"), protocol, int(tries))

    def result(self) -> Response:
        """JSON, with what came back and what went wrong."""
        try:
            endpoint = resolve(self.host, self.port)
        except ValueError as error:
            return Response(f"host and/or port param are invalid: {error}\n".encode(), 400)
        found: dict[str, list[str]] = {}
        for _ in range(self.tries):
            try:
                text = DIALERS[self.protocol](self, endpoint).decode(errors="replace")
                found.setdefault("responses", []).append(text)
            except OSError as error:
                found.setdefault("errors", []).append(f"{self.protocol} {self.host}:{self.port}: {reason(error)}")
        return Response(as_json(found))


def resolve(host: str, port: str, kind: socket.SocketKind = socket.SOCK_STREAM) -> Endpoint:
    """Where this is. ValueError, with one line that says why, when nobody knows; no host is this one."""
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and 0 < int(port) < 1 << 16):
        raise ValueError(f"port {port!r} is not a number from 1 to 65535")
    try:
        found = socket.getaddrinfo(host.strip("[]") or None, int(port), type=kind)
    except (OSError, UnicodeError) as error:
        raise ValueError(f"lookup {host}: {getattr(error, 'strerror', None) or error}") from None
    family, _, _, _, address = min(found, key=lambda entry: entry[0] != socket.AF_INET)  # IPv4 first, as Go
    return family, (str(address[0]), int(address[1]))


def _http(call: Call, endpoint: Endpoint) -> bytes:
    """GET, as HTTP/1.0 asks: then the answer ends with the connection, or where its length says."""
    host = f"[{call.host.strip('[]')}]" if ":" in call.host else call.host or "localhost"
    target = "".join(c if "!" <= c <= "~" else "".join(f"%{byte:02X}" for byte in c.encode()) for c in call.request)
    deadline = time.monotonic() + SECONDS
    with socket.socket(endpoint[0], socket.SOCK_STREAM) as sock:
        sock.settimeout(SECONDS)
        sock.connect(endpoint[1])
        sock.sendall(f"GET /{target} HTTP/1.0\r\nHost: {host}:{call.port}\r\nUser-Agent: agnhost\r\n\r\n".encode())
        data = b""
        while not _is_whole(data) and (chunk := _chunk(sock, deadline)):
            data += chunk
            if len(data) > MAX_ANSWER_BYTES:
                raise OSError(f"the answer is longer than {MAX_ANSWER_BYTES} bytes")
    head, end, body = data.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/") or not end:
        raise OSError("the answer is not HTTP")
    return body


def _is_whole(answer: bytes) -> bool:
    """As its length says: some servers leave the connection open."""
    head, _, body = answer.partition(b"\r\n\r\n")
    length = LENGTH.search(head)
    return length is not None and len(body) >= int(length[1])


def _chunk(sock: socket.socket, deadline: float) -> bytes:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    sock.settimeout(left)
    return sock.recv(CHUNK_BYTES)


def _message(call: Call, endpoint: Endpoint, kind: socket.SocketKind, protocol: int) -> bytes:
    with socket.socket(endpoint[0], kind, protocol) as sock:
        sock.settimeout(SECONDS)
        sock.connect(endpoint[1])
        sock.send(call.request.encode())
        data = sock.recv(MESSAGE_BYTES)
        if not data:
            raise OSError("the answer is empty")
        return data


DIALERS: Mapping[str, Callable[[Call, Endpoint], bytes]] = {
    "http": _http,
    "udp": lambda call, endpoint: _message(call, endpoint, socket.SOCK_DGRAM, 0),
    "sctp": lambda call, endpoint: _message(call, endpoint, socket.SOCK_STREAM, socket.IPPROTO_SCTP),
}
