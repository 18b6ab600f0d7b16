"""The loop that all controllers share: what fails is tried again, later each time, while others go on."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Iterable, Iterator
from contextlib import suppress

import pytest

from podplane.apiserver.controllers.decision import Action, Again, Controller, Create, Note, Patch, View, itself
from podplane.apiserver.controllers.stored import StoredView
from podplane.apiserver.identity import controller
from podplane.apiserver.server import utc_now
from podplane.controllers.manager import LAST_RETRY_SECONDS, Manager
from podplane.controllers.objects import Key, Object
from podplane.kubeapi.client import Client
from podplane.kubeapi.errors import ApiError
from podplane.kubeapi.events import Recorder
from tests.unit.apiserver.test_server import Api
from tests.unit.virtual_time import virtual

CONFIGS = "/api/v1/namespaces/default/configmaps"
A, B = ("default", "a"), ("default", "b")


class Bench(Api):
    """An API server with controllers that the test makes up."""

    def __init__(self, *table: Controller) -> None:
        super().__init__()
        view, clients = StoredView(self.store, utc_now), {}
        for one in table:
            self.tokens.add(one.name, controller(one.name))
            client = Client(self.server.call, one.name)
            clients[one.name] = (client, Recorder(client, one.name, utc_now))
        self.manager = Manager(table, view, clients, self.server.transaction)
        self.server.observe(view.observe)
        self.server.observe(self.manager.observe)

    async def config(self, name: str, **data: str) -> Object:
        return await self("POST", CONFIGS, {"metadata": {"name": name}, "data": data})


def of_configs(decide: object, name: str = "tester") -> Controller:
    return Controller(name, {"configmaps": itself}, decide)  # type: ignore[arg-type]


async def run_until(bench: Bench, done: asyncio.Event) -> None:
    """Let the controllers run until then."""
    running = asyncio.create_task(bench.manager.run())
    try:
        async with asyncio.timeout(30):
            await done.wait()
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running


async def test_one_that_raises_is_tried_again_and_holds_up_nobody(caplog: pytest.LogCaptureFixture) -> None:
    tries: list[float] = []
    done, others = asyncio.Event(), []

    def fails(_: View, key: Key) -> Iterable[Action]:
        if key == A:
            tries.append(asyncio.get_running_loop().time())
            if len(tries) < 4:
                raise ValueError("broken")
            done.set()
        return ()

    def notes(_: View, key: Key) -> Iterable[Action]:
        others.append((key, len(tries)))
        return ()

    bench = Bench(of_configs(fails), of_configs(notes, "other"))
    await bench.config("a")
    await bench.config("b")
    with caplog.at_level(logging.WARNING):
        await run_until(bench, done)
    assert others == [(A, 1), (B, 1)]
    waits = [later - sooner for sooner, later in itertools.pairwise(tries)]
    assert all(wait >= least for wait, least in zip(waits, (0.02, 0.04, 0.08), strict=True))
    assert [record.message for record in caplog.records] == ["controller=tester key=default/a error=broken"] * 3
    assert all(record.exc_info for record in caplog.records)


async def test_what_always_fails_waits_no_longer_than_a_minute() -> None:
    def fails(_: View, __: Key) -> Iterable[Action]:
        raise ValueError("broken")

    bench = Bench(of_configs(fails))
    bench.manager._failures["tester", A] = 5000
    await bench.config("a")
    await bench.manager.drain()
    patience = bench.manager._patience()
    assert patience is not None
    assert LAST_RETRY_SECONDS / 2 < patience <= LAST_RETRY_SECONDS


async def test_a_success_forgets_the_failures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("podplane.controllers.manager.FIRST_RETRY_SECONDS", 60.0)  # no decision but those that are asked for
    answers = iter([False, True, False])

    def decide(_: View, __: Key) -> Iterable[Action]:
        if not next(answers):
            raise ValueError("broken")
        return ()

    bench = Bench(of_configs(decide))
    await bench.config("a")
    for number, expected in enumerate((1, 0, 1)):
        await bench("PATCH", f"{CONFIGS}/a", {"data": {"n": str(number)}})
        await bench.manager.drain()
        assert bench.manager._failures.get(("tester", A), 0) == expected


async def test_a_decision_learns_of_a_refusal_before_it_gives_up() -> None:
    seen: list[str] = []

    def decide(view: View, key: Key) -> Iterator[Action]:
        there = view.get("configmaps", key)
        assert there is not None
        if "why" in there.get("data", {}):
            return
        try:
            yield Create("configmaps", "default", {"metadata": {"name": "Not A Name"}})
        except ApiError as error:
            seen.append(error.reason)
            yield Patch("configmaps", there, {"data": {"why": error.reason}})
            raise
        seen.append("went on")

    bench = Bench(of_configs(decide))
    await bench.config("a")
    await bench.manager.drain()
    assert seen == ["Invalid"]
    assert (await bench("GET", f"{CONFIGS}/a"))["data"] == {"why": "Invalid"}


async def test_what_was_replaced_meanwhile_is_left_alone() -> None:
    """A decision about an object that is another one now, under its name, neither changes it nor fails."""
    first: list[Object] = []

    def decide(view: View, key: Key) -> Iterator[Action]:
        there = view.get("configmaps", key)
        if there is not None:
            first.append(there)
            yield Patch("configmaps", first[0], {"data": {"by": first[0]["metadata"]["uid"]}})

    bench = Bench(of_configs(decide))
    old = await bench.config("a")
    await bench.manager.drain()
    await bench("DELETE", f"{CONFIGS}/a")
    await bench.config("a", by="user")
    await bench.manager.drain()
    now = await bench("GET", f"{CONFIGS}/a")
    assert (now["data"], now["metadata"]["uid"] == old["metadata"]["uid"]) == ({"by": "user"}, False)
    assert bench.manager._failures == {}


async def test_again_is_the_soonest_that_was_asked_for() -> None:
    decided = 0
    done = asyncio.Event()

    def decide(_: View, __: Key) -> Iterator[Action]:
        nonlocal decided
        decided += 1
        if decided == 1:
            yield Again(3600)
            yield Again(0.01)
            yield Again(3600)
        else:
            done.set()

    bench = Bench(of_configs(decide))
    await bench.config("a")
    await run_until(bench, done)
    assert decided == 2


async def test_a_write_of_what_does_not_matter_concerns_nobody() -> None:
    decided: list[Key] = []

    def decide(_: View, key: Key) -> Iterable[Action]:
        decided.append(key)
        return ()

    matters = {"configmaps": lambda config: config.get("data", {}).get("n")}
    bench = Bench(Controller("tester", {"configmaps": itself}, decide, matters=matters))
    await bench.config("a", n="1")
    for data, expected in (({"m": "1"}, 1), ({"n": "2"}, 2), ({"n": "2", "m": "2"}, 2)):
        await bench("PATCH", f"{CONFIGS}/a", {"data": data})
        await bench.manager.drain()
        assert len(decided) == expected
    await bench("DELETE", f"{CONFIGS}/a")
    await bench.manager.drain()
    assert len(decided) == 3


async def test_repeated_notes_are_counted() -> None:
    def decide(view: View, key: Key) -> Iterator[Action]:
        there = view.get("configmaps", key)
        if there is not None:
            yield Note(there, "Seen", "It was seen")

    bench = Bench(of_configs(decide))
    await bench.config("a")
    for number in range(3):
        await bench.manager.drain()
        await bench("PATCH", f"{CONFIGS}/a", {"data": {"n": str(number)}})
    (event,) = (await bench("GET", "/api/v1/namespaces/default/events"))["items"]
    assert (event["count"], event["reason"], event["involvedObject"]["name"]) == (3, "Seen", "a")


async def test_a_controller_that_can_not_say_whom_a_write_concerns_keeps_nobody_from_writing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    decided: list[Key] = []

    def fails(_: View, object_: Object) -> Iterable[Key]:
        yield object_["spec"]["selector"]

    def decides(_: View, key: Key) -> Iterable[Action]:
        decided.append(key)
        return ()

    bench = Bench(Controller("odd", {"configmaps": fails}, decides), of_configs(decides, "other"))
    await bench.config("a")
    bench.manager.begin()
    await bench.manager.drain()
    assert decided == [A], "the other controller decides"
    assert "controller=odd concerned by default/a" in caplog.text and "KeyError: 'spec'" in caplog.text


@virtual
async def test_changes_within_a_rest_are_decided_about_once_when_it_is_over() -> None:
    times, seen, done = list[float](), list[str](), asyncio.Event()

    def decides(view: View, key: Key) -> Iterable[Action]:
        config = view.get("configmaps", key)
        assert config is not None
        if key == A:
            times.append(asyncio.get_running_loop().time())
            seen.append(config["data"]["at"])
            if len(seen) == 3:
                done.set()
        return ()

    bench = Bench(Controller("tester", {"configmaps": itself}, decides, rest=0.2))
    await bench.config("a", at="0")
    await bench.manager.drain()
    for number in range(1, 10):
        await bench("PATCH", f"{CONFIGS}/a", {"data": {"at": str(number)}})
        await bench.manager.drain()
    await bench.config("b", at="0")
    asyncio.get_running_loop().call_later(
        0.3, lambda: asyncio.ensure_future(bench("PATCH", f"{CONFIGS}/a", {"data": {"at": "last"}}))
    )
    await run_until(bench, done)
    assert seen == ["0", "9", "last"]
    assert all(later - earlier >= 0.2 for earlier, later in itertools.pairwise(times))
