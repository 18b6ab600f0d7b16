"""Desired state of one node: the reference-counted union of the fragments of all keys.

Each key (a pod, a node, a Service, …) owns one fragment. Equal values of several fragments are one kernel object, which
stays until the last of them releases it; unequal values for one identity are a conflict that names both keys. `replace`
costs what the two versions of the one fragment cost, whatever the size of the rest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Mapping

from podplane.state.value import Fragment, Identity, Value

EMPTY: Fragment = {}
ELEMENTS = ("nft element", "nft members")
"""Kinds of objects that are in sets of nf_tables."""


class Conflict(Exception):
    """Two keys want unequal values for one kernel object: `claimant` asks for `value`, `owner` has it already."""

    def __init__(self, claimant: Hashable, value: Value, owner: Hashable, present: Value) -> None:
        super().__init__(f"{claimant} wants {value}, but {owner} wants {present}")
        self.claimant, self.owner = claimant, owner
        self.value = value


class Desired(Mapping[Identity, Value]):
    """The union of all fragments, as a mapping; changed by `replace` only."""

    def __init__(self) -> None:
        self._fragments: dict[Hashable, Fragment] = {}
        self._values: dict[Identity, Value] = {}
        self._owners: dict[Identity, Hashable | dict[Hashable, None]] = {}
        """The key that owns an object; of a shared one, all of them. Nearly all objects have one owner."""
        self._places: dict[str, dict[Identity, None]] = {}
        """The objects in each network namespace; "" is the node's own, of which those of nf_tables are not kept here."""
        self._elements = Counter[object]()
        """How many elements of nf_tables sets of each name there are; what is packed counts as one."""
        self.get = self._values.get  # type: ignore[method-assign]  # Mapping.get costs several calls, and is called for each object

    def __getitem__(self, identity: Identity) -> Value:
        return self._values[identity]

    def __contains__(self, identity: object) -> bool:
        return identity in self._values

    def __iter__(self) -> Iterator[Identity]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def has_all(self, identities: Iterable[Identity]) -> bool:
        """Are all of these wanted?"""
        return all(map(self._values.__contains__, identities))

    @property
    def keys_planned(self) -> frozenset[Hashable]:
        """The keys that own a fragment."""
        return frozenset(self._fragments)

    def fragment(self, key: Hashable) -> Fragment:
        """What a key asked for; empty when it asks for nothing."""
        return self._fragments.get(key, EMPTY)

    def in_namespace(self, netns: str) -> tuple[Identity, ...]:
        """The objects in a network namespace, but for those of nf_tables; "" is the node's own."""
        return tuple(self._places.get(netns, ()))

    def may_have_elements(self, name: str) -> bool:
        """Is there any element of an nf_tables set of this name, in whatever table?"""
        return self._elements[name] > 0

    def owners(self, identity: Identity) -> tuple[Hashable, ...]:
        """The keys that asked for this object."""
        found = self._owners.get(identity, {})
        return tuple(found) if isinstance(found, dict) else (found,)

    def owner(self, identity: Identity) -> Hashable | None:
        """One of the keys that asked for this object, always the same one; None when it is not wanted."""
        found = self._owners.get(identity)
        return next(iter(found)) if isinstance(found, dict) else found

    def replace(self, key: Hashable, fragment: Fragment) -> list[tuple[Identity, Value | None]]:
        """Make `fragment` the one of `key` (empty: the key goes).

        Returns (identity, value wanted before) of each object for which that changes what is wanted. Conflict leaves everything as it was.
        """
        old = self._fragments.get(key, EMPTY)
        if old is fragment:
            return []
        if not old and self._values.keys().isdisjoint(fragment):
            return self._add(key, fragment)
        there: list[Identity] = []
        new: dict[Identity, Value] = {}
        for identity, value in fragment.items():
            if identity in self._values:
                there.append(identity)
            else:
                new[identity] = value
        changed = self._changed(key, fragment, there)
        gone = [identity for identity in old if identity not in fragment and self._release(key, identity)]
        changes: list[tuple[Identity, Value | None]] = [(identity, self._values.pop(identity)) for identity in gone]
        for identity in there:
            if identity not in old:
                self._share(key, identity)
        self._values.update(new)
        self._note_places(gone, new)
        self._owners.update(dict.fromkeys(new, key))
        changes += [(identity, None) for identity in new]
        for identity, before in changed:
            self._values[identity] = fragment[identity]
            changes.append((identity, before))
        if fragment:
            self._fragments[key] = fragment
        else:
            self._fragments.pop(key, None)
        return changes

    def _add(self, key: Hashable, fragment: Fragment) -> list[tuple[Identity, Value | None]]:
        """The fragment of a new key, of which nobody else wants anything: identities need not be hashed anew."""
        self._values.update(fragment)
        self._owners.update(dict.fromkeys(fragment, key))
        self._note_places((), fragment)
        if fragment:
            self._fragments[key] = fragment
        return [(identity, None) for identity in fragment]

    def _note_places(self, gone: Iterable[Identity], new: Iterable[Identity]) -> None:
        for identity in gone:
            kind, netns = identity[:2]
            if kind in ELEMENTS:
                self._elements[identity[4]] -= 1
                if not self._elements[identity[4]]:
                    del self._elements[identity[4]]
            elif not kind.startswith("nft "):
                del self._places[netns][identity]
                if not self._places[netns]:
                    del self._places[netns]
        for identity in new:
            kind = identity[0]
            if kind in ELEMENTS:
                self._elements[identity[4]] += 1
            elif not kind.startswith("nft "):
                place = self._places.get(identity[1])
                if place is None:
                    place = self._places[identity[1]] = {}
                place[identity] = None

    def _changed(self, key: Hashable, fragment: Fragment, there: Iterable[Identity]) -> list[tuple[Identity, Value]]:
        """The changes of objects that are there. Conflict when another key owns one."""
        changed: list[tuple[Identity, Value]] = []
        for identity in there:
            value, present = fragment[identity], self._values[identity]
            if present is not value and present != value:
                other = next((owner for owner in self.owners(identity) if owner != key), None)
                if other is not None:
                    raise Conflict(key, value, other, present)
                changed.append((identity, present))
        return changed

    def _share(self, key: Hashable, identity: Identity) -> None:
        """One more key owns this object."""
        owners = self._owners[identity]
        if isinstance(owners, dict):
            owners[key] = None
        else:
            self._owners[identity] = {owners: None, key: None}

    def _release(self, key: Hashable, identity: Identity) -> bool:
        """Does nobody want it any more?"""
        owners = self._owners[identity]
        if isinstance(owners, dict):
            del owners[key]
            if owners:
                return False
        del self._owners[identity]
        return True
