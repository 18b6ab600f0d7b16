"""`agnhost port-forward-tester`: takes one connection and sends chunks on it, as the environment says."""

from __future__ import annotations

import socket
import time

from podplane.runtime.agnhost.common import CannotServe, Context, opened, quoted, say
from podplane.runtime.agnhost.dial import resolve
from podplane.runtime.agnhost.reasons import reason

READ_TOO_FEW, READ_OTHERS, WROTE_TOO_FEW = 2, 3, 4
"""Exit codes."""
LINGER_SECONDS = 0.5
"""As Go's server waits before it closes a connection on which something may be unread."""


def run(context: Context) -> int:
    """Serve one connection."""
    environment = context.environment
    try:
        _, address = resolve(environment.get("BIND_ADDRESS") or "localhost", environment.get("BIND_PORT", ""))
    except ValueError as error:
        raise CannotServe(f"Error resolving: {error}") from None
    with opened(socket.SOCK_STREAM, address[1], address[0]) as server:
        server.setblocking(True)
        context.ready()
        connection, _ = server.accept()
    say("Accepted client connection")
    with connection:
        code = _read(connection, environment.get("EXPECTED_CLIENT_DATA", "").encode())
        return code or _write(connection, *(_number(context, name) for name in ("CHUNKS", "CHUNK_SIZE", "CHUNK_INTERVAL")))


def _number(context: Context, name: str) -> int:
    text = context.environment.get(name, "")
    if not (text.isascii() and text.isdigit()):
        raise CannotServe(f"Error parsing {name} {quoted(text)}: it is not a number")
    return int(text)


def _read(connection: socket.socket, expected: bytes) -> int:
    """Read what is expected; an exit code."""
    if not expected:
        return 0
    data = connection.recv(len(expected))
    if len(data) != len(expected):
        say(f"Expected to read {len(expected)} bytes from client, but got {len(data)} instead.")
        return READ_TOO_FEW
    if data != expected:
        say(f"Expect to read {quoted(expected.decode(errors='replace'))}, but got {quoted(data.decode(errors='replace'))}.")
        return READ_OTHERS
    say("Received expected client data")
    return 0


def _write(connection: socket.socket, chunks: int, size: int, interval: int) -> int:
    """Write the chunks, `interval` milliseconds between them, and close the connection in good order; an exit code."""
    for number in range(chunks):
        try:
            connection.sendall(b"x" * size)
        except OSError as error:
            say(f"Expected to write {size} bytes from client, but could not: {reason(error)}")
            return WROTE_TOO_FEW
        if number + 1 < chunks:
            time.sleep(interval / 1000)
    say("Shutting down connection")
    connection.shutdown(socket.SHUT_WR)
    time.sleep(LINGER_SECONDS)
    say("Done")
    return 0
