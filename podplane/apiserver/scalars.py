"""Texts that stand for times and bytes, as Kubernetes stores them. Pure.

Go's types read more than they write: a Time of any zone with any fraction is written in UTC without one, a MicroTime with six digits, and
it is read with six digits only (apimachinery, meta/v1 time.go and micro_time.go). The zero of both is null: nothing is said.
"""

from __future__ import annotations

import base64
import binascii
import datetime
import functools
import re

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", re.ASCII)
MICRO_DIGITS = 7
"""Of the fraction of a MicroTime, with its point."""
EPOCH = datetime.datetime.fromtimestamp(0, datetime.UTC)
ZERO = datetime.datetime(1, 1, 1, tzinfo=datetime.UTC)


@functools.lru_cache(1024)
def time(text: str, *, micro: bool = False) -> str | None:
    """A Time or MicroTime as it is written; None for the zero. ValueError when the text is none."""
    found = TIME.fullmatch(text)
    fraction = (found[1] or "") if found else ""
    if found is None or (micro and len(fraction) != MICRO_DIGITS):
        raise ValueError(f"{text!r} is not a time (RFC 3339{' with six digits of a second' if micro else ''})")
    whole = f"{text[:19]}{fraction[:MICRO_DIGITS]}{found[2]}"
    try:
        moment = datetime.datetime.fromisoformat(whole).astimezone(datetime.UTC)
    except (ValueError, OverflowError):
        raise ValueError(f"{text!r} is not a time (RFC 3339)") from None
    return written(moment, micro=micro)


def check_date_time(text: str) -> None:
    """ValueError unless a text is a time as schemas of custom resources mean it."""
    try:
        datetime.datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a time (RFC 3339)") from None


def written(moment: datetime.datetime, *, micro: bool = False) -> str | None:
    """A moment in UTC as a Time or MicroTime; None for the zero."""
    if moment == ZERO:
        return None
    return moment.replace(tzinfo=None).isoformat(timespec="microseconds" if micro else "seconds") + "Z"


def since_epoch(seconds: int, nanoseconds: int, *, micro: bool = False) -> str | None:
    """A Time or MicroTime as it stands in protobuf; a Time has no fraction there either. OverflowError for no year of four digits."""
    moment = EPOCH + datetime.timedelta(seconds=seconds, microseconds=nanoseconds // 1000 if micro else 0)
    return written(moment, micro=micro)


def base64_text(text: str) -> str:
    """Bytes in base64, without the line breaks that a reader passes over. ValueError when the text is none."""
    try:
        return base64.b64encode(base64.b64decode(text.replace("\n", "").replace("\r", ""), validate=True)).decode()
    except (binascii.Error, ValueError):
        raise ValueError("the value is not base64") from None
