"""Lists in pages, versions of lists, watches that begin with what is there, and the forms in which objects go out."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from podplane.apiserver import watch
from podplane.kubeapi.messages import Request, Response, Stream
from tests.unit.apiserver.test_server import Api

Object = dict[str, Any]
MAPS = "/api/v1/namespaces/default/configmaps"


async def maps(*names: str) -> Api:
    """A server with ConfigMaps of these names."""
    api = Api()
    for name in names:
        await api("POST", MAPS, {"metadata": {"name": name, "labels": {"first": name[0]}}, "data": {"a": "1"}})
    return api


async def events(api: Api, accept: str = "application/json", **query: str) -> list[Object]:
    """What a watch sends that ends at once."""
    asked = {name: [value] for name, value in {"watch": "true", "timeoutSeconds": "0.01", **query}.items()}
    answer = await api.server.handle(Request("GET", MAPS, asked, {"authorization": "Bearer secret", "accept": accept}))
    assert isinstance(answer, Stream), answer
    return [json.loads(line) async for chunk in answer.chunks for line in chunk.splitlines()]


async def test_pages_show_what_was_there_when_the_first_was_made() -> None:
    api = await maps("a", "b", "c", "d")
    first = await api("GET", MAPS, limit="2")
    assert [o["metadata"]["name"] for o in first["items"]] == ["a", "b"]
    assert first["metadata"]["remainingItemCount"] == 2
    await api("DELETE", f"{MAPS}/c")
    await api("POST", MAPS, {"metadata": {"name": "bb"}})
    await api("PATCH", f"{MAPS}/d", {"data": {"a": "2"}})
    second = await api("GET", MAPS, limit="2", **{"continue": first["metadata"]["continue"]})
    assert [(o["metadata"]["name"], o["data"]["a"]) for o in second["items"]] == [("c", "1"), ("d", "1")]
    assert second["metadata"] == {"resourceVersion": first["metadata"]["resourceVersion"]}
    assert await api.names(MAPS, resourceVersion=first["metadata"]["resourceVersion"], resourceVersionMatch="Exact") == [
        *"abcd"
    ]


async def test_pages_of_what_a_selector_chooses() -> None:
    api = await maps("a1", "b1", "a2", "a3")
    first = await api("GET", MAPS, limit="2", labelSelector="first=a")
    assert [o["metadata"]["name"] for o in first["items"]] == ["a1", "a2"]
    assert "remainingItemCount" not in first["metadata"]
    token = first["metadata"]["continue"]
    assert await api.names(MAPS, limit="2", labelSelector="first=a", **{"continue": token}) == ["a3"]


async def test_a_page_of_too_long_ago_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "HISTORY", 2)
    api = await maps("a", "b")
    token = (await api("GET", MAPS, limit="1"))["metadata"]["continue"]
    for i in range(4):
        await api("PATCH", f"{MAPS}/a", {"data": {"a": f"x{i}"}})
    assert "start a new list" in await api.refused("Expired", "GET", MAPS, **{"continue": token})


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ({"continue": "nonsense"}, "BadRequest"),
        ({"continue": "e30"}, "BadRequest"),
        ({"limit": "-1"}, "BadRequest"),
        ({"limit": "many"}, "BadRequest"),
        ({"resourceVersion": "abc"}, "BadRequest"),
        ({"resourceVersionMatch": "Exact"}, "BadRequest"),
        ({"resourceVersion": "0", "resourceVersionMatch": "Exact"}, "BadRequest"),
        ({"resourceVersion": "1", "resourceVersionMatch": "Almost"}, "BadRequest"),
        ({"resourceVersion": "99999999"}, "Timeout"),
        ({"labelSelector": "a in b"}, "BadRequest"),
        ({"fieldSelector": "data.a=1"}, "BadRequest"),
    ],
)
async def test_lists_that_make_no_sense(query: dict[str, str], reason: str) -> None:
    await (await maps("a")).refused(reason, "GET", MAPS, **query)


async def test_initial_events_end_with_a_bookmark() -> None:
    api = await maps("a", "b")
    found = await events(
        api, sendInitialEvents="true", allowWatchBookmarks="true", resourceVersionMatch="NotOlderThan", resourceVersion=""
    )
    assert [event["type"] for event in found] == ["ADDED", "ADDED", "BOOKMARK", "BOOKMARK"]  # the last one: its time is over
    mark = found[2]["object"]["metadata"]
    assert mark == {"resourceVersion": str(api.store.version), "annotations": {"k8s.io/initial-events-end": "true"}}
    await api.refused("BadRequest", "GET", MAPS, watch="true", sendInitialEvents="true")


async def test_a_watch_of_one_name_sees_only_that() -> None:
    api = await maps("a", "b")
    assert [e["object"]["metadata"]["name"] for e in await events(api, fieldSelector="metadata.name=b")] == ["b"]


TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"
PARTIAL = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"
PARTIALS = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io,application/json"


async def read(api: Api, path: str, accept: str, **query: str) -> Object:
    headers = {"authorization": "Bearer secret", "accept": accept}
    answer = await api.server.handle(Request("GET", path, {k: [v] for k, v in query.items()}, headers))
    assert isinstance(answer, Response)
    found: Object = json.loads(answer.body)
    return {**found, "code": answer.status}


async def test_forms() -> None:
    api = await maps("a")
    table = await read(api, MAPS, TABLE)
    assert ([c["name"] for c in table["columnDefinitions"]], table["rows"][0]["cells"][:2]) == (
        ["Name", "Data", "Age"],
        ["a", 1],
    )
    assert table["rows"][0]["object"]["kind"] == "PartialObjectMetadata"
    assert (await read(api, f"{MAPS}/a", TABLE, includeObject="Object"))["rows"][0]["object"]["data"] == {"a": "1"}
    assert "object" not in (await read(api, f"{MAPS}/a", TABLE, includeObject="None"))["rows"][0]
    assert (await read(api, f"{MAPS}/a", PARTIAL)).keys() == {"kind", "apiVersion", "metadata", "code"}
    assert (await read(api, MAPS, PARTIALS))["kind"] == "PartialObjectMetadataList"
    assert (await read(api, MAPS, "application/vnd.kubernetes.protobuf,application/json"))["kind"] == "ConfigMapList"
    refused = await read(api, MAPS, "application/vnd.kubernetes.protobuf")
    assert (refused["code"], refused["reason"]) == (406, "NotAcceptable")


async def test_a_watch_of_tables_describes_its_columns_once() -> None:
    api = await maps("a", "b")
    found = await events(api, TABLE)
    assert [bool(event["object"]["columnDefinitions"]) for event in found] == [True, False]
    assert [event["object"]["rows"][0]["cells"][0] for event in found] == ["a", "b"]


async def test_a_thousand_watches_are_told_and_forgotten() -> None:
    api = await maps("a")
    version = str(api.store.version)
    asked = {"watch": ["true"], "resourceVersion": [version]}
    streams = []
    for _ in range(1000):
        answer = await api.server.handle(Request("GET", MAPS, asked, {"authorization": "Bearer secret"}))
        assert isinstance(answer, Stream)
        streams.append(answer.chunks)
    waiting = [asyncio.ensure_future(anext(chunks)) for chunks in streams]
    await asyncio.sleep(0)
    await api("PATCH", f"{MAPS}/a", {"data": {"a": "2"}})
    lines = await asyncio.wait_for(asyncio.gather(*waiting), 10)
    assert len(set(lines)) == 1
    for chunks in streams:
        await chunks.aclose()  # type: ignore[attr-defined]  # a generator
    assert not api.server._records.hub._watchers


ANSWERS = {
    "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews": {"spec": {"nonResourceAttributes": {"path": "/", "verb": "get"}}},
    "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews": {"spec": {"namespace": "default"}},
    "/apis/authentication.k8s.io/v1/selfsubjectreviews": {},
    "/api/v1/namespaces/default/serviceaccounts/a/token": {"spec": {"audiences": []}},
    "/api/v1/namespaces/default/pods/web/eviction": {"metadata": {"name": "web"}},
    "/api/v1/namespaces/default/pods/web/binding": {"target": {"name": "n1"}},
}


@pytest.mark.parametrize("path", ANSWERS)
async def test_what_is_an_answer_and_no_object_is_had_whole_or_not_at_all(path: str) -> None:
    api = Api()
    await api.node("n1")
    await api("POST", "/api/v1/namespaces/default/serviceaccounts", {"metadata": {"name": "a"}})
    await api.pod("web")
    body, before = json.dumps(ANSWERS[path]).encode(), await api("GET", "/api/v1/namespaces/default/pods/web")
    for accept in (TABLE, PARTIAL, "text/html"):
        answer = await api.server.handle(Request("POST", path, {}, {"authorization": "Bearer secret", "accept": accept}, body))
        assert isinstance(answer, Response) and json.loads(answer.body)["reason"] == "NotAcceptable"
        assert await api("GET", "/api/v1/namespaces/default/pods/web") == before, "and nothing is done"
    accepted = {"authorization": "Bearer secret", "accept": f"{TABLE},application/json"}
    answer = await api.server.handle(Request("POST", path, {}, accepted, body))
    assert isinstance(answer, Response) and answer.status == 201
