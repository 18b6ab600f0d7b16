"""From a question to an answer: sources are asked one after the other, and aliases that lead out of a source are followed to their end.

A source answers at once, later (an awaitable), or not at all (None), because the name is none of its own; then the next one is asked.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from msgspec.structs import replace

from podplane.dns import message as m
from podplane.dns import responses
from podplane.dns.asking import ASKED_FLAGS, Ask
from podplane.dns.message import Answer, Name, Question
from podplane.dns.search_path import NOWHERE, SearchPath
from podplane.servers.later import Later

log = logging.getLogger(__name__)
FAILED = Answer(m.SERVFAIL, authoritative=False, source="a fault of this server")

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


class Others(Source, Protocol):
    """Servers elsewhere, as the last source."""

    def ask(self, ask: Ask, ip: str, heard: Callable[[Answer], object]) -> Answer | None:
        """What they say to a question about data of the class IN; `ip` is who asks. None when `heard` is told later."""


class Resolving(Protocol):
    """Finds answers."""

    def answer(self, query: m.Query, client: Client) -> Answer | Awaitable[Answer]:
        """The answer to a query."""


@dataclass(frozen=True, slots=True)
class Resolver:
    """Sources, in the order in which they are asked."""

    sources: Sequence[Source]
    zones: Collection[Name] = ()
    """Zones that the last source has servers of their own for: these may not speak for one another's names, nor for other sources'."""
    others: Others | None = None
    """The last source, if it is one of other servers."""
    ends: Collection[bytes] = ()
    """What all names of the other sources end with, written out."""
    _tasks: set[asyncio.Task[Answer]] = field(default_factory=set, compare=False)

    def answer(self, query: m.Query, client: Client) -> Answer | Awaitable[Answer]:
        """The answer to a query."""
        return self._whole(self._ask(query.question, client, query), client, query)

    def pass_on(self, query: m.Query, client: Client, told: Callable[[Answer], object]) -> bool:
        """The same for a query that is plainly for other servers, in half of the time: `told` is, perhaps at once. False for any other."""
        asked, edns = query.asked, query.edns
        name = asked[: -m.TAIL_BYTES].lower()
        if self.others is None or m.ends_with_any(name, self.ends):
            return False
        ask = Ask(name + asked[-m.TAIL_BYTES :], query.flags & ASKED_FLAGS, edns is not None and edns.dnssec)
        heard = partial(self._heard, told, client, query)
        found = self.others.ask(ask, client.ip, heard)
        if found is not None:
            heard(found)
        return True

    def _whole(self, found: Answer | Awaitable[Answer], client: Client, query: m.Query) -> Answer | Awaitable[Answer]:
        """An answer with what its aliases lead to."""
        if isinstance(found, Later):
            told: Later[Answer] = Later()
            found.then(partial(self._heard, told.set, client, query))
            return told
        if inspect.isawaitable(found):
            return self._awaited(found, client, query)
        found = self._cut(query.question, found, client, query)
        return found if found.follow is None else self._follow(found, client, query, MAX_ALIASES)

    def _heard(self, told: Callable[[Answer], object], client: Client, query: m.Query, said: Answer) -> None:
        """Tell what was said later, without a task, unless there is an alias to follow."""
        if said.follow is None and not said.aliases:
            told(said)
            return
        try:
            answer = self._cut(query.question, said, client, query)
        except Exception:  # nobody else would tell those who wait
            log.exception("no answer to %s", m.text_of(query.question.name))
            answer = FAILED
        if answer.follow is None:
            told(answer)
            return
        task = asyncio.get_running_loop().create_task(self._followed(answer, client, query, MAX_ALIASES))
        self._tasks.add(task)
        task.add_done_callback(partial(self._ended, told, query))

    def _ended(self, told: Callable[[Answer], object], query: m.Query, task: asyncio.Task[Answer]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            log.error("an alias of %s", m.text_of(query.question.name), exc_info=error)
        told(FAILED if error is not None or task.cancelled() else task.result())

    def _ask(self, question: Question, client: Client, query: m.Query) -> Answer | Awaitable[Answer]:
        for source in self.sources:
            found = source.answer(question, client, query)
            if found is not None:
                return found
        return Answer(m.REFUSED, authoritative=False, source="no source has it")

    async def _awaited(self, found: Awaitable[Answer], client: Client, query: m.Query) -> Answer:
        answer = self._cut(query.question, await found, client, query)
        return answer if answer.follow is None else await self._followed(answer, client, query, MAX_ALIASES)

    def _follow(self, answer: Answer, client: Client, query: m.Query, most: int) -> Answer | Awaitable[Answer]:
        """Follow aliases, so many at most; at once, as long as all that they lead to is here."""
        for left in range(most, 0, -1):
            if answer.follow is None:
                return answer
            question = replace_name(query.question, answer.follow)
            found = self._ask(question, client, query)
            if inspect.isawaitable(found):
                return self._continued(answer, question, found, client, query, left - 1)
            answer = joined(answer, self._cut(question, found, client, query), query.limit)
        return answer if answer.follow is None else loop(answer)

    async def _followed(self, answer: Answer, client: Client, query: m.Query, most: int) -> Answer:
        found = self._follow(answer, client, query, most)
        return await found if inspect.isawaitable(found) else found

    async def _continued(
        self, answer: Answer, question: Question, found: Awaitable[Answer], client: Client, query: m.Query, most: int
    ) -> Answer:
        part = self._cut(question, await found, client, query)
        return await self._followed(joined(answer, part, query.limit), client, query, most)

    def _cut(self, question: Question, answer: Answer, client: Client, query: m.Query) -> Answer:
        """What another server says, up to the first alias that leads to a name that it may not speak for: that is to be followed."""
        try:
            for number, at in answer.aliases:
                target, _ = responses.name_at(answer.message, at)
                is_end = number == m.HEADER.unpack_from(answer.message)[3] and answer.rcode == m.NOERROR
                if self._leaves(replace_name(question, target), question.name, client, query, is_end=is_end):
                    records, _ = responses.records(answer.message, query.limit, number)
                    return replace(answer, rcode=m.NOERROR, message=b"", aliases=(), records=records, follow=target)
        except m.Malformed as error:
            return Answer(m.SERVFAIL, authoritative=False, source=f"{answer.source}: its records can't be read: {error}")
        return answer

    def _leaves(self, target: Question, name: Name, client: Client, query: m.Query, *, is_end: bool) -> bool:
        """Does an alias lead to another source, or to another zone? One to the names of no zone does where nothing comes after it."""
        to = self._zone(target.name)
        if to != self._zone(name) and (to or is_end):
            return True
        return any(source.answer(target, client, query) is not None for source in self.sources[:-1])

    def _zone(self, name: Name) -> Name:
        return next((name[i:] for i in range(len(name)) if name[i:] in self.zones), ())


def replace_name(question: Question, name: Name) -> Question:
    """The same question for another name."""
    return Question(name, question.type, question.class_)


def joined(alias: Answer, found: Answer, limit: int = m.TCP_BYTES) -> Answer:
    """An alias and what its target has, as one answer (RFC 1034, 4.3.2); that of the target decides about everything but the records. It is
    kept only where both may be, and no longer. Of records of another server there are no more than, by one, fit into `limit` bytes."""
    lifetimes = [one.lifetime for one in (alias, found) if one.lifetime is not None]
    is_kept = all(one.depends or one.lifetime is not None for one in (alias, found))
    try:
        records, authority = responses.records(found.message, limit) if found.message else (found.records, found.authority)
    except m.Malformed as error:  # in data, which is not read until now
        source = f"{alias.source}, {found.source}: its records can't be read: {error}"
        return Answer(m.SERVFAIL, authoritative=False, source=source, private=alias.private or found.private)
    return replace(
        found,
        message=b"",
        aliases=(),
        records=(*alias.records, *records),
        authority=authority,
        authoritative=alias.authoritative,
        source=f"{alias.source}, {found.source}",
        depends=(*alias.depends, *found.depends) if is_kept else (),
        lifetime=min(lifetimes, default=None) if is_kept else None,
        private=alias.private or found.private,
    )


def loop(answer: Answer) -> Answer:
    """The answer when aliases lead in a circle, or to too many others."""
    names = [one.name for one in answer.records if one.type == m.CNAME]
    why = "aliases lead in a circle" if answer.follow in names else f"more than {MAX_ALIASES} aliases, which is too long"
    return Answer(m.SERVFAIL, authoritative=False, source=f"{why}: {answer.source}", depends=answer.depends)
