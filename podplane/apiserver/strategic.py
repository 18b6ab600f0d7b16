"""Strategic merge patch, Kubernetes' own: objects are merged field by field, lists as the field's patch strategy says.

    $patch: replace | delete        of an object, or of an element of a merged list
    $deleteFromPrimitiveList/F      values that go from the list F
    $setElementOrder/F              the order of the list F
    $retainKeys                     fields of an object that stay; all others go

A merged list is arranged anew: what the patch names is in the order of the patch (or of `$setElementOrder`); each other element comes
before the first element of the patch that it stood before in the old list; so what is new comes first. Source: apimachinery,
util/strategicpatch, whose answers `tests/unit/apiserver/strategic_merges.json` has.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import msgspec

from podplane.apiserver.shapes import LIST, MAP, Shape

Object = dict[str, Any]
PATCH, RETAIN = "$patch", "$retainKeys"
DELETE_FROM, ORDER = "$deleteFromPrimitiveList/", "$setElementOrder/"
MERGE, REPLACE, DELETE = "merge", "replace", "delete"


class BadPatch(Exception):
    """The patch can't be applied to this object; one line that says why."""


def merged(old: Object, patch: Object, shape: Shape | None) -> Object:
    """The object after the patch; both stay as they are. BadPatch when that can't be."""
    old, patch = msgspec.json.decode(msgspec.json.encode((old, patch)))
    return _object(old, patch, shape)


def _object(old: Object, patch: Object, shape: Shape | None) -> Object:
    """`old`, changed in place; the patch is used up."""
    if PATCH in patch:
        return _directed(patch)
    _retain(old, patch)
    for name in [name for name in patch if name.startswith(ORDER)]:
        _ordered_list(old, patch, name.removeprefix(ORDER), patch.pop(name), shape)
    for name in [name for name in patch if name.startswith(DELETE_FROM)]:
        _delete_from(old, name.removeprefix(DELETE_FROM), patch.pop(name))
    for name, value in patch.items():
        if value is None:
            old.pop(name, None)
        elif isinstance(value, dict) and isinstance(old.get(name), dict):
            inner = _field(shape, name)
            old[name] = value if REPLACE in inner.strategies else _object(old[name], value, inner)
        elif isinstance(value, list) and isinstance(old.get(name), list):
            old[name] = _list(old[name], value, _field(shape, name))
        elif isinstance(value, dict) and PATCH in value:
            old.pop(name, None)
        else:
            old[name] = _new(value) if isinstance(value, dict | list) else value
    return old


def _directed(patch: Object) -> Object:
    """What `$patch` makes of an object."""
    directive = patch.pop(PATCH)
    if directive == REPLACE:
        return patch
    if directive == DELETE:
        return {}
    raise BadPatch(f"unknown patch type: {directive} in map: {patch}")


def _retain(old: Object, patch: Object) -> None:
    """Take away what `$retainKeys` does not name."""
    if RETAIN not in patch:
        return
    retained = patch.pop(RETAIN)
    said = [name for name, value in patch.items() if value is not None and not name.startswith((DELETE_FROM, ORDER))]
    kept = {name for name in retained if isinstance(name, str)} if isinstance(retained, list) else None
    if kept is None or not kept.issuperset(said):
        raise BadPatch("invalid patch format of retainKeys: a list that names all fields of the patch")
    for name in [name for name in old if name not in kept]:
        del old[name]


def _delete_from(old: Object, name: str, values: Any) -> None:
    there = old.get(name)
    if values is None:
        old.pop(name, None)
    elif not isinstance(values, list) or any(isinstance(one, dict | list) for one in [*values, *(there or ())]):
        raise BadPatch(f"invalid patch format of primitive list: {DELETE_FROM}{name}")
    elif isinstance(there, list):
        gone = {_scalar(one) for one in values}
        old[name] = [one for one in there if _scalar(one) not in gone]


def _field(shape: Shape | None, name: str) -> Shape:
    """The shape of a field. BadPatch when the kind has none of this name, so that nobody knows how it is merged."""
    found = shape.items if shape is not None and shape.kind == MAP else shape.fields.get(name) if shape is not None else None
    if found is None:
        raise BadPatch(f"unable to find api field {name!r}")
    return found


def _list(old: list[Any], patch: list[Any], shape: Shape) -> list[Any]:
    """A list after its patch."""
    if MERGE not in shape.strategies:
        return patch
    if not old and not patch:
        return old
    before, named, found = _merged_list(old, patch, shape)
    return _arranged(found, named, before, shape.merge_key)


def _merged_list(old: list[Any], patch: list[Any], shape: Shape) -> tuple[list[Any], list[Any], list[Any]]:
    """(the old list without what is deleted, the patch without directives, both together: what is new stands behind)."""
    if len({type(one) for one in [*old, *patch]} - {type(None)}) > 1 or None in old or None in patch:
        raise BadPatch(f"list element types are not identical: {[*old, *patch]}")
    if isinstance((old or patch)[0], list):
        raise BadPatch("lists of lists are not supported")
    if not isinstance((old or patch)[0], dict):
        return old, patch, [*dict.fromkeys([*old, *patch])]
    if not shape.merge_key:
        raise BadPatch("cannot merge lists without merge key")
    old, patch = _with_directives(old, patch, shape.merge_key)
    identity = _identities(shape.merge_key)
    found, places = list(old), _places(old, identity)
    for one in patch:
        at = places.setdefault(identity(one), len(found))
        if at == len(found):
            found.append(one)
        else:
            found[at] = _object(found[at], one, shape.items)
    return old, patch, found


