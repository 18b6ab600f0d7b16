"""Selectors by the labels that could fulfil them, and labelled things by their labels: neither is ever walked whole.

    selector  app In (web), tier NotIn (db)     stands under  app=web              one pair that it requires, the least crowded one
    selector  app Exists                        stands under  app
    selector  tier NotIn (db), b DoesNotExist   stands among  the others
    thing     {app: web, tier: front}           stands under  app=web and tier=front

What labels fulfil is looked up by their pairs and keys; the others select nearly everything, so that they are part of most answers. What a
change of labels makes true or false is looked up among the selectors that mention a pair or a key that comes or goes, if these are fewer:
`app=web, env=prod` is mentioned by both pairs.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Iterator
from typing import Generic, TypeVar

from podplane.model.policy import Requirement

T = TypeVar("T", bound=Hashable)
Pairs = Iterable[tuple[str, str]]
Place = tuple[str, str | None]
"""A label with its value, or (None) whatever its value is."""


class _Places(Generic[T]):
    """Things at any number of places each. A place with one thing costs no container."""

    def __init__(self) -> None:
        self._one: dict[Place, T] = {}
        self._many: dict[Place, dict[T, None]] = {}

    def at(self, place: Place) -> Collection[T]:
        """Those of a place."""
        many = self._many.get(place)
        if many is not None:
            return many
        one = self._one.get(place)
        return () if one is None else (one,)

    def count(self, place: Place) -> int:
        """How many there are at a place."""
        return len(self._many.get(place, ())) or place in self._one

    def total(self, places: Iterable[Place]) -> int:
        """How many there are at some places together."""
        return sum(map(self.count, places))

    def add(self, place: Place, thing: T) -> None:
        """Put a thing at a place."""
        if (many := self._many.get(place)) is not None:
            many[thing] = None
        elif (one := self._one.get(place)) is None:
            self._one[place] = thing
        elif one != thing:
            self._many[place] = {self._one.pop(place): None, thing: None}

    def remove(self, place: Place, thing: T) -> None:
        """Take away a thing that is there."""
        if (many := self._many.get(place)) is None:
            del self._one[place]
            return
        del many[thing]
        if len(many) == 1:
            self._one[place] = next(iter(many))
            del self._many[place]


class Selectors(Generic[T]):
    """Things, each with requirements of which all have to hold, by the labels that fulfil them."""

    def __init__(self) -> None:
        self._required = _Places[T]()
        self._others: dict[T, None] = {}
        """Those that labels without any of what they name fulfil."""
        self._mentioned = _Places[T]()
        self._places: dict[T, tuple[Place, ...]] = {}
        """Where each of the first kind stands."""

    def add(self, thing: T, requirements: Iterable[Requirement]) -> None:
        """`thing` is not there yet."""
        terms = tuple(requirements)
        for place in _mentioned(terms):
            self._mentioned.add(place, thing)
        choices = [places for term in terms if (places := _required(term))]
        if not choices:
            self._others[thing] = None
            return
        self._places[thing] = places = min(choices, key=self._crowd)
        for place in places:
            self._required.add(place, thing)

    def remove(self, thing: T, requirements: Iterable[Requirement]) -> None:
        """`thing` is there, with these requirements."""
        for place in _mentioned(requirements):
            self._mentioned.remove(place, thing)
        for place in self._places.pop(thing, ()):
            self._required.remove(place, thing)
        self._others.pop(thing, None)

    def candidates(self, labels: Pairs) -> Collection[T]:
        """All whose requirements these labels fulfil, each once, and some others."""
        return {one: None for place in _places_of(labels) for one in self._required.at(place)} | self._others

    def candidates_of_change(self, before: Pairs, after: Pairs) -> Collection[T]:
        """All whose requirements one of these fulfils and the other doesn't, each once, and some others."""
        old, new = set(_places_of(before)), set(_places_of(after))
        changed, both = old ^ new, old | new
        if self._required.total(both) + len(self._others) < self._mentioned.total(changed):
            return {one: None for place in both for one in self._required.at(place)} | self._others
        return {one: None for place in changed for one in self._mentioned.at(place)}

    def _crowd(self, places: tuple[Place, ...]) -> int:
        return self._required.total(places)


class Labelled(Generic[T]):
    """Things by each of their labels."""

    def __init__(self) -> None:
        self._things = _Places[T]()

    def add(self, thing: T, labels: Pairs) -> None:
        """`thing` has these labels now; it had none before."""
        for pair in labels:
            self._things.add(pair, thing)

    def remove(self, thing: T, labels: Pairs) -> None:
        """`thing` has these labels no more."""
        for pair in labels:
            self._things.remove(pair, thing)

    def candidates(self, requirements: Iterable[Requirement]) -> tuple[int, Iterator[T]] | None:
        """How many may fulfil the requirements, and those; None when nothing but a look at all of them tells."""
        choices = [[(term.key, value) for value in term.values] for term in requirements if term.operator == "In"]
        if not choices:
            return None
        count, places = min((self._things.total(places), places) for places in choices)
        return count, (thing for place in places for thing in self._things.at(place))


def _required(term: Requirement) -> tuple[Place, ...]:
    """One of these is among the labels that fulfil the requirement; none when labels without any fulfil it."""
    if term.operator == "In":
        return tuple((term.key, value) for value in term.values)
    return ((term.key, None),) if term.operator == "Exists" else ()


def _mentioned(terms: Iterable[Requirement]) -> set[Place]:
    """A change of labels that makes one of the requirements hold, or not, has one of these come or go."""
    return {(term.key, value) for term in terms for value in term.values or (None,)}


def _places_of(labels: Pairs) -> Iterator[Place]:
    for pair in labels:
        yield pair
        yield pair[0], None
