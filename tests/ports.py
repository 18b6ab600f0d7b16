"""Ports of this machine for what a test starts."""

from __future__ import annotations

import random
import socket

PORTS = range(10_000, 30_000)
"""Neither node ports, nor those that the kernel gives to connections (net.ipv4.ip_local_port_range)."""


def free_port() -> int:
    """A port that nobody has on 127.0.0.1, and that no connection gets meanwhile; two tests hardly ever choose the same."""
    for _ in range(100):
        port = random.SystemRandom().choice(PORTS)
        with socket.socket() as tcp, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            try:
                tcp.bind(("127.0.0.1", port))
                udp.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError(f"none of a hundred ports of {PORTS} is free")
