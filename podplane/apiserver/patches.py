"""Patches: a former object and a patch in, a new object out. JSON patch (RFC 6902), merge patch (RFC 7386), strategic merge patch.

Strategic merge is Kubernetes' own (apimachinery, util/strategicpatch): lists whose shape has a merge key are merged by it. Directives in
the patch: `$patch` (replace, delete, merge), `$deleteFromPrimitiveList/<field>`, `$setElementOrder/<field>`, `$retainKeys`.
"""

from __future__ import annotations

import copy
from typing import Any

from podplane.apiserver import shapes
from podplane.apiserver.decoding import body, media_type, parse_json
from podplane.apiserver.kinds.resource import Object, Resource
from podplane.apiserver.problems import Problem
from podplane.apiserver.shapes import Shape
from podplane.kubeapi.messages import MERGE_PATCH, Request

JSON_PATCH, STRATEGIC = "application/json-patch+json", "application/strategic-merge-patch+json"
APPLY = ("application/apply-patch+yaml", "application/apply-patch+cbor")
MAX_OPERATIONS = 10_000
PATCH, DELETE_FROM, ORDER, RETAIN = "$patch", "$deleteFromPrimitiveList/", "$setElementOrder/", "$retainKeys"


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


def patched(resource: Resource, old: Object, request: Request) -> Object:
    """The object after the patch of the request; `old` stays as it is. Problem when that can't be."""
    kind = check_type(resource, request)
    if kind == JSON_PATCH:
        return _json_patch(old, request)
    patch = body(request, (kind,))
    if kind == MERGE_PATCH:
        merged: Object = merge(old, patch)
        return merged
    shape = resource.shape()
    try:
        return _strategic(copy.deepcopy(old), patch, shape)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise Problem("BadRequest", f"the strategic merge patch can't be applied: {error!r}") from None


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
        new = jsonpatch.apply_patch(old, operations)
    except jsonpatch.JsonPatchTestFailed as error:
        raise Problem("Invalid", f"the server rejected our request due to an error in our request: {error}") from None
    except jsonpatch.InvalidJsonPatch as error:
        raise Problem("BadRequest", f"the JSON patch can't be read: {error}") from None
    except (jsonpatch.JsonPatchException, JsonPointerException, TypeError, ValueError, KeyError, IndexError) as error:
        raise Problem("Invalid", f"the server rejected our request due to an error in our request: {error}") from None
    if not isinstance(new, dict):
        raise Problem("Invalid", "after the patch it is no object")
    return new


def _strategic(old: Object, patch: Object, shape: Shape | None) -> Object:
    """`old`, changed in place."""
    directive = patch.pop(PATCH, None)
    if directive == "replace":
        return patch
    if directive == "delete":
        return {}
    retained = patch.pop(RETAIN, None)
    if retained is not None:
        for name in [name for name in old if name not in retained]:
            del old[name]
    for name, value in patch.items():
        if name.startswith(DELETE_FROM):
            field = name.removeprefix(DELETE_FROM)
            old[field] = [one for one in old.get(field, ()) if one not in value]
        elif name.startswith(ORDER):
            continue
        elif value is None:
            old.pop(name, None)
        else:
            inner = shape.items if shape and shape.kind == shapes.MAP else shape.fields.get(name) if shape else None
            old[name] = _strategic_value(old.get(name), value, inner)
    for name, value in patch.items():
        if name.startswith(ORDER) and old.get(name.removeprefix(ORDER)):
            field = name.removeprefix(ORDER)
            old[field] = _ordered(old[field], value, shape.fields.get(field) if shape else None)
    return old


def _strategic_value(old: Any, value: Any, shape: Shape | None) -> Any:
    if isinstance(value, dict):
        if shape and "replace" in shape.strategies:
            return value
        return _strategic(old if isinstance(old, dict) else {}, value, shape)
    if isinstance(value, list) and shape and "merge" in shape.strategies:
        if shape.merge_key:
            return _merged_by_key(old if isinstance(old, list) else [], value, shape)
        found = list(old or ())
        return found + [one for one in dict.fromkeys(value) if one not in found]
    return value


def _merged_by_key(old: list[Any], patch: list[Any], shape: Shape) -> list[Any]:
    """A list of objects that are told apart by the merge key."""
    key = shape.merge_key
    if any(not isinstance(one, dict) for one in patch):
        raise ValueError("a list of objects is merged with something else")
    if any(one.get(PATCH) == "replace" and key not in one for one in patch):
        return [one for one in patch if PATCH not in one]
    found = list(old)
    for one in patch:
        identity = one[key]
        at = next((i for i, there in enumerate(found) if there.get(key) == identity), None)
        if one.get(PATCH) == "delete":
            found = [there for there in found if there.get(key) != identity]
        elif at is None:
            found.append(_strategic({}, one, shape.items))
        else:
            found[at] = _strategic(found[at], one, shape.items)
    return found


def _ordered(values: list[Any], order: list[Any], shape: Shape | None) -> list[Any]:
    """The list in the order that the patch says; what it doesn't name stays behind what stood before it."""
    key = shape.merge_key if shape else ""

    def identity(one: Any) -> Any:
        return one.get(key) if key and isinstance(one, dict) else one

    wanted = [identity(one) for one in order]
    named = {repr(identity(one)): one for one in values if identity(one) in wanted}
    result = [named[repr(one)] for one in wanted if repr(one) in named]
    for i, one in enumerate(values):
        if identity(one) not in wanted:
            result.insert(_place(values[:i], result, identity), one)
    return result


def _place(before: list[Any], result: list[Any], identity: Any) -> int:
    """Behind the last of those that stood before it."""
    places = [i for i, one in enumerate(result) for other in before[-1:] if identity(one) == identity(other)]
    return places[-1] + 1 if places else 0 if not before else len(result)
