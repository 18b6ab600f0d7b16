"""The store: what was acknowledged is on disk, versions only grow, and a file that is none of ours is refused."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podplane.apiserver.store import Packed, Store, StoreError

Object = dict[str, Any]


def named(name: str, **more: Any) -> Object:
    return {"metadata": {"name": name}, **more}


def contents(store: Store, *resources: str) -> dict[str, list[Object]]:
    return {resource: [stored.object for stored in store.all(resource)] for resource in resources}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.db"


def test_a_store_opened_again_has_the_same_objects(path: Path) -> None:
    store = Store(path)
    store.put("nodes", ("", "n1"), named("n1", note="Käse ✓"))
    store.put("pods", ("a", "web"), named("web"))
    store.put("pods", ("b", "web"), named("web", changed=False))
    store.put("pods", ("b", "web"), named("web", changed=True))
    store.remove("pods", ("a", "web"))
    before = contents(store, "nodes", "pods")
    store.close()
    assert contents(Store(path), "nodes", "pods") == before
    assert before["nodes"][0]["note"] == "Käse ✓"
    assert [pod["changed"] for pod in before["pods"]] == [True]


def test_a_store_that_was_never_closed_is_read_by_the_next(path: Path) -> None:
    store = Store(path)
    store.put("nodes", ("", "n1"), named("n1"))
    assert Store(path).get("nodes", ("", "n1")) == store.get("nodes", ("", "n1"))


writes = st.lists(st.tuples(st.sampled_from(["put", "remove"]), st.sampled_from("abc")), max_size=15)


@given(writes, st.sets(st.integers(0, 14)))
def test_versions_only_grow_and_memory_is_what_is_on_disk(steps: list[tuple[str, str]], reopened: set[int]) -> None:
    name = f"file:{os.urandom(8).hex()}?mode=memory&cache=shared"  # lives as long as one connection to it
    keeper = sqlite3.connect(name, uri=True)
    try:
        store, seen = _open(name), [0]
        for i, (how, key) in enumerate(steps):
            if how == "put":
                seen.append(int(store.put("pods", ("a", key), named(key)).object["metadata"]["resourceVersion"]))
            elif store.get("pods", ("a", key)):
                seen.append(int(store.remove("pods", ("a", key)).object["metadata"]["resourceVersion"]))
            if i in reopened:
                before, version = contents(store, "pods"), store.version
                store.close()
                store = _open(name)
                assert (contents(store, "pods"), store.version) == (before, version)
        store.close()
        assert seen == sorted(set(seen))
    finally:
        keeper.close()


def _open(name: str) -> Store:
    """A store over a shared database in memory: SQLite reads the name as a URI only when told to."""
    connect = sqlite3.connect
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sqlite3, "connect", lambda path, **options: connect(path, uri=True, **options))
        return Store(name)


def test_the_version_of_a_removal_is_not_given_again_after_reopening(path: Path) -> None:
    store = Store(path)
    store.put("pods", ("a", "web"), named("web"))
    gone = int(store.remove("pods", ("a", "web")).object["metadata"]["resourceVersion"])
    store.close()
    again = Store(path).put("pods", ("a", "web"), named("web"))
    assert int(again.object["metadata"]["resourceVersion"]) > gone


def test_the_last_version_of_a_removed_object_is_the_object_before(path: Path) -> None:
    store = Store(path)
    put = store.put("pods", ("a", "web"), named("web", note="x"))
    gone = store.remove("pods", ("a", "web"))
    assert gone.object["note"] == "x"
    assert put.object["metadata"]["resourceVersion"] == "1"
    with pytest.raises(KeyError):
        store.remove("pods", ("a", "web"))


def test_objects_come_in_the_order_of_their_keys() -> None:
    store = Store(":memory:")
    for namespace, name in (("b", "x"), ("a", "y"), ("b", "a"), ("a", "x")):
        store.put("pods", (namespace, name), named(f"{namespace}/{name}"))
    assert [s.object["metadata"]["name"] for s in store.all("pods")] == ["a/x", "a/y", "b/a", "b/x"]
    assert [s.object["metadata"]["name"] for s in store.all("pods", "b")] == ["b/a", "b/x"]
    assert store.all("nodes") == []


def test_what_is_sent_is_what_is_stored() -> None:
    stored = Store(":memory:").put("pods", ("a", "x"), named("x"))
    assert stored.raw == b'{"metadata":{"name":"x","resourceVersion":"1"}}'


def test_writes_together_are_one_transaction(path: Path) -> None:
    store, other = Store(path), sqlite3.connect(path)
    with store.transaction():
        store.put("pods", ("a", "x"), named("x"))
        with store.transaction():
            store.put("pods", ("a", "y"), named("y"))
        assert other.execute("SELECT count(*) FROM objects").fetchone() == (0,)
    assert other.execute("SELECT count(*) FROM objects").fetchone() == (2,)
    assert other.execute("SELECT version FROM counter").fetchone() == (2,)


WORKER = """
import sys
from podplane.apiserver.store import Store
store = Store(sys.argv[1])
def say(word):
    print(word, store.version, flush=True)
