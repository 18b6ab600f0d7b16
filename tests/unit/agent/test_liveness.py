"""The lease term of a node by what it sent, and the heartbeats of its peers by what it saw and read."""

from __future__ import annotations

import pytest

from podplane.agent.candidacy import Holder, Step, decide
from podplane.agent.leases import DURATION_SECONDS, RENEWED
from podplane.agent.liveness import KEEP_SECONDS, RENEW_DEADLINE_SECONDS, RENEW_SECONDS, LeaseTerm, Moment, PeerHeartbeats
from podplane.model.lease import Lease, LeaseMetadata, LeaseSpec


class Clock:
    seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


def lease(version: int, uid: str = "a") -> Lease:
    return Lease(LeaseMetadata(name="load-balancers-node1", uid=uid, resource_version=str(version)))


def test_a_term_expires_counted_from_before_the_renewal_was_sent() -> None:
    term = LeaseTerm()
    assert term.is_expired(0.0)
    term.begin_renewal(10.0, "first")
    assert term.renewed(10.9), "it begins"
    assert not term.is_expired(10.0 + RENEW_DEADLINE_SECONDS - 0.01) and term.is_expired(10.0 + RENEW_DEADLINE_SECONDS)
    assert term.begin_renewal(11.0, "second") == "first"
    assert not term.renewed(12.0)
    assert not term.is_expired(11.0 + RENEW_DEADLINE_SECONDS - 0.01) and term.renew_at == 11.0 + RENEW_SECONDS


def test_a_renewal_that_was_answered_after_its_term_expired_is_void() -> None:
    term = LeaseTerm()
    term.begin_renewal(10.0, "first")
    term.renewed(10.0)
    term.begin_renewal(12.0, "second")
    assert not term.renewed(10.0 + RENEW_DEADLINE_SECONDS)
    assert term.is_expired(10.0 + RENEW_DEADLINE_SECONDS) and term.renew_at == 10.0 + RENEW_DEADLINE_SECONDS
    assert term.begin_renewal(12.6, "third") == "third"
    assert term.renewed(12.7)


@pytest.mark.parametrize(("age", "continues"), [(0.0, True), (2.4, True), (2.6, False), (-1.0, False), (86400.0, False)])
def test_a_new_agent_continues_a_term_that_is_not_expired_by_the_clock_of_its_machine(age: float, continues: bool) -> None:
    term, renewed = LeaseTerm(), str(Moment("this", 100.0 - age))
    metadata = LeaseMetadata(annotations={RENEWED: renewed})
    found = Lease(metadata, LeaseSpec(acquire_time="long ago", renew_time="9999-01-01T00:00:00Z"))
    assert term.resume(found, Moment("this", 100.0)) is continues
    if continues:
        assert term.name == "long ago"
        assert not term.is_expired(100.0 + 2.4 - age) and term.is_expired(100.1 + 2.5 - age)
    assert not LeaseTerm().resume(found, Moment("after a reboot", 100.0))


@pytest.mark.parametrize("said", ["", "this", "this x", "this nan", "100.0", "this 1e999"])
def test_a_renewal_whose_time_makes_no_sense_is_not_continued(said: str) -> None:
    found = Lease(LeaseMetadata(annotations={RENEWED: said}), LeaseSpec(renew_time="2026-01-01T00:00:00Z"))
    assert not LeaseTerm().resume(found, Moment("this", 100.0)) and not LeaseTerm().resume(Lease(), Moment("this", 100.0))


def test_a_term_is_expired_when_the_api_has_no_newer_heartbeat_after_three_seconds() -> None:
    clock = Clock()
    heartbeats = PeerHeartbeats(clock)
    heartbeats.observe("node1", lease(5))
    heartbeats.observe("node1", lease(4))
    assert heartbeats.suspected_at("node1") == 100.0 + DURATION_SECONDS and heartbeats.lease("node1") == lease(5)
    clock.seconds = 102.0
    heartbeats.confirm("node1", lease(5))
    assert not heartbeats.is_expired("node1"), "too soon"
    clock.seconds = 104.0
    heartbeats.confirm("node1", lease(4))
    assert not heartbeats.is_expired("node1"), "an old answer proves nothing"
    heartbeats.confirm("node1", lease(7))
    assert heartbeats.suspected_at("node1") == 104.0 + DURATION_SECONDS, "the watch lags"
    clock.seconds = 107.5
    heartbeats.confirm("node1", lease(7))
    assert heartbeats.is_expired("node1")
    heartbeats.observe("node1", lease(8))
    assert not heartbeats.is_expired("node1")


def test_a_deleted_lease_is_neither_a_heartbeat_nor_a_proof() -> None:
    clock = Clock()
    heartbeats = PeerHeartbeats(clock)
    heartbeats.observe("node1", lease(5))
    clock.seconds = 102.0
    heartbeats.deleted("node1", lease(3, "an older one"))
    assert heartbeats.lease("node1") == lease(5)
    heartbeats.deleted("node1", lease(5))
    assert heartbeats.lease("node1") is None and heartbeats.suspected_at("node1") == 100.0 + DURATION_SECONDS
    clock.seconds = 103.5
    heartbeats.confirm("node1", None)
    assert heartbeats.is_expired("node1")
    heartbeats.observe("node1", lease(6, "b"))
    clock.seconds = 107.0
    heartbeats.confirm("node1", None)
    assert not heartbeats.is_expired("node1") and heartbeats.suspected_at("node1") == 107.0 + DURATION_SECONDS, (
        "when it went is not known"
    )


def test_a_node_without_a_heartbeat_is_given_the_lease_duration_and_dropped_later() -> None:
    clock = Clock()
    heartbeats = PeerHeartbeats(clock)
    assert heartbeats.suspected_at("node1") == 100.0 + DURATION_SECONDS
    clock.seconds += 2 * KEEP_SECONDS
    heartbeats.suspected_at("node2")
    assert set(heartbeats._heartbeats) == {"node2"}


@pytest.mark.parametrize("holder", Holder)
def test_a_node_that_is_not_eligible_releases_and_acquires_nothing(holder: Holder) -> None:
    own = holder in (Holder.SELF, Holder.SELF_FORMER_TERM)
    assert decide(holder, eligible=False) is (Step.RELEASE if own else Step.WAIT)
    assert (decide(holder, eligible=True) is Step.ADVERTISE) == (holder is Holder.SELF)
