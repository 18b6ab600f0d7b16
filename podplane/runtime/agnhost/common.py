"""What the subcommands share: how they are declared, open what they serve, and end."""

from __future__ import annotations

import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from podplane.kernel.zygote import Ready
from podplane.runtime.agnhost.flags import Flags, UsageError, Value
from podplane.runtime.loop import Loop
from podplane.runtime.serving import Servers, Wrap, ignore_broken_pipes, log
from podplane.runtime.sockets import listener

KILLED_BY_TERM = 2
"""The exit code of a Go program as process 1 that doesn't handle SIGTERM: the kernel doesn't end it, its runtime does."""


@dataclass(frozen=True, slots=True)
class Context:
    """What a subcommand is given: its flags, the words of the whole command, the environment, and what to call when it serves."""

    flags: Flags
    argv: tuple[str, ...]
    environment: Mapping[str, str]
    ready: Ready


@dataclass(frozen=True, slots=True)
class Subcommand:
    """One subcommand: what it does, its flags with their defaults, and how many other words it takes (None: whatever comes)."""

    run: Callable[[Context], int]
    about: str
    flags: Mapping[str, Value] = field(default_factory=dict)
    arguments: int | None = 0


class CannotServe(Exception):
    """A port can't be served; one line that says why."""


def opened(kind: socket.SocketKind, port: int, address: str = "", protocol: int = 0) -> socket.socket:
    """A socket that listens. UsageError when there is no such port or address, CannotServe when it can't be had."""
    if not 0 <= port < 1 << 16:
        raise UsageError(f"port {port}: a port is a number from 0 to 65535")
    name = "SCTP" if protocol == socket.IPPROTO_SCTP else "UDP" if kind == socket.SOCK_DGRAM else "TCP"
    try:
        sock = listener(kind, port, address, protocol)
    except OSError as error:
        raise CannotServe(f"{name} port {port} can't be served: {error.strerror or error}") from None
    log(f"Serving {name} on port {sock.getsockname()[1]}")
    return sock


def tls(servers: Servers, certificate: str, key: str, protocols: Sequence[str] = ()) -> Wrap:
    """What puts TLS on a connection, with these PEM files (the key may be in the first) and application protocols (ALPN).

    CannotServe when the files are no good.
    """
    import ssl  # costs megabytes

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certificate, key or None)
    except OSError as error:
        raise CannotServe(f"TLS with certificate {certificate!r} and key {key!r}: {error.strerror or error}") from None
    if protocols:
        context.set_alpn_protocols(protocols)
    servers.not_yet = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
    return lambda sock: context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)


def prepared() -> tuple[Loop, Servers]:
    """A loop and servers that a client's leaving doesn't end; SIGTERM and SIGINT do."""
    ignore_broken_pipes()
    loop = Loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.on_signal(number, lambda: loop.stop(KILLED_BY_TERM))
    return loop, Servers(loop)


def say(text: str) -> None:
    """One line on standard output, at once: a program's end doesn't write what is left."""
    print(text, flush=True)


def complain(text: str) -> None:
    """One line on standard error."""
    print(text, file=sys.stderr, flush=True)
