"""Custom resources whose definition changed after they were stored: they are read with the defaults that came, without what went."""

from __future__ import annotations

import asyncio
import copy
import json
from pathlib import Path
from typing import Any

import pytest

from podplane.kubeapi.messages import Request, Response, Stream
from tests.unit.apiserver.test_server import Api, Object

DEFINITIONS, THINGS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", "/apis/example.org/v1/things"
DEFINITION, THING = f"{DEFINITIONS}/things.example.org", f"{THINGS}/t"
PORT: Object = {"type": "object", "properties": {"port": {"type": "integer"}, "went": {"type": "string"}}}
SPEC: Object = {"type": "object", "properties": {"size": {"type": "integer"}, "ports": {"type": "array", "items": PORT}}}
SCHEMA: Object = {"type": "object", "properties": {"spec": SPEC, "status": {"type": "object", "properties": {}}}}
STORED = {"metadata": {"name": "t"}, "spec": {"ports": [{"port": 1, "went": "x"}, {"port": 2}]}}
SEEN = {"size": 3, "ports": [{"port": 1, "protocol": "TCP"}, {"port": 2, "protocol": "TCP"}]}


def versions(schema: Object, other: Object | None = None) -> list[Object]:
    """v1, which is stored, and v2 with the same or another schema."""
    columns = [{"name": "Size", "type": "integer", "jsonPath": ".spec.size"}]
    more = {"additionalPrinterColumns": columns, "subresources": {"status": {}}}
    first = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}, **more}
    return [first, {**first, "name": "v2", "storage": False, "schema": {"openAPIV3Schema": other or schema}}]


def later() -> Object:
    """The schema with defaults, and without the field `went`."""
    schema = copy.deepcopy(SCHEMA)
    spec = schema["properties"]["spec"]["properties"]
    spec["size"]["default"] = 3
    del spec["ports"]["items"]["properties"]["went"]
    spec["ports"]["items"]["properties"]["protocol"] = {"type": "string", "default": "TCP"}
    schema["properties"]["status"]["properties"] = {"phase": {"type": "string"}}
    return schema


async def begin(path: Path | str = ":memory:") -> Api:
    """A thing that is stored, whose definition then changed."""
    api = Api(path)
    names = {"plural": "things", "kind": "Thing", "singular": "thing", "listKind": "ThingList"}
    spec = {"group": "example.org", "scope": "Cluster", "names": names, "versions": versions(SCHEMA)}
    await api("POST", DEFINITIONS, {"metadata": {"name": "things.example.org"}, "spec": spec})
    await api("POST", THINGS, STORED)
    await api("PATCH", DEFINITION, {"spec": {"versions": versions(later())}})
    return api


async def events(api: Api, version: str = "", **query: str) -> list[Object]:
    """What a watch sends first, in one chunk."""
    asked = {"watch": "1", "timeoutSeconds": "0.1", **({"resourceVersion": version} if version else {}), **query}
    headers = {"authorization": "Bearer secret"}
    answer = await api.server.handle(Request("GET", THINGS, {k: [v] for k, v in asked.items()}, headers))
    assert isinstance(answer, Stream)
    return [json.loads(line) for line in b"".join([chunk async for chunk in answer.chunks]).splitlines()]


async def test_reads_lists_and_watches_show_the_schema_of_now() -> None:
    api = await begin()
    assert (await api("GET", THING))["spec"] == SEEN
    assert [one["spec"] for one in (await api("GET", THINGS))["items"]] == [SEEN]
    assert [event["object"]["spec"] for event in await events(api)] == [SEEN]
    assert [event["object"]["spec"] for event in await events(api, "1")] == [SEEN], "what happened before is as it is now, too"
    second = await api("GET", THING.replace("v1", "v2"))
    assert (second["apiVersion"], second["spec"]) == ("example.org/v2", SEEN)


async def test_tables_show_it() -> None:
    api = await begin()
    accept = "application/json;as=Table;v=v1;g=meta.k8s.io"
    for path in (THING, THINGS):
        answer = await api.server.handle(Request("GET", path, {}, {"authorization": "Bearer secret", "accept": accept}))
        assert isinstance(answer, Response)
        assert json.loads(answer.body)["rows"][0]["cells"] == ["t", 3]


async def test_the_defaults_are_those_of_the_version_that_is_stored() -> None:
    api = await begin()
    other = later()
    other["properties"]["spec"]["properties"]["size"]["default"] = 5
    await api("PATCH", DEFINITION, {"spec": {"versions": versions(later(), other)}})
    assert (await api("GET", THING.replace("v1", "v2")))["spec"]["size"] == 3


async def test_what_is_stored_stays_until_somebody_writes() -> None:
    api = await begin()
    before = await api("GET", THING)
    assert api.store.get("things.example.org", ("", "t")).object["spec"] == STORED["spec"]  # type: ignore[union-attr]
    same = await api("PUT", THING, before)
    assert same["metadata"] == before["metadata"]
    changed = await api("PATCH", THING, {"metadata": {"labels": {"a": "b"}}})
    assert changed["metadata"]["generation"] == before["metadata"]["generation"], "defaults are no change of what is wanted"
    assert changed["spec"] == SEEN
    assert api.store.get("things.example.org", ("", "t")).object["spec"] == SEEN  # type: ignore[union-attr]


