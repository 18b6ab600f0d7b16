"""Numbers and names in sentences: `1 node`, `2 nodes`, `a, b and c`; how long something lasted; and command lines that users are shown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

UNITS = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))


class CommandLine(Protocol):
    """How a lab's user calls podplane: the words of a command, and what comes after them."""

    def __call__(self, verb: str, rest: str = "") -> str: ...


def command_line(verb: str, rest: str = "", lab: str = "") -> str:
    """`podplane policy diff --name two -f FILE`: a command for a lab; "" is the one that commands mean without a name."""
    return " ".join(filter(None, ("podplane", verb, f"--name {lab}" if lab else "", rest)))


def counted(count: int, one: str, many: str = "") -> str:
    """`1 endpoint`, `2,000 endpoints`, `3 tries`."""
    return f"{count:,} {one if count == 1 else many or f'{one}s'}"


def lasting(seconds: float) -> str:
    """`12 s`, `3 min 5 s`, `2 h`, `1 d 3 h`: the largest unit that there is, and the next one."""
    left = max(0, int(seconds))
    number = next((n for n, (_, size) in enumerate(UNITS) if left >= size), len(UNITS) - 1)
    parts: list[str] = []
    for unit, size in UNITS[number : number + 2]:
        count, left = divmod(left, size)
        if count or not parts:
            parts.append(f"{count} {unit}")
    return " ".join(parts)


def listed(names: Sequence[str], most: int = 0) -> str:
    """`a`, `a and b`, `a, b and c`; of more than `most` (0: any number) the first ones, and how many more."""
    if most and len(names) > most:
        return f"{', '.join(names[:most])} and {len(names) - most} more"
    return " and ".join([*([", ".join(names[:-1])] if names[:-1] else []), *names[-1:]])
