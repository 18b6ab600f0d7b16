"""Where this name server answers something else than CoreDNS, and why. `docs/dns.md` has the same list for people."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.unit.dns.coredns import Fact


@dataclass(frozen=True)
class Case:
    """A question and its two answers."""

    mode: str
    name: str
    type: str
    theirs: Fact
    ours: Fact

    def __str__(self) -> str:
        return f"{self.name} {self.type} ({self.mode})\n  CoreDNS: {self.theirs}\n  here:    {self.ours}"


@dataclass(frozen=True)
class Difference:
    """A kind of question that is answered differently: which, and why."""

    reason: str
    covers: Callable[[Case], bool]


DIFFERENCES: tuple[Difference, ...] = ()
