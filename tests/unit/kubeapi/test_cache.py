"""The cache against a plain dictionary: objects, indices and subscribers agree after any sequence of changes."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podplane.kubeapi.cache import Cache
from podplane.model.objects import Metadata, Node

NAMES, UIDS, VALUES = st.sampled_from("abc"), st.sampled_from("12"), st.frozensets(st.sampled_from("xyz"))


def node(name: str, uid: str = "1", labels: Iterable[str] = ()) -> Node:
    return Node(Metadata(name, uid=uid, labels=dict.fromkeys(labels, "")))


def keys(model: Node) -> list[str]:
    return [*model.metadata.labels, *model.metadata.labels]  # a key that is named twice is one


CHANGES = st.lists(st.one_of(st.builds(node, NAMES, UIDS, VALUES), NAMES), max_size=20)


def by_key(objects: Iterable[Node]) -> dict[str, dict[str, Node]]:
    found: dict[str, dict[str, Node]] = {}
    for model in objects:
        for key in model.metadata.labels:
            found.setdefault(key, {})[model.metadata.name] = model
    return found


def change(cache: Cache[Node], what: Node | str) -> None:
    if isinstance(what, str):
        cache.remove(what)
    else:
        cache.set(what)


@given(CHANGES, st.integers(0, 20))
def test_indices_are_what_a_walk_over_all_objects_finds(changes: list[Node | str], built_at: int) -> None:
    cache: Cache[Node] = Cache()
    early, late = cache.index(keys), None
    for number, what in enumerate(changes):
        if number == built_at:
            late = cache.index(keys)
        change(cache, what)
    wanted = by_key(cache.objects.values())
    for index in filter(None, (early, late, cache.index(keys))):
        assert {key: dict(index.get(key)) for key in "xyz"} == {key: wanted.get(key, {}) for key in "xyz"}
        assert len(index) == len(wanted)


@given(CHANGES)
def test_subscribers_can_build_a_copy_and_see_indices_that_are_current(changes: list[Node | str]) -> None:
    cache: Cache[Node] = Cache()
    index = cache.index(keys)
    copy: dict[str, Node] = {}

    def tell(old: Node | None, new: Node | None) -> None:
        assert old != new
        if old is not None:
            assert copy.pop(old.metadata.name) == old
        if new is not None:
            assert old is None or old.metadata.uid == new.metadata.uid, "another object of the same name is a removal first"
            copy[new.metadata.name] = new
        assert copy == cache.objects
        assert {key: dict(index.get(key)) for key in "xyz" if index.get(key)} == by_key(copy.values())

    cache.subscribe(tell)
    for what in changes:
        change(cache, what)
    assert copy == cache.objects
    assert not cache.failures  # the asserts above would be counted there


def test_views_can_not_be_written() -> None:
    cache: Cache[Node] = Cache()
    index = cache.index(keys)
    cache.set(node("a", labels="x"))
    views: list[Any] = [cache.objects, index.get("x"), index.get("no such key")]
    for view in views:
        with pytest.raises(TypeError):
            view["b"] = node("b")
    assert (len(views[0]), len(views[1]), len(views[2])) == (1, 1, 0)


def test_a_change_asks_for_the_keys_of_its_own_object_only() -> None:
    asked: list[str] = []

    def count(model: Node) -> list[str]:
        asked.append(model.metadata.name)
        return keys(model)

    cache: Cache[Node] = Cache()
    for number in range(100):
        cache.set(node(str(number), labels="x"))
    cache.index(count)
    asked.clear()
    cache.set(node("7", labels="y"))
    cache.remove("8")
    assert asked == ["7", "7", "8"]


def test_a_subscriber_that_raises_is_logged_and_counted_and_stops_nobody(caplog: pytest.LogCaptureFixture) -> None:
    cache: Cache[Node] = Cache("nodes")
    told: list[str] = []

    def bad(_: Node | None, __: Node | None) -> None:
        raise KeyError("nothing here")

    cache.subscribe(bad)
    cache.subscribe(lambda _, new: told.append(new.metadata.name if new else "-"))
    with caplog.at_level(logging.WARNING):
        for name in "abc":
            cache.set(node(name))
    assert told == ["a", "b", "c"]
    ((kind, count),) = cache.failures.items()
    assert (kind.split()[0], kind.split()[-1], count) == ("subscriber", "KeyError", 3)
    assert len(caplog.records) == 1, "once, not for each change"
    assert "nothing here" in caplog.text


def test_an_object_whose_keys_can_not_be_had_is_under_no_key() -> None:
    def picky(model: Node) -> list[Any]:
        if model.metadata.name == "bad":
            raise ValueError(model)
        return [[]] if model.metadata.name == "unhashable" else ["all"]

    cache: Cache[Node] = Cache()
    index = cache.index(picky)
    for name in ("good", "bad", "unhashable"):
        cache.set(node(name))
    assert set(index.get("all")) == {"good"}
    assert set(cache.objects) == {"good", "bad", "unhashable"}
    assert cache.failures == {"index ValueError": 1, "index TypeError": 1}
    for name in ("good", "bad", "unhashable"):
        cache.remove(name)
    assert not cache.objects
    assert not len(index)
