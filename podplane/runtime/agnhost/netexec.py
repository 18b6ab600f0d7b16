"""`agnhost netexec`: what network tests ask over HTTP, UDP and SCTP: who serves, who asks, and to ask others in turn."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections.abc import Callable, Mapping

from podplane.runtime import durations, gotime
from podplane.runtime.agnhost import dial
from podplane.runtime.agnhost.common import BUSY, CannotServe, Context, complain, in_fork, opened, prepared, tls
from podplane.runtime.agnhost.flags import UsageError, Value
from podplane.runtime.http_server import Request, Response, as_json, redirect
from podplane.runtime.loop import Loop, shell
from podplane.runtime.serving import Address, Exchange, Http, Message, Servers, log
from podplane.runtime.sockets import written

FLAGS: Mapping[str, Value] = {
    "http-port": 8080,
    "udp-port": 8081,
    "sctp-port": -1,
    "udp-listen-addresses": "",
    "tls-cert-file": "",
    "tls-private-key-file": "",
    "http-override": "",
    "delay-shutdown": 0,
}
OFF = -1
"""As a port: no such server."""
MAX_EXIT_CODE = 127


def run(context: Context) -> int:
    """Serve until SIGTERM, or until a request ends it."""
    loop, servers = prepared()
    program = Netexec(loop, servers, socket.gethostname(), context.environment, context.flags.text("http-override"))
    loop.on_signal(signal.SIGTERM, lambda: program.terminate(context.flags.number("delay-shutdown")))
    serve(program, servers, context)
    context.ready()
    return loop.run()


def serve(program: Netexec, servers: Servers, context: Context) -> None:
    """Open all ports. CannotServe when one can't be had; without SCTP in the kernel, the rest is served."""
    flags = context.flags
    wrap = None
    if flags.text("tls-cert-file"):
        wrap = tls(servers, flags.text("tls-cert-file"), flags.text("tls-private-key-file"))
    if flags.number("udp-port") != OFF:
        for address in addresses(flags.text("udp-listen-addresses")):
            program.add_datagrams(opened(socket.SOCK_DGRAM, flags.number("udp-port"), address))
            program.serves_messages = True
    if flags.number("sctp-port") != OFF:
        try:
            sock = opened(socket.SOCK_STREAM, flags.number("sctp-port"), protocol=socket.IPPROTO_SCTP)
            port = sock.getsockname()[1]
            servers.add(sock, lambda: Message(lambda data, source: program.message(data, source, port)))
            program.serves_messages = True
        except CannotServe as error:
            complain(f"{error}; the other ports are served")
    servers.add(opened(socket.SOCK_STREAM, flags.number("http-port")), lambda: Http(program.handle, servers), wrap)


def addresses(text: str) -> list[str]:
    """The IP addresses in a list with commas, each once; an empty one for all that there are."""
    found = sorted({word.strip() for word in text.split(",")})
    for ip in found if text else ():
        try:
            socket.inet_pton(socket.AF_INET6 if ":" in ip else socket.AF_INET, ip)
        except OSError:
            raise UsageError(f"--udp-listen-addresses: {ip!r} is not an IP address") from None
    return found


class Netexec:
    """The answers, whatever they come over."""

    def __init__(self, loop: Loop, servers: Servers, name: str, environment: Mapping[str, str], override: str = "") -> None:
        self.serves_messages = False
        self._loop, self._servers = loop, servers
        self._name, self._environment = name.encode(), dict(environment)
        self._override = override
        self._terminating = False
        self._began = time.monotonic_ns()
        self._handlers: Mapping[str, Callable[[Exchange], Response | None]] = {
            "/": self._now,
            "/clientip": lambda exchange: Response(written(exchange.source).encode()),
            "/dial": self._dial,
            "/echo": lambda exchange: echo(exchange.request),
            "/exit": self._exit,
            "/header": lambda exchange: header(exchange.request),
            "/healthz": lambda _: Response(status=200 if self.serves_messages else 412),
            "/hostName": self._hostname,
            "/hostname": self._hostname,
            "/readyz": lambda _: self._readiness(),
            "/redirect": lambda exchange: redirected(exchange.request),
            "/serverport": lambda exchange: Response(str(exchange.local[1]).encode()),
            "/shell": self._shell,
            "/shutdown": self._shutdown,
            "/upload": lambda exchange: upload(exchange.request),
        }

    def add_datagrams(self, sock: socket.socket) -> None:
        """Answer commands over UDP on this socket."""
        port = sock.getsockname()[1]
        self._servers.add_datagrams(sock, lambda data, source: self.message(data, source, port))

    def message(self, data: bytes, source: Address, port: int) -> bytes | None:
        """The answer to a command that came to this port over UDP or SCTP; an unknown one has none."""
        command = data.strip().lower()
        if command == b"hostname":
            return self._name
        if command == b"clientip":
            return written(source).encode()
        if command == b"serverport":
            return str(port).encode()
        if command.startswith(b"echo "):
            return command.removeprefix(b"echo ")
        log(f"unknown command from {written(source)}: {command[:100]!r}")
        return None

    def handle(self, exchange: Exchange) -> Response | None:
        """The answer to a request; any path that isn't known is the root's."""
        if self._override:
            exchange.request = Request("GET", self._override)
        log(f"{exchange.request.method} {exchange.request.target}")
        return self._handlers.get(exchange.request.path, self._now)(exchange)

    def terminate(self, seconds: int) -> None:
        """SIGTERM came: end after so many seconds, and say meanwhile that no new requests are wanted."""
        if seconds <= 0:
            self._loop.stop(0)
        elif not self._terminating:
            log(f"Sleeping {seconds} seconds before terminating")
            self._terminating = True
            self._loop.after(seconds, lambda: self._loop.stop(0))

    def _hostname(self, _: Exchange) -> Response:
        return Response(self._name)

    def _readiness(self) -> Response:
        if self._terminating:
            return Response(b"shutting down", 503)
        return Response(b"ok") if self.serves_messages else Response(status=412)

    def _shutdown(self, _: Exchange) -> None:
        self._loop.stop(0)

    def _exit(self, exchange: Exchange) -> Response | None:
        request = exchange.request
        try:
            timeout, wait = (_seconds(request, name) for name in ("timeout", "wait"))
            code = _integer(request, "code", 0, range(MAX_EXIT_CODE + 1))
        except ValueError as error:
            return Response(f"{error}\n".encode())
        log(f"Will end in {wait:g}s, leave connections {timeout:g}s to close, and exit with {code}")
        self._loop.after(wait, lambda: self._end(exchange, code, timeout))
        return None

    def _end(self, exchange: Exchange, code: int, timeout: float) -> None:
        if timeout <= 0:
            self._loop.stop(code)
        else:
            exchange.answer(Response())
            self._servers.drain(timeout, lambda: self._loop.stop(code))

    def _shell(self, exchange: Exchange) -> Response | None:
        command = exchange.request.parameter("shellCommand", "cmd")

        def done(output: bytes, status: int) -> None:
            result = {"output": output.decode(errors="replace")} if output else {}
            if status:
                result["error"] = ended(status)
            exchange.answer(Response(as_json(result)))

        try:
            return None if self._loop.job(shell(command, self._environment), done) else BUSY
        except ValueError:
            return Response(b"a command has no NUL in it\n", 400)

    def _now(self, _: Exchange) -> Response:
        """The time to the nanosecond: tests of load balancers tell two answers apart by it."""
        return Response(f"NOW: {gotime.text(time.time_ns(), time.monotonic_ns() - self._began)}".encode())

    def _dial(self, exchange: Exchange) -> Response | None:
        try:
            call = dial.Call.of(exchange.request)
        except ValueError as error:
            return Response(f"{error}\n".encode(), 400)

        return in_fork(self._loop, exchange, call.result)


