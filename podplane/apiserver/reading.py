"""get, list and watch: answered from memory, in the form that the client asks for."""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import datetime
import itertools
import math
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import Any, NamedTuple

import msgspec

from podplane.apiserver import selectors
from podplane.apiserver.decoding import MAX_DIGITS, whole_number
from podplane.apiserver.kinds.resource import Object
from podplane.apiserver.ordered import Key
from podplane.apiserver.pace import Pace
from podplane.apiserver.paths import Target
from podplane.apiserver.problems import Problem, not_found
from podplane.apiserver.records import Records
from podplane.apiserver.representation import Whole, negotiate
from podplane.apiserver.selectors import Selection
from podplane.apiserver.slices import chunks, sliced
from podplane.apiserver.store import Stored, current
from podplane.apiserver.watch import INITIAL_END, overlaid
from podplane.kubeapi.messages import Request, Response, Stream

MATCHES = ("", "Exact", "NotOlderThan")
WHOLE_BYTES = 1024 * 1024
"""A longer list is sent while it is made."""


class _Continue(msgspec.Struct):
    """What a continue token says: the version of the first page, and the last key of the former one."""

    v: int
    after: tuple[str, str]


class LongList(Stream, frozen=True):
    """A list that is sent while it is made: a stream that ends by itself, one JSON document in all."""


class _Page(NamedTuple):
    """What a list is made of: the objects of the selection's namespace and name, their number, and their version."""

    found: Iterable[tuple[Key, Stored]]
    total: int
    version: int


class Reader:
    """Read access to the records."""

    def __init__(self, records: Records, now: Callable[[], datetime.datetime]) -> None:
        self._records = records
        self._now = now

    def stored(self, target: Target) -> Stored:
        """The object that is meant. Problem when there is none."""
        if found := self._records.store.get(target.resource.id, target.key):
            return current(target.resource, found)
        raise not_found(target.resource.plural, target.name, target.resource.group)

    def form(self, target: Target, request: Request) -> Whole:
        """How the answer is to look."""
        return negotiate(target.resource, request, self._now)

    def get(self, target: Target, request: Request) -> Response:
        """One object."""
        return Response(200, self.form(target, request).one(self.stored(target)))

    def selected(self, target: Target, request: Request) -> Iterator[Stored | None]:
        """The objects of a collection as they are now, one after the other; None for each that the selectors leave out."""
        selection = selection_of(target, request)
        found = self._records.store.snapshot(target.resource.id, selection.namespace, selection.name)
        return (stored if selection.wanted is None or selection.wanted(stored.object) else None for _, stored in found)

    async def collection(self, target: Target, request: Request) -> Response | LongList:
        """A collection, or a page of it. Pages after the first show what was there when the first was made.

        What is walked is a snapshot, so the list is of one version although others write between the slices.
        """
        form, selection = self.form(target, request), selection_of(target, request)
        limit = whole_number("limit", request.parameter("limit") or "0")
        found, total, version = self._page(target, selection, request)
        metadata: Object = {"resourceVersion": str(version)}
        wanted = selection.wanted
        if not limit:
            items = (stored if wanted is None or wanted(stored.object) else None for _, stored in found)
            return await answer(form.many(items, metadata), self._pace(request))
        page = await _first(found, wanted, limit + 1)
        if len(page) > limit:
            metadata["continue"] = _token(version, page[limit - 1][0])
            if wanted is None:
                metadata["remainingItemCount"] = total - limit
        return await answer(form.many((stored for _, stored in page[:limit]), metadata), self._pace(request))

    def _pace(self, request: Request) -> Pace | None:
        """What an answer waits for between two parts; the lab's own answers wait for nobody: they cost little, and others wait for them."""
        return self._records.hub.pace if request.source else None

    def _page(self, target: Target, selection: Selection, request: Request) -> _Page:
        """What the list is made of, as the versions and the token of the request say."""
        hub = self._records.hub
        version, match = request.parameter("resourceVersion"), request.parameter("resourceVersionMatch")
        _check_match(version, match)
        if token := request.parameter("continue"):
            if version not in ("", "0"):
                raise Problem("BadRequest", "specifying resource version is not allowed when using continue")
            page = _read(token)
            return self._as_of(target, selection, page.v, page.after)
        if version not in ("", "0"):
            number = whole_number("resourceVersion", version)
            if match == "Exact":
                return self._as_of(target, selection, number)
            if number > hub.version:
                hub.check(number)
        return self._as_of(target, selection, hub.version)

    def _as_of(self, target: Target, selection: Selection, version: int, after: Key | None = None) -> _Page:
        """The objects as they were at a version, after a key. It costs what has changed of them since."""
        hub, store, resource = self._records.hub, self._records.store, target.resource.id
        found = store.snapshot(resource, selection.namespace, selection.name, after)
        if version == hub.version:
            return _Page(found, len(found), version)
        try:
            before = hub.before((resource, selection.namespace, selection.name), version)
        except Problem as problem:
            if problem.reason != "Expired":
                raise
            message = (
                "The provided continue parameter is too old to display a consistent list result: start a new list without it"
            )
            raise Problem("Expired", message) from None
        before = {key: stored for key, stored in before.items() if after is None or key > after}
        more = sum((old is not None) - (store.get(resource, key) is not None) for key, old in before.items())
        return _Page(overlaid(found, before), len(found) + more, version)

    def watch(self, target: Target, request: Request) -> Stream:
        """Changes as they come; from the beginning, with `sendInitialEvents` or without a version, what is there goes first."""
        form, selection, hub = self.form(target, request), selection_of(target, request), self._records.hub
        version, match = request.parameter("resourceVersion"), request.parameter("resourceVersionMatch")
        number = whole_number("resourceVersion", version or "0")
        bookmarks = request.flag("allowWatchBookmarks")
        initial = request.flag("sendInitialEvents")
        _check_initial(request, match)
        first: Iterable[bytes] = ()
        if initial or ("sendInitialEvents" not in request.query and version in ("", "0")):
            if number > hub.version:
                hub.check(number)
            first = (form.event("ADDED", stored) if stored else b"" for stored in self.selected(target, request))
            if initial and bookmarks:
                mark = {"resourceVersion": str(hub.version), "annotations": INITIAL_END}
                first = itertools.chain(first, (form.bookmark(mark),))
            number = hub.version
        elif version in ("", "0"):
            number = hub.version
        seconds = _seconds(request.parameter("timeoutSeconds") or "0") or None
        pace = self._pace(request)
        return Stream(hub.open(form, selection, number, seconds, bookmarks=bookmarks, first=first, pace=pace))


