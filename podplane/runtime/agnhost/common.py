"""What the subcommands share: how they are declared, open what they serve, and end."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from podplane.kernel.zygote_child import Ready
from podplane.runtime.agnhost.flags import Flags, UsageError, Value
from podplane.runtime.http_server import Response
from podplane.runtime.loop import MAX_JOBS, Loop, forked
from podplane.runtime.serving import Exchange, Servers, Wrap, ignore_broken_pipes, log
from podplane.runtime.sockets import listener

BUSY = Response(b"too many commands run at once: try again\n", 503)
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
    """One subcommand: what it does, its flags with their defaults, how many other words it takes (None: whatever comes), and letters
    that stand for flags."""

    run: Callable[[Context], int]
    about: str
    flags: Mapping[str, Value] = field(default_factory=dict)
    arguments: int | None = 0
    short: Mapping[str, str] = field(default_factory=dict)


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


def in_fork(loop: Loop, exchange: Exchange, work: Callable[[], Response]) -> Response | None:
    """Answer with what `work`, which waits, finds in a fork; its content type is that of text."""

    def said() -> bytes:
        response = work()
        return f"{response.status} ".encode() + response.body

    def done(output: bytes, status: int) -> None:
        if status:
            exchange.answer(Response(b"the answers are too many, or too long: ask for less\n", 500))
        else:
            code, _, body = output.partition(b" ")
            exchange.answer(Response(body, int(code)))

    return None if loop.job(forked(said), done) else BUSY


def in_thread(loop: Loop, exchange: Exchange, work: Callable[[], Response]) -> Response | None:
    """Answer with what `work`, which waits, finds in a thread: what it leaves open stays open."""
    import threading  # which nobody has who needs none

    if threading.active_count() > MAX_JOBS:
        return BUSY

    def answer() -> None:
        response = work()
        loop.call(lambda: exchange.answer(response))

    threading.Thread(target=answer, daemon=True).start()
    return None


def klog(text: str, level: str = "I") -> None:
    """One line on standard error, as Kubernetes' components write them."""
    now = time.time()
    head = f"{level}{time.strftime('%m%d %H:%M:%S', time.localtime(now))}.{int(now % 1 * 10**6):06} {os.getpid():7} agnhost:1]"
    complain(f"{head} {text}")


def quoted(text: str) -> str:
    """The text in quotes, as Go has it."""
    import json

    return json.dumps(text, ensure_ascii=False)


def say(text: str) -> None:
    """One line on standard output, at once: a program's end doesn't write what is left."""
    print(text, flush=True)


def complain(text: str) -> None:
    """One line on standard error."""
    print(text, file=sys.stderr, flush=True)
