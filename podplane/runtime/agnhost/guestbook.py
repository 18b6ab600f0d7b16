"""`agnhost guestbook`: a store of words with replicas, and a frontend that asks them; the application of a test of many parts."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Mapping
from urllib.parse import urlencode

from podplane.runtime.agnhost.common import Context, in_fork, opened, prepared
from podplane.runtime.agnhost.dial import resolve
from podplane.runtime.agnhost.flags import UsageError, Value
from podplane.runtime.agnhost.reasons import reason
from podplane.runtime.agnhost.web import ask
from podplane.runtime.http_server import Response, as_json
from podplane.runtime.loop import Loop, forked
from podplane.runtime.serving import Exchange, Http, log

FLAGS: Mapping[str, Value] = {"http-port": "80", "backend-port": "6379", "replicaof": ""}
REGISTER_SECONDS, RETRY_SECONDS = 15.0, 1.0
MAX_REPLICAS = 100
HOSTS = {"get": "agnhost-replica", "set": "agnhost-primary"}
"""Which Service a command of the frontend is for."""


def run(context: Context) -> int:
    """Serve until SIGTERM; a replica registers first, and ends when it can't."""
    flags = context.flags
    for name in ("http-port", "backend-port"):
        if not (flags.text(name).isascii() and flags.text(name).isdigit()):
            raise UsageError(f"--{name} {flags.text(name)!r} is not a number")
    loop, servers = prepared()
    book = Guestbook(loop, flags.text("backend-port"))
    servers.add(opened(socket.SOCK_STREAM, int(flags.text("http-port"))), lambda: Http(book.handle, servers))
    if flags.text("replicaof"):
        book.replicate(flags.text("replicaof"))
    context.ready()
    return loop.run()


class Guestbook:
    """The store, and where its replicas are."""

    def __init__(self, loop: Loop, backend_port: str) -> None:
        self._loop, self._port = loop, backend_port
        self._store: dict[str, str] = {}
        self._replicas: list[str] = []

    def handle(self, exchange: Exchange) -> Response | None:
        """The answer to a request."""
        path = exchange.request.path
        if path == "/register":
            return self._register(exchange.request.parameter("host"))
        if path == "/get":
            key = exchange.request.parameter("key")
            return Response(as_json({"data": self._store.get(key, "") if key else self._store}))
        if path == "/set":
            return self._set(exchange)
        if path == "/guestbook":
            return self._proxy(exchange)
        return Response(b"404 page not found\n", 404)

    def _register(self, host: str) -> Response:
        if not host or len(self._replicas) >= MAX_REPLICAS:
            return Response(f"a replica says its host, and there are at most {MAX_REPLICAS} replicas\n".encode(), 400)
        self._replicas.append(host)
        log(f"Node {host!r} registered.")
        return Response(as_json({"data": self._store}))

    def _set(self, exchange: Exchange) -> Response | None:
        key, value = exchange.request.parameter("key"), exchange.request.parameter("value")
        if not key:
            return Response(b"cannot set with empty key.\n", 400)
        self._store[key] = value
        urls = [f"{base(host, self._port)}/set?{urlencode({'key': key, 'value': value})}" for host in self._replicas]
        return in_fork(self._loop, exchange, lambda: propagated(urls)) if urls else UPDATED

    def _proxy(self, exchange: Exchange) -> Response | None:
        command, key = exchange.request.parameter("cmd").lower(), exchange.request.parameter("key")
        if command not in HOSTS:
            return Response(f"unsupported cmd: '{command}'\n".encode(), 400)
        if command == "set" and not key:
            return Response(b"cannot set with empty key.\n", 400)
        query = urlencode({"key": key, "value": exchange.request.parameter("value")})
        host, port = HOSTS[command], self._port
        return in_fork(self._loop, exchange, lambda: proxied(host, port, f"{command}?{query}"))

    def replicate(self, primary: str) -> None:
        """Register at a primary and take over its store."""

        def done(said: bytes, status: int) -> None:
            if status:
                log("Timed out while registering to primary.")
                self._loop.stop(1)
            else:
                self._store = {str(key): str(value) for key, value in json.loads(said).items()}
                log(f"Registered to node: {primary}")

        self._loop.job(forked(lambda: registered(primary, self._port)), done)


UPDATED = Response(as_json({"message": "Updated"}))


def base(host: str, port: str) -> str:
    """The beginning of a URL."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def propagated(urls: list[str]) -> Response:
    """Tell all replicas."""
    for url in urls:
        try:
            ask(url)
        except OSError as error:
            return Response(f"encountered error while propagating to replica '{url}': {reason(error)}\n".encode(), 417)
    return UPDATED


def proxied(host: str, port: str, request: str) -> Response:
    """What a Service of the application answers."""
    try:
        resolve(host, port)
    except ValueError as error:
        return Response(f"host and/or port param are invalid. {error}\n".encode(), 400)
    try:
        return Response(ask(f"{base(host, port)}/{request}")[1])
    except OSError as error:
        return Response(f"encountered error: {reason(error)}\n".encode(), 417)


def registered(primary: str, port: str) -> bytes:
    """The primary's store as JSON, once it knows of this replica. OSError when that takes too long."""
    end, failed = time.monotonic() + REGISTER_SECONDS, OSError("it took too long")
    while time.monotonic() < end:
        try:
            family, address = resolve(primary, port, socket.SOCK_DGRAM)
            with socket.socket(family, socket.SOCK_DGRAM) as sock:
                sock.connect(address)
                own = sock.getsockname()[0]
            data = json.loads(ask(f"{base(primary, port)}/register?{urlencode({'host': own})}")[1])
            return as_json(data["data"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            failed = OSError(str(error))
            log(f"encountered error while registering to primary: {error}. Retrying in {RETRY_SECONDS:g}s.")
            time.sleep(RETRY_SECONDS)
    raise failed