async def answer(parts: Iterable[bytes], pace: Pace | None = None) -> Response | LongList:
    """A list in parts as an answer: whole if it is short, else sent while it is made."""
    made, size, rest = [], 0, chunks(parts, pace)
    async for chunk in rest:
        made.append(chunk)
        size += len(chunk)
        if size > WHOLE_BYTES:
            return LongList(_chain(made, rest))
    return Response(200, b"".join(made))


async def whole(answer: LongList) -> Response:
    """A long list for a caller in this process, who needs all of it at once."""
    return Response(answer.status, b"".join([chunk async for chunk in answer.chunks]))


async def _chain(made: list[bytes], rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    for chunk in made:
        yield chunk
    async for chunk in rest:
        yield chunk


async def _first(
    found: Iterable[tuple[Key, Stored]], wanted: selectors.Predicate | None, count: int
) -> list[tuple[Key, Stored]]:
    """The first objects of which `wanted` is true, so many at most."""
    if wanted is None:
        return list(itertools.islice(found, count))
    page: list[tuple[Key, Stored]] = []
    matching = (entry if wanted(entry[1].object) else None for entry in found)
    for number, entries in enumerate(sliced(matching)):
        if number:
            await asyncio.sleep(0)
        page += filter(None, entries)
        if len(page) >= count:
            break
    return page[:count]


def selection_of(target: Target, request: Request) -> Selection:
    """What a request is about: the namespace and the name that the path says, and the selectors."""
    label, field = request.parameter("labelSelector"), request.parameter("fieldSelector")
    return Selection.of(target.namespace, target.name, label, field, target.resource.fields)


def _check_match(version: str, match: str) -> None:
    if match not in MATCHES:
        raise Problem("BadRequest", f"resourceVersionMatch {match!r}: it is Exact or NotOlderThan")
    if match and not version:
        raise Problem("BadRequest", "resourceVersionMatch is forbidden unless resourceVersion is provided")
    if match == "Exact" and version == "0":
        raise Problem("BadRequest", 'resourceVersionMatch "Exact" is forbidden for resourceVersion "0"')


def _check_initial(request: Request, match: str) -> None:
    """`sendInitialEvents` goes with NotOlderThan, and only with it (KEP-3157)."""
    if "sendInitialEvents" in request.query and match != "NotOlderThan":
        raise Problem("BadRequest", "sendInitialEvents requires resourceVersionMatch=NotOlderThan")
    if "sendInitialEvents" not in request.query and match:
        raise Problem("BadRequest", "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided")


def _token(version: int, after: Key) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode(_Continue(version, after))).decode().rstrip("=")


def _read(token: str) -> _Continue:
    try:
        padded = token + "=" * (-len(token) % 4)
        return msgspec.json.decode(base64.urlsafe_b64decode(padded), type=_Continue)
    except (binascii.Error, msgspec.MsgspecError, ValueError):
        raise Problem("BadRequest", "continue key is not valid: it must be the token of a former list") from None


def _seconds(text: str) -> float:
    """timeoutSeconds; fractions are taken too."""
    with contextlib.suppress(ValueError):
        if len(text) <= MAX_DIGITS and 0 <= (seconds := float(text)) < math.inf:
            return seconds
    raise Problem("BadRequest", f"timeoutSeconds {text!r} is not a number of seconds")


def plain(value: Any) -> Any:
    """A copy that nobody else has."""
    return msgspec.json.decode(msgspec.json.encode(value))
