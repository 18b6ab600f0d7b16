"""From the bytes of a request to an object that fits its kind, and to options."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import msgspec

from podplane.apiserver import protobuf, shapes, strict
from podplane.apiserver.kinds.resource import Object, Resource, unreadable
from podplane.apiserver.problems import Cause, Problem, invalid
from podplane.apiserver.protobuf import TYPE as PROTOBUF
from podplane.kubeapi.errors import UNDECODABLE
from podplane.kubeapi.messages import JSON, JSON_PATCH, Request
from podplane.model.bounded_yaml import Aliased, TooDeep, TooMany

if TYPE_CHECKING:
    from podplane.apiserver import yaml_bodies

YAML = "application/yaml"
MAX_BODY_BYTES = 3 * 1024 * 1024
"""As the real API server limits a request."""
MAX_DEPTH = 200
MAX_VALUES = protobuf.MAX_VALUES
"""Fields and elements that a body may have in all: what a request costs goes by them, and an empty object is two bytes."""
MAX_DIGITS = 18
MODES = ("", "Ignore", "Strict", "Warn")
META = "meta.k8s.io"
KINDS = {"PUT": "UpdateOptions", "PATCH": "PatchOptions", "DELETE": "DeleteOptions"}
"""What the options of a request are called where they are refused."""
MAX_NAMED = 20
"""Unknown fields that are named; of more, only how many."""


OWNERS_TWICE = (
    ".metadata.ownerReferences contains duplicate entries; API server dedups owner references in 1.20+, and may reject such requests "
    "as early as 1.24; please fix your requests; duplicate UID(s) observed"
)


class Options(msgspec.Struct):
    """How a write is meant: really or `dry_run`, and how strictly its body is read. `warnings` go back with the answer."""

    dry_run: bool = False
    validation: str = "Warn"
    warnings: list[str] = []
    is_patch: bool = False
    twice: strict.Twice = msgspec.field(default_factory=strict.Twice)
    """The fields that the body has twice."""

    @classmethod
    def of(cls, request: Request) -> Options:
        """The options in the query. Problem when they are none."""
        runs, mode = request.query.get("dryRun", []), request.parameter("fieldValidation")
        causes = list(check_dry_run(runs))
        if mode not in MODES:
            causes.append(Cause.unsupported("fieldValidation", mode, MODES))
        if causes:
            raise invalid(KINDS.get(request.method, "CreateOptions"), "", causes, META)
        return cls(any(runs), mode or "Warn")


def check_dry_run(runs: Iterable[str]) -> Iterator[Cause]:
    """The values of dryRun (meta/v1, ValidateDryRun)."""
    if any(run not in ("", "All") for run in runs):
        yield Cause.unsupported("dryRun", list(runs), ("All",))


def media_type(request: Request) -> str:
    """The type of the body, without parameters."""
    return request.headers.get("content-type", JSON).partition(";")[0].strip() or JSON


def body(request: Request, accepted: tuple[str, ...] = (JSON, YAML, PROTOBUF)) -> Object:
    """The object in the body. Problem when it is none."""
    if len(request.body) > MAX_BODY_BYTES:
        raise Problem("RequestEntityTooLarge", f"the request is larger than {MAX_BODY_BYTES} bytes")
    kind = media_type(request)
    if kind not in accepted:
        raise Problem(
            "UnsupportedMediaType",
            f"the body of the request was in an unknown format: {kind}: served are {', '.join(accepted)}",
        )
    if kind == YAML:
        value = (request.document or _document(request.body)).value
    else:
        value = _protobuf(request.body) if kind == PROTOBUF else parse_json(request.body)
    if not isinstance(value, dict):
        raise Problem("BadRequest", "the body is not an object")
    return value


def _too_many() -> Problem:
    return Problem("RequestEntityTooLarge", f"the body is too large: it has more than {MAX_VALUES} values")


def _protobuf(data: bytes) -> Object:
    try:
        return protobuf.decode(data)
    except protobuf.TooMany:
        raise _too_many() from None
    except protobuf.ProtobufError as error:
        raise Problem("BadRequest", f"the body is not protobuf of Kubernetes: {error}") from None


def parse_json(data: bytes) -> Any:
    """A JSON value. Problem when it is none, or is nested too deeply to be handled."""
    try:
        value = msgspec.json.decode(data)
    except UNDECODABLE as error:
        raise Problem("BadRequest", f"the body is not JSON: {error}") from None
    if data.count(b"[") + data.count(b"{") > MAX_DEPTH or _may_be_too_many(data):
        check_extent(value)
    return value


def _may_be_too_many(data: bytes) -> bool:
    """Can this JSON have more than MAX_VALUES values? Whatever is in its texts counts, too."""
    return data.count(b"[") + data.count(b"{") + data.count(b",") > MAX_VALUES


def check_extent(value: Any) -> None:
    """Problem when the value is nested too deeply, or has too many values, to be handled."""
    level = [value] if isinstance(value, dict | list) else []
    depth = count = 0
    while level:
        depth, count = depth + 1, count + sum(map(len, level))
        if count > MAX_VALUES:
            raise _too_many()
        if depth > MAX_DEPTH:
            raise Problem("BadRequest", f"the body is nested deeper than {MAX_DEPTH} levels")
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]


async def with_document(request: Request) -> Request:
    """The same request, with what its body says if that is YAML: read once, in a thread if it is large. Problem when it can't be."""
    if media_type(request) != YAML or request.method not in ("POST", "PUT") or len(request.body) > MAX_BODY_BYTES:
        return request
    from podplane.apiserver import yaml_bodies  # with libyaml, which costs a start that reads no YAML nothing

    is_large = len(request.body) > yaml_bodies.LARGE_BYTES
    document = await asyncio.to_thread(_document, request.body) if is_large else _document(request.body)
    return msgspec.structs.replace(request, document=document)


