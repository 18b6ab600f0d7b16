"""The tracked UDP and SCTP connections of one node: those that may not go on as they are begin anew (see `services.flows`).

The kernel is asked once it has the tables that new packets go through. No other change waits for that: it may be a long list.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection
from typing import Protocol

from podplane.services.flows import NOWHERE, changed
from podplane.state.conntrack import Allowed, Frontend, Target

log = logging.getLogger(__name__)


class Tracking(Protocol):
    """The part of the kernel that this is about."""

    def flush_conntrack(self, allowed: Allowed) -> int:
        """Delete the connections to these frontends that do not go where they may."""


class Flows:
    """What is known of the Services that have any; its methods run on one event loop."""

    def __init__(self, node_name: str, kernel: Tracking) -> None:
        self._node_name = node_name
        self._kernel = kernel
        self._ways: dict[str, Allowed] = {}
        self._stale: set[Frontend] = set()

    def planned(self, path: str, ways: Allowed) -> None:
        """A Service was planned anew."""
        self._stale |= changed(self._ways.pop(path, {}), ways)
        if ways:
            self._ways[path] = ways

    def mark_all_stale(self) -> None:
        """Connections may have been made while the tables were not as they should be."""
        self._stale.update(end for ways in self._ways.values() for end in ways)

    async def flush_stale(self) -> None:
        """Delete what may not go on, if there can be anything."""
        if self._stale:
            await asyncio.to_thread(self._flush, self._take())

    def flush_stale_blocking(self) -> None:
        """The same, where there is no loop yet."""
        if self._stale:
            self._flush(self._take())

    def _take(self) -> Allowed:
        stale, self._stale = self._stale, set()
        ways: dict[Frontend, Collection[Target]] = dict.fromkeys(stale, NOWHERE)
        ways |= {end: targets for own in self._ways.values() for end, targets in own.items() if end in stale}
        return ways

    def _flush(self, ways: Allowed) -> None:
        try:
            self._kernel.flush_conntrack(ways)
        except OSError as error:
            log.warning("conntrack node=%s error=%s", self._node_name, error)
