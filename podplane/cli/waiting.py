"""What a command waits for, said once when it takes longer than a second: nobody sits before a silent terminal."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import click

SAY_AFTER_SECONDS = 1.0
T = TypeVar("T")


class Waiting:
    """One wait; `say` writes the line, to standard error unless it is said otherwise."""

    def __init__(self, say: Callable[[str], None] | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._say = say or (lambda line: click.echo(line, err=True))
        self._clock = clock
        self._say_at: float | None = clock() + SAY_AFTER_SECONDS
        self._why = ""

    @property
    def silent_for(self) -> float:
        """Seconds until it is to be said; a very long time once it was."""
        return 1e9 if self._say_at is None else max(0.0, self._say_at - self._clock())

    def look(self, what: Callable[[], str], why: Callable[[], str] = lambda: "") -> None:
        """It goes on: say what is waited for when it is time; and why, as soon as that is known and whenever it is another reason."""
        if self._say_at is not None and self._clock() >= self._say_at:
            self._say_at = None
            self._say(f"Waiting for {what()} …")
        if self._say_at is None and (reason := why()) and reason != self._why:
            self._why = reason
            self._say(f"  {reason}")


def telling(what: Callable[[T], str], why: Callable[[T], str] = lambda found: "") -> Callable[[T], None]:
    """For a poll: says once `what` is waited for, when that goes on for long, and each reason why it does."""
    waiting = Waiting()
    return lambda found: waiting.look(lambda: what(found), lambda: why(found))
