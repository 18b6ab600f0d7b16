"""Work in slices of some milliseconds, so that an event loop can do something else in between.

Operations on rtnetlink are cut in an order in which each finds what it needs. Removals come first, from what lies on links down to the
links, then what is new or changed, from links up. All links that are removed are in one slice: the kernel waits for their readers
(synchronize_net, some 20 ms) once for all that are deleted together.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from typing import TypeVar

from podplane.state.network import Address, Fdb, Link, Neighbour, Proxy, Qdisc, Redirect, Route, Rule
from podplane.state.operations import Operation
from podplane.state.value import Value

T = TypeVar("T")
ORDER: tuple[type[Value], ...] = (Link, Address, Neighbour, Fdb, Qdisc, Route, Proxy, Redirect, Rule)
RANK = {kind: rank for rank, kind in enumerate(ORDER)}
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


def slices(operations: Sequence[Operation]) -> Iterator[list[Operation]]:
    """The operations in order, as few slices as may be; none for none."""
    removals = sorted((o for o in operations if o.new is None), key=_rank, reverse=True)
    links = [o for o in removals if isinstance(o.value, Link)]
    puts = sorted((o for o in operations if o.new is not None), key=lambda o: (_rank(o), bool(getattr(o.value, "master", ""))))
    if not links:
        yield from _cut([*removals, *puts])
        return
    *first, last = _cut(removals[: -len(links)]) or [[]]
    yield from first
    if not puts or sum(map(_cost, puts)) > MOST:
        yield [*last, *links]
        yield from _cut(puts)
    else:
        yield [*last, *links, *puts]


def _cut(operations: Sequence[Operation]) -> list[list[Operation]]:
    """In order, each as long as it may be."""
    found: list[list[Operation]] = []
    room = 0
    for operation in operations:
        cost = _cost(operation)
        if cost > room:
            found.append([])
            room = MOST
        found[-1].append(operation)
        room -= cost
    return found


def _rank(operation: Operation) -> int:
    return RANK[type(operation.value)]


def _cost(operation: Operation) -> int:
    return LINK if isinstance(operation.value, Link) else 1
