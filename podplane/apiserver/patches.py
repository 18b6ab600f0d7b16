"""Patches: a former object and a patch in, a new object out. JSON patch (RFC 6902), merge patch (RFC 7386), strategic merge patch."""

from __future__ import annotations

from typing import Any

import msgspec

from podplane.apiserver import strategic
from podplane.apiserver.decoding import MAX_BODY_BYTES, MAX_DEPTH, body, check_extent, media_type, parse_json
from podplane.apiserver.kinds.resource import Object, Resource
from podplane.apiserver.problems import Problem
from podplane.apiserver.reading import plain
from podplane.kubeapi.messages import JSON_PATCH, MERGE_PATCH, Request

STRATEGIC = "application/strategic-merge-patch+json"
APPLY = ("application/apply-patch+yaml", "application/apply-patch+cbor")
MAX_OPERATIONS = 10_000


def served(resource: Resource) -> tuple[str, ...]:
    """Types of patches that a resource takes."""
    return (JSON_PATCH, MERGE_PATCH) + (() if resource.schema is not None else (STRATEGIC,))


def check_type(resource: Resource, request: Request) -> str:
    """The type of the patch in the request. Problem when it is none that the resource takes."""
    kind = media_type(request)
    if kind in APPLY:
        raise Problem(
            "UnsupportedMediaType",
            "server-side apply is not served yet: use `kubectl apply` without --server-side, or another patch",
        )
    if kind not in served(resource):
        types = ", ".join(served(resource))
        raise Problem("UnsupportedMediaType", f"the body of the request was in an unknown format: {kind}: patches are {types}")
    return kind


HEAD = ("apiVersion", "kind", "metadata")


def patched(resource: Resource, old: Object, request: Request, part: str = "") -> Object:
    """The object after the patch of the request, which shares nothing with `old`; that stays as it is. Problem when that can't be.

    Of a write that is about one `part` only, a field, the rest may be left out: of a pod's status, that is half of the work.
    """
    kind = check_type(resource, request)
    if kind == JSON_PATCH:
        found: Object = plain(_json_patch(old, request))
        return found
    patch = body(request, (kind,))
    if part and patch.keys() <= {*HEAD, part} and resource.schema is None:
        old = {name: old[name] for name in (*HEAD, part) if name in old}
    if kind == MERGE_PATCH:
        merged: Object = plain(merge(old, patch))
        return merged
    try:
        return strategic.merged(old, patch, resource.shape())
    except strategic.BadPatch as error:
        raise Problem("BadRequest", f"the strategic merge patch can't be applied: {error}") from None


def merge(target: Any, patch: Any) -> Any:
    """JSON merge patch (RFC 7386): objects are merged, null removes, anything else replaces. `target` stays as it is."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge(merged.get(key), value)
    return merged


def _json_patch(old: Object, request: Request) -> Object:
    import jsonpatch  # costs a start that sees no such patch nothing
    from jsonpointer import JsonPointerException

    operations = parse_json(request.body)
    if not isinstance(operations, list) or not all(isinstance(operation, dict) for operation in operations):
        raise Problem("BadRequest", "a JSON patch is a list of operations")
    if len(operations) > MAX_OPERATIONS:
        raise Problem(
            "RequestEntityTooLarge", f"the patch has {len(operations)} operations, at most {MAX_OPERATIONS} are taken"
        )
    try:
        new = _limited(jsonpatch)(operations).apply(old)
        check_extent(new)  # each copy or move into what was there may add a level
    except jsonpatch.JsonPatchTestFailed as error:
        raise Problem("Invalid", f"the server rejected our request due to an error in our request: {error}") from None
    except jsonpatch.InvalidJsonPatch as error:
        raise Problem("BadRequest", f"the JSON patch can't be read: {error}") from None
    except (jsonpatch.JsonPatchException, JsonPointerException, TypeError, ValueError, KeyError, IndexError) as error:
        raise Problem("Invalid", f"the server rejected our request due to an error in our request: {error}") from None
    except RecursionError:
        raise Problem("BadRequest", f"after the patch it is nested deeper than {MAX_DEPTH} levels") from None
    if not isinstance(new, dict):
        raise Problem("Invalid", "after the patch it is no object")
    return new


def _limited(jsonpatch: Any) -> Any:
    """A class of one patch whose copies have as many bytes together as a body may have: each could double the object (apiserver,
    JSONPatchMaxCopyBytes)."""
    copied = 0

    class Copy(jsonpatch.CopyOperation):  # type: ignore[misc]  # the library has no types
        def apply(self, obj: Any) -> Any:
            nonlocal copied
            copied += len(msgspec.json.encode(self.pointer_cls(self.operation.get("from", "")).resolve(obj, None)))
            if copied > MAX_BODY_BYTES:
                raise jsonpatch.JsonPatchConflict(f"its copies have more than {MAX_BODY_BYTES} bytes together")
            return super().apply(obj)

    class Limited(jsonpatch.JsonPatch):  # type: ignore[misc]
        operations = {**jsonpatch.JsonPatch.operations, "copy": Copy}

    return Limited
