"""Large objects are read and checked beside the event loop, with the results that small ones have, whatever others write meanwhile."""

from __future__ import annotations

import json
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from podplane.apiserver import shapes
from podplane.apiserver.beside import LARGE_BYTES, Beside, Steps, Work, at_once
from podplane.apiserver.kinds import addresses
from podplane.apiserver.server import ATTEMPTS
from tests.unit.apiserver.test_custom import CRDS, PEERS, define, peer
from tests.unit.apiserver.test_server import Api

Object = dict[str, Any]
POLICIES = "/apis/networking.k8s.io/v1/namespaces/default/networkpolicies"
MAPS = "/api/v1/namespaces/default/configmaps"
MANY = 1_000


def policy(count: int, name: str = "a", **metadata: Any) -> Object:
    peers = [{"ipBlock": {"cidr": f"10.{i >> 8}.{i & 255}.0/24"}} for i in range(count)]
    return {"metadata": {"name": name, **metadata}, "spec": {"podSelector": {}, "ingress": [{"from": peers}]}}


def large(value: str = "x", **metadata: Any) -> Object:
    return {"metadata": {"name": "a", **metadata}, "data": {"a": value * LARGE_BYTES}}


class Overtaken:
    """Does something else after steps of a large write, `times` times at most; the first one is the one with number `after`."""

    def __init__(
        self, patch: pytest.MonkeyPatch, other: Callable[[], Awaitable[object]], times: int = 1, after: int = 1
    ) -> None:
        self.other, self.times, self.after, self.is_busy, self.steps = other, times, after, False, 0
        patch.setattr(Beside, "run", lambda _, work: self.run(work))

    async def run(self, work: Work) -> Any:
        result = work()
        if not self.is_busy:
            self.steps += 1
        if self.times and not self.is_busy and self.steps >= self.after:
            self.times, self.is_busy = self.times - 1, True
            await self.other()
            self.is_busy = False
        return result


@pytest.fixture
def where(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, set[bool]]]:
    """Of the dear parts of a write: did they happen in the thread of the loop?"""
    found: dict[str, set[bool]] = {}
    loop = threading.get_ident()

    def note(owner: Any, name: str) -> None:
        original = getattr(owner, name)

        def noted(*given: Any, **more: Any) -> Any:
            found.setdefault(name, set()).add(threading.get_ident() == loop)
            return original(*given, **more)

        monkeypatch.setattr(owner, name, noted)

    note(shapes, "fit")
    note(addresses, "is_canonical")
    note(json, "loads")
    yield found


@pytest.mark.parametrize(("count", "is_on_loop"), [(3, True), (MANY, False)])
async def test_only_small_objects_are_read_and_checked_on_the_loop(
    count: int, is_on_loop: bool, where: dict[str, set[bool]]
) -> None:
    api = Api()
    where.clear()
    for method, path in (("POST", POLICIES), ("PUT", f"{POLICIES}/a")):
        answer = await api.answer(method, path, policy(count, labels={"by": method}))
        assert answer.status in (200, 201)
    assert where == {part: {is_on_loop} for part in ("fit", "is_canonical", "loads")}


async def test_a_small_patch_of_a_large_object_is_checked_beside_the_loop(where: dict[str, set[bool]]) -> None:
    api = Api()
    await api("POST", POLICIES, policy(MANY))
    where.clear()
    found = await api("PATCH", f"{POLICIES}/a", {"metadata": {"labels": {"a": "b"}}})
    assert (found["metadata"]["labels"], found["metadata"]["generation"]) == ({"a": "b"}, 1)
    assert where["fit"] == where["is_canonical"] == {False}


async def test_within_a_transaction_nothing_waits(where: dict[str, set[bool]]) -> None:
    api = Api()
    where.clear()
    with api.server.transaction():
        await api("POST", POLICIES, policy(MANY))
    assert where["fit"] == where["is_canonical"] == {True}


