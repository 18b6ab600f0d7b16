"""A disk that takes nothing: writes are refused, whole, and told why; all else goes on, and writes too as soon as they can."""

from __future__ import annotations

import asyncio
import datetime
import errno
import json
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from podplane.apiserver import store as store_module
from podplane.apiserver.audit import AuditLog
from podplane.apiserver.controllers.decision import Action, Create, View
from podplane.apiserver.controllers.stored import StoredView
from podplane.apiserver.server import utc_now
from podplane.apiserver.store import Store, StoreError
from podplane.controllers import manager
from podplane.controllers.objects import Key
from podplane.kubeapi.errors import Unwritable
from tests.unit.apiserver.controllers.test_manager import Bench, of_configs, run_until
from tests.unit.apiserver.test_server import Api

CONFIGS = "/api/v1/namespaces/default/configmaps"
LARGE = {"metadata": {"name": "large"}, "data": {"a": "x" * 400_000}}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.db"


def fill(store: Store) -> None:
    """SQLite's answer to a full disk (SQLITE_FULL), for what needs more pages than there are."""
    pages = store._database.execute("PRAGMA page_count").fetchone()[0]
    store._database.execute(f"PRAGMA max_page_count={pages + 20}")


def free(store: Store) -> None:
    store._database.execute("PRAGMA max_page_count=1000000")


@pytest.fixture
def holder(path: Path) -> Iterator[sqlite3.Connection]:
    """Another process' connection to the database."""
    Store(path).close()
    connection = sqlite3.connect(path, isolation_level=None)
    yield connection
    connection.close()


async def status_of(api: Api, method: str, path: str, body: Any = None) -> Any:
    answer = await api.answer(method, path, body)
    return answer, json.loads(answer.body)


async def test_on_a_full_disk_writes_are_refused_and_reads_go_on(path: Path) -> None:
    api = Api(path)
    await api("POST", CONFIGS, {"metadata": {"name": "small"}})
    fill(api.store)
    answer, status = await status_of(api, "POST", CONFIGS, LARGE)
    assert (answer.status, status["kind"], status["reason"]) == (507, "Status", "InsufficientStorage")
    assert status["message"] == f"no space is left on the disk of {path.parent}: free some there"
    assert await api.names(CONFIGS) == ["small"]
    assert api.store.failure() == status["message"]
    free(api.store)
    await api("POST", CONFIGS, LARGE)
    assert (await api.names(CONFIGS), api.store.failure(), api.store.refusals) == (["large", "small"], "", 1)


async def test_a_database_that_somebody_holds_stops_nobody(path: Path, holder: sqlite3.Connection) -> None:
    api = Api(path)
    holder.execute("BEGIN IMMEDIATE")
    answer, status = await status_of(api, "POST", CONFIGS, {"metadata": {"name": "a"}})
    assert (answer.status, status["reason"], dict(answer.headers)) == (503, "ServiceUnavailable", {"retry-after": "1"})
    assert status["details"] == {"retryAfterSeconds": 1}
    assert f"another process holds {path}" in status["message"]
    assert await api.names("/api/v1/namespaces")
    assert "etcd" in (await api.answer("GET", "/readyz", verbose="")).body.decode()
    holder.execute("ROLLBACK")
    await api("POST", CONFIGS, {"metadata": {"name": "a"}})


def test_who_goes_on_in_a_transaction_that_was_refused_stores_nothing(path: Path) -> None:
    store = Store(path)
    store.put("pods", ("a", "before"), {"metadata": {"name": "before"}})
    version = store.version
    fill(store)
    with pytest.raises(Unwritable), store.transaction():
        store.put("pods", ("a", "first"), {"metadata": {"name": "first"}})
        with pytest.raises(Unwritable):
            store.put("pods", ("a", "large"), {"metadata": {"name": "large"}, "data": "x" * 400_000})
        free(store)
        with pytest.raises(Unwritable):
            store.put("pods", ("a", "last"), {"metadata": {"name": "last"}})
    assert [stored.object["metadata"]["name"] for stored in store.all("pods")] == ["before"]
    assert int(store.put("pods", ("a", "next"), {"metadata": {"name": "next"}}).object["metadata"]["resourceVersion"]) > version
    store.close()
    assert [stored.object["metadata"]["name"] for stored in Store(path).all("pods")] == ["before", "next"]


