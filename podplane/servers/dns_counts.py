"""What a name server counts, so that each answer costs one addition.

Most answers are kept ones, and of those everything is known beforehand: the type, the code, the sizes. That is their *kind*, a number. So
a *lane* (one protocol and address family of one node) counts by kind only; what users want to know is added up when it is asked for.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from podplane.dns import message as m
from podplane.servers.durations import Durations

SIZES = (100, 200, 300, 400, 511, 1023, 2047, 4095, 8191, 16383, 32767, 65535)
"""Upper bounds of the buckets of sizes, in bytes."""
DURATIONS = tuple(0.00025 * 2**n for n in range(16))
"""Upper bounds of the buckets of durations, in seconds: from 0.25 ms to 8.2 s."""
KINDS = 2048
"""Kinds that are told apart, at most; the first stands for all others."""
KNOWN = 4096
"""Combinations of type, code and sizes that are known by heart, at most."""
OTHER = "other"
NONE = b"\0\0"
"""A count of a header."""


class Kind(NamedTuple):
    """What answers have in common. Sizes are the bounds of their buckets, of `SIZES`."""

    type: str
    rcode: str
    request_bytes: int
    response_bytes: int


def _lane_counts() -> list[int]:
    return [0] * KINDS


def _durations() -> Durations:
    return Durations(DURATIONS)


@dataclass(slots=True)
class Lane:
    """Counts of one protocol ("udp", "tcp") and address family (4, 6) of a node. `by_kind` counts answers by their kind's number,
    `silent` what got none; each of `dropped` tells what did not get into a socket. Durations are from reading a question to sending its
    answer."""

    node: str
    protocol: str
    version: int
    by_kind: list[int] = field(default_factory=_lane_counts)
    silent: int = 0
    dropped: list[Callable[[], int]] = field(default_factory=list)
    request_bytes: int = 0
    response_bytes: int = 0
    durations: Durations = field(default_factory=_durations)


class Counts:
    """All lanes of a process, and the kinds by number."""

    def __init__(self) -> None:
        self.lanes: dict[tuple[str, str, int], Lane] = {}
        self.kinds: list[Kind] = [Kind(OTHER, OTHER, SIZES[-1], SIZES[-1])]
        self._numbers: dict[tuple[str, str, int, int], int] = {}
        self._known: dict[tuple[bytes, int, int, int], int] = {}
        """Those of `_numbers` by type, code, and sizes as they are, for the last ones that there were."""

    def lane(self, node: str, protocol: str, version: int) -> Lane:
        """The counts of this protocol and family of the node, from now on."""
        key = (node, protocol, version)
        if key not in self.lanes:
            self.lanes[key] = Lane(node, protocol, version)
        return self.lanes[key]

    def forget(self, node: str) -> None:
        """A node is gone, and what was counted of it."""
        for key in [key for key in self.lanes if key[0] == node]:
            del self.lanes[key]

    def kind(self, request_bytes: int, response: bytes) -> int:
        """The number of the kind of this response, to a request of so many bytes."""
        type_, code = _type_and_code(response)
        key = type_, code, request_bytes, len(response)
        number = self._known.get(key)
        if number is None:
            if len(self._known) >= KNOWN:
                self._known.clear()
            number = self._known[key] = self._number(type_, code, request_bytes, len(response))
        return number

    def _number(self, type_: bytes, code: int, request_bytes: int, response_bytes: int) -> int:
        kind = (
            m.TYPES.get(int.from_bytes(type_, "big"), OTHER) if type_ else "",
            m.RCODES.get(code, OTHER),
            bisect.bisect_left(SIZES, request_bytes),
            bisect.bisect_left(SIZES, response_bytes),
        )
        number = self._numbers.get(kind)
        return self._new(kind) if number is None else number

    def _new(self, kind: tuple[str, str, int, int]) -> int:
        """The number of a kind, with its places in `SIZES`, that has none yet."""
        if len(self.kinds) >= KINDS:
            return 0
        number = self._numbers[kind] = len(self.kinds)
        type_, code, request, response = kind
        self.kinds.append(Kind(type_, code, SIZES[min(request, len(SIZES) - 1)], SIZES[min(response, len(SIZES) - 1)]))
        return number

    def of(self, lane: Lane) -> dict[Kind, int]:
        """How many answers of each kind."""
        return {kind: count for kind, count in zip(self.kinds, lane.by_kind, strict=False) if count}


def _type_and_code(response: bytes) -> tuple[bytes, int]:
    """The type of a response's question, b"" when it has none, and its code, with what an OPT record at its end adds (RFC 6891, 6.1.3)."""
    code = response[3] & m.RCODE_MASK
    if response[10:12] != NONE:
        tail = response[-m.RECORD.size - 1 :]
        if tail[0] == 0 and m.RECORD.unpack_from(tail, 1)[0] == m.OPT:
            code |= tail[5] << 4
    at = m.HEADER.size
    if response[4:6] == NONE:
        return b"", code
    while length := response[at]:
        at += 1 + length
    return response[at + 1 : at + 3], code
