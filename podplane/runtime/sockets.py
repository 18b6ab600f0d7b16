"""Sockets of the built-in programs: one that listens for IPv4 and IPv6, and the address of who called."""

from __future__ import annotations

import errno
import socket

MAPPED = "::ffff:"
"""Prefix under which an IPv6 socket shows an IPv4 address (RFC 4291, 2.5.5.2)."""


def listener(kind: socket.SocketKind, port: int, address: str = "", protocol: int = 0) -> socket.socket:
    """A socket bound to this port of one address, or of every one, IPv4 and IPv6; `port` 0 is any free one.

    OSError when it is taken, or when the kernel doesn't have the protocol.
    """
    sock, everywhere = _unbound(kind, address, protocol)
    try:
        if kind == socket.SOCK_STREAM:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((address or everywhere, port))
        if kind == socket.SOCK_STREAM:
            sock.listen(512)
        sock.setblocking(False)
    except OSError:
        sock.close()
        raise
    return sock


def _unbound(kind: socket.SocketKind, address: str, protocol: int) -> tuple[socket.socket, str]:
    """A socket, and what it calls every address."""
    if address:
        return socket.socket(family_of(address), kind, protocol), address
    try:
        sock = socket.socket(socket.AF_INET6, kind, protocol)
    except OSError as error:
        if error.errno != errno.EAFNOSUPPORT:
            raise
        return socket.socket(socket.AF_INET, kind, protocol), "0.0.0.0"
    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    return sock, "::"


def caller(address: tuple[str, int]) -> tuple[str, int]:
    """(IP address, port) of a peer as it was on the wire."""
    return address[0].removeprefix(MAPPED), address[1]


def written(address: tuple[str, int]) -> str:
    """A peer as `ip:port`, an IPv6 address in brackets."""
    ip, port = caller(address)
    return f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"


def family_of(ip: str) -> socket.AddressFamily:
    """AF_INET or AF_INET6."""
    return socket.AF_INET6 if ":" in ip else socket.AF_INET
