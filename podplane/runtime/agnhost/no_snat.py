"""`agnhost no-snat-test` and `no-snat-test-proxy`: does a pod's address reach other pods untranslated?"""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from urllib.parse import urlencode

from podplane.runtime.agnhost.common import CannotServe, Context, in_fork, opened, prepared, quoted
from podplane.runtime.agnhost.flags import UsageError, Value
from podplane.runtime.agnhost.reasons import reason
from podplane.runtime.agnhost.web import ask
from podplane.runtime.http_server import Response
from podplane.runtime.loop import Loop
from podplane.runtime.serving import Exchange, Http
from podplane.runtime.sockets import family_of, written

FLAGS: Mapping[str, Value] = {"port": "8080"}
PROXY_FLAGS: Mapping[str, Value] = {"port": "31235"}
MISSING = Response(b"404 page not found\n", 404)


def run(context: Context) -> int:
    """Serve /whoami and /checknosnat until SIGTERM."""
    pod, node = (_address(context, name) for name in ("POD_IP", "NODE_IP"))

    def handle(loop: Loop, exchange: Exchange) -> Response | None:
        if exchange.request.path == "/whoami":
            return Response(written(exchange.source).encode())
        if exchange.request.path != "/checknosnat":
            return MISSING
        ips = exchange.request.parameter("ips").split(",")
        return in_fork(loop, exchange, lambda: checked(ips, pod, node))

    return _serve(context, handle)


def run_proxy(context: Context) -> int:
    """Serve /checknosnat, which asks another one, until SIGTERM."""

    def handle(loop: Loop, exchange: Exchange) -> Response | None:
        if exchange.request.path != "/checknosnat":
            return MISSING
        target, ips = exchange.request.parameter("target"), exchange.request.parameter("ips")
        return in_fork(loop, exchange, lambda: passed_on(f"http://{target}/checknosnat?{urlencode({'ips': ips})}"))

    return _serve(context, handle)


def _serve(context: Context, handle: Callable[[Loop, Exchange], Response | None]) -> int:
    port = context.flags.text("port")
    if not (port.isascii() and port.isdigit()):
        raise UsageError(f"--port {port!r} is not a number")
    loop, servers = prepared()
    servers.add(opened(socket.SOCK_STREAM, int(port)), lambda: Http(lambda exchange: handle(loop, exchange), servers))
    context.ready()
    return loop.run()


def _address(context: Context, name: str) -> str:
    """An address from the environment."""
    if name not in context.environment:
        raise CannotServe(f"{name} env var was not present in the environment")
    ip = context.environment[name]
    try:
        socket.inet_pton(family_of(ip), ip)
    except OSError:
        raise CannotServe(f"{name} env var contained {quoted(ip)}, which is not an IP address") from None
    return ip


def checked(ips: list[str], pod: str, node: str) -> Response:
    """Ask each of these who we are; 500 and why when one saw another address than the pod's."""
    wrong = [why for ip in ips if (why := _wrong(ip, pod, node))]
    return Response(", ".join(wrong).encode(), 500) if wrong else Response()


def _wrong(ip: str, pod: str, node: str) -> str:
    try:
        seen = ask(f"http://{ip}/whoami")[1].decode(errors="replace").rpartition(":")[0].strip("[]")
    except OSError as error:
        return f"Get {quoted(f'http://{ip}/whoami')}: {reason(error)}"
    if seen == pod:
        return ""
    if seen == node:
        return f"Returned ip {quoted(seen)} != my Pod ip {quoted(pod)}, == my Node ip {quoted(node)} - SNAT"
    return f"Returned ip {quoted(seen)} != my Pod ip {quoted(pod)} or my Node ip {quoted(node)} - SNAT to unexpected ip"


def passed_on(url: str) -> Response:
    """The answer of another one."""
    try:
        status, body = ask(url)
    except OSError as error:
        return Response(f"error: {reason(error)}".encode(), 500)
    return Response(body, status)
