"""From a question to an answer: sources are asked one after the other, and aliases that lead out of a source are followed to their end.

A source answers at once, later (an awaitable), or not at all (None), because the name is none of its own; then the next one is asked.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from podplane.dns import message as m
from podplane.dns import responses
from podplane.dns.message import Answer, Name, Question
from podplane.dns.search_path import NOWHERE, SearchPath
from podplane.servers.later import Later

MAX_ALIASES = 8
"""Aliases of one answer; more are a loop, or as bad as one."""


@dataclass(frozen=True, slots=True)
class Client:
    """Who asks: its address, and, of a pod, its name, its namespace, and the path that its resolver goes along."""

    ip: str
    pod: str = ""
    namespace: str = ""
    searches: SearchPath = NOWHERE


class Source(Protocol):
    """A part of what there is to know: hosts entries, the cluster's zone, servers elsewhere."""

    def answer(self, question: Question, client: Client, query: m.Query) -> Answer | Awaitable[Answer] | None:
        """What this source says; None when the name is none of its own."""


class Resolving(Protocol):
    """Finds answers."""

    def answer(self, query: m.Query, client: Client) -> Answer | Awaitable[Answer]:
        """The answer to a query."""


@dataclass(frozen=True, slots=True)
class Resolver:
    """Sources, in the order in which they are asked."""

    sources: Sequence[Source]

    def answer(self, query: m.Query, client: Client) -> Answer | Awaitable[Answer]:
        """The answer to a query."""
        found = self._ask(query.question, client, query)
        if isinstance(found, Later):
            return found  # of servers elsewhere, who follow aliases themselves
        if inspect.isawaitable(found):
            return self._awaited(found, client, query)
        return found if found.follow is None else self._follow(found, client, query)

    def _ask(self, question: Question, client: Client, query: m.Query) -> Answer | Awaitable[Answer]:
        for source in self.sources:
            found = source.answer(question, client, query)
            if found is not None:
                return found
        return Answer(m.REFUSED, authoritative=False, source="no source has it")

    async def _awaited(self, found: Awaitable[Answer], client: Client, query: m.Query) -> Answer:
        answer = await found
        return answer if answer.follow is None else await self._followed(answer, client, query)

    def _follow(self, answer: Answer, client: Client, query: m.Query) -> Answer | Awaitable[Answer]:
        """Follow an alias; at once, as long as all that it leads to is here."""
        for _ in range(MAX_ALIASES):
            if answer.follow is None:
                return answer
            question = replace_name(query.question, answer.follow)
            found = self._ask(question, client, query)
            if inspect.isawaitable(found):
                return self._continued(answer, found, client, query)
            answer = joined(answer, found)
        return loop(answer)

    async def _followed(self, answer: Answer, client: Client, query: m.Query) -> Answer:
        found = self._follow(answer, client, query)
        return await found if inspect.isawaitable(found) else found

    async def _continued(self, answer: Answer, found: Awaitable[Answer], client: Client, query: m.Query) -> Answer:
        return await self._followed(joined(answer, await found), client, query)


def replace_name(question: Question, name: Name) -> Question:
    """The same question for another name."""
    return Question(name, question.type, question.class_)


def joined(alias: Answer, found: Answer) -> Answer:
    """An alias and what its target has, as one answer (RFC 1034, 4.3.2); that of the target decides about everything but the records. It is
    kept only where both may be, and no longer."""
    lifetimes = [one.lifetime for one in (alias, found) if one.lifetime is not None]
    is_kept = all(one.depends or one.lifetime is not None for one in (alias, found))
    try:
        records, authority = responses.records(found.message) if found.message else (found.records, found.authority)
    except m.Malformed as error:  # in data, which is not read until now
        source = f"{alias.source}, {found.source}: its records can't be read: {error}"
        return Answer(m.SERVFAIL, authoritative=False, source=source, private=alias.private or found.private)
    return replace(
        found,
        message=b"",
        records=(*alias.records, *records),
        authority=authority,
        authoritative=alias.authoritative,
        source=f"{alias.source}, {found.source}",
        depends=(*alias.depends, *found.depends) if is_kept else (),
        lifetime=min(lifetimes, default=None) if is_kept else None,
        private=alias.private or found.private,
    )


def loop(answer: Answer) -> Answer:
    """The answer when aliases lead in a circle."""
    return Answer(m.SERVFAIL, authoritative=False, source=f"aliases lead in a circle: {answer.source}", depends=answer.depends)
