"""`agnhost serve-hostname`: the host's name over HTTP, or bare over TCP and UDP."""

from __future__ import annotations

import signal
import socket
from collections.abc import Mapping

from podplane.runtime.agnhost.common import Context, opened, prepared
from podplane.runtime.agnhost.flags import UsageError, Value
from podplane.runtime.http_server import Response
from podplane.runtime.serving import Greeting, Http, log

FLAGS: Mapping[str, Value] = {"http": True, "tcp": False, "udp": False, "close": False, "port": 9376}
AFTER_TERM_SECONDS = 60.0
"""It serves on after SIGTERM, so that tests see who still sends to a pod that is being deleted."""


def run(context: Context) -> int:
    """Serve until a minute after SIGTERM; a pod's grace ends before."""
    flags = context.flags
    if flags.on("http") and (flags.on("tcp") or flags.on("udp")):
        raise UsageError("--http can't be served together with --tcp or --udp: add --http=false")
    name, port = socket.gethostname().encode(), flags.number("port")
    loop, servers = prepared()
    loop.on_signal(signal.SIGTERM, lambda: loop.after(AFTER_TERM_SECONDS, lambda: loop.stop(0)))
    if flags.on("tcp"):
        servers.add(opened(socket.SOCK_STREAM, port), lambda: Greeting(name))
    if flags.on("udp"):
        servers.add_datagrams(opened(socket.SOCK_DGRAM, port), lambda *_: name)
    if flags.on("http"):
        headers = (("Connection", "close"),) if flags.on("close") else ()
        answer = Response(name, headers=headers)
        servers.add(opened(socket.SOCK_STREAM, port), lambda: Http(lambda _: answer, servers))
    log(f"Serving on port {port}")
    context.ready()
    return loop.run()
