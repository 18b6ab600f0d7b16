"""Sockets of the built-in programs: one that listens for IPv4 and IPv6, and the address of who called."""

from __future__ import annotations

import errno
import socket

MAPPED = "::ffff:"
"""Prefix under which an IPv6 socket shows an IPv4 address (RFC 4291, 2.5.5.2)."""


def listener(kind: socket.SocketKind, port: int) -> socket.socket:
    """A socket bound to this port of every address, IPv4 and IPv6; `port` 0 is any free one. OSError when it is taken."""
    try:
        sock = socket.socket(socket.AF_INET6, kind)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        everywhere = "::"
    except OSError as error:
        if error.errno != errno.EAFNOSUPPORT:
            raise
        sock = socket.socket(socket.AF_INET, kind)
        everywhere = "0.0.0.0"
    try:
        if kind == socket.SOCK_STREAM:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((everywhere, port))
        if kind == socket.SOCK_STREAM:
            sock.listen(512)
        sock.setblocking(False)
    except OSError:
        sock.close()
        raise
    return sock


def caller(address: tuple[str, int]) -> tuple[str, int]:
    """(IP address, port) of a peer as it was on the wire."""
    return address[0].removeprefix(MAPPED), address[1]


def family_of(ip: str) -> socket.AddressFamily:
    """AF_INET or AF_INET6."""
    return socket.AF_INET6 if ":" in ip else socket.AF_INET