def _with_directives(old: list[Object], patch: list[Object], key: str) -> tuple[list[Object], list[Object]]:
    """What elements with `$patch` make of the old list, and the patch without them."""
    identity = _identities(key)
    for one in patch:
        directive = one.get(PATCH, DELETE)
        if directive not in (REPLACE, DELETE):
            raise BadPatch(f"unknown patch type: {directive} in map: {one}")
    gone = {identity(one) for one in patch if one.get(PATCH) == DELETE}
    rest = [one for one in patch if PATCH not in one]
    if any(one.get(PATCH) == REPLACE for one in patch):
        return rest, []
    return [one for one in old if identity(one) not in gone], rest


def _ordered_list(old: Object, patch: Object, name: str, order: Any, shape: Shape | None) -> None:
    """Merge a list of which `$setElementOrder` says the order."""
    before, says = old.get(name) or [], name in patch
    change = patch.pop(name, [])
    if not all(isinstance(one, list) for one in (order, before, change)):
        raise BadPatch(f"invalid patch format of setElementOrder list: {name}")
    inner = _field(shape, name)
    if inner.kind != LIST:
        raise BadPatch(f"expected slice or array type: {name}")
    if not before and not says:
        return
    _check_order(change, order, inner.merge_key)
    if not says:
        found = before
    elif not before:
        found = _without_directives(change)
    elif MERGE in inner.strategies:
        found = _merged_list(before, change, inner)[2]
        before = found[: len(before)]  # what is new takes the places behind the old list's, as many as a deletion left free
    else:
        found = change
    old[name] = _arranged(found, order, before, inner.merge_key)


def _check_order(patch: list[Any], order: list[Any], key: str) -> None:
    """BadPatch unless all that the patch adds or changes is in the order, and in that order."""
    identity = _identities(key)
    rest = deque(one for one in patch if not (isinstance(one, dict) and one.get(PATCH) == DELETE))
    for wanted in map(identity, order):
        while rest and isinstance(rest[0], dict) and PATCH in rest[0]:
            rest.popleft()
        if rest and identity(rest[0]) == wanted:
            rest.popleft()
    if rest and order:
        raise BadPatch(f"The order in patch list: {patch} doesn't match $setElementOrder list: {order}")


def _arranged(found: list[Any], order: list[Any], live: list[Any], key: str) -> list[Any]:
    """The elements in the order that the patch says, and between them the others as they stood in the live list."""
    identity = _identities(key)
    wanted, stood = _places(order, identity), _places(live, identity)
    ours = sorted((one for one in found if identity(one) in wanted), key=lambda one: wanted[identity(one)])
    rest = (one for one in found if identity(one) not in wanted)
    others = deque(sorted(rest, key=lambda one: stood.get(identity(one), len(live))))
    result: list[Any] = []
    for one in ours:
        place = stood.get(identity(one), -1)
        while others and stood.get(identity(others[0]), len(live)) < place:
            result.append(others.popleft())
        result.append(one)
    return [*result, *others]


def _places(values: list[Any], identity: Callable[[Any], Any]) -> dict[Any, int]:
    """Identity → its first place."""
    found: dict[Any, int] = {}
    for place, one in enumerate(values):
        found.setdefault(identity(one), place)
    return found


def _identities(key: str) -> Callable[[Any], Any]:
    """What tells elements of a list apart: themselves, or the value at the merge key."""
    if not key:
        return _scalar

    def identity(one: Any) -> Any:
        if not isinstance(one, dict):
            raise BadPatch(f"expected an object with the merge key {key}, but received {one!r}")
        if key not in one:
            raise BadPatch(f"map: {one} does not contain declared merge key: {key}")
        return _scalar(one[key])

    return identity


def _scalar(value: Any) -> tuple[type, Any]:
    """1, 1.0 and true are three values."""
    if isinstance(value, dict | list):
        raise BadPatch(f"expected a text, a number or a boolean, but received {value!r}")
    return type(value), value


def _new(value: Any) -> Any:
    """What a patch says of something that was not there: without nulls, and then without the objects that have a `$patch`."""
    if isinstance(value, dict):
        said = ((name, inner) for name, inner in value.items() if inner is not None and not _is_directive(inner))
        return {name: _new(inner) if isinstance(inner, dict | list) else inner for name, inner in said}
    return [_new(one) if isinstance(one, dict | list) else one for one in value if not _is_directive(one)]


def _is_directive(value: Any) -> bool:
    return isinstance(value, dict) and value.get(PATCH) is not None


def _without_directives(value: Any) -> Any:
    """Without the objects that have a `$patch`."""
    if isinstance(value, dict):
        kept = {name: inner for name, inner in value.items() if not (isinstance(inner, dict) and PATCH in inner)}
        return {name: _without_directives(inner) for name, inner in kept.items()}
    if isinstance(value, list):
        return [_without_directives(one) for one in value if not (isinstance(one, dict) and PATCH in one)]
    return value
