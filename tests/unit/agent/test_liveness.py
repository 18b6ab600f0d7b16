"""Who lives, as a node may rely on it: its own life by what it sent, that of others by what it saw and asked."""

from __future__ import annotations

import datetime

import pytest

from podplane.agent.candidacy import Holder, Step, decide
from podplane.agent.leases import DURATION_SECONDS
from podplane.agent.liveness import FORGET_SECONDS, RENEW_SECONDS, SILENT_SECONDS, LeaseTerm, PeerHeartbeats
from podplane.model.lease import Lease, LeaseMetadata, LeaseSpec

WALL = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


class Clock:
    seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


def lease(version: int, uid: str = "a") -> Lease:
    return Lease(LeaseMetadata(name="load-balancers-node1", uid=uid, resource_version=str(version)))


def test_a_life_ends_counted_from_before_the_renewal_was_sent() -> None:
    life = LeaseTerm()
    assert life.is_over(0.0)
    life.begin_renewal(10.0, "first")
    assert life.renewed(10.9), "it begins"
    assert not life.is_over(10.0 + SILENT_SECONDS - 0.01) and life.is_over(10.0 + SILENT_SECONDS)
    assert life.begin_renewal(11.0, "second") == "first"
    assert not life.renewed(12.0)
    assert not life.is_over(11.0 + SILENT_SECONDS - 0.01) and life.renew_at == 11.0 + RENEW_SECONDS


def test_a_renewal_that_was_answered_after_the_end_continues_nothing() -> None:
    life = LeaseTerm()
    life.begin_renewal(10.0, "first")
    life.renewed(10.0)
    life.begin_renewal(12.0, "second")
    assert not life.renewed(10.0 + SILENT_SECONDS)
    assert life.is_over(10.0 + SILENT_SECONDS) and life.renew_at == 10.0 + SILENT_SECONDS
    assert life.begin_renewal(12.6, "third") == "third"
    assert life.renewed(12.7)


@pytest.mark.parametrize(("age", "goes_on"), [(0.0, True), (2.4, True), (2.6, False), (-1.0, False), (86400.0, False)])
def test_a_new_agent_goes_on_with_a_life_that_is_not_over_by_the_clock_of_its_machine(age: float, goes_on: bool) -> None:
    renewed = (WALL - datetime.timedelta(seconds=age)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    life = LeaseTerm()
    assert life.resume(Lease(spec=LeaseSpec(acquire_time="long ago", renew_time=renewed)), 100.0, WALL) is goes_on
    if goes_on:
        assert life.name == "long ago"
        assert not life.is_over(100.0 + 2.4 - age) and life.is_over(100.1 + 2.5 - age)
    assert not LeaseTerm().resume(Lease(), 100.0, WALL)


def test_a_node_is_dead_when_the_api_knows_no_newer_sign_after_three_seconds() -> None:
    clock = Clock()
    signs = PeerHeartbeats(clock)
    signs.seen("node1", lease(5))
    signs.seen("node1", lease(4))
    assert signs.silent_at("node1") == 100.0 + DURATION_SECONDS and signs.lease("node1") == lease(5)
    clock.seconds = 102.0
    signs.asked("node1", lease(5))
    assert not signs.is_dead("node1"), "too soon"
    clock.seconds = 104.0
    signs.asked("node1", lease(4))
    assert not signs.is_dead("node1"), "an old answer proves nothing"
    signs.asked("node1", lease(7))
    assert signs.silent_at("node1") == 104.0 + DURATION_SECONDS, "the watch lags"
    clock.seconds = 107.5
    signs.asked("node1", lease(7))
    assert signs.is_dead("node1")
    signs.seen("node1", lease(8))
    assert not signs.is_dead("node1")


def test_a_lease_that_is_gone_is_neither_a_sign_nor_a_proof() -> None:
    clock = Clock()
    signs = PeerHeartbeats(clock)
    signs.seen("node1", lease(5))
    clock.seconds = 102.0
    signs.gone("node1", lease(3, "an older one"))
    assert signs.lease("node1") == lease(5)
    signs.gone("node1", lease(5))
    assert signs.lease("node1") is None and signs.silent_at("node1") == 100.0 + DURATION_SECONDS
    clock.seconds = 103.5
    signs.asked("node1", None)
    assert signs.is_dead("node1")
    signs.seen("node1", lease(6, "b"))
    clock.seconds = 107.0
    signs.asked("node1", None)
    assert not signs.is_dead("node1") and signs.silent_at("node1") == 107.0 + DURATION_SECONDS, "when it went is not known"


def test_a_node_of_which_nothing_was_seen_is_given_the_time_and_forgotten_later() -> None:
    clock = Clock()
    signs = PeerHeartbeats(clock)
    assert signs.silent_at("node1") == 100.0 + DURATION_SECONDS
    clock.seconds += 2 * FORGET_SECONDS
    signs.silent_at("node2")
    assert set(signs._heartbeats) == {"node2"}


@pytest.mark.parametrize("holder", Holder)
def test_who_may_not_answer_holds_nothing_and_takes_nothing(holder: Holder) -> None:
    own = holder in (Holder.SELF, Holder.CONFIRMED)
    assert decide(holder, able=False) is (Step.GIVE_BACK if own else Step.WAIT)
    assert (decide(holder, able=True) is Step.ANSWER) == (holder is Holder.CONFIRMED)
