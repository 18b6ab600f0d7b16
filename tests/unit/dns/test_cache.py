"""The cache of other servers' answers: never older than it may be, never of another key, never larger than it may be."""

from __future__ import annotations

from dataclasses import dataclass

import dns.message
import dns.rrset
import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from podplane.dns import config, responses
from podplane.dns import message as m
from podplane.dns.asking import Ask
from podplane.dns.cache import OVERHEAD_BYTES, STALE_TTL, TTL_BYTES, Cache, Found
from podplane.dns.message import Question
from podplane.dns.responses import Reply


def reply(name: str = "a.example", ttl: int = 60, number: int = 1, *, exists: bool = True) -> Reply:
    """An answer with an address that tells it apart, or one that there is none; as long-lived as it says."""
    response = dns.message.make_response(dns.message.make_query(name, "A"))
    if exists:
        response.answer = [dns.rrset.from_text(f"{name}.", ttl, "IN", "A", f"192.0.{number // 256}.{number % 256}")]
    else:
        response.authority = [
            dns.rrset.from_text("example.", ttl, "IN", "SOA", f"ns.example. host.example. {number} 1 1 1 {ttl}")
        ]
    return responses.read(response.to_wire(), m.asked_of(Question(m.name_of(name), m.A)))


def key(name: str = "a.example", type_: int = m.A, flags: int = m.RD, dnssec: bool = False) -> Ask:
    return Ask(m.asked_of(Question(m.name_of(name), type_)), flags, dnssec)


def ttl(found: Found | None) -> int:
    assert found is not None
    answer, authority = responses.records(found.message)
    return (*answer, *authority)[0].ttl


def cache(**settings: object) -> Cache:
    return Cache(config.Cache(**settings))  # type: ignore[arg-type]


def test_an_answer_is_kept_as_long_as_it_is_true_and_its_ttl_counts_down() -> None:
    kept = cache()
    assert kept.get(key(), 100.0) is None
    kept.put(key(), reply(), 100.0)
    assert [ttl(kept.get(key(), now)) for now in (100.0, 100.4, 101.0, 159.0, 159.9)] == [60, 60, 59, 1, 0]
    assert kept.get(key(), 160.0) is None
    assert (kept.counts.hits, kept.counts.misses) == ({"success": 5, "denial": 0}, 2)


def test_where_the_aliases_of_an_answer_are_is_known_as_long_as_it_is_kept() -> None:
    kept, aliases = cache(), (m.Alias(1, 41),)
    kept.put(key(), msgspec.structs.replace(reply(), aliases=aliases), 100.0)
    assert [one and one.aliases for one in (kept.get(key(), 130.0), kept.stale(key(), 200.0))] == [aliases, aliases]


def test_an_answer_says_how_long_it_may_be_given_as_it_is() -> None:
    kept = cache()
    kept.put(key(), reply(ttl=2), 100.0)
    assert [kept.get(key(), now).seconds for now in (100.0, 101.0, 101.5)] == [1.0, 1.0, 0.5]  # type: ignore[union-attr]


def test_what_is_given_as_it_is_for_seconds_has_so_much_less_of_a_ttl() -> None:
    kept = cache()
    kept.put(key(), reply(ttl=900), 100.0)
    found = [kept.get(key(), now) for now in (100.0, 500.0, 700.0, 970.0)]
    assert [(one.seconds, ttl(one)) for one in found if one] == [(10.0, 890), (8.0, 492), (5.0, 295), (1.0, 30)]


def test_that_there_is_nothing_is_kept_too() -> None:
    kept = cache()
    kept.put(key(), reply(ttl=30, exists=False), 100.0)
    assert ttl(kept.get(key(), 110.0)) == 20
    assert kept.get(key(), 130.0) is None
    assert (kept.counts.hits["denial"], kept.counts.entries) == (1, {"success": 0, "denial": 1})


@pytest.mark.parametrize("other", [key("b.example"), key(type_=m.AAAA), key(flags=m.RD | m.CD), key(flags=0), key(dnssec=True)])
def test_another_key_has_another_answer(other: Ask) -> None:
    kept = cache()
    kept.put(key(), reply(), 100.0)
    assert kept.get(other, 100.0) is None
    assert kept.stale(other, 100.0) is None


def test_what_may_not_be_kept_takes_no_place_and_leaves_what_there_is() -> None:
    kept = cache()
    kept.put(key(), reply(), 100.0)
    kept.put(key(), reply(ttl=0), 200.0)
    assert (len(kept), kept.get(key(), 200.0)) == (1, None)
    assert ttl(kept.stale(key(), 200.0)) == STALE_TTL


