"""What is counted of answers: by kind, per lane, with a bound."""

from __future__ import annotations

import pytest

from podplane.dns import message as m
from podplane.servers import dns_counts
from podplane.servers.dns_counts import Counts, Kind
from podplane.servers.durations import Durations


def response(type_: int, rcode: int = 0, *, edns: int | None = None, more: int = 0) -> bytes:
    opt = b"" if edns is None else b"\0" + m.RECORD.pack(m.OPT, 1232, edns << 24, 0)
    head = m.HEADER.pack(1, m.QR | rcode, 1, 0, 0, edns is not None)
    return head + b"\x03web\x04test\0" + m.TAIL.pack(type_, 1) + bytes(more) + opt


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (response(m.A), Kind("A", "NOERROR", 100, 100)),
        (response(m.AAAA, m.NXDOMAIN), Kind("AAAA", "NXDOMAIN", 100, 100)),
        (response(m.SRV, more=300), Kind("SRV", "NOERROR", 100, 400)),
        (response(m.A, edns=1), Kind("A", "BADVERS", 100, 100)),
        (response(m.A, edns=0, more=2000), Kind("A", "NOERROR", 100, 2047)),
        (response(9999), Kind("other", "NOERROR", 100, 100)),
        (response(m.A, 11), Kind("A", "other", 100, 100)),
        (response(m.A, more=65_000), Kind("A", "NOERROR", 100, 65535)),
        (m.HEADER.pack(1, m.QR | m.FORMERR, 0, 0, 0, 0), Kind("", "FORMERR", 100, 100)),
    ],
)
def test_the_kind_of_a_response(data: bytes, kind: Kind) -> None:
    counts = Counts()
    number = counts.kind(40, data)
    assert counts.kinds[number] == kind and counts.kind(99, data) == number


def test_a_longer_request_is_another_kind() -> None:
    counts = Counts()
    assert counts.kind(40, response(m.A)) != counts.kind(101, response(m.A))


def test_a_lane_is_told_by_kind() -> None:
    counts = Counts()
    lane = counts.lane("node1", "udp", 4)
    assert counts.lane("node1", "udp", 4) is lane is not counts.lane("node1", "udp", 6)
    for _ in range(3):
        lane.by_kind[counts.kind(40, response(m.A))] += 1
    assert counts.of(lane) == {Kind("A", "NOERROR", 100, 100): 3}
    counts.forget("node1")
    assert not counts.lanes


def test_kinds_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dns_counts, "KINDS", 3)
    counts = Counts()
    assert [counts.kind(40, response(type_)) for type_ in (m.A, m.AAAA, m.SRV, m.PTR, m.A)] == [1, 2, 0, 0, 1]


def test_durations_of_a_batch_are_as_those_of_each() -> None:
    one, many = Durations(dns_counts.DURATIONS), Durations(dns_counts.DURATIONS)
    for _ in range(5):
        one.add(0.0003)
    many.add(0.0003, 5)
    assert one.cumulative() == many.cumulative() and many.count == 5
    assert one.total == pytest.approx(many.total)


def test_what_is_known_by_heart_is_bounded_and_changes_no_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dns_counts, "KNOWN", 3)
    counts = Counts()
    first = [counts.kind(size, response(m.A, more=size)) for size in range(0, 1200, 100)]
    assert [counts.kind(size, response(m.A, more=size)) for size in range(0, 1200, 100)] == first
    assert len(counts._known) <= 3 and len(set(first)) > 3
