"""Blocks for Nodes: never two with one, what is there stays, and nothing is given where something is in the way."""

from __future__ import annotations

import asyncio
import ipaddress
from itertools import combinations

from hypothesis import given, settings
from hypothesis import strategies as st

from podplane.controllers.node_blocks import HOLD_SECONDS, OTHERS
from tests.unit.apiserver.test_server import Api
from tests.unit.controllers.cluster import NODES, RANGES, Watching, add_node, api_of, blocks_of, said

V4, V6 = ("10.244.0.0/16", 24), ("fd00:10:244::/48", 64)


async def test_each_node_gets_a_block_of_each_range() -> None:
    api = await api_of("10.96.0.0/16")
    cluster = await Watching(api, V4, V6).begin()
    for name in ("a", "b"):
        await add_node(api, name, "192.168.1.1")
    await cluster.settle()
    assert await blocks_of(api) == {
        "a": ["10.244.0.0/24", "fd00:10:244::/64"],
        "b": ["10.244.1.0/24", "fd00:10:244:1::/64"],
    }
    assert await said(api, "a") == []


async def test_a_block_that_is_there_stays_and_what_it_overlaps_is_not_given() -> None:
    api = await api_of()
    await add_node(api, "small", "", "10.244.0.64/26")
    await add_node(api, "large", "", "10.244.2.0/23")
    await add_node(api, "outside", "", "172.16.0.0/24")
    cluster = await Watching(api, V4).begin()
    for name in "abc":
        await add_node(api, name)
    await cluster.settle()
    found = await blocks_of(api)
    assert found == {
        "small": ["10.244.0.64/26"],
        "large": ["10.244.2.0/23"],
        "outside": ["172.16.0.0/24"],
        "a": ["10.244.4.0/24"],
        "b": ["10.244.5.0/24"],
        "c": ["10.244.6.0/24"],
    }


async def test_a_block_of_a_node_that_went_is_used_last_of_all() -> None:
    api = await api_of()
    cluster = await Watching(api, ("10.244.0.0/22", 24)).begin()
    for name in "abc":
        await add_node(api, name)
    await cluster.settle()
    await api("DELETE", f"{NODES}/a")
    await cluster.settle()
    for name in "de":
        await add_node(api, name)
    await cluster.settle()
    found = await blocks_of(api)
    assert (found["d"], found["e"]) == (["10.244.3.0/24"], ["10.244.0.0/24"])


async def test_who_finds_all_in_use_is_told_and_gets_the_next_one_that_is_free() -> None:
    api = await api_of()
    cluster = await Watching(api, ("10.244.0.0/23", 24)).begin()
    for name in "abcd":
        await add_node(api, name)
    await cluster.settle()
    why = [("NoPodCIDR", "all blocks of /24 of 10.244.0.0/23 are in use: give a larger range")]
    assert await said(api, "c") == await said(api, "d") == why
    await cluster.settle(40)
    assert await said(api, "c") == why, "once is enough"
    await api("DELETE", f"{NODES}/a")
    await cluster.settle()
    assert (await blocks_of(api))["c"] == ["10.244.0.0/24"]


async def test_a_range_that_is_somebody_s_is_not_given() -> None:
    api = await api_of("10.244.128.0/20")
    cluster = await Watching(api, V4).begin()
    await add_node(api, "a")
    await cluster.settle()
    assert await blocks_of(api) == {"a": []}
    ((reason, message),) = await said(api, "a")
    assert reason == "NoPodCIDR" and "overlaps 10.244.128.0/20, which is of Services" in message
    await api("DELETE", f"{RANGES}/range0")
    await cluster.settle(40)
    assert await blocks_of(api) == {"a": ["10.244.0.0/24"]}


async def test_a_range_with_a_node_in_it_is_not_given() -> None:
    api = await api_of()
    cluster = await Watching(api, V4).begin()
    await add_node(api, "a", "10.244.7.7")
    await add_node(api, "b", "192.168.1.2")
    await cluster.settle()
    assert await blocks_of(api) == {"a": [], "b": []}
    assert "has 10.244.7.7, the address of the node a" in (await said(api, "b"))[0][1]