def test_an_answer_that_is_too_old_is_there_for_the_time_that_was_set() -> None:
    kept = cache(stale_seconds=100)
    kept.put(key(), reply(), 0.0)
    assert kept.has_stale(key(), 159.0)
    assert ttl(kept.stale(key(), 159.0)) == STALE_TTL
    assert (kept.stale(key(), 160.0), kept.has_stale(key(), 160.0), kept.counts.stale) == (None, False, 1)
    never = cache(stale_seconds=0)
    never.put(key(), reply(), 0.0)
    assert not never.has_stale(key(), 60.0)


def test_after_a_change_of_servers_answers_are_for_need_only() -> None:
    kept = cache()
    kept.put(key(), reply(), 0.0)
    kept.expire()
    assert (kept.get(key(), 1.0), kept.has_stale(key(), 1.0)) == (None, True)
    kept.clear()
    assert (len(kept), kept.bytes, kept.has_stale(key(), 1.0), kept.counts.entries["success"]) == (0, 0, False, 0)


def test_what_many_want_is_asked_for_again_once_before_its_time_is_over() -> None:
    kept = cache()
    kept.put(key(), reply(), 0.0)
    assert not any(found.refresh for now in (0, 1, 2, 53.9) if (found := kept.get(key(), now)))
    assert [found.refresh for now in (54.1, 55, 59) if (found := kept.get(key(), now))] == [True, False, False]
    kept.put(key("b.example"), reply("b.example"), 0.0)
    assert [found.refresh for now in (58, 59) if (found := kept.get(key("b.example"), now))] == [False, False]
    off = cache(prefetch=False)
    off.put(key(), reply(), 0.0)
    assert not any(found.refresh for now in range(60) if (found := off.get(key(), now)))


def test_what_was_not_asked_for_longest_goes_first() -> None:
    one = OVERHEAD_BYTES + TTL_BYTES + len(reply().message) + len(key().asked)
    kept = cache(bytes=3 * one)
    for name in ("a.example", "b.example", "c.example"):
        kept.put(key(name), reply(name), 0.0)
    kept.get(key("a.example"), 1.0)
    kept.put(key("d.example"), reply("d.example"), 2.0)
    assert [name for name in "abcd" if kept.get(key(f"{name}.example"), 3.0)] == ["a", "c", "d"]
    assert kept.counts.evictions["success"] == 1
    kept.configure(config.Cache(bytes=one))
    assert (len(kept), kept.bytes) == (1, one)
    kept.configure(config.Cache(bytes=0))
    assert (len(kept), kept.bytes) == (0, 0)


KEYS = [key(), key("b.example"), key(type_=m.AAAA), key(dnssec=True), key(flags=m.RD | m.CD)]


@dataclass
class Truth:
    """The last answer that was given for a key."""

    number: int
    stored: float
    ttl: int


class CacheLaw(RuleBasedStateMachine):
    """Whatever is put and asked for in whatever order: an answer is that of its own key, the last one, and as old as its TTL says."""

    def __init__(self) -> None:
        super().__init__()
        self.cache = cache(bytes=3 * (OVERHEAD_BYTES + 140), stale_seconds=50)
        self.now = 0.0
        self.truth: dict[Ask, Truth] = {}
        self.number = 0

    @rule(seconds=st.floats(0, 40))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(which=st.sampled_from(KEYS), ttl=st.integers(1, 60) | st.integers(60, 1000))
    def put(self, which: Ask, ttl: int) -> None:
        self.number += 1
        self.truth[which] = Truth(self.number, self.now, ttl)
        self.cache.put(which, reply(ttl=ttl, number=self.number), self.now)

    @rule(which=st.sampled_from(KEYS))
    def get(self, which: Ask) -> None:
        found = self.cache.get(which, self.now)
        if found is not None:
            truth = self.truth[which]
            assert self.now < truth.stored + truth.ttl
            left = truth.stored + truth.ttl - self.now
            lead = found.seconds if found.seconds > 1 else 0
            assert ttl(found) == truth.ttl - int(self.now - truth.stored + 0.5) - lead >= 0
            assert 0 < found.seconds <= max(1, left / 60)
            assert self._number(found) == truth.number

    @rule(which=st.sampled_from(KEYS))
    def stale(self, which: Ask) -> None:
        found = self.cache.stale(which, self.now)
        if found is not None:
            truth = self.truth[which]
            assert self.now < truth.stored + truth.ttl + 50
            assert (ttl(found), self._number(found)) == (STALE_TTL, truth.number)

    @invariant()
    def it_is_bounded(self) -> None:
        assert self.cache.bytes <= 3 * (OVERHEAD_BYTES + 140)
        assert len(self.cache) <= 3
        assert sum(self.cache.counts.entries.values()) == len(self.cache)

    @staticmethod
    def _number(found: Found) -> int:
        data = responses.records(found.message)[0][0].data
        return data[2] * 256 + data[3]


CacheLaw.TestCase.settings = settings(max_examples=30, stateful_step_count=30, deadline=None)
test_the_law_of_the_cache = CacheLaw.TestCase
