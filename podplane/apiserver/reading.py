"""get, list and watch: answered from memory, in the form that the client asks for."""

from __future__ import annotations

import base64
import binascii
import contextlib
import datetime
import math
from collections.abc import Callable
from typing import Any

import msgspec

from podplane.apiserver import selectors
from podplane.apiserver.decoding import MAX_DIGITS, whole_number
from podplane.apiserver.kinds.resource import Object
from podplane.apiserver.paths import Target
from podplane.apiserver.problems import Problem, not_found
from podplane.apiserver.records import Records
from podplane.apiserver.representation import Whole, negotiate
from podplane.apiserver.store import Key, Stored
from podplane.apiserver.watch import INITIAL_END
from podplane.kubeapi.messages import Request, Response, Stream

MATCHES = ("", "Exact", "NotOlderThan")


class _Continue(msgspec.Struct):
    """What a continue token says: the version of the first page, and the last key of the former one."""

    v: int
    after: tuple[str, str]


class Reader:
    """Read access to the records."""

    def __init__(self, records: Records, now: Callable[[], datetime.datetime]) -> None:
        self._records = records
        self._now = now

    def stored(self, target: Target) -> Stored:
        """The object that is meant. Problem when there is none."""
        if found := self._records.store.get(target.resource.id, target.key):
            return found
        raise not_found(target.resource.plural, target.name, target.resource.group)

    def form(self, target: Target, request: Request) -> Whole:
        """How the answer is to look."""
        return negotiate(target.resource, request, self._now)

    def get(self, target: Target, request: Request) -> Response:
        """One object."""
        return Response(200, self.form(target, request).one(self.stored(target)))

    def selected(self, target: Target, request: Request) -> list[tuple[Key, Stored]]:
        """The objects of a collection that the selectors choose, in the order of their keys."""
        wanted = selection(target, request)
        return [(k, s) for k, s in self._all(target) if wanted is None or wanted(s.object)]

    def _all(self, target: Target) -> list[tuple[Key, Stored]]:
        return self._records.store.items(target.resource.id, target.namespace)

    def collection(self, target: Target, request: Request) -> Response:
        """A collection, or a page of it. Pages after the first show what was there when the first was made."""
        form, wanted = self.form(target, request), selection(target, request)
        limit = whole_number("limit", request.parameter("limit") or "0")
        found, version, after = self._version(target, request)
        if after is not None:
            found = [(key, stored) for key, stored in found if key > after]
        if wanted is not None:
            found = [(key, stored) for key, stored in found if wanted(stored.object)]
        metadata: Object = {"resourceVersion": str(version)}
        if limit and len(found) > limit:
            metadata["continue"] = _token(version, found[limit - 1][0])
            if wanted is None:
                metadata["remainingItemCount"] = len(found) - limit
            found = found[:limit]
        return Response(200, form.many((stored for _, stored in found), metadata))

    def _version(self, target: Target, request: Request) -> tuple[list[tuple[Key, Stored]], int, Key | None]:
        """What the list is made of: objects, their version, and the key after which it goes on."""
        hub, now = self._records.hub, self._all(target)
        version, match = request.parameter("resourceVersion"), request.parameter("resourceVersionMatch")
        _check_match(version, match)
        if token := request.parameter("continue"):
            if version not in ("", "0"):
                raise Problem("BadRequest", "specifying resource version is not allowed when using continue")
            page = _page(token)
            return self._as_of(target, now, page.v), page.v, page.after
        if version in ("", "0"):
            return now, hub.version, None
        number = whole_number("resourceVersion", version)
        if match == "Exact":
            return self._as_of(target, now, number), number, None
        if number > hub.version:
            hub.check(number)
        return now, hub.version, None

    def _as_of(self, target: Target, now: list[tuple[Key, Stored]], version: int) -> list[tuple[Key, Stored]]:
        hub = self._records.hub
        if version == hub.version:
            return now
        try:
            then = hub.as_of(target.resource.id, now, version)
        except Problem as problem:
            if problem.reason != "Expired":
                raise
            message = (
                "The provided continue parameter is too old to display a consistent list result: start a new list without it"
            )
            raise Problem("Expired", message) from None
        return [(key, stored) for key, stored in then if not target.namespace or key[0] == target.namespace]

    def watch(self, target: Target, request: Request) -> Stream:
        """Changes as they come; from the beginning, with `sendInitialEvents` or without a version, what is there goes first."""
        form, wanted, hub = self.form(target, request), selection(target, request), self._records.hub
        version, match = request.parameter("resourceVersion"), request.parameter("resourceVersionMatch")
        number = whole_number("resourceVersion", version or "0")
        bookmarks = request.flag("allowWatchBookmarks")
        initial = request.flag("sendInitialEvents")
        _check_initial(request, match)
        first = b""
        if initial or ("sendInitialEvents" not in request.query and version in ("", "0")):
            if number > hub.version:
                hub.check(number)
            first = b"".join(form.event("ADDED", s) for _, s in self._all(target) if wanted is None or wanted(s.object))
            if initial and bookmarks:
                first += form.bookmark({"resourceVersion": str(hub.version), "annotations": INITIAL_END})
            number = hub.version
        elif version in ("", "0"):
            number = hub.version
        seconds = _seconds(request.parameter("timeoutSeconds") or "0") or None
        return Stream(hub.open(form, target.namespace, wanted, number, seconds, bookmarks=bookmarks, first=first))


def selection(target: Target, request: Request) -> selectors.Predicate | None:
    """The selectors of a request, and the name that the path says."""
    label, field = request.parameter("labelSelector"), request.parameter("fieldSelector")
    if target.name:
        field = ",".join(filter(None, (f"metadata.name={target.name}", field)))
    return selectors.both(
        selectors.labels(label) if label else None,
        selectors.fields(field, target.resource.fields) if field else None,
    )


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


def _page(token: str) -> _Continue:
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
