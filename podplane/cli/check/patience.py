"""How long a check waits for what it asks: the usual seconds, or so many times as long on a machine that is so much slower."""

from __future__ import annotations

from contextvars import ContextVar

_FACTOR: ContextVar[float] = ContextVar("factor", default=1.0)


def take(factor: float) -> None:
    """From now on each wait is so many times as long as usual."""
    _FACTOR.set(factor)


def patient(seconds: float) -> float:
    """What becomes of so many usual seconds."""
    return seconds * _FACTOR.get()
