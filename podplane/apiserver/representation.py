"""How objects go out, as the client's Accept header asks: whole, as metadata only, or as rows of a table (meta/v1 Table)."""

from __future__ import annotations

import datetime
import functools
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence

import msgspec

from podplane.apiserver.kinds.resource import Object, Resource
from podplane.apiserver.problems import Problem
from podplane.apiserver.store import Stored, current
from podplane.kubeapi.messages import JSON, Request

META = "meta.k8s.io"
META_VERSIONS = ("v1", "v1beta1")
encode = msgspec.json.encode


class Whole:
    """Objects as they are stored; in the version that was asked for."""

    def __init__(self, resource: Resource) -> None:
        self.resource = resource
        self.is_stored_form = resource.stored_as == resource.group_version
        """Are the stored bytes those that go out?"""

    def one(self, stored: Stored) -> bytes:
        """One object."""
        stored = current(self.resource, stored)
        return stored.raw if self.is_stored_form else encode(self._converted(stored.object))

    def _converted(self, object_: Object) -> Object:
        return {**object_, "apiVersion": self.resource.group_version}

    @property
    def shared(self) -> Hashable:
        """Representations of a resource for which this is equal make the same line of an event; None is equal to no other."""
        return self.resource.group_version

    def many(self, items: Iterable[Stored | None], metadata: Object) -> Iterator[bytes]:
        """A list, in parts: one for each item, an empty one for None (which a selector left out)."""
        head = {"kind": self.resource.list_kind, "apiVersion": self.resource.group_version, "metadata": metadata}
        return _list(head, "items", self.one, items)

    def event(self, kind: str, stored: Stored) -> bytes:
        """One line of a watch."""
        return b'{"type":"%s","object":%s}\n' % (kind.encode(), self.one(stored))

    def bookmark(self, metadata: Object) -> bytes:
        """A line that says only how far the watch is."""
        object_ = {"kind": self.resource.kind, "apiVersion": self.resource.group_version, "metadata": metadata}
        return encode({"type": "BOOKMARK", "object": object_}) + b"\n"


class Partial(Whole):
    """Metadata only (meta/v1 PartialObjectMetadata)."""

    def __init__(self, resource: Resource, version: str) -> None:
        super().__init__(resource)
        self.is_stored_form = False
        self._version = f"{META}/{version}"

    def _converted(self, object_: Object) -> Object:
        return {"kind": "PartialObjectMetadata", "apiVersion": self._version, "metadata": object_["metadata"]}

    @property
    def shared(self) -> Hashable:
        return "PartialObjectMetadata", self._version

    def many(self, items: Iterable[Stored | None], metadata: Object) -> Iterator[bytes]:
        head = {"kind": "PartialObjectMetadataList", "apiVersion": self._version, "metadata": metadata}
        return _list(head, "items", self.one, items)

    def bookmark(self, metadata: Object) -> bytes:
        return encode({"type": "BOOKMARK", "object": self._converted({"metadata": metadata})}) + b"\n"


