"""Lengths of time as Go writes them: 1s, 300ms, 1m30s (`time.ParseDuration`)."""

from __future__ import annotations

import re
from decimal import Decimal

UNITS = {"ns": 1, "us": 10**3, "µs": 10**3, "μs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
"""In nanoseconds; both letters that look like a mu are one."""
MAX_NANOSECONDS = 2**63 - 1
MAX_LENGTH = 100
_PART = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)")
_WHOLE = re.compile(rf"(?:{_PART.pattern})+")


def parse(text: str) -> float:
    """The seconds that this says. ValueError, with one line that says why, when it is no duration."""
    unsigned = text[1:] if text[:1] in ("+", "-") else text
    if unsigned == "0":
        return 0.0
    if len(text) > MAX_LENGTH or not _WHOLE.fullmatch(unsigned):
        raise ValueError(f"{text[:MAX_LENGTH]!r} is not a duration: write it as 1s, 300ms or 1m30s")
    nanoseconds = int(sum(Decimal(number) * UNITS[unit] for number, unit in _PART.findall(unsigned)))
    if nanoseconds > MAX_NANOSECONDS:
        raise ValueError(f"{text!r} is too long: a duration is at most 292 years")
    return (-nanoseconds if text.startswith("-") else nanoseconds) / 10**9


def written(seconds: float) -> str:
    """Seconds as Go writes a duration: 1s, 1m30s, 2h0m0s, 1.5s, 300ms."""
    nanoseconds = round(seconds * 10**9)
    if abs(nanoseconds) < 10**9:
        unit = next((name for name in ("ms", "µs") if abs(nanoseconds) >= UNITS[name]), "ns") if nanoseconds else "s"
        return f"{_short(nanoseconds, UNITS[unit])}{unit}"
    minutes, rest = divmod(abs(nanoseconds), UNITS["m"])
    hours, minutes = divmod(minutes, 60)
    sign, parts = "-" if nanoseconds < 0 else "", f"{_short(rest, UNITS['s'])}s"
    if hours:
        return f"{sign}{hours}h{minutes}m{parts}"
    return f"{sign}{minutes}m{parts}" if minutes else sign + parts


def _short(nanoseconds: int, unit: int) -> str:
    """So many units, without needless digits."""
    number = Decimal(nanoseconds) / unit
    return f"{number:f}".rstrip("0").rstrip(".") if number % 1 else str(int(number))
