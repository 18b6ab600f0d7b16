"""A time as Go prints one that it took from the clock (time.Time.String)."""

from __future__ import annotations

import time

BILLION = 1_000_000_000


def text(now: int, running: int) -> str:
    """`now` in nanoseconds since 1970, in this machine's zone; the process has run for `running` nanoseconds."""
    seconds, rest = divmod(now, BILLION)
    fraction = f".{rest:09}".rstrip("0").rstrip(".")
    at = time.localtime(seconds)
    day, zone = time.strftime("%Y-%m-%d %H:%M:%S", at), time.strftime("%z %Z", at)
    return f"{day}{fraction} {zone} m=+{running // BILLION}.{running % BILLION:09}"