class Table(Whole):
    """Rows with the columns of the kind. `include` says what of the object goes along: Metadata, Object or None."""

    def __init__(self, resource: Resource, version: str, include: str, now: Callable[[], datetime.datetime]) -> None:
        super().__init__(resource)
        self.is_stored_form = False
        self._version = f"{META}/{version}"
        self._include = include
        self._now = now
        self._described = False

    def _row(self, stored: Stored, now: datetime.datetime) -> Object:
        object_ = current(self.resource, stored).object
        row: Object = {"cells": [column.value(object_, now) for column in self.resource.columns]}
        if self._include == "Object":
            row["object"] = {**object_, "apiVersion": self.resource.group_version}
        elif self._include == "Metadata":
            partial = {"kind": "PartialObjectMetadata", "apiVersion": self._version, "metadata": object_["metadata"]}
            row["object"] = partial
        return row

    def _table(self, rows: list[Object], metadata: Object, *, described: bool = True) -> Object:
        columns = [
            {"name": c.name, "type": c.type, "format": c.format, "description": "", "priority": c.priority}
            for c in (self.resource.columns if described else ())
        ]
        head = {"kind": "Table", "apiVersion": self._version, "metadata": metadata}
        return head | {"columnDefinitions": columns, "rows": rows}

    def one(self, stored: Stored) -> bytes:
        version = {"resourceVersion": stored.object["metadata"].get("resourceVersion", "")}
        return encode(self._table([self._row(stored, self._now())], version))

    @property
    def shared(self) -> Hashable:
        return ("Table", self._version, self._include, self.resource.group_version) if self._described else None

    def many(self, items: Iterable[Stored | None], metadata: Object) -> Iterator[bytes]:
        now, head = self._now(), self._table([], metadata)
        del head["rows"]
        return _list(head, "rows", lambda stored: encode(self._row(stored, now)), items)

    def event(self, kind: str, stored: Stored) -> bytes:
        """A table of one row; only the first of a watch describes the columns."""
        version = {"resourceVersion": stored.object["metadata"].get("resourceVersion", "")}
        table = self._table([self._row(stored, self._now())], version, described=not self._described)
        self._described = True
        return encode({"type": kind, "object": table}) + b"\n"

    def bookmark(self, metadata: Object) -> bytes:
        object_ = {"kind": self.resource.kind, "apiVersion": self.resource.group_version, "metadata": metadata}
        row = {"cells": [], "object": object_} if self._include != "None" else {"cells": []}
        return encode({"type": "BOOKMARK", "object": self._table([row], metadata, described=False)}) + b"\n"


def _list(head: Object, field: str, encoded: Callable[[Stored], bytes], items: Iterable[Stored | None]) -> Iterator[bytes]:
    """A list as JSON, in parts: `head` with one more field, which holds the items."""
    yield encode(head)[:-1] + b',"%s":[' % field.encode()
    comma = b""
    for stored in items:
        if stored is None:
            yield b""
            continue
        yield comma + encoded(stored)
        comma = b","
    yield b"]}"


def media_ranges(request: Request) -> Sequence[tuple[str, Mapping[str, str]]]:
    """What the client accepts: types with their parameters, in its order."""
    return _ranges(request.headers.get("accept", ""))


@functools.lru_cache(64)
def _ranges(accept: str) -> Sequence[tuple[str, Mapping[str, str]]]:
    found = []
    for text in accept.split(","):
        kind, *parameters = (part.strip() for part in text.split(";"))
        if kind:
            found.append((kind.lower(), dict(p.split("=", 1) for p in parameters if "=" in p)))
    return found or [("*/*", {})]


JSON_RANGES = (JSON, "*/*", "application/*")


def check_whole(request: Request) -> None:
    """For what is an answer and no object that is kept: it can only be had whole. Problem when the client takes nothing but other forms.

    Kubernetes' storage of reviews, bindings and evictions has no TableConvertor either (endpoints/handlers, AllowsMediaTypeTransform).
    """
    if not any(kind in JSON_RANGES and not parameters.get("as") for kind, parameters in media_ranges(request)):
        raise Problem("NotAcceptable", f"only {JSON} can be had here, and whole")


def negotiate(resource: Resource, request: Request, now: Callable[[], datetime.datetime]) -> Whole:
    """The representation that the client likes best of those that it can have. Problem when there is none."""
    for kind, parameters in media_ranges(request):
        if kind not in JSON_RANGES:
            continue
        form, version = parameters.get("as", ""), parameters.get("v", "")
        if not form:
            return Whole(resource)
        if parameters.get("g") != META or version not in META_VERSIONS:
            continue
        if form == "Table":
            include = request.parameter("includeObject") or "Metadata"
            if include not in ("None", "Metadata", "Object"):
                raise Problem("BadRequest", f"includeObject {include!r}: it is one of None, Metadata, Object")
            return Table(resource, version, include, now)
        if form in ("PartialObjectMetadata", "PartialObjectMetadataList"):
            return Partial(resource, version)
    raise Problem("NotAcceptable", f"only {JSON} can be had here, whole, as Table or as PartialObjectMetadata (v1)")
