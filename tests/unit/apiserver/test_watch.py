"""Watches: the same line for everybody, from any version that is remembered, and as each selector sees it."""

from __future__ import annotations

import asyncio
import gc
import itertools
import json
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from podplane.apiserver import pace, watch
from podplane.apiserver.kinds.table import RESOURCES
from podplane.apiserver.problems import Problem
from podplane.apiserver.representation import Whole
from podplane.apiserver.selectors import Predicate, Selection, labels
from podplane.apiserver.store import Stored
from podplane.apiserver.watch import Change, Hub, Watcher
from podplane.kubeapi.messages import Stream
from tests.unit.apiserver.test_server import PODS, Api

Object = dict[str, Any]
POD = next(row for row in RESOURCES if row.id == "pods")


class Cluster:
    """A hub, and objects that change."""

    def __init__(self, version: int = 0) -> None:
        self.hub, self.version = Hub(version), version
        self.objects: dict[str, Object] = {}

    def set(self, name: str, namespace: str = "default", **labels: str) -> Object:
        old = self.objects.get(name)
        self.version += 1
        new = {"metadata": {"name": name, "namespace": namespace, "labels": labels, "resourceVersion": str(self.version)}}
        self.objects[name] = new
        self._publish("MODIFIED" if old else "ADDED", new, old)
        return new

    def remove(self, name: str) -> None:
        old = self.objects.pop(name)
        self.version += 1
        self._publish("DELETED", {"metadata": {**old["metadata"], "resourceVersion": str(self.version)}}, old)

    def _publish(self, kind: str, new: Object, old: Object | None) -> None:
        self.hub.publish(Change(self.version, "pods", kind, Stored(new, msgspec.json.encode(new)), old))

    def open(
        self,
        since: int | None = None,
        wanted: Predicate | None = None,
        *,
        namespace: str = "",
        name: str = "",
        seconds: float = 0.01,
        bookmarks: bool = False,
    ) -> AsyncIterator[bytes]:
        since = self.version if since is None else since
        return self.hub.open(
            Whole(POD), Selection(namespace, name, wanted), since, seconds, bookmarks=bookmarks, pace=self.hub.pace
        )


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


async def events(lines: AsyncIterator[bytes]) -> list[Object]:
    return [json.loads(line) async for chunk in lines for line in chunk.splitlines()]


def names(found: list[Object]) -> list[str]:
    return [f"{event['type']} {event['object']['metadata']['name']}" for event in found]


async def test_a_watch_begins_after_any_version(cluster: Cluster) -> None:
    for i in range(1, 6):
        cluster.set(f"p{i}")
    for since in range(6):
        assert names(await events(cluster.open(since))) == [f"ADDED p{i}" for i in range(since + 1, 6)]


async def test_of_what_is_old_little_is_remembered(monkeypatch: pytest.MonkeyPatch, cluster: Cluster) -> None:
    monkeypatch.setattr(watch, "AGED_BYTES", 300)
    seconds = watch.AGED_SECONDS
    for i in range(1, 11):
        cluster.set(f"p{i}")
    cluster.hub.age(0.0)
    cluster.set("p11")
    cluster.hub.age(seconds / 2)
    cluster.hub.age(seconds - 1)
    assert len(names(await events(cluster.open(0)))) == 11
    cluster.hub.age(seconds)
    with pytest.raises(Problem, match="too old"):
        cluster.hub.check(5)
    assert names(await events(cluster.open(9))) == ["ADDED p10", "ADDED p11"]
    for later in range(2, 200):
        cluster.hub.age(later * seconds)
    assert len(cluster.hub._ages) <= 2
    assert names(await events(cluster.open(9))) == ["ADDED p10", "ADDED p11"]


async def test_a_version_before_the_history_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "HISTORY", 3)
    cluster = Cluster(10)
    for i in range(11, 16):
        cluster.set(f"p{i}")
    with pytest.raises(Problem, match="too old resource version: 11") as refused:
        cluster.open(11)
    assert (refused.value.reason, refused.value.code) == ("Expired", 410)
    assert names(await events(cluster.open(12))) == ["ADDED p13", "ADDED p14", "ADDED p15"]


async def test_large_changes_are_forgotten_sooner(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "HISTORY_BYTES", 1000)
    cluster = Cluster()
    for i in range(1, 4):
        cluster.set(f"p{i}", size="x" * 400)
    with pytest.raises(Problem, match="too old resource version"):
        cluster.open(0)
    assert names(await events(cluster.open(1))) == ["ADDED p2", "ADDED p3"]
    cluster.set("p4", size="x" * 2000)
    assert await events(cluster.open()) == []
    with pytest.raises(Problem):
        cluster.open(3)


