"""The search path at once: where the first question of a pod's search path leads to nothing, the end of the path is the answer.

    question ──► resolver ──► the cluster's zone has no such name, and who asks is a pod whose path begins there
                    ▲                     │
                    └── each further name of the path, in order, until one exists ──► alias + its records

Where a later name leads to no answer at all, the first has none either (SERVFAIL). With NXDOMAIN, and an alias without records for the
other family, glibc would take the name for absent; after SERVFAIL resolvers try again, or go on by themselves.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Generator, Mapping, Sequence
from dataclasses import dataclass

from msgspec.structs import replace

from podplane.dns import message as m
from podplane.dns.message import Answer, Name, Query, Record
from podplane.dns.search_path import SEARCHED
from podplane.model.dns import NamedService
from podplane.nameserver.resolver import Client, Resolver, joined, replace_name

_Steps = Generator[Answer | Awaitable[Answer], Answer, Answer]


@dataclass(slots=True)
class Searching:
    """A resolver that goes on along the search path of who asks, within a cluster's domain. `is_on` may be changed at any time."""

    resolver: Resolver
    domain: Name
    services: Mapping[str, NamedService]
    ttl: int = 5
    """Seconds that an alias may be kept: a name before it may come to exist."""
    is_on: bool = True

    def answer(self, query: Query, client: Client) -> Answer | Awaitable[Answer]:
        """The answer to a query."""
        first = self.resolver.answer(query, client)
        if inspect.isawaitable(first) or not self._is_missing(first, query.question.name):
            return first
        first = replace(first, private=True)
        names = self._rest(query, client)
        return _run(self._steps(first, names, query, client)) if names else first

    def _is_missing(self, answer: Answer, name: Name) -> bool:
        """Does the cluster's zone say that there is no such name?"""
        return answer.rcode == m.NXDOMAIN and not answer.records and m.is_under(name, self.domain)

    def _rest(self, query: Query, client: Client) -> tuple[Name, ...]:
        question = query.question
        if not self.is_on or question.type not in SEARCHED or question.class_ != m.INTERNET or not query.flags & m.RD:
            return ()
        return () if self._is_below_service(question.name) else client.searches.after(question.name)

    def _is_below_service(self, name: Name) -> bool:
        *_, service, namespace, _ = (b"", b"", b"", *name[: len(name) - len(self.domain)])
        return f"{namespace.decode('latin-1')}/{service.decode('latin-1')}" in self.services

    def _steps(self, first: Answer, names: tuple[Name, ...], query: Query, client: Client) -> _Steps:
        """Ask for each name in turn; what is yielded is an answer or to be awaited, and is sent back."""
        steps = [first]
        for name in names:
            asked = m.asked_of(replace_name(query.question, name))
            found = yield self.resolver.answer(replace(query, asked=asked), client)
            steps.append(found)
            if found.rcode == m.NOERROR:
                alias = Record(query.question.name, m.CNAME, self.ttl, m.written(name))
                return _of_all(steps, joined(Answer(records=(alias,), source="the search path"), found, query.limit))
            if found.rcode != m.NXDOMAIN:
                return Answer(m.SERVFAIL, authoritative=False, source=f"the search path, {found.source}", private=True)
        return _of_all(steps, first)


def _of_all(steps: Sequence[Answer], answer: Answer) -> Answer:
    """The answer, which may be given again as long as all steps to it may be."""
    depends = tuple(dict.fromkeys(key for step in steps for key in step.depends))
    lifetimes = [step.lifetime for step in steps if step.lifetime is not None]
    if not all(step.depends or step.lifetime is not None for step in steps):
        return replace(answer, private=True, depends=(), lifetime=None)
    return replace(answer, private=True, depends=depends, lifetime=min(lifetimes, default=None))


def _run(steps: _Steps, last: Answer | None = None) -> Answer | Awaitable[Answer]:
    """Take steps until one has to be awaited."""
    try:
        found = next(steps) if last is None else steps.send(last)
        while not inspect.isawaitable(found):
            found = steps.send(found)
    except StopIteration as end:
        answer: Answer = end.value
        return answer
    return _wait(steps, found)


async def _wait(steps: _Steps, found: Awaitable[Answer]) -> Answer:
    result = _run(steps, await found)
    return await result if inspect.isawaitable(result) else result
