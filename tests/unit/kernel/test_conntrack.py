"""What is asked of a long table of connections, and what is parsed of the answer: only what concerns somebody."""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podplane.kernel import conntrack as c
from podplane.kernel.conntrack import LAYOUTS, Conntrack
from podplane.kernel.netlink import Message, Refusal, attribute, nested, parse_attributes
from podplane.state.conntrack import JUDGE_AGAIN, REVOKED, Frontend, Revoked, Sent, Target, TrackedFlow
from podplane.state.value import IPAddress

Ends = tuple[IPAddress, IPAddress, int, int]
TCP, UDP = 6, 17


def tuple_of(ends: Ends, number: int = UDP) -> tuple[bytes, bytes]:
    """A tuple as the kernel tells it."""
    source, destination, source_port, port = ends
    kinds = (c.V4_SOURCE, c.V4_DESTINATION) if source.version == 4 else (c.V6_SOURCE, c.V6_DESTINATION)
    ips = (attribute(kind, ip.packed) for kind, ip in zip(kinds, (source, destination), strict=True))
    ports = (struct.pack(">H", one) for one in (source_port, port))
    numbers = (attribute(kind, one) for kind, one in zip((c.PROTO_SOURCE_PORT, c.PROTO_DESTINATION_PORT), ports, strict=True))
    return nested(c.TUPLE_IP, *ips), nested(c.TUPLE_PROTO, attribute(c.PROTO_NUMBER, bytes((number,))), *numbers)


def entry(ends: Ends, answering: tuple[IPAddress, int] | None = None) -> bytes:
    """A tracked connection, answered by who was asked, or by another one."""
    source, destination, source_port, port = ends
    ip, number = answering or (destination, port)
    family = c.AF_INET if source.version == 4 else c.AF_INET6
    original, reply = tuple_of(ends), tuple_of((ip, source, number, source_port))
    status = attribute(c.STATUS, bytes(4))
    return c.GENERIC.pack(family, 0, 0) + nested(c.ORIGINAL, *original) + nested(c.REPLY, *reply) + status


class Table:
    """A socket that tells of these entries, and remembers what it was asked."""

    def __init__(self, *entries: bytes, count: int | None = None) -> None:
        self.entries = entries
        self.count = len(entries) if count is None else count
        self.asked: list[bytes] = []
        self.sent: list[Message] = []

    def ask(self, kind: int, payload: bytes) -> bytes:
        return c.GENERIC.pack(0, 0, 0) + attribute(c.STATS_ENTRIES, struct.pack(">I", self.count))

    def dump(self, kind: int, payload: bytes) -> list[tuple[int, bytes]]:
        self.asked.append(payload)
        return [(c.GET, one) for one in self.entries]

    def request(self, batch: Sequence[Message]) -> list[Refusal]:
        self.sent += batch
        return []


