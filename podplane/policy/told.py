"""Differences of verdicts in words: `3 flows would be denied that were allowed: default/client → default/web:8080, … and 12 more`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import NamedTuple

from podplane.model.words import counted
from podplane.policy.difference import Difference
from podplane.policy.reach import LAST_PORT, Ports, Reach

SHOWN, SHOWN_CHARACTERS, SHOWN_PORTS = 5, 500, 6
"""Flows that a sentence names: so many at most, and as many as so many characters take; and ports of one flow."""
ALL_OF_THEM = "`podplane policy diff -f FILE` shows all"


class Gap(NamedTuple):
    """What one reach has and another one has not: these ports; or, when `is_rest`, all protocols and ports but these."""

    ports: tuple[Ports, ...]
    is_rest: bool = False

    @property
    def is_nothing(self) -> bool:
        """Is there nothing?"""
        return not self.ports and not self.is_rest

    def __str__(self) -> str:
        """What to write behind the name of whom a flow goes to."""
        if self.is_rest:
            return f" (all but {_listed(self.ports)})" if self.ports else ""
        if len(self.ports) == 1 and self.ports[0].first == self.ports[0].last:
            port = self.ports[0]
            return f":{port.first}" + ("" if port.protocol == "TCP" else f"/{port.protocol.lower()}")
        return f" ({_listed(self.ports)})"


def gap(more: Reach, less: Reach) -> Gap:
    """What `more` has and `less` has not."""
    left = more & ~less
    return Gap((~left).ports, is_rest=True) if left.others else Gap(left.ports)


class Told(NamedTuple):
    """Flows that would be denied that were allowed, or the other way round."""

    word: str
    former: str
    number: int
    differences: tuple[tuple[Difference, Gap], ...]
    each: bool = False

    def lines(self) -> Iterator[str]:
        """Each of them."""
        for one, ports in self.differences:
            version = f" (IPv{one.version})" if one.version else ""
            yield from (f"{source} → {destination}{ports}{version}" for source, destination in one.pairs(each=self.each))

    def documents(self) -> Iterator[dict[str, object]]:
        """Each of them, for programs; without `ports` all are meant, and with `except` all but these."""
        for one, ports in self.differences:
            texts = [str(port) for port in ports.ports]
            more: dict[str, object] = {"except" if ports.is_rest else "ports": texts} if texts else {}
            more |= {"version": one.version} if one.version else {}
            yield from ({"from": source, "to": destination} | more for source, destination in one.pairs(each=self.each))

    @property
    def head(self) -> str:
        """How many there are."""
        return f"{counted(self.number, 'flow')} would be {self.word} that {'was' if self.number == 1 else 'were'} {self.former}"

    def sentence(self) -> str:
        """How many there are, and the first of them."""
        shown: list[str] = []
        for flow in islice(self.lines(), SHOWN):
            if shown and sum(map(len, shown)) + len(flow) > SHOWN_CHARACTERS:
                break
            shown.append(flow)
        more = self.number - len(shown)
        return f"{self.head}: {', '.join(shown)}" + (f" and {more:,} more ({ALL_OF_THEM})" if more else "")


def told(found: Sequence[Difference], *, each: bool = False) -> list[Told]:
    """What is denied first, then what is allowed; neither when there is none of it. `each`: flows of each pod, not of groups."""
    denied = tuple((one, ports) for one in found if not (ports := gap(one.before, one.after)).is_nothing)
    allowed = tuple((one, ports) for one in found if not (ports := gap(one.after, one.before)).is_nothing)
    both = (("denied", "allowed", denied), ("allowed", "denied", allowed))
    return [Told(word, former, sum(one.flows(each=each) for one, _ in some), some, each) for word, former, some in both if some]


def _listed(ports: Sequence[Ports]) -> str:
    more = len(ports) - SHOWN_PORTS
    texts = (
        str(one) if one.last < LAST_PORT or one.first == 1 else f"{one.protocol} from {one.first}"
        for one in ports[:SHOWN_PORTS]
    )
    return ", ".join(texts) + (f" and {more:,} more" if more > 0 else "")
