"""What one reach has and another one has not, in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from podplane.policy.reach import LAST_PORT, Ports, Reach

SHOWN_PORTS = 6
"""Ports of one flow that are named."""


class Gap(NamedTuple):
    """What one reach has and another one has not: these ports; or, when `is_rest`, all protocols and ports but these."""

    ports: tuple[Ports, ...]
    is_rest: bool = False

    @property
    def is_nothing(self) -> bool:
        """Is there nothing?"""
        return not self.ports and not self.is_rest

    def has(self, protocol: str, port: int) -> bool:
        """Is this port (0: of a protocol that has none) among them?"""
        named = any(one.protocol == protocol and port and one.first <= port <= one.last for one in self.ports)
        return named is not self.is_rest

    def __str__(self) -> str:
        """What to write behind the name of whom a flow goes to."""
        if self.is_rest:
            return f" (all but {_listed(self.ports)})" if self.ports else ""
        if len(self.ports) == 1 and self.ports[0].first == self.ports[0].last:
            port = self.ports[0]
            return f":{port.first}" + ("" if port.protocol == "TCP" else f"/{port.protocol.lower()}")
        return f" ({_listed(self.ports)})"


def gap(more: Reach, less: Reach) -> Gap:
    """What `more` has and `less` has not."""
    left = more & ~less
    return Gap((~left).ports, is_rest=True) if left.others else Gap(left.ports)


def _listed(ports: Sequence[Ports]) -> str:
    more = len(ports) - SHOWN_PORTS
    texts = (
        str(one) if one.last < LAST_PORT or one.first == 1 else f"{one.protocol} from {one.first}"
        for one in ports[:SHOWN_PORTS]
    )
    return ", ".join(texts) + (f" and {more:,} more" if more > 0 else "")