def test_a_version_before_the_start_is_gone() -> None:
    with pytest.raises(Problem):
        Cluster(10).open(9)


async def test_a_version_in_a_watch_that_the_history_forgets_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "HISTORY", 2)
    cluster = Cluster()
    lines = cluster.open()
    first = asyncio.ensure_future(anext(lines))
    await asyncio.sleep(0)
    for i in range(9):
        cluster.set(f"p{i}")
    seen = [json.loads(line) for line in (await first).splitlines()]
    assert names(seen + await events(lines)) == [f"ADDED p{i}" for i in range(9)]


async def test_a_watch_that_is_first_read_after_the_history_forgot_its_version_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "HISTORY", 2)
    cluster = Cluster()
    lines = cluster.open(seconds=60)
    for i in range(9):
        cluster.set(f"p{i}")
    assert await asyncio.wait_for(events(lines), 1) == []


async def test_other_resources_and_namespaces_are_not_seen(cluster: Cluster) -> None:
    lines = cluster.open(namespace="a")
    cluster.set("in", "a")
    cluster.set("out", "b")
    node = Stored({"metadata": {"name": "n1"}}, b'{"metadata":{"name":"n1"}}')
    cluster.hub.publish(Change(cluster.version + 1, "nodes", "ADDED", node, None))
    assert names(await events(lines)) == ["ADDED in"]


tokens = st.sampled_from(["on", "off", "gone"])
steps = st.lists(st.tuples(st.sampled_from("ab"), tokens), max_size=12)


@given(steps, st.integers(0, 12))
def test_what_a_selector_shows_is_what_a_list_with_it_would(changes: list[tuple[str, str]], begin: int) -> None:
    """Replaying a watch from any version onto the list of that version gives the list of now."""
    wanted = labels("state=on")

    async def replay() -> None:
        cluster = Cluster()
        view: dict[str, str] = {}
        since = 0
        for i, (name, state) in enumerate(changes):
            if i == begin:
                since, view = (
                    cluster.version,
                    {n: o["metadata"]["resourceVersion"] for n, o in cluster.objects.items() if wanted(o)},
                )
            if state != "gone":
                cluster.set(name, state=state)
            elif name in cluster.objects:
                cluster.remove(name)
        view = view if begin < len(changes) else {}
        for event in await events(cluster.open(since, wanted, seconds=1e-6)):
            name = event["object"]["metadata"]["name"]
            assert (name in view) is (event["type"] != "ADDED")
            if event["type"] == "DELETED":
                del view[name]
            else:
                view[name] = event["object"]["metadata"]["resourceVersion"]
        assert view == {n: o["metadata"]["resourceVersion"] for n, o in cluster.objects.items() if wanted(o)}

    asyncio.run(replay())


async def test_entering_changing_and_leaving_a_selection(cluster: Cluster) -> None:
    lines = cluster.open(wanted=labels("app=web"))
    cluster.set("a", app="db")
    cluster.set("a", app="web")
    cluster.set("a", app="web", x="y")
    cluster.set("a", app="db")
    cluster.remove("a")
    assert names(await events(lines)) == ["ADDED a", "MODIFIED a", "DELETED a"]


async def test_an_object_that_leaves_is_shown_as_it_was(cluster: Cluster) -> None:
    cluster.set("a", app="web")
    lines = cluster.open(wanted=labels("app=web"))
    left = cluster.set("a", app="db")
    (event,) = await events(lines)
    assert event["object"]["metadata"]["resourceVersion"] == left["metadata"]["resourceVersion"]
    assert event["object"]["metadata"]["labels"] == {"app": "web"}


async def test_many_watchers_get_the_same_line(cluster: Cluster) -> None:
    watches = [cluster.open() for _ in range(50)]
    cluster.set("a")
    cluster.set("a", x="y")
    found = {b"".join([chunk async for chunk in lines]) for lines in watches}
    assert len(found) == 1
    assert found.pop().count(b"\n") == 2


def test_a_line_is_encoded_once_for_all() -> None:
    watchers = [Watcher(("pods", "", ""), None, Whole(POD)) for _ in range(3)]
    stored = Stored({"metadata": {"name": "a"}}, b'{"kept": "as it was encoded"}')
    lines: watch.Lines = {}
    for watcher in watchers:
        watcher.offer(Change(1, "pods", "ADDED", stored, None), lines)
    (line,) = lines.values()
    assert line.data == b'{"type":"ADDED","object":{"kept": "as it was encoded"}}\n'
    assert all(watcher.lines[0] is line for watcher in watchers)