async def test_where_another_one_gives_blocks_nobody_else_does() -> None:
    api = await api_of()
    cluster = await Watching(api, V4).begin()
    await add_node(api, "a")
    await cluster.settle(0.5)  # it waits still
    await api("PATCH", f"{NODES}/a", {"spec": {"podCIDR": "10.244.0.0/24", "podCIDRs": ["10.244.0.0/24"]}})
    await add_node(api, "b")
    await cluster.settle()
    assert (await blocks_of(api))["b"] == []
    assert (await said(api, "a"), await said(api, "b")) == ([("PodCIDROfOthers", OTHERS)], [("NoPodCIDR", OTHERS)])
    await cluster.settle(HOLD_SECONDS + 1)
    assert (await blocks_of(api))["b"] == ["10.244.1.0/24"]


async def test_what_is_refused_is_said_of_each_node_that_waits() -> None:
    api = await api_of()
    cluster = await Watching(api, V4, refusal="not here").begin()
    await add_node(api, "a")
    await cluster.settle(100)
    assert await blocks_of(api) == {"a": []} and await said(api, "a") == [("NoPodCIDR", "not here")]


async def test_of_two_nodes_with_one_block_the_younger_is_told_and_none_is_changed() -> None:
    api = await api_of()
    await add_node(api, "old", "", "10.244.0.0/24")
    await add_node(api, "young", "", "10.244.0.0/25")
    await add_node(api, "apart", "", "10.244.9.0/24")
    before = await blocks_of(api)
    cluster = await Watching(api, V4).begin()
    await cluster.settle()
    assert await blocks_of(api) == before
    ((reason, message),) = await said(api, "young")
    assert reason == "PodCIDRTwice" and message.startswith(
        "its block 10.244.0.0/25 overlaps 10.244.0.0/24, which is that of the node old"
    )
    assert await said(api, "old") == await said(api, "apart") == []
    ready = {"type": "Ready", "status": "True"}
    await api("PATCH", f"{NODES}/old/status", {"status": {"conditions": [ready]}})
    assert [await condition(api, name) for name in ("old", "young", "apart")] == ["", "True", ""]
    stored = await api("GET", NODES)
    cluster.manager.begin()
    await cluster.settle()
    assert await api("GET", NODES) == stored, "deciding again writes nothing"
    await api("DELETE", f"{NODES}/old")
    await cluster.settle()
    assert await condition(api, "young") == "False"
    (young,) = [
        one for one in (await api("GET", f"{NODES}/young"))["status"]["conditions"] if one["type"] == "NetworkUnavailable"
    ]
    assert {"lastHeartbeatTime", "lastTransitionTime"} <= young.keys()
    await api("DELETE", f"{NODES}/young")
    await add_node(api, "young")
    await cluster.settle()
    assert (await blocks_of(api))["young"] == ["10.244.10.0/24"]


async def condition(api: Api, name: str) -> str:
    """Has a node no network?"""
    conditions = (await api("GET", f"{NODES}/{name}"))["status"].get("conditions", ())
    return next((one["status"] for one in conditions if one["type"] == "NetworkUnavailable"), "")


async def test_a_restart_gives_nothing_anew() -> None:
    api = await api_of()
    cluster = await Watching(api, V4).begin()
    for name in "ab":
        await add_node(api, name)
    await cluster.settle()
    before = await api("GET", NODES)
    again = await Watching(api, V4).begin()
    await again.settle()
    assert await api("GET", NODES) == before
    await add_node(api, "c")
    await again.settle()
    assert (await blocks_of(api))["c"] == ["10.244.2.0/24"]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["come", "go", "given", "restart"]), st.integers(0, 9)), max_size=15))
def test_whatever_happens_no_two_nodes_have_one_block(steps: list[tuple[str, int]]) -> None:
    async def play() -> None:
        api = await api_of()
        cluster = await Watching(api, ("10.244.0.0/21", 24)).begin()
        for what, number in steps:
            there = await blocks_of(api)
            if what == "come" and f"n{number}" not in there:
                await add_node(api, f"n{number}")
            elif what == "go" and f"n{number}" in there:
                await api("DELETE", f"{NODES}/n{number}")
            elif what == "given" and f"g{number}" not in there:  # at its creation, what nobody has
                text = f"10.244.{number % 8}.0/24"
                if [text] not in there.values():
                    await add_node(api, f"g{number}", "", text)
            elif what == "restart":
                cluster = await Watching(api, ("10.244.0.0/21", 24)).begin()
            await cluster.settle()
            found = {name: ipaddress.ip_network(own[0]) for name, own in (await blocks_of(api)).items() if own}
            assert not any(one.overlaps(other) for one, other in combinations(found.values(), 2))
            assert len(found) == min(8, len(await blocks_of(api)))

    asyncio.run(play())
