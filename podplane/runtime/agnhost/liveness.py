"""`agnhost liveness`: well for ten seconds, then ill, for tests of liveness probes."""

from __future__ import annotations

import socket
from collections.abc import Callable

from podplane.runtime.agnhost.common import Context, opened, prepared
from podplane.runtime.http_server import Response, redirect
from podplane.runtime.serving import Exchange, Http

PORT = 8080
HEALTHY_SECONDS = 10.0


def run(context: Context) -> int:
    """Serve until SIGTERM."""
    loop, servers = prepared()
    liveness = Liveness(loop.clock)
    servers.add(opened(socket.SOCK_STREAM, PORT), lambda: Http(liveness.handle, servers))
    context.ready()
    return loop.run()


class Liveness:
    """The answers, which depend on the time since it was made."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock, self._started = clock, clock()

    def handle(self, exchange: Exchange) -> Response:
        """The answer to a request."""
        age = self._clock() - self._started
        path = exchange.request.path
        if path == "/healthz":
            return Response(b"ok") if age <= HEALTHY_SECONDS else Response(f"error: {age:.9g}".encode(), 500)
        if path == "/started":
            return Response(f"{age:.9g}s".encode())
        if path == "/redirect":
            return redirect(exchange.request.parameter("loc"))
        return Response(b"404 page not found\n", 404)