async def test_a_watcher_that_does_not_read_is_cut_off_and_others_go_on(
    monkeypatch: pytest.MonkeyPatch, cluster: Cluster
) -> None:
    monkeypatch.setattr(watch, "BACKLOG_BYTES", 500)
    slow, quick = cluster.open(seconds=60), cluster.open(seconds=0.05)
    seen: list[Object] = []
    for i in range(8):
        cluster.set(f"p{i}")
        seen += [json.loads(line) for line in (await anext(quick)).splitlines()]
        if i == 0:
            assert b"p0" in await anext(slow)
    assert names(seen) == [f"ADDED p{i}" for i in range(8)]
    found = await asyncio.wait_for(events(slow), 1)
    assert found == []  # what it has not read it reads again, from where it was
    assert names(await events(cluster.open(5))) == ["ADDED p5", "ADDED p6", "ADDED p7"]


async def test_all_watches_together_leave_so_much_unread_and_the_slowest_goes_first(
    monkeypatch: pytest.MonkeyPatch, cluster: Cluster
) -> None:
    """A line that waits for several counts once, and a little for each."""
    slow = [cluster.open(seconds=60) for _ in range(3)]
    some, quick = cluster.open(seconds=60), cluster.open(seconds=60)
    cluster.set("p0")
    size = max([len(await anext(one)) for one in (*slow, some, quick)])
    monkeypatch.setattr(watch, "TOTAL_BACKLOG_BYTES", 4 * size + 14 * watch.LINE_BYTES + 10)
    for i in range(1, 5):
        cluster.set(f"p{i}")
        await anext(quick)
        if i == 3:
            await anext(some)
    assert cluster.hub._backlog.bytes == 4 * size + 13 * watch.LINE_BYTES, "what waits for three of them counts once"
    cluster.set("p5")
    assert cluster.hub._backlog.bytes == 2 * size + 3 * watch.LINE_BYTES, "of those who read, one has two lines to read"
    assert [await asyncio.wait_for(events(one), 1) for one in slow] == [[], [], []]
    assert names([json.loads(line) for line in (await anext(some)).splitlines()]) == ["ADDED p4", "ADDED p5"]
    assert b"p5" in await anext(quick)
    await some.aclose()  # type: ignore[attr-defined]
    assert cluster.hub._backlog.bytes == 0


async def test_what_waits_is_handed_on_in_parts(monkeypatch: pytest.MonkeyPatch, cluster: Cluster) -> None:
    lines = cluster.open(seconds=60)
    cluster.set("p0")
    size = len(await anext(lines))
    monkeypatch.setattr(watch, "CHUNK_BYTES", 2 * size)
    for i in range(1, 6):
        cluster.set(f"p{i}", **({"label": "x" * 3 * size} if i == 3 else {}))
    assert [chunk.count(b"\n") for chunk in [await anext(lines) for _ in range(3)]] == [2, 1, 2]


async def done_after_each_turn(tasks: Sequence[asyncio.Task[Any]]) -> list[int]:
    """How many of these are done after each turn of the loop, until all are."""
    found = [sum(task.done() for task in tasks)]
    while found[-1] < len(tasks) and len(found) < 1000:
        await asyncio.sleep(0)
        found.append(sum(task.done() for task in tasks))
    return found


