"""Verdicts, tables and policies as text. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from podplane.cli.policy.grouped import group_names
from podplane.cli.policy.judged import Judged, Judgement, Side
from podplane.cli.tables import plain
from podplane.model.words import counted

HINTS_SHOWN = 5
ENDPOINT = "\0"
"""What stands for whom a flow goes to, where those are compared that fare alike."""


def verdict(found: Judgement) -> str:
    """All flows that were asked for; those of both families, and to endpoints of a Service, once, if they fare alike."""
    alike: dict[tuple[str, str], set[int]] = {}
    for one in found.flows:
        text = "\n".join(_flow(one)).replace(one.destination.text, ENDPOINT)
        alike.setdefault((text, one.destination.text), set()).add(6 if ":" in one.destination.ip else 4)
    versions, groups = set().union(*alike.values()), defaultdict[tuple[str, frozenset[int]], list[str]](list)
    for (text, endpoint), of in alike.items():
        groups[text, frozenset(of)].append(endpoint)
    names = group_names(list(groups.values()))
    texts = [
        ("" if of == versions else f"IPv{min(of)}: ") + text.replace(ENDPOINT, name)
        for (text, of), name in zip(groups, names, strict=True)
    ]
    if found.service:
        fares: dict[str, bool] = {}
        for one in found.flows:
            fares[one.destination.text] = fares.get(one.destination.text, True) and one.allowed
        texts.insert(0, f"{found.source} → Service {found.service}: {_of_endpoints(sum(fares.values()), len(fares))}")
    return "\n\n".join(map(plain_lines, texts))


def _of_endpoints(allowed: int, number: int) -> str:
    """Each connection goes to one endpoint, by chance: it is denied as soon as it is at one of them."""
    if allowed in (0, number):
        return f"{_word(allowed > 0)} ({counted(number, 'endpoint')})"
    return f"denied at {number - allowed} of {number} endpoints"


def _flow(one: Judged) -> Iterator[str]:
    ends = f"{one.source.text} → {one.destination.text}"
    if one.reach is None:
        yield f"{ends}, {one.protocol} {one.port}: {_word(one.allowed)}"
    else:
        yield f"{ends}: {_whole(one)}"
    for part in one.sides:
        yield from _side(part)
    if not one.sides:
        yield f"  {one.by}"


def _whole(one: Judged) -> str:
    assert one.reach is not None
    return f"{one.reach} is allowed" + ("" if one.reach.others or one.reach.is_nothing else ", all else denied")


def _side(part: Side) -> Iterator[str]:
    if part.reach is None:
        yield f"  {part.direction:<7} of {part.subject}: {_word(part.allowed)}: {part.by}"
    else:
        yield f"  {part.direction:<7} of {part.subject}: {part.reach}: {part.by}"
    yield from (f"    {hint}" for hint in part.hints[:HINTS_SHOWN])
    if len(part.hints) > HINTS_SHOWN:
        yield f"    … and {counted(len(part.hints) - HINTS_SHOWN, 'more rule')} like these"


def _word(allowed: bool) -> str:
    return "allowed" if allowed else "denied"


def plain_lines(text: str) -> str:
    """Lines that do nothing to a terminal."""
    return "\n".join(map(plain, text.split("\n")))


def grid(labels: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    """A table whose columns are its rows again, and are headed by their numbers."""
    width = max(len(str(len(labels))), 1)
    numbered = [f"{number:>{width}} {plain(label)}" for number, label in enumerate(labels, 1)]
    left = max(map(len, numbered), default=0)
    head = " " * left + "".join(f" {number:>{width}}" for number in range(1, len(labels) + 1))
    rows = (
        label.ljust(left) + "".join(f" {cell:>{width}}" for cell in row) for label, row in zip(numbered, cells, strict=True)
    )
    return "\n".join([head, *rows])


def legend(meaning: Mapping[str, str]) -> str:
    """What the marks of a grid mean."""
    return "   ".join(f"{mark} {text}" for mark, text in meaning.items())
