"""Ports of name servers in tests: any that is free, and as an ordinary user may open it."""

from __future__ import annotations

import os
import socket

import pytest

from podplane.nameserver import bound

FREEBIND = {4: (socket.IPPROTO_IP, 15), 6: (socket.IPPROTO_IPV6, 78)}
"""IP_FREEBIND, IPV6_FREEBIND: bind to an address that is not there yet, without the right to answer as anybody (ip(7))."""


def free(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have sockets of name servers opened so in this test."""
    monkeypatch.setattr(bound, "PORT", 0)
    monkeypatch.setattr(bound, "NAME_SERVER_PORT", 0)
    if os.geteuid():
        monkeypatch.setattr(bound, "TRANSPARENT", FREEBIND)
