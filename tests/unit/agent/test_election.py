"""The advertiser of a load balancer: one node and never two; soon another one when its term expires; none without a Lease.

Time is virtual, so the elections run as they do on nodes. The API may refuse a node's requests, or never answer them, with or without
carrying them out, at once or late; a node is told of changes only while it reaches the API."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from podplane.agent.candidacy import MAX_CANDIDATE_DELAY_SECONDS
from podplane.agent.election import MAX_REQUESTS, REQUEST_TIMEOUT_SECONDS
from podplane.agent.leases import DURATION_SECONDS, NODE_NAMESPACE, node_of
from podplane.agent.liveness import RENEW_DEADLINE_SECONDS, RENEW_SECONDS
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
async def test_one_node_becomes_the_holder_and_stays_it() -> None:
    cluster, first = await settled()
    assert await cluster.holder() == first.name
    await asyncio.sleep(30)
    assert cluster.advertisers() == [first.name]
    assert first.advertiser.announced[PATH] == 3, "announced at once, and twice more"
    await cluster.end()


def test_services_spread_over_nodes() -> None:
    chosen = [min(NAMES, key=lambda node: preference(f"default/s{n}", node)) for n in range(300)]
    assert all(70 <= chosen.count(name) <= 130 for name in NAMES)


@virtual
async def test_when_an_agent_ends_another_node_acquires_the_lease_after_its_duration() -> None:
    cluster, first = await settled()
    await first.stop()
    first.advertiser.advertised.clear()  # the machine is off
    await asyncio.sleep(DURATION_SECONDS - RENEW_SECONDS - 0.1)
    assert await cluster.holder() == first.name
    await asyncio.sleep(TAKE_OVER_SECONDS - DURATION_SECONDS + RENEW_SECONDS)
    assert cluster.advertisers() == [await cluster.holder()] != [first.name]
    await cluster.end()


@virtual
async def test_a_kernel_answers_as_long_as_its_agent_holds_the_lease_and_no_longer_than_its_term() -> None:
    cluster, first = await settled()
    for _ in range(40):
        await asyncio.sleep(0.25)
        assert first.advertiser.answered, "it answers all the time"
    ended = cluster.loop.time()
    await first.stop()  # the kernel stays as it is
    while first.advertiser.answered:  # noqa: ASYNC110
        await asyncio.sleep(0.05)
    assert cluster.loop.time() - ended <= RENEW_DEADLINE_SECONDS
    assert first.advertiser.advertised and await cluster.holder() == first.name, "and nobody else does yet"
    await asyncio.sleep(TAKE_OVER_SECONDS)
    assert len(cluster.advertisers()) == 2 and cluster.conflicts == []
    await cluster.end()


@virtual
async def test_a_kernel_answers_all_the_time_while_an_agent_starts_again_within_its_term() -> None:
    cluster, first = await settled()
    for _ in range(3):
        await first.stop()
        await asyncio.sleep(RENEW_SECONDS)
        assert first.advertiser.answered
        first.start()
        for _ in range(12):
            await asyncio.sleep(0.25)
            assert first.advertiser.answered
    assert cluster.advertisers() == [first.name] and cluster.conflicts == []
    await cluster.end()


@pytest.mark.parametrize("fault", FAULTS)
@virtual
async def test_a_holder_that_cannot_renew_withdraws_before_another_node_advertises(fault: str) -> None:
    cluster, first = await settled(PATH, OTHER)
    first.fault, began = fault, cluster.loop.time()
    while first.advertiser.advertised:  # noqa: ASYNC110
        await asyncio.sleep(0.05)
    assert await cluster.holder() == first.name, "no other node acquired it before"
    assert cluster.loop.time() - began <= RENEW_DEADLINE_SECONDS + WITHDRAW_SECONDS + 0.05
    # Renewals may arrive that the node does not know of.
    late = 0.0 if fault in ("refused", "lost") else LATE_SECONDS + REQUEST_TIMEOUT_SECONDS
    await asyncio.sleep(late + TAKE_OVER_SECONDS)
    assert first.advertiser.advertised == {}
    assert len(cluster.advertisers()) == len(cluster.advertisers(OTHER)) == 1
    cluster.heal()
    await asyncio.sleep(TAKE_OVER_SECONDS)
    assert cluster.advertisers() == [await cluster.holder()]
    await cluster.end()


@virtual
async def test_a_node_that_reconnects_relies_on_no_lease_of_a_former_term() -> None:
    cluster, first = await settled()
    first.fault = "lost"
    await asyncio.sleep(10)
    (second,) = cluster.advertisers()
    first.watch_is_cut, first.fault = True, ""  # it can write, and does not know that another node is the holder
    await asyncio.sleep(10)
    assert cluster.advertisers() == [second]
    cluster.heal()
    await asyncio.sleep(2)
    assert cluster.advertisers() == [second]
    await cluster.end()


@virtual
async def test_a_node_that_reconnects_before_another_one_acquired_the_lease_acquires_it_again() -> None:
    cluster, first = await settled()
    for machine in cluster.machines.values():
        machine.fault = "lost"
    await asyncio.sleep(10)
    assert cluster.advertisers() == []
    first.fault = ""
    first.deliver()
    await asyncio.sleep(REQUEST_TIMEOUT_SECONDS + RENEW_SECONDS)
    assert cluster.advertisers() == [first.name]
    cluster.heal()
    await asyncio.sleep(10)
    assert cluster.advertisers() == [first.name]
    await cluster.end()


@virtual
async def test_a_live_node_that_cannot_write_the_lease_again_loses_it_to_others() -> None:
    cluster, first = await settled()
    for machine in cluster.machines.values():
        machine.fault = "lost"
    await asyncio.sleep(10)
    cluster.heal()
    first.fault = "only heartbeats"
    await asyncio.sleep(TAKE_OVER_SECONDS + RENEW_SECONDS + REQUEST_TIMEOUT_SECONDS)
    assert cluster.advertisers() == [await cluster.holder()] != [first.name]
    await cluster.end()


@virtual
async def test_a_node_whose_watch_lags_acquires_nothing_from_a_live_holder() -> None:
    cluster, first = await settled()
    others = [machine for machine in cluster.machines.values() if machine is not first]
    for machine in others:
        machine.watch_is_cut = True
    await asyncio.sleep(20)
    assert cluster.advertisers() == [first.name]
    assert any(machine.requests for machine in others), "they read its heartbeat"
    await cluster.end()


@virtual
async def test_a_heartbeat_lease_that_somebody_deleted_is_created_again_without_a_gap() -> None:
    cluster, first = await settled()
    for _ in range(5):
        await cluster.api(
            "DELETE", f"/apis/coordination.k8s.io/v1/namespaces/{NODE_NAMESPACE}/leases/load-balancers-{first.name}"
        )
        await asyncio.sleep(2.2)
        assert cluster.advertisers() == [first.name]
    assert first.name in {node_of(lease) for lease in (await cluster.leases()).values()}
    assert first.advertiser.announced[PATH] == 3
    await cluster.end()


@virtual
async def test_a_holder_that_is_not_eligible_any_more_releases_the_lease_at_once() -> None:
    cluster, first = await settled()
    first.exclude()
    await asyncio.sleep(WITHDRAW_SECONDS + MAX_CANDIDATE_DELAY_SECONDS + 4 * WATCH_SECONDS)
    assert cluster.advertisers() == [await cluster.holder()] != [first.name]
    cluster.clear_requests()
    await asyncio.sleep(10)
    assert not first.requests, "a node that holds nothing writes nothing"
    await cluster.end()


@virtual
async def test_with_policy_local_only_nodes_with_endpoints_are_eligible_and_terminating_ones_come_last() -> None:
    cluster = await Cluster(external_traffic_policy="Local").begin(PATH)
    await asyncio.sleep(1)
    assert cluster.advertisers() == []
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
        assert cluster.advertisers() == [home]
    await cluster.end()


@virtual
async def test_a_restarted_agent_continues_its_term_without_a_write_of_the_services_lease() -> None:
    cluster, first = await settled()
    await asyncio.sleep(RENEW_SECONDS * 0.9)
    before = (await cluster.leases())["default/load-balancer-web"]
    await first.restart()
    assert cluster.advertisers() == [first.name]
    await asyncio.sleep(10)
    assert cluster.advertisers() == [first.name]
    assert (await cluster.leases())["default/load-balancer-web"] == before
    await cluster.end()


@virtual
async def test_an_agent_that_starts_after_its_term_expired_acquires_the_lease_again_first() -> None:
    cluster, first = await settled()
    for machine in cluster.machines.values():
        machine.fault = "lost"
    await first.stop()
    await asyncio.sleep(RENEW_DEADLINE_SECONDS)
    first.start()
    await asyncio.sleep(5)
    assert cluster.advertisers() == []
    first.fault = ""
    await asyncio.sleep(REQUEST_TIMEOUT_SECONDS)
    assert cluster.advertisers() == [first.name]
    cluster.heal()
    await cluster.end()


@virtual
async def test_an_agent_that_restarts_without_the_api_does_not_prolong_its_term() -> None:
    cluster, first = await settled()
    first.fault = "lost"
    await asyncio.sleep(1)
    await first.restart()
    await asyncio.sleep(TAKE_OVER_SECONDS)
    (second,) = cluster.advertisers()
    await first.restart()
    assert cluster.advertisers() == [second] != [first.name]
    await cluster.end()


@virtual
async def test_when_the_service_goes_nothing_is_advertised_remembered_or_written() -> None:
    cluster, _ = await settled(PATH, OTHER)
    for path in (PATH, OTHER):
        await cluster.remove(path)
    await asyncio.sleep(5)
    assert cluster.held == {}
    assert all(node_of(lease) for lease in (await cluster.leases()).values()), "the Leases go with their Services"
    cluster.clear_requests()
    await asyncio.sleep(100)
    assert cluster.writes == []
    for machine in cluster.machines.values():
        election = machine.election
        assert not (election._candidacies or election._due or election._acquiring or election._held or election._advertised)
        assert await election.turn() is None
    await cluster.end()


@virtual
async def test_a_hundred_idle_load_balancers_cost_no_more_writes_than_one() -> None:
    costs = []
    for count in (0, 1, 100):
        cluster = await Cluster().begin(*(f"default/s{n}" for n in range(count)))
        await asyncio.sleep(5)
        assert len(cluster.held) == count
        cluster.clear_requests()
        await asyncio.sleep(20 * RENEW_SECONDS)
        holders = len(set(cluster.held.values()))
        costs.append((len(cluster.writes), holders))
        await cluster.end()
    none, one, hundred = costs
    assert none == (0, 0)
    assert one[1] == 1 and 19 <= one[0] <= 21
    assert hundred[1] == 3 and hundred[0] <= 3 * one[0] + 3, "one a second for each node that holds some"


@virtual
async def test_with_many_load_balancers_and_a_slow_api_no_holder_changes() -> None:
    cluster = Cluster()
    cluster.answer_seconds = 0.02
    await cluster.begin(*(f"default/s{n}" for n in range(150)))
    await asyncio.sleep(20)
    before = cluster.held
    assert len(before) == 150
    announced = {name: machine.advertiser.announced.copy() for name, machine in cluster.machines.items()}
    await asyncio.sleep(20)
    assert cluster.held == before
    assert {name: machine.advertiser.announced for name, machine in cluster.machines.items()} == announced
    victim = cluster.machines[NAMES[0]]
    victim.fault = "lost"
    await asyncio.sleep(TAKE_OVER_SECONDS + 150 * 2 * cluster.answer_seconds)
    assert len(cluster.held) == 150 and not victim.advertiser.advertised
    stayed = {path: name for path, name in cluster.held.items() if before[path] != victim.name}
    assert stayed.items() <= before.items()
    await cluster.end()


@virtual
async def test_new_addresses_of_a_service_are_announced() -> None:
    cluster, first = await settled()
    await asyncio.sleep(5)
    before = first.advertiser.announced[PATH]
    cluster.change(PATH, "192.0.2.9")
    await asyncio.sleep(5)
    assert cluster.advertisers() == [first.name]
    assert first.advertiser.announced[PATH] == before + 3
    await cluster.end()


@virtual
async def test_a_lease_that_a_node_wrote_counts_before_its_watch_has_it() -> None:
    cluster = Cluster()
    for machine in cluster.machines.values():
        machine.watch_is_cut = machine.name != "node2"
    await cluster.begin(PATH)
    only = cluster.machines["node2"]
    await asyncio.sleep(0.1)
    only.watch_is_cut = True
    await asyncio.sleep(10)
    assert cluster.advertisers() == ["node2"]
    assert only.advertiser.announced[PATH] == 3, "it did not withdraw in between"
    cluster.heal()  # its watch delivers old versions now
    await asyncio.sleep(5)
    assert cluster.advertisers() == ["node2"] and only.advertiser.announced[PATH] == 3
    await cluster.end()


@virtual
async def test_of_candidates_that_write_at_once_one_becomes_the_holder() -> None:
    cluster = Cluster()
    cluster.answer_seconds = 0.3
    await cluster.begin(*(f"default/s{n}" for n in range(2 * MAX_REQUESTS)))
    for _ in range(5):
        await asyncio.sleep(10)
        cluster.answer_seconds = 0.3 if cluster.answer_seconds < 0.1 else 0.02
    assert len(cluster.held) == 2 * MAX_REQUESTS
    await cluster.end()


@virtual
async def test_a_wall_clock_that_is_set_back_prolongs_no_term() -> None:
    cluster = await Cluster().begin(PATH)
    await asyncio.sleep(5)
    (holder,) = cluster.advertisers(PATH)
    machine = cluster.machines[holder]
    machine.fault = "refused"
    await asyncio.sleep(1.5)
    await machine.stop()
    await asyncio.sleep(1.5)
    machine.skew -= 2.0
    machine.start()
    assert not machine.advertiser.advertised, "its term expired, whatever the wall clock says"
    machine.fault = ""
    await asyncio.sleep(2 * TAKE_OVER_SECONDS)
    assert cluster.advertisers(PATH) == [await cluster.holder(PATH)]
    await cluster.end()


async def move(cluster: Cluster, name: str, what: str) -> None:
    """Something happens to a node, or to a Service."""
    machine = cluster.machines[name]
    match what:
        case "heal":
            machine.fault, machine.watch_is_cut = "", False
            machine.deliver()
        case "cut watch":
            machine.watch_is_cut = True
        case "restart":
            await machine.restart()
        case "clock back" | "clock on":
            machine.skew += -2.0 if what == "clock back" else 86400.0
        case "exclude" | "include":
            machine.exclude(is_excluded=what == "exclude")
        case "come" if OTHER not in cluster.services:
            await cluster.add(OTHER)
        case "go" if OTHER in cluster.services:
            await cluster.remove(OTHER)
        case "delete heartbeat":
            path = f"/apis/coordination.k8s.io/v1/namespaces/{NODE_NAMESPACE}/leases/load-balancers-{name}"
            await cluster.api.answer("DELETE", path)
        case _ if what in FAULTS:
            machine.fault = what


@settings(max_examples=60, deadline=None)
@given(st.lists(moves, max_size=30))
def test_never_two_nodes_advertise_and_in_the_end_one_does(steps: list[tuple[str, str, float]]) -> None:
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
            assert cluster.advertisers(path) == [await cluster.holder(path)]
        assert cluster.advertisers(OTHER) == [] or OTHER in cluster.services
        await cluster.end()

    scenario()
