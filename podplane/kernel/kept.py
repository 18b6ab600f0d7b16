"""A netfilter socket that stays open between uses.

When one is closed, the kernel waits until what nf_tables deleted in its namespace before is freed, a grace period of RCU of some 10 ms, and
keeps others from committing meanwhile (net/netfilter/nf_tables_api.c, nft_rcv_nl_event): the next change of the tables would wait for that.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Generic, Protocol, TypeVar


class Closable(Protocol):
    """What has a socket."""

    def close(self) -> None:
        """Let go of it."""


T = TypeVar("T", bound=Closable)


class Kept(Generic[T]):
    """One that is kept, and others while several are used at once. Its methods may be called in any thread."""

    def __init__(self, open_one: Callable[[], T]) -> None:
        self._open_one = open_one
        self._idle: list[T] = []
        self._is_closed = False

    @contextlib.contextmanager
    def use(self) -> Iterator[T]:
        """One that nobody else uses. After a failure, or a use that was given up, it is not used again: answers may be on their way."""
        try:
            one = self._idle.pop()  # which two threads can't do with the same one
        except IndexError:
            one = self._open_one()
        try:
            yield one
        except BaseException:
            one.close()
            raise
        if self._idle or self._is_closed:
            one.close()
        else:
            self._idle.append(one)

    def close(self) -> None:
        """Close the one that is kept; nothing is kept from then on."""
        self._is_closed = True
        while self._idle:
            self._idle.pop().close()
