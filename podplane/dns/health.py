"""Whether servers that questions are passed on to answer, how fast, and which is asked first. Times are seconds of any one clock."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from podplane.dns.config import Order

DOWN_AFTER = 2
"""Failures in a row."""
FIRST_PROBE, LAST_PROBE = 0.5, 8.0
"""Seconds until a server that is down is tried again; twice as long each time."""
LEAST_PATIENCE, USUAL_TIMES = 0.3, 4
FAST = LEAST_PATIENCE / USUAL_TIMES
"""Whose round-trip time is no longer than this is waited for as short as any."""
LOOP_PROBE = 15.0
SMOOTHING = 0.25
UNKNOWN_RTT = 0.05
EXPLORE = 20
"""In one of so many questions the second best server is asked at once, too: otherwise nobody would see that it became the better one."""


@dataclass(slots=True)
class Health:
    """What is known of one server. `since`: when it became what it is; `rtt`: smoothed round-trip time."""

    since: float = 0.0
    is_up: bool = True
    is_loop: bool = False
    failures: int = 0
    """In a row."""
    last_error: str = ""
    rtt: float | None = None
    asked: int = 0
    failed: int = 0

    def answered(self, now: float, rtt: float | None = None) -> bool:
        """It gave an answer; True when it was down before. Those of a loop are our own."""
        if self.is_loop:
            return False
        self.failures = 0
        if rtt is not None:
            self.rtt = rtt if self.rtt is None else self.rtt + SMOOTHING * (rtt - self.rtt)
        was_down, self.is_up = not self.is_up, True
        if was_down:
            self.since, self.last_error = now, ""
        return was_down

    def late(self, waited: float) -> None:
        """It let somebody wait this long, and does still."""
        self.rtt = max(self.rtt or 0.0, waited)

    def failure(self, now: float, why: str) -> bool:
        """It gave none; True when it counts as down from now on."""
        self.failures += 1
        self.failed += 1
        if self.is_loop:
            return False
        self.last_error = why
        if not self.is_up or self.failures < DOWN_AFTER:
            return False
        self.is_up, self.since = False, now
        return True

    def loop(self, now: float, why: str) -> None:
        """Questions to it come back to us: it is not asked."""
        self.is_up, self.is_loop, self.last_error, self.since = False, True, why, now

    def probe_in(self, tries: int) -> float:
        """Seconds until the next try, after this many in vain."""
        return LOOP_PROBE if self.is_loop else min(FIRST_PROBE * 2.0 ** min(tries, 10), LAST_PROBE)


def ordered(servers: Sequence[Health], order: Order, random: Callable[[], float]) -> list[int]:
    """The numbers of the servers that may be asked, best first; those that are down come only when all are. Loops are never among them."""
    usable = [i for i, one in enumerate(servers) if one.is_up] or [i for i, one in enumerate(servers) if not one.is_loop]
    if len(usable) < 2:
        return usable
    if order == "random":
        return sorted(usable, key=lambda _: random())
    if order == "parallel":
        return sorted(usable, key=lambda i: UNKNOWN_RTT if (rtt := servers[i].rtt) is None else rtt)
    return usable


def at_once(servers: Sequence[Health], numbers: Sequence[int], order: Order, random: Callable[[], float]) -> int:
    """How many of these servers are asked at the same time: in parallel order all of those that nobody knows yet, and sometimes two."""
    if order != "parallel":
        return 1
    unknown = sum(servers[i].rtt is None for i in numbers)
    return min(len(numbers), 1 + unknown if unknown else 2 if random() * EXPLORE < 1 else 1)


def patience(rtt: float | None) -> float:
    """Seconds until another server is asked, too, when one that answers in `rtt` usually does not yet."""
    return 0.5 if rtt is None else min(max(USUAL_TIMES * rtt, LEAST_PATIENCE), 1.0)
