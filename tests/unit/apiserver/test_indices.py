"""What a request costs depends on its answer: lists and watches of a name or a namespace touch nothing else, and answer the same."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podplane.apiserver import reading, slices
from podplane.apiserver.kinds.table import RESOURCES
from podplane.apiserver.ordered import Snapshot
from podplane.apiserver.reading import LongList
from podplane.apiserver.representation import Whole
from podplane.apiserver.selectors import Selection, field_terms, labels
from podplane.apiserver.store import Store, Stored
from podplane.apiserver.watch import Change, Hub, Lines, Watcher, overlaid
from podplane.kubeapi.client import Client
from podplane.kubeapi.messages import Request, Response
from tests.unit.apiserver.test_server import Api

Object = dict[str, Any]
MAPS = "/api/v1/namespaces/default/configmaps"
ALL_MAPS = "/api/v1/configmaps"
OTHERS, OTHER_NAMESPACES = 40, ("a", "default", "z")
BY_ID = {row.id: row for row in RESOURCES}
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"


def configmap(namespace: str, name: str, **labels: str) -> Object:
    return {"metadata": {"namespace": namespace, "name": name, "uid": f"{namespace}/{name}", "labels": labels}}


def filled() -> Api:
    """A server with many ConfigMaps, of which each namespace has one named `x`."""
    api = Api()
    for namespace in OTHER_NAMESPACES:
        for name in ["x", *(f"other-{number}" for number in range(OTHERS))]:
            api.store.put("configmaps", (namespace, name), configmap(namespace, name))
    api.server._records.hub.version = api.store.version
    return api


@pytest.fixture
def walked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the objects that are taken from snapshots."""
    names: list[str] = []
    entries = Snapshot.__iter__

    def iterate(snapshot: Snapshot[Stored]) -> Iterator[Any]:
        for entry in entries(snapshot):
            names.append(entry[0][1])
            yield entry

    monkeypatch.setattr(Snapshot, "__iter__", iterate)
    return names


REQUESTS = [
    (MAPS, {"fieldSelector": "metadata.name=x"}, 1),
    (ALL_MAPS, {"fieldSelector": "metadata.name=x"}, 3),
    (ALL_MAPS, {"fieldSelector": "metadata.name=x,metadata.namespace=z"}, 1),
    (ALL_MAPS, {"fieldSelector": "metadata.namespace=z"}, 1 + OTHERS),
    (ALL_MAPS, {"fieldSelector": "metadata.name=missing"}, 0),
    (MAPS, {}, 1 + OTHERS),
]
"""Path, query, and how many objects the answer has."""


@pytest.mark.parametrize(("path", "query", "count"), REQUESTS)
async def test_a_list_touches_what_it_answers(walked: list[str], path: str, query: dict[str, str], count: int) -> None:
    api = filled()
    walked.clear()
    assert len(await api.names(path, **query)) == count
    assert len(walked) <= 2 * count  # the index of names, and the answer made of it


@pytest.mark.parametrize(("path", "query", "count"), [*REQUESTS, (f"{MAPS}/x", {}, 1)])
async def test_a_watch_touches_what_it_begins_with(walked: list[str], path: str, query: dict[str, str], count: int) -> None:
    api = filled()
    walked.clear()
    answer = await api.answer("GET", path, watch="1", timeoutSeconds="0.001", **query)
    assert len([line async for chunk in answer.chunks for line in chunk.splitlines()]) == count
    assert len(walked) <= 2 * count


async def test_a_first_page_touches_no_more_than_it_has_and_one(walked: list[str]) -> None:
    api = filled()
    walked.clear()
    assert len(await api.names(ALL_MAPS, limit="5")) == 5
    assert len(walked) == 6