def test_only_a_disk_without_space_is_called_full(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, error = Store(path), sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode = sqlite3.SQLITE_IOERR_WRITE
    assert (store._unwritable(error).is_full, str(store._unwritable(error))) == (
        False,
        f"{path} can't be written: disk I/O error",
    )
    monkeypatch.setattr(store_module, "LEAST_FREE_BYTES", 1 << 80)
    assert store._unwritable(error).is_full


def test_a_store_that_is_held_at_the_start_says_so(
    path: Path, holder: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "OPENING_SECONDS", 0.0)
    holder.execute("BEGIN EXCLUSIVE")
    with pytest.raises(StoreError, match="another process holds") as refused:
        Store(path)
    assert refused.value.is_passing


async def test_controllers_do_again_what_could_not_be_stored(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also what was decided in the same turn before."""
    monkeypatch.setattr(manager, "UNWRITABLE_SECONDS", 0.0)
    monkeypatch.setattr(manager, "TURN_SECONDS", 60.0)  # both in one turn, however slow the machine is
    done, tries = asyncio.Event(), list[str]()

    def copies(view: View, key: Key) -> Iterable[Action]:
        if key[1] not in ("a", "b"):
            done.set()
            return
        tries.append(key[1])
        if len(tries) > 4:
            free(bench.store)
        size = 400_000 if key[1] == "b" else 1
        yield Create("configmaps", "default", {"metadata": {"name": f"of-{key[1]}"}, "data": {"a": "x" * size}})

    bench = Bench(of_configs(copies))
    await bench.config("a")
    await bench.config("b")
    fill(bench.store)
    await run_until(bench, done)
    assert tries == ["a", "b"] * 3
    assert await bench.names(CONFIGS) == ["a", "b", "of-a", "of-b"]


def test_nodes_are_not_called_silent_for_a_time_in_which_nobody_could_write(path: Path, holder: sqlite3.Connection) -> None:
    times = [datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC) + datetime.timedelta(seconds=n) for n in (0, 1, 60, 70)]
    store = Store(path)
    clock = iter(times)
    view = StoredView(store, lambda: next(clock), iter((0.0, 1.0, 60.0, 70.0)).__next__)
    assert view.awake_since == times[0]
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(Unwritable):
        store.put("nodes", ("", "n"), {"metadata": {"name": "n"}})
    holder.execute("ROLLBACK")
    assert [view.awake_since, view.awake_since] == [times[2]] * 2


class Full:
    """A file on a full disk: of each line it takes `room` bytes."""

    def __init__(self, room: int) -> None:
        self.room, self.data = room, b""

    def write(self, line: bytes) -> int:
        if not self.room:
            raise OSError(errno.ENOSPC, "No space left on device")
        taken = line[: self.room]
        self.data += taken
        self.room -= len(taken)
        return len(taken)

    def close(self) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_no_request_fails_for_a_line_of_the_audit_log(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    log, file = AuditLog(path, utc_now), Full(room=5)
    log._file = file  # type: ignore[assignment]
    for number in range(3):
        log.write({"number": number})
    assert (log.lost, file.data) == (3, b'{"num')
    file.room = 100
    log.write({"number": 3})
    assert file.data == b'{"num\n{"number":3}\n'
    assert [record.message.partition(":")[0] for record in caplog.records] == [
        "audit lines are lost",
        "audit lines are written again; lost=3",
    ]
    log.close()
    log.close()
