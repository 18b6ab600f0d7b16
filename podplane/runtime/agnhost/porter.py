"""`agnhost porter`: serves a text on every port that the environment names: SERVE_PORT_9001=text."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping

from podplane.runtime.agnhost.common import CannotServe, Context, complain, opened, prepared, tls
from podplane.runtime.agnhost.flags import UsageError, Value
from podplane.runtime.http_server import Response, as_json
from podplane.runtime.serving import Exchange, Greeting, Http, Servers

FLAGS: Mapping[str, Value] = {"json-response": False}
CERTIFICATE, KEY = "localhost.crt", "localhost.key"
"""Files in the working directory, unless $CERT_FILE and $KEY_FILE say which."""


def run(context: Context) -> int:
    """Serve until SIGTERM. A port that can't be served is complained about, and the others are served."""
    loop, servers = prepared()
    porter = Porter(servers, context)
    for variable, text in context.environment.items():
        prefix, _, port = variable.rpartition("_")
        if prefix in PROTOCOLS:
            try:
                PROTOCOLS[prefix](porter, _number(port), text)
            except (CannotServe, UsageError) as error:
                complain(f"{variable}: {error}")
    context.ready()
    return loop.run()


def _number(port: str) -> int:
    if not (port.isascii() and port.isdigit() and len(port) <= 5):
        raise UsageError(f"port {port}: a port is a number from 0 to 65535")
    return int(port)


class Porter:
    """What the ports are served by."""

    def __init__(self, servers: Servers, context: Context) -> None:
        self._servers = servers
        self._environment = context.environment
        self._as_json = context.flags.on("json-response")

    def http(self, port: int, text: str) -> None:
        """The text over HTTP."""
        self._servers.add(opened(socket.SOCK_STREAM, port), lambda: Http(self._handler(text), self._servers))

    def https(self, port: int, text: str) -> None:
        """The text over HTTPS."""
        certificate, key = self._environment.get("CERT_FILE") or CERTIFICATE, self._environment.get("KEY_FILE") or KEY
        wrap = tls(self._servers, certificate, key)
        self._servers.add(opened(socket.SOCK_STREAM, port), lambda: Http(self._handler(text), self._servers), wrap)

    def udp(self, port: int, text: str) -> None:
        """The text for every datagram."""
        self._servers.add_datagrams(opened(socket.SOCK_DGRAM, port), lambda *_: text.encode())

    def sctp(self, port: int, text: str) -> None:
        """The text for everybody who connects."""
        sock = opened(socket.SOCK_STREAM, port, protocol=socket.IPPROTO_SCTP)
        self._servers.add(sock, lambda: Greeting(text.encode()))

    def _handler(self, text: str) -> Callable[[Exchange], Response]:
        def handle(exchange: Exchange) -> Response:
            if self._as_json:
                body = as_json({"Method": exchange.request.method, "Body": text})
                return Response(body, content_type="application/json")
            return Response(text.encode())

        return handle


PROTOCOLS: Mapping[str, Callable[[Porter, int, str], None]] = {
    "SERVE_PORT": Porter.http,
    "SERVE_TCP_PORT": Porter.http,
    "SERVE_TLS_PORT": Porter.https,
    "SERVE_UDP_PORT": Porter.udp,
    "SERVE_SCTP_PORT": Porter.sctp,
}
