"""`agnhost connect`: tries to reach a port, and says by the first word on standard error why it could not."""

from __future__ import annotations

import errno
import socket
from collections.abc import Mapping

from podplane.runtime.agnhost.common import Context, complain
from podplane.runtime.agnhost.dial import Endpoint, resolve
from podplane.runtime.agnhost.flags import Value
from podplane.runtime.agnhost.reasons import reason

FLAGS: Mapping[str, Value] = {"timeout": 0.0, "protocol": "tcp", "udp-data": "hostname", "sctp-data": "hostname"}
ANSWER_BYTES = 1024


class Failed(Exception):
    """It could not be reached: UNKNOWN, DNS, TIMEOUT, REFUSED or OTHER, and why."""


def run(context: Context) -> int:
    """Try once; 0 when it was reached."""
    flags = context.flags
    context.ready()
    try:
        protocol = flags.text("protocol") or "tcp"
        if protocol not in PROTOCOLS:
            raise Failed(f"UNKNOWN: protocol {protocol}: it is one of {', '.join(PROTOCOLS)}")
        data = flags.text(f"{protocol}-data") if protocol != "tcp" else ""
        _try(protocol, _endpoint(flags.words[0], protocol), flags.seconds("timeout"), data)
    except Failed as failure:
        complain(str(failure))
        return 1
    return 0


def _endpoint(destination: str, protocol: str) -> Endpoint:
    host, colon, port = destination.rpartition(":")
    if not colon or (":" in host and not (host.startswith("[") and host.endswith("]"))):
        raise Failed(f"UNKNOWN: address {destination}: write it as host:port, an IPv6 address as [address]:port")
    try:
        return resolve(host, port, PROTOCOLS[protocol][0])
    except ValueError as error:
        raise Failed(f"DNS: {error}") from None


def _try(protocol: str, endpoint: Endpoint, seconds: float, data: str) -> None:
    """Connect; over UDP and SCTP only an answer tells that somebody is there."""
    family, address = endpoint
    try:
        with socket.socket(family, *PROTOCOLS[protocol]) as sock:
            sock.settimeout(seconds if seconds > 0 else None)
            sock.connect(address)
            if data:
                sock.send(f"{data}\n".encode())
                if not sock.recv(ANSWER_BYTES):
                    raise Failed("OTHER: the server answered nothing, so it may not have got the request")
    except TimeoutError:
        raise Failed("TIMEOUT") from None
    except OSError as error:
        raise Failed("REFUSED" if error.errno == errno.ECONNREFUSED else f"OTHER: {reason(error)}") from None


PROTOCOLS: Mapping[str, tuple[socket.SocketKind, int]] = {
    "tcp": (socket.SOCK_STREAM, 0),
    "udp": (socket.SOCK_DGRAM, 0),
    "sctp": (socket.SOCK_STREAM, socket.IPPROTO_SCTP),
}