for i in range(10**6):
    key = ("a", f"p{i % 7}")
    if i % 3 == 2:
        with store.transaction():
            store.put("pods", ("pair", "left"), {"metadata": {"name": "left"}, "turn": i})
            store.put("pods", ("pair", "right"), {"metadata": {"name": "right"}, "turn": i})
        say("pair")
    elif store.get("pods", key):
        store.remove("pods", key)
        say(f"gone:p{i % 7}")
    else:
        store.put("pods", key, {"metadata": {"name": key[1]}})
        say(f"here:p{i % 7}")
"""


def test_sigkill_in_the_middle_loses_nothing_acknowledged_and_splits_nothing(path: Path) -> None:
    worker = subprocess.Popen([sys.executable, "-c", WORKER, str(path)], stdout=subprocess.PIPE, text=True)
    assert worker.stdout
    said = [worker.stdout.readline() for _ in range(150)]
    worker.send_signal(signal.SIGKILL)
    said += worker.stdout.readlines()
    assert worker.wait() == -signal.SIGKILL
    acknowledged = [line.split() for line in said if line.endswith("\n")]
    store = Store(path)
    last = int(acknowledged[-1][1])
    assert last <= store.version <= last + 2  # the step after the last word may be on disk
    left, right = store.get("pods", ("pair", "left")), store.get("pods", ("pair", "right"))
    assert left and right and left.object["turn"] == right.object["turn"]
    if store.version == last:
        states = dict(reversed(word.split(":")) for word, _ in acknowledged if ":" in word)
        assert {name for name, state in states.items() if state == "here"} == {
            s.object["metadata"]["name"] for s in store.all("pods", "a")
        }


def garbage(path: Path) -> None:
    path.write_bytes(b"This is a letter to my aunt, and not a database.\n" * 50)


def torn(path: Path) -> None:
    store = Store(path)
    for i in range(200):
        store.put("pods", ("a", f"p{i}"), named(f"p{i}", filler="x" * 500))
    store._database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    store.close()
    data = bytearray(path.read_bytes())
    data[4096:] = os.urandom(len(data) - 4096)
    path.write_bytes(data)


def not_json(path: Path) -> None:
    Store(path).close()
    with sqlite3.connect(path) as database:
        database.execute("INSERT INTO objects VALUES ('pods', 'a', 'x', '{broken')")


def folder(path: Path) -> None:
    path.mkdir()


def strange_counter(path: Path) -> None:
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE counter (id INTEGER PRIMARY KEY, color TEXT)")


def strange_objects(path: Path) -> None:
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE objects (resource, namespace, name, object, more)")
        database.execute("INSERT INTO objects VALUES ('pods', 'a', 'x', '{}', 1)")


def no_object(path: Path) -> None:
    Store(path).close()
    with sqlite3.connect(path) as database:
        database.execute("INSERT INTO objects VALUES ('pods', 'a', 'x', '5')")


@pytest.mark.parametrize(
    "spoil",
    [
        garbage,
        torn,
        not_json,
        folder,
        strange_counter,
        strange_objects,
        no_object,
    ],
)
def test_a_file_that_is_no_store_is_refused_by_its_name(path: Path, spoil: Any) -> None:
    spoil(path)
    with pytest.raises(StoreError, match=r"state\.db can't be used: .+") as refused:
        Store(path)
    assert "\n" not in str(refused.value)


def test_somebody_elses_database_is_left_alone(path: Path) -> None:
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE letters (text TEXT)")
    with pytest.raises(StoreError):
        Store(path)


def test_closing_twice_is_closing_once(path: Path) -> None:
    store = Store(path)
    store.close()
    store.close()


def test_events_are_kept_as_json_and_read_as_any_object(path: Path) -> None:
    event = named("e1", message="Käse ✓", involvedObject={"name": "web"}, count=2)
    store = Store(path)
    store.put("events", ("a", "e1"), named("e1"))
    given = store.put("events", ("a", "e1"), event)
    store.put("pods", ("a", "web"), named("web"))
    for opened in (store, Store(path)):
        stored = opened.get("events", ("a", "e1"))
        assert isinstance(stored, Packed)
        assert (stored.object, stored.raw) == (event, given.raw)
        assert stored.object is not stored.object, "nothing is kept of what was asked for"
        assert [one.object for one in opened.all("events", "a")] == [event]
        assert not isinstance(opened.get("pods", ("a", "web")), Packed)
    with pytest.raises(RuntimeError), store.transaction():
        store.remove("events", ("a", "e1"))
        raise RuntimeError
    assert contents(store, "events") == {"events": [event]}
    assert store.remove("events", ("a", "e1")).object["message"] == "Käse ✓"
    assert contents(store, "events") == {"events": []}