def echo(request: Request) -> Response:
    """What `msg` says, with the status `code`."""
    try:
        code = _integer(request, "code", 200, range(200, 1000))
    except ValueError as error:
        return Response(f"{error}\n".encode())
    return Response(request.parameter("msg").encode(), code)


def header(request: Request) -> Response:
    """The header `key`, or all but Host (which Go takes out of them) as a JSON object of lists."""
    key = request.parameter("key")
    if key:
        return Response(request.header(key).encode("latin-1") if key.lower() != "host" else b"")
    found: dict[str, list[str]] = {}
    for name, value in request.headers:
        if name.lower() != "host":
            found.setdefault("-".join(part.capitalize() for part in name.split("-")), []).append(value)
    return Response(as_json(found))


def redirected(request: Request) -> Response:
    """To `location`, with the status `code` or 302."""
    try:
        return redirect(request.parameter("location"), _integer(request, "code", 302, range(200, 1000)))
    except ValueError as error:
        return Response(f"{error}\n".encode())


def upload(request: Request, directory: str = "/uploads") -> Response:
    """Keep the field `file` of a form in a file of its own; its name is the answer."""
    content = form_file(request)
    if content is None:
        return Response(as_json({"error": "Unable to upload file."}))
    os.makedirs(directory, exist_ok=True)  # the published image has it
    import tempfile  # nobody else needs it

    try:
        fd, name = tempfile.mkstemp(prefix="upload", dir=directory)
    except OSError:
        return Response(as_json({"error": "Unable to open file for write"}))
    with os.fdopen(fd, "wb") as file:
        file.write(content)
        os.fchmod(fd, 0o700)
    return Response(as_json({"output": name}), 201)


def form_file(request: Request) -> bytes | None:
    """The content of the file in the field `file` of a form (RFC 7578), or None."""
    kind, _, rest = request.header("content-type").partition(";")
    boundary = rest.strip().removeprefix("boundary=").strip('"')
    if kind.strip().lower() != "multipart/form-data" or not boundary:
        return None
    for part in (b"\r\n" + request.body).split(b"\r\n--" + boundary.encode("latin-1"))[1:]:
        head, _, content = part.partition(b"\r\n\r\n")
        if b'name="file"' in head and b"filename=" in head:
            return content
    return None


def ended(status: int) -> str:
    """How a command failed, in Go's words, by its wait status."""
    code = os.waitstatus_to_exitcode(status)
    return f"exit status {code}" if code > 0 else f"signal: {(signal.strsignal(-code) or str(-code)).lower()}"


def _integer(request: Request, name: str, default: int, allowed: range) -> int:
    """The parameter's value. ValueError when it is none."""
    text = request.parameter(name)
    if not text:
        return default
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(allowed[-1])) and int(text) in allowed):
        raise ValueError(f"argument {name!r} must be an integer [{allowed[0]}-{allowed[-1]}] or empty, got {json.dumps(text)}")
    return int(text)


def _seconds(request: Request, name: str) -> float:
    """The parameter's value. ValueError when it is no duration."""
    text = request.parameter(name)
    try:
        return durations.parse(text) if text else 0.0
    except ValueError as error:
        raise ValueError(f"argument {name!r} must be a valid duration or empty: {error}") from None
