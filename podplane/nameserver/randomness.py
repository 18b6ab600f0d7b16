"""Random bytes that nobody can guess, without a system call each time."""

from __future__ import annotations

import os

BLOCK = 4096


class Randomness:
    """os.urandom(3), read in blocks."""

    def __init__(self) -> None:
        self._block = b""
        self._at = BLOCK

    def take(self, count: int) -> bytes:
        """So many bytes, which nobody else gets; at most `BLOCK`."""
        at = self._at
        end = self._at = at + count
        if end > BLOCK:
            self._block = os.urandom(BLOCK)
            at, end = 0, count
            self._at = end
        return self._block[at:end]

    def number(self) -> int:
        """A number of 16 bits."""
        return int.from_bytes(self.take(2), "big")

    def fraction(self) -> float:
        """A number in [0, 1)."""
        return int.from_bytes(self.take(4), "big") / (1 << 32)