async def test_a_page_is_walked_from_its_token_on(walked: list[str]) -> None:
    api = filled()
    first = await api("GET", ALL_MAPS, limit="50")
    walked.clear()
    second = await api("GET", ALL_MAPS, limit="50", **{"continue": first["metadata"]["continue"]})
    assert len(walked) == 51
    assert second["metadata"]["remainingItemCount"] == 3 * (1 + OTHERS) - 100


@pytest.mark.parametrize("method", ["POST", "PATCH", "DELETE"])
async def test_a_write_of_one_object_walks_no_others(walked: list[str], method: str) -> None:
    api = filled()
    walked.clear()
    path, body = (MAPS, {"metadata": {"name": "new"}}) if method == "POST" else (f"{MAPS}/x", {"data": {"a": "b"}})
    await api(method, path, body if method != "DELETE" else None)
    assert walked == []


# The same answers as by walking.

names = st.sampled_from(["a", "b", "ab"])
namespaces = st.sampled_from(["default", "kube-system"])
term = st.builds(
    "{}{}{}".format,
    st.sampled_from(["metadata.name", "metadata.namespace"]),
    st.sampled_from(["=", "==", "!="]),
    names | namespaces,
)
selectors = st.lists(term | st.sampled_from(["metadata.name=", "metadata.namespace="]), max_size=3).map(",".join)
objects = st.dictionaries(st.tuples(namespaces, names), st.sampled_from(["1", "2"]), max_size=6)


@given(
    objects, st.sampled_from(["", "default", "kube-system"]), selectors, st.sampled_from(["", "v=1", "v!=1"]), st.integers(0, 3)
)
def test_lists_and_watches_answer_as_a_walk_over_everything_would(
    there: dict[tuple[str, str], str], namespace: str, field: str, label: str, limit: int
) -> None:
    api = Api()
    for key, value in there.items():
        api.store.put("configmaps", key, configmap(*key, v=value))
    api.server._records.hub.version = api.store.version
    tests = [term.predicate() for term in field_terms(field, BY_ID["configmaps"].fields)]
    tests += [labels(label)] if label else []
    expected = [
        stored.object
        for key, stored in sorted(api.store.snapshot("configmaps"))
        if (not namespace or key[0] == namespace) and all(test(stored.object) for test in tests)
    ]
    path = f"/api/v1/namespaces/{namespace}/configmaps" if namespace else ALL_MAPS
    asked = {"fieldSelector": field, "labelSelector": label}

    async def ask() -> None:
        assert await in_pages(api, path, limit, asked) == expected
        stream = await api.answer("GET", path, watch="1", timeoutSeconds="0.0001", **asked)
        events = [json.loads(line) async for chunk in stream.chunks for line in chunk.splitlines()]
        assert [event["object"] for event in events] == expected

    asyncio.run(ask())


async def in_pages(api: Api, path: str, limit: int, asked: dict[str, str]) -> list[Object]:
    """All objects of a list, page by page."""
    found: list[Object] = []
    page = await api("GET", path, limit=str(limit), **asked)
    while token := page["metadata"].get("continue"):
        assert len(page["items"]) == limit
        found += page["items"]
        page = await api("GET", path, limit=str(limit), **asked, **{"continue": token})
    return found + page["items"]


steps = st.lists(st.tuples(namespaces, names, st.sampled_from(["1", "2", ""])), max_size=12)


