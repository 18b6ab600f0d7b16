"""The sockets of a node's name server, opened in the node's network namespace."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterable

from podplane.dns.node import PORT
from podplane.model.config import NAME_SERVER_PORT
from podplane.nameserver import control

TRANSPARENT = {4: (socket.IPPROTO_IP, 19), 6: (socket.IPPROTO_IPV6, 75)}
"""IP_TRANSPARENT, IPV6_TRANSPARENT: bind to an address that is not there yet, or not any more, and answer from it (ip(7))."""
BACKLOG = 128
RECEIVE_BYTES = 4 * 1024 * 1024
"""For questions that wait while the process starts again; the kernel makes less of it (net.core.rmem_max)."""

Bound = list[tuple[str, socket.socket]]
"""Sockets, each with its protocol (`control`)."""


def open_sockets(ips: Iterable[str]) -> Bound:
    """Bound sockets for questions at these addresses. OSError when a port is taken."""
    with contextlib.ExitStack() as opened:
        found = []
        for ip in ips:
            for protocol, kind in ((control.UDP, socket.SOCK_DGRAM), (control.TCP, socket.SOCK_STREAM)):
                found.append((protocol, opened.enter_context(_bound(ip, kind))))
        opened.pop_all()
        return found


def _bound(ip: str, kind: socket.SocketKind) -> socket.socket:
    version = 6 if ":" in ip else 4
    one = socket.socket(socket.AF_INET6 if version == 6 else socket.AF_INET, kind)
    try:
        one.setsockopt(*TRANSPARENT[version], 1)
        if kind == socket.SOCK_STREAM:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        else:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES)
        one.bind((ip, PORT))
        if kind == socket.SOCK_STREAM:
            one.listen(BACKLOG)
    except OSError:
        one.close()
        raise
    return one


def open_reports(ips: Iterable[str]) -> Bound:
    """Listening sockets for HTTP at these addresses of the node. OSError when the port is taken."""
    with contextlib.ExitStack() as opened:
        found = []
        for ip in ips:
            family = socket.AF_INET6 if ":" in ip else socket.AF_INET
            found.append((control.HTTP, opened.enter_context(socket.create_server((ip, NAME_SERVER_PORT), family=family))))
        opened.pop_all()
        return found
