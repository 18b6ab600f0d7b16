"""Flushes of connection tracking that plans asked for: carried out once the kernel has the tables that new packets go through.

No other change waits for a flush: there may be many connections.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Protocol

from podplane.state.conntrack import Allowed, Frontend, Target
from podplane.state.effects import Effect, FlushConntrack

log = logging.getLogger(__name__)


class Tracking(Protocol):
    """The part of the kernel that this is about."""

    def flush_conntrack(self, allowed: Allowed) -> int:
        """Delete the connections to these frontends that do not go where they may."""


class Flows:
    """The flushes that are due; its methods run on one event loop."""

    def __init__(self, node_name: str, kernel: Tracking) -> None:
        self._node_name = node_name
        self._kernel = kernel
        self._due: dict[Frontend, frozenset[Target]] = {}

    def add(self, *effects: Effect) -> None:
        """Flush these too; of one frontend the last effect counts. Other effects are left out."""
        for effect in effects:
            if isinstance(effect, FlushConntrack):
                self._due.update(effect.allowed)

    async def flush_stale(self) -> None:
        """Delete the connections that may not go on, if there can be any."""
        if self._due:
            await asyncio.to_thread(self._flush, self._take())

    def flush_stale_blocking(self) -> None:
        """The same, where there is no loop yet."""
        if self._due:
            self._flush(self._take())

    def _take(self) -> Allowed:
        due, self._due = self._due, {}
        return due

    def _flush(self, allowed: Allowed) -> None:
        try:
            self._kernel.flush_conntrack(allowed)
        except OSError as error:
            log.warning("conntrack node=%s error=%s", self._node_name, error)
