"""Random bytes that nobody can guess, without a system call each time."""

from __future__ import annotations

import os

BLOCK = 4096


class Randomness:
    """os.urandom(3), read in blocks."""

    def __init__(self) -> None:
        self._block = b""
        self._at = 0

    def take(self, count: int) -> bytes:
        """So many bytes, which nobody else gets; at most `BLOCK`."""
        if self._at + count > len(self._block):
            self._block, self._at = os.urandom(BLOCK), 0
        taken = self._block[self._at : self._at + count]
        self._at += count
        return taken

    def number(self) -> int:
        """A number of 16 bits."""
        return int.from_bytes(self.take(2), "big")

    def fraction(self) -> float:
        """A number in [0, 1)."""
        return int.from_bytes(self.take(4), "big") / (1 << 32)