@pytest.mark.parametrize(
    "body", [b"[" * 30_000, b'{"a": ' + b"1," * 20_000, json.dumps(policy(MANY) | {"kind": "Pod"}).encode()]
)
async def test_a_large_body_is_refused_with_the_words_for_a_small_one(body: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    beside = await Api().refused("BadRequest", "POST", POLICIES, body)
    monkeypatch.setattr("podplane.apiserver.server.LARGE_BYTES", 1 << 30)
    assert await Api().refused("BadRequest", "POST", POLICIES, body) == beside


async def test_warnings_and_causes_of_a_large_object_are_those_of_a_small_one(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for limit in (LARGE_BYTES, 1 << 30):
        monkeypatch.setattr("podplane.apiserver.server.LARGE_BYTES", limit)
        api = Api()
        odd = policy(MANY)
        odd["spec"]["ingress"][0]["from"] += [{"ipBlock": {"cidr": "2001:DB8::/32"}}]
        answer = await api.answer("POST", POLICIES, odd | {"more": 1})
        odd["spec"]["ingress"][0]["from"] += [{"ipBlock": {"cidr": "nothing"}}]
        found.append((answer.headers, await api.refused("Invalid", "PUT", f"{POLICIES}/a", odd)))
    assert found[0] == found[1]
    assert len(found[0][0]) == 3


@pytest.mark.parametrize("after", [1, 2, 3])
async def test_a_name_that_is_taken_meanwhile(after: int, monkeypatch: pytest.MonkeyPatch) -> None:
    api = Api()
    Overtaken(monkeypatch, lambda: api("POST", MAPS, {"metadata": {"name": "a"}}), after=after)
    await api.refused("AlreadyExists", "POST", MAPS, large())
    assert "data" not in await api("GET", f"{MAPS}/a")


@pytest.mark.parametrize("after", [1, 2, 3])
async def test_a_namespace_that_goes_meanwhile(after: int, monkeypatch: pytest.MonkeyPatch) -> None:
    api = Api()
    await api("POST", "/api/v1/namespaces", {"metadata": {"name": "other"}})
    Overtaken(monkeypatch, lambda: api("DELETE", "/api/v1/namespaces/other"), after=after)
    await api.refused("NotFound", "POST", "/api/v1/namespaces/other/configmaps", large())


async def test_a_version_that_is_replaced_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    api = Api()
    first = await api("POST", MAPS, {"metadata": {"name": "a"}})
    Overtaken(monkeypatch, lambda: api("PATCH", f"{MAPS}/a", {"data": {"b": "2"}}), times=2)
    version = first["metadata"]["resourceVersion"]
    await api.refused("Conflict", "PUT", f"{MAPS}/a", large(resourceVersion=version))


async def test_a_patch_that_is_overtaken_is_made_of_what_is_there_then(monkeypatch: pytest.MonkeyPatch) -> None:
    api = Api()
    await api("POST", MAPS, {"metadata": {"name": "a"}})
    overtaken = Overtaken(monkeypatch, lambda: api("PATCH", f"{MAPS}/a", {"data": {"b": str(overtaken.times)}}), times=4)
    found = await api("PATCH", f"{MAPS}/a", {"data": {"a": "x" * LARGE_BYTES}})
    assert found["data"] == {"a": "x" * LARGE_BYTES, "b": "0"}


async def test_a_write_that_is_overtaken_again_and_again_is_made_in_one_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    api = Api()
    await api("POST", MAPS, {"metadata": {"name": "a"}})
    others = iter(range(1000))
    overtaken = Overtaken(monkeypatch, lambda: api("PATCH", f"{MAPS}/a", {"data": {"b": str(next(others))}}), times=1000)
    found = await api("PUT", f"{MAPS}/a", large())
    assert "b" not in found["data"]
    assert overtaken.steps == 3 * ATTEMPTS + 1  # body, shape and rules of each attempt; and warnings


@pytest.mark.parametrize("after", [1, 2, 3])
async def test_an_object_that_is_deleted_meanwhile(after: int, monkeypatch: pytest.MonkeyPatch) -> None:
    api = Api()
    await api("POST", MAPS, {"metadata": {"name": "a"}})
    Overtaken(monkeypatch, lambda: api("DELETE", f"{MAPS}/a"), after=after)
    await api.refused("NotFound", "PUT", f"{MAPS}/a", large())


@pytest.mark.parametrize("after", [1, 2, 3])
async def test_a_definition_that_goes_meanwhile(after: int, monkeypatch: pytest.MonkeyPatch) -> None:
    api = Api()
    await define(api)
    Overtaken(monkeypatch, lambda: api("DELETE", f"{CRDS}/peers.net.example.org"), after=after)
    await api.refused("NotFound", "POST", PEERS, peer("a") | {"large": "x" * LARGE_BYTES})


def test_steps_at_once() -> None:
    def steps() -> Steps[list[int]]:
        return [(yield lambda: 1), (yield lambda: 2)]

    assert at_once(steps()) == [1, 2]
