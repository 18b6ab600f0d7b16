"""Who answers for a load balancer's address: one node and never two, soon another one when that goes silent, and nobody without a Lease.

Time is virtual, so the elections run as they do on nodes. The API may refuse a node's requests, or never answer them, with or without
carrying them out, at once or late; a node hears of changes only while it reaches the API."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from podplane.agent.candidacy import HASTE_SECONDS
from podplane.agent.election import ANSWER_SECONDS, REQUESTS
from podplane.agent.leases import DURATION_SECONDS, NODE_NAMESPACE, node_of
from podplane.agent.liveness import RENEW_SECONDS, SILENT_SECONDS
from podplane.model.objects import Metadata
from podplane.model.service import (
    SERVICE_NAME,
    Conditions,
    Endpoint,
    EndpointSlice,
)
from podplane.services.announce import preference
from tests.unit.agent.elections import (
    FAULTS,
    LATE_SECONDS,
    NAMES,
    OTHER,
    PATH,
    TAKE_OVER_SECONDS,
    WATCH_SECONDS,
    WITHDRAW_SECONDS,
    Cluster,
    moves,
    settled,
)
from tests.unit.virtual_time import virtual


@virtual
async def test_one_of_all_has_it_and_keeps_it() -> None:
    cluster, first = await settled()
    assert await cluster.holder() == first.name
    await asyncio.sleep(30)
    assert cluster.answering() == [first.name]
    assert first.advertiser.said[PATH] == 3, "the neighbours are told at once, and twice more"
    await cluster.end()


def test_services_spread_over_nodes() -> None:
    chosen = [min(NAMES, key=lambda node: preference(f"default/s{n}", node)) for n in range(300)]
    assert all(70 <= chosen.count(name) <= 130 for name in NAMES)


@virtual
async def test_when_an_agent_ends_another_node_has_it_after_the_leases_duration() -> None:
    cluster, first = await settled()
    await first.stop()
    first.advertiser.answers.clear()  # the machine is off
    await asyncio.sleep(DURATION_SECONDS - RENEW_SECONDS - 0.1)
    assert await cluster.holder() == first.name
    await asyncio.sleep(TAKE_OVER_SECONDS - DURATION_SECONDS + RENEW_SECONDS)
    assert cluster.answering() == [await cluster.holder()] != [first.name]
    await cluster.end()


@pytest.mark.parametrize("fault", FAULTS)
@virtual
async def test_whoever_the_api_does_not_answer_is_silent_before_somebody_else_answers(fault: str) -> None:
    cluster, first = await settled(PATH, OTHER)
    first.fault, began = fault, cluster.loop.time()
    while first.advertiser.answers:  # noqa: ASYNC110
        await asyncio.sleep(0.05)
    assert await cluster.holder() == first.name, "nobody has it before"
    assert cluster.loop.time() - began <= SILENT_SECONDS + WITHDRAW_SECONDS + 0.05
    late = 0.0 if fault in ("refused", "lost") else LATE_SECONDS + ANSWER_SECONDS  # signs may arrive that it doesn't know of
    await asyncio.sleep(late + TAKE_OVER_SECONDS)
    assert first.advertiser.answers == {}
    assert len(cluster.answering()) == len(cluster.answering(OTHER)) == 1
    cluster.heal()
    await asyncio.sleep(TAKE_OVER_SECONDS)
    assert cluster.answering() == [await cluster.holder()]
    await cluster.end()


@virtual
async def test_who_comes_back_believes_no_lease_before_it_has_written_it_again() -> None:
    cluster, first = await settled()
    first.fault = "lost"
    await asyncio.sleep(10)
    (second,) = cluster.answering()
    first.is_deaf, first.fault = True, ""  # it can write, and doesn't know that the Lease is another node's
    await asyncio.sleep(10)
    assert cluster.answering() == [second]
    cluster.heal()
    await asyncio.sleep(2)
    assert cluster.answering() == [second]
    await cluster.end()


@virtual
async def test_who_comes_back_before_another_one_took_it_has_it_again() -> None:
    cluster, first = await settled()
    for machine in cluster.machines.values():
        machine.fault = "lost"
    await asyncio.sleep(10)
    assert cluster.answering() == []
    first.fault = ""
    first.listen()
    await asyncio.sleep(ANSWER_SECONDS + RENEW_SECONDS)
    assert cluster.answering() == [first.name]
    cluster.heal()
    await asyncio.sleep(10)
    assert cluster.answering() == [first.name]
    await cluster.end()


@virtual
async def test_who_comes_back_and_cannot_have_it_again_leaves_it_to_others_though_it_lives() -> None:
    cluster, first = await settled()
    for machine in cluster.machines.values():
        machine.fault = "lost"
    await asyncio.sleep(10)
    cluster.heal()
    first.fault = "only signs"
    await asyncio.sleep(TAKE_OVER_SECONDS + RENEW_SECONDS + ANSWER_SECONDS)
    assert cluster.answering() == [await cluster.holder()] != [first.name]
    await cluster.end()


@virtual
async def test_whose_watch_lags_takes_nothing_from_a_node_that_lives() -> None:
    cluster, first = await settled()
    others = [machine for machine in cluster.machines.values() if machine is not first]
    for machine in others:
        machine.is_deaf = True
    await asyncio.sleep(20)
    assert cluster.answering() == [first.name]
    assert any(machine.requests for machine in others), "they ask"
    await cluster.end()


@virtual
async def test_a_sign_of_life_that_somebody_deleted_is_made_again_and_costs_nothing() -> None:
    cluster, first = await settled()
    for _ in range(5):
        await cluster.api(
            "DELETE", f"/apis/coordination.k8s.io/v1/namespaces/{NODE_NAMESPACE}/leases/load-balancers-{first.name}"
        )
        await asyncio.sleep(2.2)
        assert cluster.answering() == [first.name]
    assert first.name in {node_of(lease) for lease in (await cluster.leases()).values()}
    assert first.advertiser.said[PATH] == 3
    await cluster.end()


@virtual
async def test_who_may_not_have_it_any_more_gives_it_back_at_once() -> None:
    cluster, first = await settled()
    first.exclude()
    await asyncio.sleep(WITHDRAW_SECONDS + HASTE_SECONDS + 4 * WATCH_SECONDS)
    assert cluster.answering() == [await cluster.holder()] != [first.name]
    cluster.forget_requests()
    await asyncio.sleep(10)
    assert not first.requests, "who holds nothing writes nothing"
    await cluster.end()


@virtual
async def test_with_policy_local_nodes_with_endpoints_have_it_and_those_that_end_count_last() -> None:
    cluster = await Cluster(external_traffic_policy="Local").begin(PATH)
    await asyncio.sleep(1)
    assert cluster.answering() == []
    ends = Conditions(ready=False, serving=True, terminating=True)
    for endpoints, home in (
        ({"node2": Conditions()}, "node2"),
        ({"node2": ends, "node3": Conditions()}, "node3"),
        ({"node3": ends}, "node3"),
        ({"node1": ends}, "node1"),
    ):
        rows = tuple(Endpoint((f"10.0.0.{n}",), state, node) for n, (node, state) in enumerate(endpoints.items()))
        for machine in cluster.machines.values():
            machine.slices_changed(PATH, EndpointSlice(Metadata(labels={SERVICE_NAME: "web"}), endpoints=rows))
        await asyncio.sleep(1)
        assert cluster.answering() == [home]
    await cluster.end()


@virtual
async def test_an_agent_that_starts_again_goes_on_and_says_nothing_new_to_the_api() -> None:
    cluster, first = await settled()
    await asyncio.sleep(RENEW_SECONDS * 0.9)
    before = (await cluster.leases())["default/load-balancer-web"]
    await first.restart()
    assert cluster.answering() == [first.name]
    await asyncio.sleep(10)
    assert cluster.answering() == [first.name]
    assert (await cluster.leases())["default/load-balancer-web"] == before
    await cluster.end()


@virtual
async def test_an_agent_that_was_away_for_long_does_not_go_on_before_it_wrote_its_name() -> None:
    cluster, first = await settled()
    for machine in cluster.machines.values():
        machine.fault = "lost"
    await first.stop()
    await asyncio.sleep(SILENT_SECONDS)
    first.start()
    await asyncio.sleep(5)
    assert cluster.answering() == []
    first.fault = ""
    await asyncio.sleep(ANSWER_SECONDS)
    assert cluster.answering() == [first.name]
    cluster.heal()
    await cluster.end()


@virtual
async def test_an_agent_that_starts_again_while_it_is_cut_off_does_not_go_on() -> None:
    cluster, first = await settled()
    first.fault = "lost"
    await asyncio.sleep(1)
    await first.restart()
    await asyncio.sleep(TAKE_OVER_SECONDS)
    (second,) = cluster.answering()
    await first.restart()
    assert cluster.answering() == [second] != [first.name]
    await cluster.end()


@virtual
async def test_when_the_service_goes_nobody_answers_and_nothing_is_remembered_or_written() -> None:
    cluster, _ = await settled(PATH, OTHER)
    for path in (PATH, OTHER):
        await cluster.remove(path)
    await asyncio.sleep(5)
    assert cluster.held == {}
    assert all(node_of(lease) for lease in (await cluster.leases()).values()), "the Leases go with their Services"
    cluster.forget_requests()
    await asyncio.sleep(100)
    assert cluster.writes == []
    for machine in cluster.machines.values():
        election = machine.election
        assert not (election._candidacies or election._due or election._eager or election._mine or election._answers)
        assert await election.turn() is None
    await cluster.end()


@virtual
async def test_a_hundred_idle_load_balancers_cost_no_more_writes_than_one() -> None:
    costs = []
    for count in (0, 1, 100):
        cluster = await Cluster().begin(*(f"default/s{n}" for n in range(count)))
        await asyncio.sleep(5)
        assert len(cluster.held) == count
        cluster.forget_requests()
        await asyncio.sleep(20 * RENEW_SECONDS)
        holders = len(set(cluster.held.values()))
        costs.append((len(cluster.writes), holders))
        await cluster.end()
    none, one, hundred = costs
    assert none == (0, 0)
    assert one[1] == 1 and 19 <= one[0] <= 21
    assert hundred[1] == 3 and hundred[0] <= 3 * one[0] + 3, "one a second for each node that holds some"


@virtual
async def test_with_many_load_balancers_and_a_slow_api_each_stays_where_it_is() -> None:
    cluster = Cluster()
    cluster.answer_seconds = 0.02
    await cluster.begin(*(f"default/s{n}" for n in range(150)))
    await asyncio.sleep(20)
    before = cluster.held
    assert len(before) == 150
    said = {name: machine.advertiser.said.copy() for name, machine in cluster.machines.items()}
    await asyncio.sleep(20)
    assert cluster.held == before
    assert {name: machine.advertiser.said for name, machine in cluster.machines.items()} == said
    victim = cluster.machines[NAMES[0]]
    victim.fault = "lost"
    await asyncio.sleep(TAKE_OVER_SECONDS + 150 * 2 * cluster.answer_seconds)
    assert len(cluster.held) == 150 and not victim.advertiser.answers
    stayed = {path: name for path, name in cluster.held.items() if before[path] != victim.name}
    assert stayed.items() <= before.items()
    await cluster.end()


@virtual
async def test_when_its_addresses_change_the_neighbours_are_told_of_the_new_ones() -> None:
    cluster, first = await settled()
    await asyncio.sleep(5)
    before = first.advertiser.said[PATH]
    cluster.change(PATH, "192.0.2.9")
    await asyncio.sleep(5)
    assert cluster.answering() == [first.name]
    assert first.advertiser.said[PATH] == before + 3
    await cluster.end()


@virtual
async def test_what_it_wrote_itself_counts_before_the_watch_tells_it() -> None:
    cluster = Cluster()
    for machine in cluster.machines.values():
        machine.is_deaf = machine.name != "node2"
    await cluster.begin(PATH)
    only = cluster.machines["node2"]
    await asyncio.sleep(0.1)
    only.is_deaf = True
    await asyncio.sleep(10)
    assert cluster.answering() == ["node2"]
    assert only.advertiser.said[PATH] == 3, "it never fell silent in between"
    cluster.heal()  # it hears of old versions now
    await asyncio.sleep(5)
    assert cluster.answering() == ["node2"] and only.advertiser.said[PATH] == 3
    await cluster.end()


@virtual
async def test_two_that_write_at_once_do_not_both_have_it() -> None:
    cluster = Cluster()
    cluster.answer_seconds = 0.3
    await cluster.begin(*(f"default/s{n}" for n in range(2 * REQUESTS)))
    for _ in range(5):
        await asyncio.sleep(10)
        cluster.answer_seconds = 0.3 if cluster.answer_seconds < 0.1 else 0.02
    assert len(cluster.held) == 2 * REQUESTS
    await cluster.end()


async def move(cluster: Cluster, name: str, what: str) -> None:
    """Something happens to a node, or to a Service."""
    machine = cluster.machines[name]
    match what:
        case "heal":
            machine.fault, machine.is_deaf = "", False
            machine.listen()
        case "deaf":
            machine.is_deaf = True
        case "restart":
            await machine.restart()
        case "exclude" | "include":
            machine.exclude(is_excluded=what == "exclude")
        case "come" if OTHER not in cluster.services:
            await cluster.add(OTHER)
        case "go" if OTHER in cluster.services:
            await cluster.remove(OTHER)
        case "delete sign":
            path = f"/apis/coordination.k8s.io/v1/namespaces/{NODE_NAMESPACE}/leases/load-balancers-{name}"
            await cluster.api.answer("DELETE", path)
        case _ if what in FAULTS:
            machine.fault = what


@settings(max_examples=60, deadline=None)
@given(st.lists(moves, max_size=30))
def test_whatever_happens_never_two_answer_and_in_the_end_one_does(steps: list[tuple[str, str, float]]) -> None:
    @virtual
    async def scenario() -> None:
        cluster = await Cluster().begin(PATH)
        for name, what, seconds in steps:
            await move(cluster, name, what)
            await asyncio.sleep(seconds)
        cluster.heal()
        for machine in cluster.machines.values():
            machine.exclude(is_excluded=False)
        await asyncio.sleep(LATE_SECONDS + 2 * TAKE_OVER_SECONDS)
        for path in cluster.services:
            assert cluster.answering(path) == [await cluster.holder(path)]
        assert cluster.answering(OTHER) == [] or OTHER in cluster.services
        await cluster.end()

    scenario()
