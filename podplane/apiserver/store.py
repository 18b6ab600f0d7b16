"""Objects on disk and in memory: SQLite in WAL mode is the record, sorted maps of the same keys answer.

One transaction a write: what was acknowledged survives SIGKILL at any point, since a committed page is in the kernel's
hands (synchronous=OFF would lose it only with the machine; NORMAL also keeps the file itself sound then). The resource version is
one counter over all writes and is recorded with each, so that it never goes back.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from podplane.apiserver.kinds.resource import Resource
from podplane.apiserver.ordered import Key, Ordered, Snapshot
from podplane.kubeapi.errors import UNDECODABLE, Unwritable

log = logging.getLogger(__name__)
SCHEMA = """
CREATE TABLE IF NOT EXISTS objects (
    resource TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL, object BLOB NOT NULL,
    PRIMARY KEY (resource, namespace, name)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS counter (id INTEGER PRIMARY KEY CHECK (id = 0), version INTEGER NOT NULL);
INSERT OR IGNORE INTO counter VALUES (0, 0);
"""


APPLICATION_ID = 0x706F_6470
"""In the file's header: "podp"."""


OPENING_SECONDS, HELD_SECONDS = 5.0, 0.01
"""So long the file may be held by another process when it is opened; and when it is written, which all that the loop does waits for."""
LEAST_FREE_BYTES = 256 * 1024
"""With less on its disk, SQLite may fail at other calls than the write that there is no space for (ftruncate, the shared index)."""


PACKED = frozenset({"events"})
"""Resources whose objects are kept as JSON only: Events come with all that happens and stay for an hour, and few are ever read."""


class StoreError(Exception):
    """The file can't be used; one line that says why. `is_passing`: is it not the file that is wrong, but the disk, or who holds it?"""

    def __init__(self, why: str, *, is_passing: bool = False) -> None:
        super().__init__(why)
        self.is_passing = is_passing


@dataclass(frozen=True, slots=True)
class Stored:
    """One version of an object: as a mapping (never changed in place) and as the JSON that is sent.

    `fitted`: what `current` found last: (by which `complete`, the version that came of it or None where nothing changed).
    """

    object: dict[str, Any]
    raw: bytes
    fitted: tuple[Callable[[dict[str, Any]], dict[str, Any]], Stored | None] | None = field(
        default=None, compare=False, repr=False
    )


class Packed(Stored):
    """A version of an object of which there are many and which hardly anybody reads: its mapping, which takes some four times as much
    memory as the JSON, is made whenever somebody asks for it."""

    __slots__ = ()

    def __init__(self, raw: bytes) -> None:
        object.__setattr__(self, "raw", raw)
        object.__setattr__(self, "fitted", None)

    @property
    def object(self) -> dict[str, Any]:
        """The mapping, made anew."""
        made: dict[str, Any] = msgspec.json.decode(self.raw)
        return made


def kept(resource: str, stored: Stored) -> Stored:
    """A version of an object as it is kept in memory."""
    return Packed(stored.raw) if resource in PACKED else stored


def current(resource: Resource, stored: Stored) -> Stored:
    """A stored custom resource as its definition, which may have changed since, has it now: with defaults that were added later, and
    without fields that went (apiextensions, defaulting and pruning of what is read); any other object as it is. Of each version of
    an object that is found out once."""
    if (
        resource.complete is None
        or int(stored.object["metadata"].get("resourceVersion", resource.defined_at)) >= resource.defined_at
    ):
        return stored
    if stored.fitted is None or stored.fitted[0] is not resource.complete:
        found = resource.complete(stored.object)
        other = None if found == stored.object else Stored(found, msgspec.json.encode(found))
        object.__setattr__(stored, "fitted", (resource.complete, other))
    return (stored.fitted and stored.fitted[1]) or stored


class _Objects:
    """The objects of one resource, in the order of (namespace, name) and, where there are namespaces, of (name, namespace)."""

    def __init__(self) -> None:
        self.by_key: Ordered[Stored] = Ordered()
        self.by_name: Ordered[Stored] = Ordered()

    def change(self, key: Key, stored: Stored | None) -> None:
        """Store a version of an object; None removes it."""
        indices = ((self.by_key, key), (self.by_name, key[::-1])) if key[0] else ((self.by_key, key),)
        for index, at in indices:
            if stored is None:
                index.discard(at)
            else:
                index.set(at, stored)

    def named(self, namespace: str, name: str) -> list[tuple[Key, Stored]]:
        """The object of this name in a namespace; without a namespace, in all of them or (of a cluster-scoped resource) in none."""
        found = self.by_key.get((namespace, name))
        if namespace or found is not None:
            return [((namespace, name), found)] if found is not None else []
        return [((at[1], at[0]), stored) for at, stored in self.by_name.snapshot(name)]


class Store:
    """All objects, by resource and key. Not for two threads at once."""

    def __init__(self, path: Path | str) -> None:
        self._path = path
        self._is_open = False
        self._refused: Unwritable | None = None
        """Of the open transaction, or of the last one."""
        self.refusals = 0
        """Transactions that could not be written, since the start."""
        try:
            self._database = sqlite3.connect(path, timeout=OPENING_SECONDS, isolation_level=None, check_same_thread=False)
            self._claim()
            self._database.execute("PRAGMA journal_mode=WAL")
            self._database.execute("PRAGMA synchronous=NORMAL")
            self._database.executescript(SCHEMA)
            self.version: int = self._database.execute("SELECT version FROM counter").fetchone()[0]
            self._objects: dict[str, _Objects] = {}
            self._undo: list[tuple[_Objects, Key, Stored | None]] = []
            for resource, namespace, name, raw in self._database.execute("SELECT * FROM objects"):
                stored = Stored(msgspec.json.decode(raw, type=dict[str, Any]), raw)
                self._of(resource).change((namespace, name), kept(resource, stored))
            self._database.execute(f"PRAGMA busy_timeout={int(HELD_SECONDS * 1000)}")
        except sqlite3.Error as error:
            why, is_passing = self._unwritable(error), _code(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_READONLY)
            if why.is_full or is_passing:
                raise StoreError(str(why), is_passing=True) from None
            raise StoreError(f"{path} can't be used: {error}") from None
        except UNDECODABLE as error:
            raise StoreError(f"{path} can't be used: {error}") from None

    def _claim(self) -> None:
        """Mark a new file as a store of podplane. StoreError when it is a database of something else."""
        tables = self._database.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
        application = self._database.execute("PRAGMA application_id").fetchone()[0]
        if tables and application != APPLICATION_ID:
            raise sqlite3.DatabaseError("it is a database of something else")
        self._database.execute(f"PRAGMA application_id={APPLICATION_ID}")

    def close(self) -> None:
        """Close the file; idempotent."""
        self._database.close()

    def failure(self) -> str:
        """Why the file can't be read, or could not be written when that was last tried; "" when it can."""
        if self._refused is not None:
            return str(self._refused)
        try:
            self._database.execute("SELECT version FROM counter").fetchone()
        except sqlite3.Error as error:
            return str(error)
        return ""

    def _of(self, resource: str) -> _Objects:
        found = self._objects.get(resource)
        if found is None:
            found = self._objects[resource] = _Objects()
        return found

    def get(self, resource: str, key: Key) -> Stored | None:
        """One object."""
        found = self._objects.get(resource)
        return found.by_key.get(key) if found is not None else None

    def snapshot(self, resource: str, namespace: str = "", name: str = "", after: Key | None = None) -> Snapshot[Stored]:
        """The objects of a resource as they are now, with their keys and in the order of those.

        With a namespace or a name, those that have it; with `after`, those of greater keys. It costs what it holds. Whoever walks it
        may let others write meanwhile: it stays as it is.
        """
        found = self._objects.get(resource)
        if found is None:
            return Snapshot([])
        if not name:
            return found.by_key.snapshot(namespace, after)
        return Snapshot([[entry for entry in found.named(namespace, name) if after is None or entry[0] > after]])

    def count(self, resource: str) -> int:
        """How many objects of a resource there are."""
        found = self._objects.get(resource)
        return len(found.by_key) if found is not None else 0

    def all(self, resource: str, namespace: str = "") -> list[Stored]:
        """All objects of a resource, or of one namespace, in the order of their keys."""
        return [stored for _, stored in self.snapshot(resource, namespace)]

    def resources(self) -> list[str]:
        """Names of the resources of which there was ever one here."""
        return list(self._objects)

    def put(self, resource: str, key: Key, object_: dict[str, Any]) -> Stored:
        """Store a version; it gets the next resource version."""
        self.version += 1
        object_["metadata"]["resourceVersion"] = str(self.version)
        stored = Stored(object_, msgspec.json.encode(object_))
        with self.transaction():
            self._execute("REPLACE INTO objects VALUES (?, ?, ?, ?)", (resource, *key, stored.raw))
            self._set(resource, key, kept(resource, stored))
        return stored

    def remove(self, resource: str, key: Key) -> Stored:
        """Remove an object; its last version carries the resource version of the removal. KeyError when it isn't there."""
        stored = self.get(resource, key)
        if stored is None:
            raise KeyError(key)
        last = stored.object
        self.version += 1
        gone = {**last, "metadata": {**last["metadata"], "resourceVersion": str(self.version)}}
        with self.transaction():
            self._execute("DELETE FROM objects WHERE resource=? AND namespace=? AND name=?", (resource, *key))
            self._set(resource, key, None)
        return Stored(gone, msgspec.json.encode(gone))

    def _set(self, resource: str, key: Key, stored: Stored | None) -> None:
        """Change what is in memory, and remember how it was."""
        objects = self._of(resource)
        self._undo.append((objects, key, objects.by_key.get(key)))
        objects.change(key, stored)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """One transaction around several writes: all of them are stored, or on an exception none is, in memory neither.

        Unwritable when the disk takes none now. A transaction in which that was said once is over, whoever goes on after it.
        """
        if self._is_open:
            yield
            return
        self._is_open, was_refused, self._refused = True, self._refused, None
        try:
            self._execute("BEGIN IMMEDIATE")
            yield
            self._execute("UPDATE counter SET version = ?", (self.version,))
            self._execute("COMMIT")
        except BaseException:
            for objects, key, before in reversed(self._undo):
                objects.change(key, before)
            with contextlib.suppress(sqlite3.Error):  # what failed may have ended it already
                self._database.execute("ROLLBACK")
            raise
        finally:
            self._is_open = False
            self._undo.clear()
            self._note(was_refused)

    def _note(self, before: Unwritable | None) -> None:
        """Count and log what became of a transaction; `before`: what was said of the one before."""
        if self._refused is not None:
            self.refusals += 1
            if before is None:
                log.warning("nothing can be written: %s", self._refused)
        elif before is not None:
            log.warning("can be written again: %s", self._path)

    def _execute(self, statement: str, values: tuple[Any, ...] = ()) -> None:
        """Carry out a statement of the open transaction; Unwritable, now and for all that follow in it, when that can't be."""
        if self._refused is not None:
            raise self._refused
        try:
            self._database.execute(statement, values)
        except sqlite3.Error as error:
            self._refused = self._unwritable(error)
            raise self._refused from error

    def _unwritable(self, error: sqlite3.Error) -> Unwritable:
        """What an error of SQLite means for who wants to write."""
        code, folder = _code(error), os.path.dirname(os.path.abspath(self._path))
        if code == sqlite3.SQLITE_FULL or (code == sqlite3.SQLITE_IOERR and _is_full(folder)):
            return Unwritable(f"no space is left on the disk of {folder}: free some there", is_full=True)
        if code == sqlite3.SQLITE_BUSY:
            return Unwritable(f"another process holds {self._path}: end it (`fuser {self._path}` names it)", is_full=False)
        return Unwritable(f"{self._path} can't be written: {error}", is_full=False)


def _code(error: sqlite3.Error) -> int:
    """The primary result code of SQLite; 0 for an error of the module's own."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def _is_full(folder: str) -> bool:
    """Is there no space to speak of, for this user?"""
    try:
        found = os.statvfs(folder)
    except OSError as error:
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return found.f_bavail * found.f_frsize < LEAST_FREE_BYTES
