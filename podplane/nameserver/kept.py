"""Responses that are kept, within a bound of memory, until something that they were made of changes.

There are two generations. What is new goes into the younger one; when that is full, it becomes the older one, and what was the older one is
gone. What is found in the older one goes into the younger one again. So what is asked for often stays, whoever else asks for a million
names that nobody asks for twice; and a hit costs one lookup without any bookkeeping.

Some responses are laid aside from time to time (`lay_aside`), and changed a little when they are asked for again. It costs nothing while
nobody asks, and less than to make them anew. That, and what is dropped because its time is over (`expire`) or because something changed
that much was made of, is done in slices: it may be tens of thousands of responses.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterator, Sequence

Reply = tuple[bytes, int, tuple[str, ...]]
"""The response without its id, the number of its kind, and what it depends on."""
BYTES = 48 * 1024 * 1024
"""Of both generations."""
SLICE = 1_000
"""So many are laid aside, or dropped, between two pauses: a millisecond."""
ENTRY_BYTES, KEY_BYTES = 260, 110
"""What one response costs besides its bytes, and what each key that it depends on costs (measured on CPython 3.11, 64 bits)."""


class _Generation:
    """Responses by question, and the questions by what their responses depend on."""

    def __init__(self) -> None:
        self.replies: dict[bytes, Reply] = {}
        self.aside: dict[bytes, Reply] = {}
        self.size = 0
        self._by_key: dict[str, bytes | set[bytes]] = {}

    def put(self, question: bytes, reply: Reply) -> None:
        """Keep one; `size` only grows, because a key may go on naming what was dropped by another key."""
        self.replies[question] = reply
        self.size += len(question) + len(reply[0]) + ENTRY_BYTES + KEY_BYTES * len(reply[2])
        for key in reply[2]:
            self.name(key, question)

    def name(self, key: str, question: bytes) -> None:
        """The response to this question depends on the key."""
        others = self._by_key.get(key)
        if others is None:
            self._by_key[key] = question  # most keys have one question only
        elif isinstance(others, set):
            others.add(question)
        elif others != question:
            self._by_key[key] = {others, question}

    def names(self, key: str) -> bool:
        """Does anything depend on the key?"""
        return key in self._by_key

    def take(self, key: str) -> Collection[bytes]:
        """The questions whose responses depend on this; none is known to do so any more."""
        found = self._by_key.pop(key, ())
        return (found,) if isinstance(found, bytes) else found


class Kept:
    """All responses that are kept. `replies` are those of the younger generation: another dictionary after `put`, `get` and `clear`.
    `turned` makes of a response that was laid aside the one that is given from then on."""

    def __init__(self, limit: int = BYTES, turned: Callable[[bytes], bytes] = bytes) -> None:
        self._turned = turned
        self._limit = limit // 2
        self._young, self._old = _Generation(), _Generation()

    @property
    def replies(self) -> dict[bytes, Reply]:
        """Responses without their ids, by questions without theirs."""
        return self._young.replies

    @property
    def size(self) -> int:
        """The bytes of memory that they cost, more or less."""
        return self._young.size + self._old.size

    def __len__(self) -> int:
        return sum(len(one.replies) + len(one.aside) for one in (self._young, self._old))

    def get(self, question: bytes) -> Reply | None:
        """What is kept for a question."""
        found = self._young.replies.get(question)
        if found is None and (found := self._old.replies.pop(question, None)) is not None:
            self._put(question, found)
        return found or self._again(question)

    def _again(self, question: bytes) -> Reply | None:
        """What was laid aside, changed a little."""
        for one in (self._young, self._old):
            if (found := one.aside.pop(question, None)) is not None:
                response, kind, depends = found
                found = self._turned(response), kind, depends
                if one is self._old:
                    self._put(question, found)
                else:
                    one.replies[question] = found
                    one.name(depends[-1], question)
                return found
        return None

    def put(self, question: bytes, response: bytes, kind: int, depends: Sequence[str]) -> None:
        """Keep a response until something that it depends on changes."""
        self._put(question, (response, kind, tuple(depends)))

    def _put(self, question: bytes, reply: Reply) -> None:
        if self._young.size >= self._limit:
            self._young, self._old = _Generation(), self._young
        self._young.put(question, reply)

    def changed(self, key: str) -> Iterator[None]:
        """Something changed: what was made of it is not kept any more, most often from now on. Of more than `SLICE` responses some still
        are: iterate over what is returned to the end; others may have a turn between slices."""
        slices = self._drop(key)
        next(slices, None)
        return slices

    def _drop(self, key: str) -> Iterator[None]:
        questions = self._take(key)
        for at in range(0, len(questions), SLICE):
            if at:
                yield
            for one, question in itertools.product((self._young, self._old), questions[at : at + SLICE]):
                one.replies.pop(question, None)
                one.aside.pop(question, None)

    def lay_aside(self, key: str) -> Iterator[None]:
        """Lay aside what depends on this, as on the last of its keys. Iterate to the end; others may have a turn between slices."""
        questions = self._take(key)
        for at in range(0, len(questions), SLICE):
            if at:
                yield
            for one, question in itertools.product((self._young, self._old), questions[at : at + SLICE]):
                if (reply := one.replies.get(question)) is not None and reply[2][-1] == key:
                    one.aside[question] = one.replies.pop(question)

    def expire(self, key: str) -> Iterator[None]:
        """Drop what depends on this, as on the last of its keys. As `lay_aside`."""
        questions = self._take(key)
        for at in range(0, len(questions), SLICE):
            if at:
                yield
            for one, question in itertools.product((self._young, self._old), questions[at : at + SLICE]):
                for kept in (one.replies, one.aside):
                    if (reply := kept.get(question)) is not None and reply[2][-1] == key:
                        del kept[question]

    def _take(self, key: str) -> list[bytes]:
        """The questions whose responses depend on this; a response may be in the other generation when its slice comes."""
        return [*self._young.take(key), *self._old.take(key)]

    def has(self, key: str) -> bool:
        """Does anything that is kept depend on this?"""
        return self._young.names(key) or self._old.names(key)

    def clear(self) -> None:
        """Keep nothing of what was."""
        self._young, self._old = _Generation(), _Generation()