async def test_a_change_that_concerns_many_watches_goes_to_a_few_of_them_in_a_turn(
    monkeypatch: pytest.MonkeyPatch, cluster: Cluster
) -> None:
    monkeypatch.setattr(pace, "PART_BYTES", pace.TURN_BYTES // 4)  # beside it, a line is nothing
    tasks = [asyncio.ensure_future(anext(cluster.open(seconds=60))) for _ in range(40)]
    await asyncio.sleep(0)
    cluster.set("a")
    found = await done_after_each_turn(tasks)
    assert found[-1] == 40
    assert max(after - before for before, after in itertools.pairwise(found)) <= 5
    assert len({task.result() for task in tasks}) == 1


async def test_what_the_lab_itself_watches_waits_for_nobody(monkeypatch: pytest.MonkeyPatch, cluster: Cluster) -> None:
    monkeypatch.setattr(pace, "PART_BYTES", pace.TURN_BYTES)
    watches = [cluster.open(seconds=60) for _ in range(40)]
    own = cluster.hub.open(Whole(POD), Selection("", "", None), cluster.version)
    tasks = [asyncio.ensure_future(anext(one)) for one in (*watches, own)]
    await asyncio.sleep(0)
    cluster.set("a")
    for _ in range(3):
        await asyncio.sleep(0)
    assert tasks[-1].done()
    assert sum(task.done() for task in tasks) < 10
    await asyncio.gather(*tasks)


async def test_bookmarks_only_for_those_who_ask(monkeypatch: pytest.MonkeyPatch, cluster: Cluster) -> None:
    monkeypatch.setattr(watch, "BOOKMARK_SECONDS", 0.005)
    cluster.set("a")
    asking, silent = cluster.open(bookmarks=True, seconds=60), cluster.open(seconds=0.03)
    mark = json.loads(await asyncio.wait_for(anext(asking), 1))
    assert mark == {"type": "BOOKMARK", "object": {"kind": "Pod", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}}}
    assert await events(silent) == []


async def test_a_bookmark_never_says_more_than_was_sent(monkeypatch: pytest.MonkeyPatch, cluster: Cluster) -> None:
    monkeypatch.setattr(watch, "BOOKMARK_SECONDS", 0.005)
    lines = cluster.open(bookmarks=True, seconds=60)
    first = asyncio.ensure_future(anext(lines))
    await asyncio.sleep(0)
    asyncio.get_running_loop().call_later(0.006, cluster.set, "a")
    time.sleep(0.01)  # noqa: ASYNC251  # both are due at the same turn of the loop, patience first
    event = json.loads((await first).splitlines()[0])
    assert event["object"]["metadata"]["resourceVersion"] == ("0" if event["type"] == "BOOKMARK" else "1")


async def test_a_watch_ends_after_its_time_however_much_happens(cluster: Cluster) -> None:
    loop = asyncio.get_running_loop()
    lines, begin = cluster.open(seconds=0.02), loop.time()
    cluster.set("a")
    async for _ in lines:
        cluster.set("a", turn=str(cluster.version))
        assert loop.time() < begin + 0.2, "it goes on for ever"
        time.sleep(0.001)  # noqa: ASYNC251  # nobody else gets a turn


async def test_a_watch_from_the_future_tells_nothing_of_before_it(cluster: Cluster) -> None:
    try:
        lines = cluster.open(since=5)
    except Problem as refused:
        assert refused.code >= 400
        return
    for i in range(1, 7):
        cluster.set(f"p{i}")
    assert names(await events(lines)) == ["ADDED p6"]


def watchers() -> int:
    gc.collect()
    return sum(type(thing) is Watcher for thing in gc.get_objects())


@pytest.mark.parametrize("started", [True, False])
async def test_a_watch_that_was_closed_is_forgotten(cluster: Cluster, started: bool) -> None:
    before = watchers()
    lines = cluster.open(seconds=60)
    if started:
        cluster.set("a")
        await anext(lines)
    await lines.aclose()  # type: ignore[attr-defined]  # a generator
    assert watchers() == before


@pytest.mark.parametrize("version", ["", "0"])
async def test_without_a_version_a_watch_begins_with_what_there_is(version: str) -> None:
    api = Api()
    await api.pod("a", labels={"app": "web"})
    await api.pod("b")
    stream = await api.answer("GET", PODS, watch="true", resourceVersion=version, labelSelector="app", timeoutSeconds="0.01")
    assert isinstance(stream, Stream)
    assert names(await events(stream.chunks)) == ["ADDED a"]


async def test_a_watch_given_up_after_its_first_chunk_is_forgotten() -> None:
    api = Api()
    await api.pod("a")
    before = watchers()
    stream = await api.answer("GET", PODS, watch="true")
    assert b'"ADDED"' in await anext(stream.chunks)
    await stream.chunks.aclose()
    del stream
    await asyncio.sleep(0)
    assert watchers() == before


@pytest.mark.parametrize("query", [{"resourceVersion": "abc"}, {"timeoutSeconds": "soon"}, {"labelSelector": "a=b=c"}])
async def test_a_watch_that_makes_no_sense_is_refused_at_once(query: dict[str, str]) -> None:
    await Api().refused("BadRequest", "GET", PODS, watch="true", **query)


async def test_a_version_that_is_no_version_is_a_bad_request() -> None:
    await Api().refused("BadRequest", "GET", PODS, watch="true", resourceVersion="-1")
