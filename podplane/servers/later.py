"""What is known later: whoever waits is called at once when it is, without a task and without a turn of the event loop.

It may be awaited, too. A question that is passed on costs no more than its two datagrams and this.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Generator
from typing import Any, Generic, TypeVar

log = logging.getLogger(__name__)
T = TypeVar("T")
U = TypeVar("U")


class Later(Generic[T]):
    """A value that is set once. Everything happens on one event loop."""

    __slots__ = ("_heard", "_value", "is_set")

    def __init__(self) -> None:
        self.is_set = False
        self._heard: Callable[[T], object] | list[Callable[[T], object]] | None = None
        """Most often one waits, and not several."""

    def set(self, value: T) -> None:
        """Here it is. Those who wait are called, in order; of one that raises, which none should, the others notice nothing."""
        self.is_set = True
        self._value: T = value
        heard, self._heard = self._heard, None
        if heard is None:
            return
        for one in heard if isinstance(heard, list) else (heard,):
            try:
                one(value)
            except Exception:
                log.exception("who waited for %r", value)

    def then(self, heard: Callable[[T], object]) -> None:
        """Call with the value when it is there, which may be now."""
        if self.is_set:
            heard(self._value)
        elif self._heard is None:
            self._heard = heard
        elif isinstance(self._heard, list):
            self._heard.append(heard)
        else:
            self._heard = [self._heard, heard]

    def map(self, change: Callable[[T], U]) -> Later[U]:
        """What this makes of the value; it must not raise."""
        changed: Later[U] = Later()
        self.then(lambda value: changed.set(change(value)))
        return changed

    def __await__(self) -> Generator[Any, None, T]:
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self.then(lambda value: None if future.done() else future.set_result(value))
        return future.__await__()
