"""Which flows there were lately: equal ones are one entry, with when it was seen last. Pure, and bounded whatever comes.

Flows among those that the cluster knows, and those of addresses outside, have room of their own: the world has more addresses than there is
room for.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import NamedTuple

from podplane.model.answers import Party

KEPT_SECONDS = 3600.0
KEPT, KEPT_OUTSIDE = 8192, 1024
"""So many flows are kept among those that the cluster knows, and so many of others: those that were seen last."""


class FlowKey(NamedTuple):
    """From whom, to whom, and to which port (0: the protocol has none)."""

    source: Party
    destination: Party
    protocol: str
    port: int

    @property
    def is_outside(self) -> bool:
        """Is one end none of the cluster?"""
        return not (self.source.kind and self.destination.kind)


class Seen:
    """The flows of one node. Times are seconds of the caller's clock, which does not go back."""

    def __init__(self) -> None:
        self._inside, self._outside = OrderedDict[FlowKey, float](), OrderedDict[FlowKey, float]()

    def add(self, flow: FlowKey, now: float) -> None:
        """It is there now."""
        kept, most = (self._outside, KEPT_OUTSIDE) if flow.is_outside else (self._inside, KEPT)
        kept[flow] = now
        kept.move_to_end(flow)
        if len(kept) > most:
            kept.popitem(last=False)

    def lately(self, now: float) -> Iterator[tuple[FlowKey, float]]:
        """Those of the last hour, with how long ago each was seen last. Others are forgotten."""
        for kept in (self._inside, self._outside):
            while kept and now - next(iter(kept.values())) > KEPT_SECONDS:
                kept.popitem(last=False)
            yield from ((flow, now - at) for flow, at in reversed(kept.items()))
