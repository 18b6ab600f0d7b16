"""Desired state of one node: the reference-counted union of the fragments of all keys.

Each key (`pod/default/web`, `node/node2`, …) owns one fragment. Equal values of several fragments are one kernel object,
which stays until the last of them lets it go; unequal values for one identity are a conflict that names both keys.
`replace` costs what the two versions of the one fragment cost, whatever the size of the rest.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping

from podplane.state.operations import Operation
from podplane.state.value import Fragment, Identity, Value

EMPTY: Fragment = {}


class Conflict(Exception):
    """Two keys want different things of one kernel object."""

    def __init__(self, key: str, value: Value, other_key: str, other: Value) -> None:
        super().__init__(f"{key} wants {value}, but {other_key} wants {other}")
        self.wanted_by, self.key = key, other_key
        """Who wants it, and who has it."""
        self.value = value


class Desired(Mapping[Identity, Value]):
    """The union of all fragments, as a mapping; changed by `replace` only."""

    def __init__(self) -> None:
        self._fragments: dict[str, Fragment] = {}
        self._values: dict[Identity, Value] = {}
        self._owners: dict[Identity, str | dict[str, None]] = {}
        """The key that owns an object; of a shared one, all of them."""

    def __getitem__(self, identity: Identity) -> Value:
        return self._values[identity]

    def __iter__(self) -> Iterator[Identity]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    @property
    def keys_planned(self) -> frozenset[str]:
        """The keys that own a fragment."""
        return frozenset(self._fragments)

    def fragment(self, key: str) -> Fragment:
        """What a key asked for; empty when it asks for nothing."""
        return self._fragments.get(key, EMPTY)

    def owners(self, identity: Identity) -> tuple[str, ...]:
        """The keys that asked for this object."""
        found = self._owners.get(identity, ())
        return (found,) if isinstance(found, str) else tuple(found)

    def replace(self, key: str, fragment: Fragment) -> list[Operation]:
        """Make `fragment` the one of `key` (empty: the key goes) and return what changes. Conflict leaves all as it was."""
        old = self._fragments.get(key, EMPTY)
        there: list[Identity] = []
        new: dict[Identity, Value] = {}
        for identity, value in fragment.items():
            if identity in self._values:
                there.append(identity)
            else:
                new[identity] = value
        changed = self._changed(key, fragment, there)
        operations = [operation for identity in old if identity not in fragment and (operation := self._release(key, identity))]
        for identity in there:
            if identity not in old:
                self._share(key, identity)
        self._values.update(new)
        self._owners.update(dict.fromkeys(new, key))
        operations += map(Operation, itertools.repeat(None), new.values())
        for operation in changed:
            self._values[operation.value.identity] = operation.value
        if fragment:
            self._fragments[key] = fragment
        else:
            self._fragments.pop(key, None)
        return operations + changed

    def _changed(self, key: str, fragment: Fragment, there: Iterable[Identity]) -> list[Operation]:
        """The changes of objects that are there. Conflict when another key owns one."""
        changed: list[Operation] = []
        for identity in there:
            value, present = fragment[identity], self._values[identity]
            if present is not value and present != value:
                other = next((owner for owner in self.owners(identity) if owner != key), None)
                if other is not None:
                    raise Conflict(key, value, other, present)
                changed.append(Operation(present, value))
        return changed

    def _share(self, key: str, identity: Identity) -> None:
        """One more key owns this object."""
        owners = self._owners[identity]
        if isinstance(owners, str):
            self._owners[identity] = {owners: None, key: None}
        else:
            owners[key] = None

    def _release(self, key: str, identity: Identity) -> Operation | None:
        owners = self._owners[identity]
        if isinstance(owners, dict):
            del owners[key]
            if owners:
                return None
        del self._owners[identity]
        return Operation(self._values.pop(identity), None)


def compose(operations: list[Operation]) -> list[Operation]:
    """One operation an object: from the first `old` to the last `new`, those without effect left out."""
    composed: dict[Identity, Operation] = {}
    for operation in operations:
        value = operation.new if operation.new is not None else operation.value
        identity = value.identity
        earlier = composed.get(identity)
        composed[identity] = operation if earlier is None else Operation(earlier.old, operation.new)
    return [operation for operation in composed.values() if operation.old != operation.new]
