"""Large deletions go on in turns of their own: others are served meanwhile, and neither a restart nor a failed transaction loses any."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from podplane.apiserver import deletion
from podplane.apiserver.deletion import STEPS
from tests.unit.apiserver.test_server import Api

Object = dict[str, Any]
MAPS = "/api/v1/namespaces/default/configmaps"
BIG = "/api/v1/namespaces/big"
COUNT = 3 * STEPS + 7


async def big(path: Path | str = ":memory:") -> Api:
    """A server with a namespace of many ConfigMaps."""
    api = Api(path)
    await api("POST", "/api/v1/namespaces", {"metadata": {"name": "big"}})
    with api.server.transaction():
        for number in range(COUNT):
            await api("POST", f"{BIG}/configmaps", {"metadata": {"name": f"c{number}"}})
    return api


async def family(api: Api) -> Object:
    """An owner with many dependents."""
    owner = await api("POST", MAPS, {"metadata": {"name": "owner"}})
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner["metadata"]["uid"]}
    with api.server.transaction():
        for number in range(COUNT):
            await api("POST", MAPS, {"metadata": {"name": f"d{number}", "ownerReferences": [reference]}})
    return owner


def left(api: Api, namespace: str) -> int:
    return len(api.store.all("configmaps", namespace))


async def until_done(api: Api) -> list[int]:
    """Let the loop turn until nothing is queued; how much was removed by each turn."""
    removed = []
    while api.server._deleter._todo:
        before = len(api.store.all("configmaps"))
        await asyncio.sleep(0)
        removed.append(before - len(api.store.all("configmaps")))
    return removed


async def test_a_large_namespace_goes_in_turns() -> None:
    api = await big()
    found = await api("DELETE", BIG)
    assert found["status"]["phase"] == "Terminating"
    assert COUNT - STEPS <= left(api, "big") < COUNT
    assert (await api("GET", BIG))["metadata"]["deletionTimestamp"]
    removed = await until_done(api)
    assert max(removed) <= STEPS
    assert left(api, "big") == 0
    await api.refused("NotFound", "GET", BIG)


async def test_a_small_namespace_goes_at_once() -> None:
    api = Api()
    await api("POST", "/api/v1/namespaces", {"metadata": {"name": "small"}})
    await api("POST", "/api/v1/namespaces/small/configmaps", {"metadata": {"name": "a"}})
    await api("DELETE", "/api/v1/namespaces/small")
    await api.refused("NotFound", "GET", "/api/v1/namespaces/small")


async def test_many_dependents_follow_their_owner_in_turns() -> None:
    api = Api()
    await family(api)
    await api("DELETE", f"{MAPS}/owner")
    await api.refused("NotFound", "GET", f"{MAPS}/owner")
    assert left(api, "default") > 0
    assert max(await until_done(api)) <= STEPS
    assert left(api, "default") == 0


@pytest.mark.parametrize("touch", [False, True])
async def test_an_owner_waits_until_all_its_dependents_are_let_go_of(touch: bool) -> None:
    """Also when it is written meanwhile, which looks whether it can go."""
    api = Api()
    await family(api)
    await api("DELETE", f"{MAPS}/owner", propagationPolicy="Orphan")
    if touch:
        await api("PATCH", f"{MAPS}/owner", {"data": {"a": "b"}})
    await until_done(api)
    await api.refused("NotFound", "GET", f"{MAPS}/owner")
    assert left(api, "default") == COUNT
    assert not any("ownerReferences" in stored.object["metadata"] for stored in api.store.all("configmaps", "default"))


@pytest.mark.parametrize("of", ["namespace", "owner"])
async def test_the_next_process_goes_on(tmp_path: Path, of: str) -> None:
    path = tmp_path / "state.db"
    api = await big(path)
    await family(api)
    namespace = "big" if of == "namespace" else "default"
    await api("DELETE", BIG if of == "namespace" else f"{MAPS}/owner")
    assert left(api, namespace) > 1
    api.store.close()
    again = Api(path)
    await until_done(again)
    assert left(again, namespace) == 0
    assert left(again, "default" if of == "namespace" else "big") >= COUNT


async def test_a_deletion_that_is_taken_back_deletes_nothing_later() -> None:
    api = await big()

    async def fail() -> None:
        with api.server.transaction():
            await api("DELETE", BIG)
            raise ValueError

    with pytest.raises(ValueError):
        await fail()
    for _ in range(10):
        await asyncio.sleep(0)
    assert left(api, "big") == COUNT
    assert "deletionTimestamp" not in (await api("GET", BIG))["metadata"]


async def test_what_a_failed_transaction_took_back_is_done_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deletion, "RETRY_SECONDS", 0.0)
    api = await big()
    await api("DELETE", BIG)

    async def fail() -> None:
        with api.server.transaction():
            api.server._deleter._work()
            raise ValueError

    with pytest.raises(ValueError):
        await fail()
    for _ in range(1000):
        await asyncio.sleep(0)
    assert left(api, "big") == 0
    await api.refused("NotFound", "GET", BIG)
