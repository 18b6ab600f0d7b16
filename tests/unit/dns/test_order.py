"""The order of addresses."""

from __future__ import annotations

import pytest

from podplane.dns import message as m
from podplane.dns.message import Answer, Record
from podplane.dns.order import rotated, turned

WEB, DB = (b"web",), (b"db",)
ALIAS = Record(WEB, m.CNAME, 5, m.written(DB))
ADDRESSES = tuple(Record(DB, m.A, 5, bytes((10, 0, 0, n))) for n in range(3))


def last(count: int) -> int:
    return count - 1


def test_addresses_are_turned_and_aliases_stay_before_them() -> None:
    answer = Answer(records=(ALIAS, *ADDRESSES), depends=("service/a/db",))
    found = rotated(answer, last)
    assert found.records == (ALIAS, ADDRESSES[2], ADDRESSES[0], ADDRESSES[1])
    assert (found.depends, found.lifetime) == (answer.depends, 1.0), "it is kept for a second"
    assert rotated(answer, lambda count: 0).records == answer.records


def test_what_has_one_address_is_kept_as_it_is() -> None:
    for records in ((), ADDRESSES[:1], (ALIAS, ADDRESSES[0])):
        answer = Answer(records=records, depends=("service/a/db",))
        assert rotated(answer, last) is answer


def test_what_is_not_kept_stays_so_and_what_is_kept_for_less_is_kept_for_less() -> None:
    assert rotated(Answer(records=ADDRESSES), last).lifetime is None
    assert rotated(Answer(records=ADDRESSES, lifetime=0.5), last).lifetime == 0.5
    assert rotated(Answer(records=ADDRESSES, lifetime=30.0), last).lifetime == 1.0


def response(name: bytes, *records: Record, edns: bool = True) -> bytes:
    """One that is kept: without its id."""
    query = m.Query(1, m.RD, m.asked_of(m.Question((name,), m.A)), m.Edns(1232) if edns else None)
    return m.respond(query, Answer(records=records, authority=(Record(WEB, m.NS, 5, m.written(DB)),)))[2:]


@pytest.mark.parametrize("edns", [True, False])
@pytest.mark.parametrize("before", [(), (ALIAS,)])
def test_a_kept_response_is_turned_by_one_and_all_else_stays(before: tuple[Record, ...], edns: bool) -> None:
    name = b"web" if before else b"db"
    a, b, c = ADDRESSES
    kept = response(name, *before, a, b, c, edns=edns)
    assert turned(kept) == response(name, *before, b, c, a, edns=edns)
    assert turned(turned(turned(kept))) == kept


def test_a_response_with_nothing_to_turn_stays() -> None:
    for records in ((), (ADDRESSES[0],), (ALIAS,), (ALIAS, ADDRESSES[0])):
        kept = response(b"web", *records)
        assert turned(kept) == kept


def test_a_name_that_others_point_to_stays_where_it_is() -> None:
    kept = response(b"other", *ADDRESSES)  # the owner's name is written in the first record
    assert turned(kept) == kept
