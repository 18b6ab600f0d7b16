"""Responses that are kept, within a bound of memory, until something that they were made of changes.

There are two generations. What is new goes into the younger one; when that is full, it becomes the older one, and what was the older one is
gone. What is found in the older one goes into the younger one again. So what is asked for often stays, whoever else asks for a million
names that nobody asks for twice; and a hit costs one lookup without any bookkeeping.
"""

from __future__ import annotations

from collections.abc import Sequence

Reply = tuple[bytes, int, tuple[str, ...]]
"""The response without its id, the number of its kind, and what it depends on."""
BYTES = 48 * 1024 * 1024
"""Of both generations."""
ENTRY_BYTES, KEY_BYTES = 260, 110
"""What one response costs besides its bytes, and what each key that it depends on costs (measured on CPython 3.11, 64 bits)."""


class _Generation:
    """Responses by question, and the questions by what their responses depend on."""

    def __init__(self) -> None:
        self.replies: dict[bytes, Reply] = {}
        self.size = 0
        self._by_key: dict[str, bytes | set[bytes]] = {}

    def put(self, question: bytes, reply: Reply) -> None:
        """Keep one; `size` only grows, because a key may go on naming what was dropped by another key."""
        self.replies[question] = reply
        self.size += len(question) + len(reply[0]) + ENTRY_BYTES + KEY_BYTES * len(reply[2])
        for key in reply[2]:
            others = self._by_key.get(key)
            if others is None:
                self._by_key[key] = question  # most keys have one question only
            elif isinstance(others, set):
                others.add(question)
            elif others != question:
                self._by_key[key] = {others, question}

    def drop(self, key: str) -> None:
        """Forget what depends on this."""
        found = self._by_key.pop(key, ())
        for question in (found,) if isinstance(found, bytes) else found:
            self.replies.pop(question, None)


class Kept:
    """All responses that are kept. `replies` are those of the younger generation: another dictionary after `put`, `get` and `clear`."""

    def __init__(self, limit: int = BYTES) -> None:
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
        return len(self._young.replies) + len(self._old.replies)

    def get(self, question: bytes) -> Reply | None:
        """What is kept for a question."""
        found = self._young.replies.get(question)
        if found is None and (found := self._old.replies.pop(question, None)) is not None:
            self._put(question, found)
        return found

    def put(self, question: bytes, response: bytes, kind: int, depends: Sequence[str]) -> None:
        """Keep a response until something that it depends on changes."""
        self._put(question, (response, kind, tuple(depends)))

    def _put(self, question: bytes, reply: Reply) -> None:
        if self._young.size >= self._limit:
            self._young, self._old = _Generation(), self._young
        self._young.put(question, reply)

    def changed(self, key: str) -> None:
        """Something changed: what was made of it is not kept any more."""
        self._young.drop(key)
        self._old.drop(key)

    def clear(self) -> None:
        """Keep nothing of what was."""
        self._young, self._old = _Generation(), _Generation()
