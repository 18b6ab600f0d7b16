"""Operations on rtnetlink in an order in which each finds what it needs, and in slices of some milliseconds, so that an event loop can do
something else in between.

    removals, from what lies on links down to the links   (all links in one slice: the kernel waits once for the readers of all of them)
    what is new or changed, from links up
    routes and neighbours that go

So a route goes when those that come in its place are there: no packet is without one when two blocks become one, or a node moves from one
tunnel to another. A link's own routes go with it.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from typing import NamedTuple, TypeVar

from podplane.state.network import Address, Fdb, Link, Neighbour, Proxy, Qdisc, Redirect, Route, Rule
from podplane.state.operations import Operation
from podplane.state.value import Value

T = TypeVar("T")
ORDER: tuple[type[Value], ...] = (Link, Address, Neighbour, Fdb, Qdisc, Route, Proxy, Redirect, Rule)
RANK = {kind: rank for rank, kind in enumerate(ORDER)}
LATE = frozenset((Route, Neighbour))
"""Of these kinds, what goes does so after what comes."""
MOST = 100
"""The cost of a slice, where a route costs 1: 25 µs for the first one, and 180 µs for the five thousandth by another gateway of one link
(the kernel compares a new route with all of its hash bucket, and the gateway is no part of the hash: fib_find_info)."""
LINK = 8
"""The cost of a link: 0.3-0.6 ms."""


def result(steps: Generator[None, None, T]) -> T:
    """The value of a generator, all its slices at once."""
    while True:
        try:
            next(steps)
        except StopIteration as done:
            value: T = done.value
            return value


class Ordered(NamedTuple):
    """Operations in their order: removals, what is new or changed, late removals."""

    gone: list[Operation]
    put: list[Operation]
    late: list[Operation]


def ordered(operations: Iterable[Operation]) -> Ordered:
    """The operations by what they do, each part in its order."""
    gone: list[list[Operation]] = [[] for _ in ORDER]
    put: list[list[Operation]] = [[] for _ in ORDER]
    ports: list[Operation] = []
    for operation in operations:
        old, new = operation
        if new is None:
            gone[RANK[type(old)]].append(operation)  # type: ignore[index]  # one of both is there
        elif type(new) is Link and new.master:
            ports.append(operation)
        else:
            put[RANK[type(new)]].append(operation)
    links, *others = put
    removals = [(kind, row) for kind, row in zip(reversed(ORDER), reversed(gone), strict=True) if row]
    return Ordered(
        [one for kind, row in removals if kind not in LATE for one in row],
        [*links, *ports, *(one for row in others for one in row)],
        [one for kind, row in removals if kind in LATE for one in row],
    )


def slices(operations: Iterable[Operation]) -> Iterator[list[Operation]]:
    """The operations in order, as few slices as may be; none for none."""
    gone, put, late = ordered(operations)
    rest = [*put, *late]
    count = sum(isinstance(one.old, Link) for one in gone)
    if not count:
        yield from _cut([*gone, *rest])
        return
    links = gone[-count:]
    *first, last = _cut(gone[:-count]) or [[]]
    yield from first
    if not rest or sum(map(_cost, rest)) > MOST:
        yield [*last, *links]
        yield from _cut(rest)
    else:
        yield [*last, *links, *rest]


def _cut(operations: Sequence[Operation]) -> list[list[Operation]]:
    """In order, each as long as it may be."""
    found: list[list[Operation]] = []
    part: list[Operation] = []
    room = 0
    for operation in operations:
        cost = _cost(operation)
        if cost > room:
            found.append(part := [])
            room = MOST
        part.append(operation)
        room -= cost
    return found


def _cost(operation: Operation) -> int:
    return LINK if type(operation[1] or operation[0]) is Link else 1