@given(steps, st.integers(0, 12), st.sampled_from(["", "default"]), st.sampled_from(["", "a"]), st.booleans())
def test_the_past_of_a_topic_is_what_was_there(
    writes: list[tuple[str, str, str]], begin: int, namespace: str, name: str, paged: bool
) -> None:
    """`overlaid` gives the objects of any remembered version; a watch from it replays exactly the topic's changes."""
    store, hub, then, version = Store(":memory:"), Hub(0), [], 0
    after = ("default", "ab") if paged else None
    changes = []
    for number, (*at, value) in enumerate(writes):
        if number == begin:
            then, version = list(store.snapshot("configmaps", namespace, name, after)), store.version
        key, old = (at[0], at[1]), store.get("configmaps", (at[0], at[1]))
        if not value and old is None:
            continue
        new = store.put("configmaps", key, configmap(*key, v=value)) if value else store.remove("configmaps", key)
        kind = "DELETED" if not value else "MODIFIED" if old else "ADDED"
        hub.publish(Change(store.version, "configmaps", kind, new, old.object if old else None))
        changes.append((store.version, key))
    if begin >= len(writes):
        then, version = list(store.snapshot("configmaps", namespace, name, after)), store.version
    before = hub.before(("configmaps", namespace, name), version)
    now = store.snapshot("configmaps", namespace, name)
    assert [entry for entry in overlaid(now, before) if after is None or entry[0] > after] == then
    missed = [change.version for change in hub._since(("configmaps", namespace, name), version)]
    assert missed == [
        at for at, key in changes if at > version and (not namespace or key[0] == namespace) and (not name or key[1] == name)
    ]


# Watchers.


@pytest.fixture
def offers(monkeypatch: pytest.MonkeyPatch) -> list[Watcher]:
    """The watchers that a change is offered to."""
    asked: list[Watcher] = []
    offer = Watcher.offer

    def counted(watcher: Watcher, change: Change, lines: Any) -> None:
        asked.append(watcher)
        offer(watcher, change, lines)

    monkeypatch.setattr(Watcher, "offer", counted)
    return asked


async def test_a_change_is_offered_to_the_watchers_of_its_object_only(offers: list[Watcher]) -> None:
    hub = Hub(0)
    form = Whole(BY_ID["configmaps"])
    selections = [Selection(namespace, name) for namespace in ("", "a", "b") for name in ("", "x", "y")]
    streams = [hub.open(form, selection, 0, 60) for selection in selections]
    waiting = [asyncio.ensure_future(anext(stream)) for stream in streams]
    await asyncio.sleep(0)
    object_ = configmap("a", "x")
    hub.publish(Change(1, "configmaps", "ADDED", Stored(object_, b"{}"), None))
    assert {watcher.topic[1:] for watcher in offers} == {("", ""), ("a", ""), ("", "x"), ("a", "x")}
    assert len(offers) == 4
    for task, stream in zip(waiting, streams, strict=True):
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await stream.aclose()  # type: ignore[attr-defined]  # a generator
    assert not hub._watchers


async def test_watchers_of_a_selector_share_the_line_too(monkeypatch: pytest.MonkeyPatch) -> None:
    made = 0
    event = Whole.event

    def counted(form: Whole, kind: str, stored: Stored) -> bytes:
        nonlocal made
        made += 1
        return event(form, kind, stored)

    monkeypatch.setattr(Whole, "event", counted)
    watchers = [Watcher(("configmaps", "", ""), labels("v=1"), Whole(BY_ID["configmaps"])) for _ in range(3)]
    old, new = configmap("a", "x", v="1"), configmap("a", "x", v="2")
    lines: Lines = {}
    for watcher in watchers:
        watcher.offer(Change(2, "configmaps", "MODIFIED", Stored(new, b"{}"), old), lines)
    assert made == 1
    assert {json.loads(watcher.lines[0].data)["type"] for watcher in watchers} == {"DELETED"}


