"""`agnhost grpc-health-checking`: grpc.health.v1.Health on one port, and over HTTP on another the word that makes it well or ill."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping

from podplane.runtime import durations
from podplane.runtime.agnhost.common import Context, opened, prepared, tls
from podplane.runtime.agnhost.flags import UsageError, Value
from podplane.runtime.http_server import Response
from podplane.runtime.serving import Connection, Exchange, Http, log

FLAGS: Mapping[str, Value] = {
    "delay-unhealthy-sec": -1,
    "http-port": 8080,
    "port": 5000,
    "service": "",
    "tls-cert-file": "",
    "tls-private-key-file": "",
}


def run(context: Context) -> int:
    """Serve until SIGTERM."""
    flags = context.flags
    certificate, key = flags.text("tls-cert-file"), flags.text("tls-private-key-file")
    if bool(certificate) is not bool(key):
        raise UsageError("Both --tls-cert-file and --tls-private-key-file must be set")
    loop, servers = prepared()
    health = Health(loop.clock, flags.text("service"), flags.number("delay-unhealthy-sec"))
    wrap = tls(servers, certificate, key, ("h2",)) if certificate else None
    servers.add(opened(socket.SOCK_STREAM, flags.number("http-port")), lambda: Http(health.handle, servers))
    servers.add(opened(socket.SOCK_STREAM, flags.number("port")), lambda: Grpc(health.check), wrap)
    context.ready()
    return loop.run()


class Health:
    """Whether the service is well: until so many seconds have passed, or as somebody wants it."""

    def __init__(self, clock: Callable[[], float], service: str, ill_after: int) -> None:
        self._clock, self._started = clock, clock()
        self._service, self._ill_after = service, ill_after
        self._forced = False

    def check(self, service: str) -> int | None:
        """The status of this service; nothing for another one."""
        from podplane.runtime.grpc_health import NOT_SERVING, SERVING

        log(f"Serving the Check request for health check of {service!r}")
        if service != self._service:
            return None
        is_old = 0 <= self._ill_after <= self._clock() - self._started
        return NOT_SERVING if self._forced or is_old else SERVING

    def handle(self, exchange: Exchange) -> Response:
        """/make-serving and /make-not-serving; the answer says how long it has been serving."""
        path = exchange.request.path
        if path not in ("/make-serving", "/make-not-serving"):
            return Response(b"404 page not found\n", 404)
        self._forced = path == "/make-not-serving"
        log("Mark as unhealthy" if self._forced else "Mark as healthy")
        return Response(durations.written(self._clock() - self._started).encode())


class Grpc:
    """gRPC on one connection."""

    def __init__(self, check: Callable[[str], int | None]) -> None:
        from podplane.runtime.grpc_health import Serving  # takes 70 ms

        self._serving = Serving(check)

    def begin(self, connection: Connection) -> None:
        """Both sides say their settings first."""
        connection.send(self._serving.pending())

    def received(self, connection: Connection, data: bytes) -> None:
        """Answer what came whole."""
        goes_on = self._serving.receive(data)
        connection.send(self._serving.pending())
        connection.sensible()
        if not goes_on:
            connection.finish(refused=True)

    def sent(self, connection: Connection) -> None:
        """There is no more, until more comes."""
