"""The configuration follows the ConfigMap; one that makes no sense changes nothing, and is said."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from podplane.dns.config import KEY, Config
from podplane.kubeapi import events
from podplane.nameserver import configuration
from tests.unit.nameserver.rig import Rig

MAPS = "/api/v1/namespaces/kube-system/configmaps"
EVENTS = "/api/v1/namespaces/kube-system/events"
NAME = "podplane-dns"


def config_map(text: str, **data: str) -> dict[str, Any]:
    return {"metadata": {"name": NAME}, "data": {KEY: text, **data}}


class Watched:
    """A configuration that follows its ConfigMap; `taken` are those that subscribers were told of."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.taken: list[Config] = []
        rig.configuration.subscribe(self.taken.append)

    async def until(self, what: Any) -> None:
        async with asyncio.timeout(10):
            while not what():  # noqa: ASYNC110  # what is waited for is not ours to tell
                await asyncio.sleep(0.001)

    async def events(self) -> list[tuple[str, str, int]]:
        items = (await self.rig.api("GET", EVENTS))["items"]
        return [(one["reason"], one["message"], one["count"]) for one in items if one["involvedObject"]["name"] == NAME]


@contextlib.asynccontextmanager
async def watched(text: str | None = None) -> AsyncIterator[Watched]:
    rig = Rig()
    if text is not None:
        await rig.api("POST", MAPS, config_map(text))
    found = Watched(rig)
    await rig.start()
    tasks = [asyncio.ensure_future(work()) for work in rig.configuration.watches.values()]
    try:
        yield found
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_without_a_config_map_the_defaults_count() -> None:
    async with watched() as found:
        status = found.rig.configuration.status
        assert found.rig.configuration.current == Config()
        assert (status.config_map, status.exists, status.error, status.instead) == ("kube-system/podplane-dns", False, "", "")


async def test_what_is_there_at_the_start_counts_at_once() -> None:
    async with watched("ttl: 9") as found:
        assert found.taken == [Config(ttl=9)]
        assert found.rig.configuration.status.exists


async def test_changes_are_taken_over_and_the_end_brings_the_defaults() -> None:
    async with watched() as found:
        found.rig.clock.now += 50
        await found.rig.api("POST", MAPS, config_map("ttl: 9"))
        await found.until(lambda: found.taken == [Config(ttl=9)])
        found.rig.clock.now += 3
        assert found.rig.configuration.status.age == 3
        await found.rig.api("PUT", f"{MAPS}/{NAME}", config_map("pods: disabled"))
        await found.until(lambda: len(found.taken) == 2)
        await found.rig.api("DELETE", f"{MAPS}/{NAME}")
        await found.until(lambda: len(found.taken) == 3)
        assert found.taken[1:] == [Config(pods="disabled"), Config()]


async def test_another_text_of_the_same_meaning_is_no_change() -> None:
    async with watched("ttl: 9") as found:
        await found.rig.api("PUT", f"{MAPS}/{NAME}", config_map("# nine\nttl: 9"))
        await found.rig.api("PUT", f"{MAPS}/{NAME}", config_map("ttl: 10"))
        await found.until(lambda: len(found.taken) == 2)
        assert found.taken == [Config(ttl=9), Config(ttl=10)]


async def test_a_mistake_changes_nothing_and_is_said_until_it_is_gone() -> None:
    async with watched("ttl: 9") as found:
        configuration = found.rig.configuration
        await found.rig.api("PUT", f"{MAPS}/{NAME}", config_map("ttl: nine"))
        await found.until(lambda: configuration.status.error)
        error = "ttl: 'nine' is no whole number from 0 to 3600"
        assert configuration.status.instead == "the last good configuration goes on"
        assert (configuration.status.error, configuration.current) == (error, Config(ttl=9))
        await found.rig.api("PUT", f"{MAPS}/{NAME}", config_map("ttl: 9", Corefile=". {}"))
        await found.until(lambda: configuration.status.error.startswith("data: "))
        await found.rig.api("PUT", f"{MAPS}/{NAME}", config_map("ttl: 9"))
        await found.until(lambda: not configuration.status.error)
        assert found.taken == [Config(ttl=9)]
        said = [("InvalidConfig", f"the last good configuration goes on: {error}", 1)]
        said += [
            (
                "InvalidConfig",
                "the last good configuration goes on: data: there is no key 'Corefile'; there is only config.yaml",
                1,
            )
        ]
        assert await found.events() == said


async def test_the_last_mistake_is_said_even_after_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "BURST", 2)
    monkeypatch.setattr(configuration, "AGAIN_SECONDS", 0.01)
    async with watched("ttl: 9") as found:
        for text in ("ttl: a", "ttl: b", "ttl: c", "ttl: d"):
            await found.rig.api("PUT", f"{MAPS}/{NAME}", config_map(text))
            await found.until(lambda text=text: f"'{text[-1]}'" in found.rig.configuration.status.error)
        assert [message.split("'")[1] for _, message, _ in await found.events()] == ["a", "b"]
        await asyncio.sleep(0.05)
        assert len(await found.events()) == 2, "there were too many"
        monkeypatch.setattr(events, "REFILL_SECONDS", 0.001)
        async with asyncio.timeout(10):
            while len(await found.events()) < 3:  # noqa: ASYNC110  # what is waited for is not ours to tell
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        assert [(one[1].split("'")[1], one[2]) for one in await found.events()] == [("a", 1), ("b", 1), ("d", 1)], "once"


async def test_what_could_not_be_said_is_not_said_any_more_once_it_is_mended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "BURST", 0)
    monkeypatch.setattr(configuration, "AGAIN_SECONDS", 0.01)
    async with watched("ttl: nine") as found:
        await found.rig.api("PUT", f"{MAPS}/{NAME}", config_map("ttl: 8"))
        await found.until(lambda: found.taken == [Config(ttl=8)])
        monkeypatch.setattr(events, "BURST", 9)
        monkeypatch.setattr(events, "REFILL_SECONDS", 0.001)
        await asyncio.sleep(0.05)
        assert await found.events() == []


async def test_a_mistake_at_the_start_leaves_the_defaults() -> None:
    async with watched("zones: {cluster.local: [192.0.2.1]}") as found:
        assert found.rig.configuration.current == Config()
        assert "names of the cluster's domain" in found.rig.configuration.status.error
        assert found.rig.configuration.status.instead == "the defaults count"
        (event,) = await found.events()
        assert event[1].startswith("the defaults count: zones.cluster.local: ")


async def test_of_a_subscriber_that_fails_others_hear_nothing_bad() -> None:
    """Others are told of the change, and the configuration follows on."""
    async with watched() as found:
        other: list[Config] = []
        found.rig.configuration.subscribe(lambda config: (_ for _ in ()).throw(ValueError("no")))
        found.rig.configuration.subscribe(other.append)
        await found.rig.api("POST", MAPS, config_map("ttl: 9"))
        await found.until(lambda: other == [Config(ttl=9)])
