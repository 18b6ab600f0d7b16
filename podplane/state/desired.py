"""Desired state of one node: the reference-counted union of the fragments of all keys.

Each key (`pod/default/web`, `node/node2`, …) owns one fragment. Equal values of several fragments are one kernel object,
which stays until the last of them lets it go; unequal values for one identity are a conflict that names both keys.
`replace` costs what the two versions of the one fragment cost, whatever the size of the rest.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

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
        self._owners: dict[Identity, dict[str, None]] = {}

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
        return tuple(self._owners.get(identity, ()))

    def replace(self, key: str, fragment: Fragment) -> list[Operation]:
        """Make `fragment` the one of `key` (empty: the key goes) and return what changes. Conflict leaves all as it was."""
        old = self._fragments.get(key, EMPTY)
        self._refuse_conflicts(key, fragment)
        operations = [self._release(key, identity) for identity in old if identity not in fragment]
        operations += [self._claim(key, identity, value) for identity, value in fragment.items()]
        if fragment:
            self._fragments[key] = fragment
        else:
            self._fragments.pop(key, None)
        return [operation for operation in operations if operation is not None]

    def _refuse_conflicts(self, key: str, fragment: Fragment) -> None:
        for identity, value in fragment.items():
            present = self._values.get(identity)
            if present is None or present == value:
                continue
            other = next((owner for owner in self._owners[identity] if owner != key), None)
            if other is not None:
                raise Conflict(key, value, other, present)

    def _release(self, key: str, identity: Identity) -> Operation | None:
        owners = self._owners[identity]
        del owners[key]
        if owners:
            return None
        del self._owners[identity]
        return Operation(self._values.pop(identity), None)

    def _claim(self, key: str, identity: Identity, value: Value) -> Operation | None:
        self._owners.setdefault(identity, {})[key] = None
        old = self._values.get(identity)
        if old == value:
            return None
        self._values[identity] = value
        return Operation(old, value)


def compose(operations: list[Operation]) -> list[Operation]:
    """One operation an object: from the first `old` to the last `new`, those without effect left out."""
    first: dict[Identity, Value | None] = {}
    last: dict[Identity, Value | None] = {}
    for operation in operations:
        identity = operation.value.identity
        first.setdefault(identity, operation.old)
        last[identity] = operation.new
    return [Operation(first[i], last[i]) for i in last if first[i] != last[i]]
