"""A way from a node to another one that can be tried, as routes name it and probes go it."""

from __future__ import annotations

import msgspec

UNDERLAY, OVERLAY = "underlay", "overlay"
"""To the peer's own address; and to the gateway of its pods, the way that packets for its pods take."""


class Path(msgspec.Struct, frozen=True):
    """To one address of a peer. `backend` is the one that carries it ("" for the underlay: none does), and `below` the peer's address that
    this one sends to ("" for the underlay)."""

    peer: str
    layer: str
    ip: str
    backend: str = ""
    below: str = ""

    @property
    def version(self) -> int:
        """4 or 6."""
        return 6 if ":" in self.ip else 4