def table(*entries: bytes, count: int | None = None) -> tuple[Conntrack, Table]:
    socket = Table(*entries, count=count)
    return Conntrack(socket), socket  # type: ignore[arg-type]  # the part of a socket that it needs


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The entries that are parsed from now on."""
    found: list[bytes] = []

    def noted(data: bytes, offset: int = 0) -> dict[int, bytes]:
        if offset == c.GENERIC.size and len(data) > 50:
            found.append(data)
        return parse_attributes(data, offset)

    monkeypatch.setattr(c, "parse_attributes", noted)
    return found


ports = st.integers(1, 65535)
ends = st.one_of(st.tuples(*[st.ip_addresses(v=4)] * 2, ports, ports), st.tuples(*[st.ip_addresses(v=6)] * 2, ports, ports))


@given(ends, st.data())
def test_what_lies_where_is_what_a_parser_finds(one: Any, data: st.DataObject) -> None:
    source, destination, _, port = one
    answering = data.draw(st.tuples(st.ip_addresses(v=source.version), ports))
    content = entry(one, answering)
    layout = LAYOUTS[content[0]]
    assert layout.is_of(content)
    assert (content[layout.source], content[layout.destination]) == (source.packed, destination.packed)
    assert (int.from_bytes(content[layout.port], "big"), content[layout.answering]) == (port, answering[0].packed)
    assert content[8 : layout.end] == parse_attributes(content, c.GENERIC.size)[c.ORIGINAL]


def client(number: int) -> IPAddress:
    return ipaddress.ip_address(0x0A80_0000 + number)


SERVER = ipaddress.ip_address("10.200.0.1")
OTHER = ipaddress.ip_address("10.96.0.10")
ICMP = c.GENERIC.pack(c.AF_INET, 0, 0) + nested(
    c.ORIGINAL,
    nested(c.TUPLE_IP, attribute(c.V4_SOURCE, client(3).packed), attribute(c.V4_DESTINATION, SERVER.packed)),
    nested(c.TUPLE_PROTO, attribute(c.PROTO_NUMBER, b"\1")),
)


def test_of_many_connections_none_is_parsed_to_be_judged_again(parsed: list[bytes]) -> None:
    tracked, socket = table(*(entry((client(n), SERVER, 1024, 53)) for n in range(500)))
    assert tracked.judge_again({client(n) for n in range(400, 450)}) == 50
    assert tracked.judge_again({SERVER}) == 500, "who answers is concerned, too"
    assert parsed == [] and len(socket.asked) == 2


def test_one_that_is_laid_out_otherwise_is_parsed() -> None:
    assert table(ICMP)[0].judge_again({client(3)}) == 1
    assert table(ICMP)[0].judge_again({client(4)}) == 0


@pytest.mark.parametrize(
    ("count", "pods", "asked"), [(100_000, 1, 2), (100_000, 5, 10), (100_000, 6, 1), (500, 1, 1), (10**6, 40, 80)]
)
def test_the_kernel_is_asked_for_each_address_where_that_is_cheaper_than_to_be_told_all(
    count: int, pods: int, asked: int
) -> None:
    tracked, socket = table(entry((client(1), SERVER, 1024, 53)), count=count)
    assert tracked.judge_again({client(n) for n in range(1, pods + 1)}) == 1
    assert len(socket.asked) == asked


def test_addresses_of_ipv6_are_one_question_for_their_family() -> None:
    """The kernel inverts its filter by them."""
    ips = [ipaddress.ip_address(f"fd00::{n}") for n in (1, 2, 3)]
    tracked, socket = table(entry((ips[0], ips[1], 1, 2)), count=100_000)
    assert tracked.judge_again(ips) == 1
    assert socket.asked == [c.GENERIC.pack(c.AF_INET6, 0, 0)]


@pytest.mark.parametrize("others", [0, 20])
def test_connections_to_other_frontends_are_not_parsed_to_be_flushed(others: int, parsed: list[bytes]) -> None:
    """Whatever an old kernel tells that overlooks its filter."""
    here = Target(client(9), 53)
    stale, kept = entry((client(1), OTHER, 1024, 53)), entry((client(2), OTHER, 1024, 53), here)
    beside = [entry((client(n), SERVER, 1024, 53)) for n in range(200)]
    tracked, socket = table(*beside, stale, kept)
    allowed = {Frontend("udp", OTHER, 53): frozenset({here})} | {
        Frontend("udp", client(n), 1): frozenset() for n in range(others)
    }
    assert tracked.flush(allowed) == 1
    assert set(parsed) == {stale, kept}
    assert len(socket.sent) == 1 and parse_attributes(stale, 4)[c.ORIGINAL] in socket.sent[0].payload
    assert len(socket.asked) == 1


@pytest.mark.parametrize("version", [4, 6])
def test_revoked_are_those_of_tcp_that_have_the_mark_as_their_servers_see_them(version: int) -> None:
    """An older kernel tells of those without the mark, too."""
    net = "10.0.0." if version == 4 else "fd00::"
    asking, service, web = (ipaddress.ip_address(f"{net}{n}") for n in (1, 2, 3))
    ends = asking, service, 4000, 80
    family = c.AF_INET if version == 4 else c.AF_INET6

    def row(number: int, mark: int) -> bytes:
        reply = nested(c.REPLY, *tuple_of((web, asking, 8080, 4000), number))
        return (
            c.GENERIC.pack(family, 0, 0)
            + nested(c.ORIGINAL, *tuple_of(ends, number))
            + reply
            + attribute(c.MARK, struct.pack(">I", mark))
        )

    made, _ = table(row(TCP, REVOKED), row(TCP, JUDGE_AGAIN), row(TCP, 0), row(UDP, REVOKED | 1), entry(ends))
    assert made.revoked() == [Revoked(web, 8080, asking, 4000, Sent(asking, 4000, service, 80))]
    empty, there = table(count=0)
    assert empty.revoked() == [] and there.asked == []


def test_a_table_without_connections_is_not_gone_through() -> None:
    tracked, socket = table()
    assert tracked.flush({Frontend("udp", OTHER, 53): frozenset()}) == tracked.judge_again({OTHER}) == 0
    assert socket.asked == []


@given(ends, st.data())
def test_flows_are_from_a_client_to_who_answers_it(one: Any, data: st.DataObject) -> None:
    source = one[0]
    ip, port = data.draw(st.tuples(st.ip_addresses(v=source.version), ports))
    flow = TrackedFlow(source.packed, ip.packed, UDP, port)
    tracked, _ = table(entry(one, (ip, port)), entry((source, one[1], 7, one[3]), (ip, port)))
    assert tracked.flows({source}) == tracked.flows({ip}) == {flow}
    assert tracked.flows({client(1)} - {source, ip}) == set()


def test_flows_of_protocols_without_ports_and_none() -> None:
    reply = nested(
        c.REPLY,
        nested(c.TUPLE_IP, attribute(c.V4_SOURCE, SERVER.packed), attribute(c.V4_DESTINATION, client(3).packed)),
        nested(c.TUPLE_PROTO, attribute(c.PROTO_NUMBER, b"\1")),
    )
    tracked, _ = table(ICMP, ICMP + reply, c.GENERIC.pack(c.AF_INET, 0, 0))
    assert tracked.flows({SERVER}) == {TrackedFlow(client(3).packed, SERVER.packed, 1, 0)}
    empty, socket = table()
    assert empty.flows({SERVER}) == table(ICMP + reply)[0].flows(()) == set() and socket.asked == []
