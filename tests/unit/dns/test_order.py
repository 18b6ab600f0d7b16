"""The order of addresses."""

from __future__ import annotations

from podplane.dns import message as m
from podplane.dns.message import Answer, Record
from podplane.dns.order import rotated

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