async def test_a_patch_finds_the_defaults() -> None:
    api = await begin()
    operations = [{"op": "test", "path": "/spec/size", "value": 3}, {"op": "replace", "path": "/spec/size", "value": 4}]
    headers = {"authorization": "Bearer secret", "content-type": "application/json-patch+json"}
    answer = await api.server.handle(Request("PATCH", THING, {}, headers, json.dumps(operations).encode()))
    assert isinstance(answer, Response)
    assert (answer.status, json.loads(answer.body)["spec"]["size"]) == (200, 4)


async def test_a_write_of_the_status_keeps_them() -> None:
    api = await begin()
    found = await api("PATCH", f"{THING}/status", {"status": {"phase": "Ready"}})
    assert (found["spec"], found["status"]) == (SEEN, {"phase": "Ready"})


async def test_the_next_process_shows_them(tmp_path: Path) -> None:
    api = await begin(tmp_path / "state.db")
    api.store.close()
    again = Api(tmp_path / "state.db")
    assert (await again("GET", THING))["spec"] == SEEN


@pytest.mark.parametrize("change", ["schema", "deletion"])
async def test_a_watch_ends_when_its_definition_changes(change: str) -> None:
    """What happened before is told first; what changes no spec ends nothing."""
    api = await begin()
    version = (await api("GET", THINGS))["metadata"]["resourceVersion"]
    asked = {"watch": ["1"], "resourceVersion": [version]}
    answer = await api.server.handle(Request("GET", THINGS, asked, {"authorization": "Bearer secret"}))
    assert isinstance(answer, Stream)
    task = asyncio.create_task(anext(answer.chunks))
    await asyncio.sleep(0)
    await api("PATCH", THING, {"metadata": {"labels": {"a": "b"}}})
    await api("PATCH", DEFINITION, {"metadata": {"labels": {"a": "b"}}})
    assert json.loads(await task)["type"] == "MODIFIED"
    rest = asyncio.create_task(_rest(answer))
    await asyncio.sleep(0)
    assert not rest.done()
    if change == "schema":
        await api("PATCH", DEFINITION, {"spec": {"versions": versions(SCHEMA)}})
    else:
        await api("DELETE", DEFINITION)
    kinds = [json.loads(line)["type"] for line in (await asyncio.wait_for(rest, 10)).splitlines()]
    assert kinds == ([] if change == "schema" else ["DELETED"])


async def _rest(answer: Stream) -> bytes:
    return b"".join([chunk async for chunk in answer.chunks])


def completions(api: Api) -> list[Object]:
    """The things that are made fit their definition from now on."""
    asked: list[Object] = []
    row = api.server._registry.find("example.org", "v1", "things")
    assert row is not None
    complete: Any = row.complete

    def counted(object_: Object) -> Object:
        asked.append(object_)
        found: Object = complete(object_)
        return found

    object.__setattr__(row, "complete", counted)
    return asked


@pytest.mark.parametrize("written", ["before", "after"])
async def test_what_fits_goes_out_as_it_is_stored(written: str) -> None:
    """A read costs no more for what was written after its definition."""
    api = await begin()
    if written == "after":
        await api("PATCH", THING, {"metadata": {"labels": {"a": "b"}}})
    asked = completions(api)
    assert (await api("GET", THING))["spec"] == SEEN
    assert bool(asked) is (written == "before")


LABEL: Object = {"metadata": {"labels": {"a": "b"}}}


async def test_a_label_of_the_definition_makes_no_read_dearer() -> None:
    api = await begin()
    await api("PATCH", THING, {"metadata": {"labels": {"a": "b"}}})
    before = api.server._registry.find("example.org", "v1", "things")
    for path, change in ((DEFINITION, LABEL), (f"{DEFINITION}/status", {"status": {"storedVersions": ["v1"]}})):
        await api("PATCH", path, change)
        after = api.server._registry.find("example.org", "v1", "things")
        assert before is not None and after is not None
        assert (after.defined_at, after.complete) == (before.defined_at, before.complete)
    asked = completions(api)
    assert (await api("GET", THING))["spec"] == SEEN
    assert asked == []


async def test_a_definition_that_changes_back_is_one_that_changed() -> None:
    api = await begin()
    await api("PATCH", DEFINITION, {"spec": {"versions": versions(SCHEMA)}})
    assert (await api("GET", THING))["spec"] == STORED["spec"]
    await api("PATCH", DEFINITION, {"spec": {"versions": versions(later())}})
    await api("PATCH", DEFINITION, LABEL)
    assert (await api("GET", THING))["spec"] == SEEN


async def test_a_definition_that_goes_takes_no_objects_any_more() -> None:
    api = await begin()
    await api("PATCH", THING, {"metadata": {"finalizers": ["example.org/wait"]}})
    await api("DELETE", DEFINITION)
    await api.refused("MethodNotAllowed", "POST", THINGS, {"metadata": {"name": "u"}})


async def test_what_is_read_again_is_made_fit_once(tmp_path: Path) -> None:
    """After a start, too, when only the last write of the definition is known, whatever it was of."""
    api = await begin(tmp_path / "store")
    await api("PATCH", THING, {"metadata": {"labels": {"a": "b"}}})
    await api("PATCH", DEFINITION, LABEL)
    api.store.close()
    again = Api(tmp_path / "store")
    asked = completions(again)
    for _ in range(3):
        assert (await again("GET", THING))["spec"] == SEEN
        assert [one["spec"] for one in (await again("GET", THINGS))["items"]] == [SEEN]
    assert len(asked) == 1
