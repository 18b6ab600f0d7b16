"""`agnhost net`: connections in states that translation of addresses must keep, from the command line or by HTTP.

client              server
  |<----- handshake ---->|
  |<-------- FIN --------|   the server closes its half
  |                      |   the client is in CLOSE_WAIT, and stays there
"""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections.abc import Callable, Mapping

from podplane.runtime.agnhost.common import KILLED_BY_TERM, CannotServe, Context, in_thread, opened, prepared, say
from podplane.runtime.agnhost.dial import resolve
from podplane.runtime.agnhost.flags import UsageError, Value
from podplane.runtime.agnhost.reasons import reason
from podplane.runtime.http_server import Response
from podplane.runtime.serving import Exchange, Http, log

FLAGS: Mapping[str, Value] = {"serve": "", "runner": "", "options": "", "delay-shutdown": 0}
Notes = list[str]
Options = Mapping[str, str | int | bool]
_leaked: list[socket.socket] = []
"""Connections that stay for as long as the process."""


class Failed(Exception):
    """The runner could not do its work; one line that says why."""


def run(context: Context) -> int:
    """Run one runner, or serve those that HTTP asks for."""
    flags = context.flags
    if flags.text("serve"):
        return _serve(context)
    if not flags.text("runner"):
        raise UsageError("Must set either --runner or --serve, see --help")
    delay = flags.number("delay-shutdown")
    signal.signal(signal.SIGTERM, lambda *_: _end_later(delay) if delay > 0 else os._exit(KILLED_BY_TERM))
    context.ready()
    notes: Notes = []
    code = 0
    try:
        execute(flags.text("runner"), flags.text("options"), notes)
    except Failed as error:
        log(f"Error: {error}")
        code = 1
    say("output:\n\n" + "\n".join(notes))
    return code


def _end_later(seconds: int) -> None:
    log(f"Sleeping {seconds} seconds before terminating...")
    time.sleep(seconds)
    os._exit(0)


def _serve(context: Context) -> int:
    host, colon, port = context.flags.text("serve").rpartition(":")
    if not colon or not (port.isascii() and port.isdigit()):
        raise UsageError(f"--serve {context.flags.text('serve')!r}: write it as address:port, or :port")
    loop, servers = prepared()
    if (delay := context.flags.number("delay-shutdown")) > 0:
        loop.on_signal(signal.SIGTERM, lambda: loop.after(delay, lambda: loop.stop(0)))

    def handle(exchange: Exchange) -> Response | None:
        head, _, name = exchange.request.path.rpartition("/")
        if head != "/run":
            return Response(b"404 page not found\n", 404)
        return in_thread(loop, exchange, lambda: answer(name, exchange.request.body.decode(errors="replace")))

    servers.add(opened(socket.SOCK_STREAM, int(port), host.strip("[]")), lambda: Http(handle, servers))
    context.ready()
    return loop.run()


def answer(name: str, options: str) -> Response:
    """What HTTP says of a run."""
    notes: Notes = []
    try:
        execute(name, options, notes)
    except Failed as error:
        return Response("\n".join([f"Error from runner: {error}", "output:", "", *notes, ""]).encode(), 500)
    return Response("\n".join(["ok", "output:", "", *notes, ""]).encode())


def execute(name: str, options: str, notes: Notes) -> None:
    """Run a runner with its options as JSON. Failed when there is none such, or it fails."""
    if name not in RUNNERS:
        raise Failed(f"Invalid runner: {name!r}: it is one of {', '.join(RUNNERS)}")
    work, defaults = RUNNERS[name]
    try:
        work(parsed(options, defaults), notes)
    except (OSError, ValueError, CannotServe) as error:
        raise Failed(reason(error) if isinstance(error, OSError) else str(error)) from None


def parsed(text: str, defaults: Options) -> Options:
    """Options from JSON. Failed when they are none, or not of these names and types."""
    try:
        given = json.loads(text)
    except ValueError as error:
        raise Failed(f"Invalid options JSON: {error}") from None
    if not isinstance(given, dict):
        raise Failed("Invalid options JSON: it is no object")
    names = {name.lower(): name for name in defaults}
    found = dict(defaults)
    for key, value in given.items():
        name = names.get(key.lower())
        if name is None:
            raise Failed(f"Invalid options JSON: {key!r} is not one of {', '.join(defaults)}")
        if type(value) is not type(defaults[name]):
            raise Failed(f"Invalid options JSON: {key} is no {type(defaults[name]).__name__}")
        found[name] = value
    return found


def close_wait_server(options: Options, notes: Notes) -> None:
    """Take one connection, close our half, and keep the other open for a time."""
    notes.append(f"# Run {json.dumps(options)}")
    host, _, port = str(options["LocalAddr"]).rpartition(":")
    if not (port.isascii() and port.isdigit()):
        raise ValueError(f"LocalAddr {options['LocalAddr']!r}: write it as address:port, or :port")
    with opened(socket.SOCK_STREAM, int(port), host.strip("[]")) as server:
        server.setblocking(True)
        notes.append(f"# Server listening on {options['LocalAddr']}")
        connection, _ = server.accept()
        with connection:
            notes.append("# Client connected")
            connection.shutdown(socket.SHUT_WR)
            seconds = int(options["PostFinTimeoutSeconds"])
            notes.append(f"# Server sent FIN, waiting {seconds} seconds")
            time.sleep(max(0, seconds))
    notes.append("# Done")


def close_wait_client(options: Options, notes: Notes) -> None:
    """Connect, wait until the server closes its half, and keep ours open for a time, or for as long as the process lives."""
    notes.append(f"# Run {json.dumps(options)}")
    host, _, port = str(options["RemoteAddr"]).rpartition(":")
    family, address = resolve(host, port)
    connection = socket.socket(family, socket.SOCK_STREAM)
    if options["LeakConnection"]:
        _leaked.append(connection)
    try:
        connection.connect(address)
        notes.append("# Connected to server")
        connection.settimeout(int(options["TimeoutSeconds"]) or None)
        if connection.recv(1):
            raise ValueError("Got data but expected EOF")
        seconds = int(options["PostFinTimeoutSeconds"])
        notes.append(f"# Server has half-closed the connection, waiting {seconds} seconds")
        time.sleep(max(0, seconds))
    finally:
        if not options["LeakConnection"]:
            connection.close()
    notes.append("# Done")


RUNNERS: Mapping[str, tuple[Callable[[Options, Notes], None], Options]] = {
    "nat-closewait-client": (
        close_wait_client,
        {"RemoteAddr": "", "TimeoutSeconds": 0, "PostFinTimeoutSeconds": 0, "LeakConnection": False},
    ),
    "nat-closewait-server": (close_wait_server, {"LocalAddr": "", "PostFinTimeoutSeconds": 0}),
}
"""By name: what it does, and its options with their defaults."""
