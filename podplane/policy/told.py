"""Differences of verdicts in words: `3 flows would be denied that were allowed: default/client → default/web:8080, … and 12 more`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

from podplane.model.answers import SeenFlow
from podplane.model.words import command_line, counted
from podplane.policy.difference import Difference
from podplane.policy.gap import Gap, gap
from podplane.policy.seen_pairs import Ages, ages

SHOWN, SHOWN_CHARACTERS = 5, 500
"""Flows that a sentence names: so many at most, and as many as so many characters take."""
ALL = command_line("policy diff", "-f FILE")
"""What shows all of them."""
NOW_SECONDS = 120.0
"""A connection of TCP is tracked for so long after its end."""


SEEN, KEPT = {"denied": "seen", "allowed": "tried"}, {"denied": "hour", "allowed": "10 min"}
"""Of flows that would be denied, or allowed: what they were, and for how long nodes remember that."""
Flow = tuple[Difference, Gap, tuple[str, str], float | None]
"""With the names of both ends, and how long ago it was seen."""


class Told(NamedTuple):
    """Flows that would be denied that were allowed, or the other way round; those that nodes saw, or denied, lately (`ages`) come first."""

    word: str
    former: str
    number: int
    differences: tuple[tuple[Difference, Gap], ...]
    each: bool = False
    ages: Ages = {}  # nobody changes it

    def lines(self) -> Iterator[str]:
        """Each of them."""
        for one, ports, (source, destination), age in self._flows():
            version = f" (IPv{one.version})" if one.version else ""
            yield f"{source} → {destination}{ports}{version}" + (
                "" if age is None else f" ({SEEN[self.word]} {_ago(age, self.word)})"
            )

    def documents(self) -> Iterator[dict[str, object]]:
        """Each of them, for programs; without `ports` all are meant, and with `except` all but these."""
        for one, ports, (source, destination), age in self._flows():
            texts = [str(port) for port in ports.ports]
            more: dict[str, object] = {"except" if ports.is_rest else "ports": texts} if texts else {}
            more |= {"version": one.version} if one.version else {}
            more |= {} if age is None else {f"{SEEN[self.word]}SecondsAgo": round(age)}
            yield {"from": source, "to": destination} | more

    def _flows(self) -> Iterator[Flow]:
        """Those that were seen, the last one first, and then the others; there may be many of these."""
        for at, age in sorted(self.ages.items(), key=lambda one: one[1]):
            one = self.differences[at[0]]
            if (names := one[0].names(at[1:], each=self.each)) is not None:
                yield *one, names, age
        for number, one in enumerate(self.differences):
            for place, names in one[0].numbered(each=self.each):
                if (number, *place) not in self.ages:
                    yield *one, names, None

    def with_seen(self, flows: Iterable[SeenFlow], denied: Iterable[SeenFlow] = ()) -> Told:
        """With what nodes saw; and of flows that would be allowed, with what policies denied."""
        found = ages(self.differences, flows if self.word == "denied" else denied, each=self.each)
        return self._replace(
            ages={at: age for at, age in found.items() if self.differences[at[0]][0].names(at[1:], each=self.each) is not None}
        )

    @property
    def head(self) -> str:
        """How many there are."""
        text = f"{counted(self.number, 'flow')} would be {self.word} that {'was' if self.number == 1 else 'were'} {self.former}"
        who = "and" if self.number == 1 else f"{len(self.ages):,} of them"
        return text + (f", {who} {SEEN[self.word]} in the last {KEPT[self.word]}" if self.ages else "")

    def sentence(self, command: str = ALL) -> str:
        """How many there are, and the first of them; the command line `command` shows all."""
        shown: list[str] = []
        for flow in islice(self.lines(), SHOWN):
            if shown and sum(map(len, shown)) + len(flow) > SHOWN_CHARACTERS:
                break
            shown.append(flow)
        more = self.number - len(shown)
        return f"{self.head}: {', '.join(shown)}" + (f" and {more:,} more (`{command}` shows all)" if more else "")


def told(found: Sequence[Difference], *, each: bool = False) -> list[Told]:
    """What is denied first, then what is allowed; neither when there is none of it. `each`: flows of each pod, not of groups."""
    denied = tuple((one, ports) for one in found if not (ports := gap(one.before, one.after)).is_nothing)
    allowed = tuple((one, ports) for one in found if not (ports := gap(one.after, one.before)).is_nothing)
    both = (("denied", "allowed", denied), ("allowed", "denied", allowed))
    return [Told(word, former, sum(one.flows(each=each) for one, _ in some), some, each) for word, former, some in both if some]


def _ago(seconds: float, word: str) -> str:
    if seconds >= NOW_SECONDS:
        return f"{seconds / 60:.0f} min ago"
    return "in the last 2 min" if word == "denied" else f"{seconds:.0f} s ago"