def test_the_history_of_topics_is_forgotten_with_the_history(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("podplane.apiserver.watch.HISTORY", 2)
    hub = Hub(0)
    for number in range(1, 6):
        object_ = configmap("a", f"x{number}")
        hub.publish(Change(number, "configmaps", "ADDED", Stored(object_, b"{}"), None))
    every = ("configmaps", "", "")
    assert [change.version for change in hub._of_topic[every]] == [4, 5]
    assert len(hub._of_topic) == 2 + 2 * 2  # all, those of the namespace, and two topics for each of two names


# Slices.


@pytest.fixture
def short_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each object is a slice, and each list a long one."""
    monkeypatch.setattr(slices, "SLICE_SECONDS", 0)
    monkeypatch.setattr(reading, "WHOLE_BYTES", 0)


async def test_a_list_in_slices_is_of_one_version(short_slices: None) -> None:
    api = filled()
    version = api.store.version
    before = [stored.object for stored in api.store.all("configmaps")]
    answer = await api.answer("GET", ALL_MAPS)
    assert isinstance(answer, LongList)
    body = b""
    async for chunk in answer.chunks:
        body += chunk
        if chunk.startswith(b","):
            name = f"later-{len(body)}"
            await api("POST", MAPS, {"metadata": {"name": name}})
            await api("PATCH", "/api/v1/namespaces/z/configmaps/x", {"data": {"size": str(len(body))}})
    found = json.loads(body)
    assert found["items"] == before
    assert found["metadata"]["resourceVersion"] == str(version)
    assert len(api.store.all("configmaps")) > len(before)


async def test_initial_events_in_slices_and_what_changed_meanwhile(short_slices: None) -> None:
    api = filled()
    answer = await api.answer("GET", MAPS, watch="1", timeoutSeconds="0.05")
    seen: dict[str, Object] = {}
    first = True
    async for chunk in answer.chunks:
        for line in chunk.splitlines():
            event = json.loads(line)
            assert (event["object"]["metadata"]["name"] in seen) is (event["type"] != "ADDED")
            seen[event["object"]["metadata"]["name"]] = event["object"]
        if first:
            await api("PATCH", f"{MAPS}/x", {"data": {"changed": "meanwhile"}})
            await api("POST", MAPS, {"metadata": {"name": "new"}})
            first = False
    assert seen == {stored.object["metadata"]["name"]: stored.object for stored in api.store.all("configmaps", "default")}
    assert seen["x"]["data"] == {"changed": "meanwhile"}


@pytest.mark.parametrize("accept", ["application/json", TABLE, TABLE.replace("Table", "PartialObjectMetadataList")])
async def test_a_long_list_is_the_short_one(accept: str, monkeypatch: pytest.MonkeyPatch) -> None:
    api = filled()
    headers = {"authorization": "Bearer secret", "accept": accept}
    request = Request("GET", MAPS, {"labelSelector": ["!none"]}, headers)
    short = await api.server.handle(request)
    assert isinstance(short, Response)
    monkeypatch.setattr(reading, "WHOLE_BYTES", 0)
    long = await api.server.handle(request)
    assert isinstance(long, LongList)
    assert b"".join([chunk async for chunk in long.chunks]) == short.body
    direct = await api.server.call(request)
    assert isinstance(direct, Response)
    assert direct.body == short.body


async def test_a_caller_in_this_process_gets_a_long_list_whole(short_slices: None) -> None:
    api = filled()
    found = json.loads(await Client(api.server.call, "secret").list("configmaps"))
    assert len(found["items"]) == 3 * (1 + OTHERS)


async def test_others_are_served_while_a_collection_is_deleted(short_slices: None) -> None:
    api = filled()
    task = asyncio.ensure_future(api.answer("DELETE", MAPS))
    left = []
    while not task.done():
        left.append(len(api.store.all("configmaps", "default")))
        await asyncio.sleep(0)
    assert len(set(left)) > OTHERS / 2
    assert api.store.all("configmaps", "default") == []
    assert isinstance(await task, LongList)


async def test_a_collection_is_deleted_as_it_was_when_that_began(short_slices: None) -> None:
    """An object that was made anew under a name of it is another one."""
    api = filled()
    task = asyncio.ensure_future(api.answer("DELETE", MAPS))
    await asyncio.sleep(0)
    await api("DELETE", f"{MAPS}/x")
    made = await api("POST", MAPS, {"metadata": {"name": "x"}})
    await task
    assert [stored.object for stored in api.store.all("configmaps", "default")] == [made]