def _document(data: bytes) -> yaml_bodies.Document:
    import yaml

    from podplane.apiserver import yaml_bodies

    try:
        document = yaml_bodies.read(data, MAX_DEPTH, 2 * MAX_VALUES)
        check_extent(document.value)
        msgspec.json.encode(document.value)  # texts may have halves of characters
    except TooMany:
        raise _too_many() from None
    except (TooDeep, Aliased) as error:
        raise Problem("BadRequest", f"the body {error}") from None
    except (yaml.YAMLError, ValueError) as error:
        raise Problem("BadRequest", f"the body is not YAML: {' '.join(str(error).split())}") from None
    return document


def note_duplicates(request: Request, options: Options) -> None:
    """Remember which fields are there twice (the last one counts): `fitted` tells of them."""
    if options.validation == "Ignore" or len(request.body) > MAX_BODY_BYTES:
        return
    kind = media_type(request)
    if kind == YAML:
        if request.document is not None:
            options.twice = strict.in_yaml(request.document)
    elif kind.endswith("json"):
        if _may_be_too_many(request.body):
            parse_json(request.body)  # refuses it, before it is read a second time in a dearer way
        if kind == JSON_PATCH or not strict.is_plain(request.body):
            options.twice = strict.in_json(request.body, is_patch=kind == JSON_PATCH)


def strictly(request: Request, options: Options) -> Object:
    """The object in the body; which fields are there twice is remembered. Problem when it is none."""
    note_duplicates(request, options)
    return body(request)


def _complain(resource: Resource, unknown: list[str], object_: Object, options: Options) -> None:
    """Tell of fields that are not known, or there twice: a Problem if strict, else warnings."""
    twice, options.twice = options.twice, strict.Twice()
    found = twice.complaints(unknown, is_decoded=resource.schema is None and not options.is_patch)
    if not found or options.validation == "Ignore":
        return
    if options.validation == "Warn":
        options.warnings += found[:MAX_NAMED]
        return
    more = f" and {len(found) - MAX_NAMED} more" if len(found) > MAX_NAMED else ""
    text = twice.refusal(found[:MAX_NAMED], more)
    if options.is_patch:
        raise invalid("", "", [Cause.invalid("patch", msgspec.json.encode(object_).decode(), text)])
    raise unreadable(resource, text)


def fitted(resource: Resource, object_: Object, options: Options, part: str = "") -> Object:
    """The object, made to fit its kind's shape in place. Problem when it can't be.

    With a `part`, a path, only that is asked for what is required and allowed: nothing else of the object is wanted.
    """
    found = (object_.setdefault("kind", resource.kind), object_.setdefault("apiVersion", resource.group_version))
    if found != (resource.kind, resource.group_version):
        kinds = f"{found[1]} {found[0]}, expected {resource.group_version} {resource.kind}"
        raise Problem("BadRequest", f"the object is of another kind than the request: {kinds}")
    metadata = object_.setdefault("metadata", {})
    if not isinstance(metadata, dict):
        raise unreadable(resource, "metadata: must be an object")
    for field in ("managedFields", "selfLink"):
        metadata.pop(field, None)
    findings = resource.read(object_)
    if findings.is_too_large:
        limit = f"{shapes.MAX_DEFAULTS_BYTES} bytes"
        raise Problem("RequestEntityTooLarge", f"the object is too large: the defaults of its kind add more than {limit} to it")
    if findings.wrong:
        raise unreadable(resource, ", ".join(findings.wrong[:MAX_NAMED]))
    _complain(resource, findings.unknown, object_, options)
    causes = [cause for cause in findings.causes if not part or re.match(rf"{re.escape(part)}(\W|$)", cause.field)]
    if causes:
        raise invalid(resource.kind, str(metadata.get("name", "")), causes, resource.group)
    _keep_owners_once(metadata, options)
    return object_


def _keep_owners_once(metadata: Object, options: Options) -> None:
    """Owner references that are there twice are there once (endpoints/handlers, dedupOwnerReferences)."""
    owners = metadata.get("ownerReferences", [])
    times = Counter(str(owner.get("uid", "")) for owner in owners)
    if len(times) == len(owners):
        return
    once: dict[frozenset[tuple[str, Any]], Object] = {}
    for owner in owners:
        once.setdefault(frozenset(owner.items()), owner)
    metadata["ownerReferences"] = list(once.values())
    uids = ", ".join(uid for uid, count in times.items() if count > 1)
    options.warnings.append(f"{OWNERS_TWICE}: {uids}")


def whole_number(name: str, text: str) -> int:
    """A parameter that is a whole number. Problem when it isn't."""
    if not text.isdecimal() or not text.isascii() or len(text) > MAX_DIGITS:
        raise Problem("BadRequest", f"{name} {text!r} is not a whole number")
    return int(text)
