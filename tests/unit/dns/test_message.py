"""Messages: what dnspython writes is read, and what is written dnspython reads, with the same meaning."""

from __future__ import annotations

import struct

import dns.edns
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rrset
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from podplane.dns import message as m
from podplane.dns.message import Answer, Malformed, Name, Query, Record

LABEL = st.binary(min_size=1, max_size=63).map(bytes.lower)
SHORT = st.sampled_from((b"a", b"web", b"default", b"svc", b"cluster", b"local", b"_http", b"_tcp", b"\0", b"a.b"))
NAMES = st.lists(st.one_of(SHORT, LABEL), max_size=8).map(tuple).filter(m.fits)
FAMILY = st.lists(SHORT, max_size=6).map(tuple)
"""Names that have much in common."""
U16, U32 = st.integers(0, 0xFFFF), st.integers(0, 0xFFFFFFFF)
DATA = st.one_of(
    st.tuples(st.just(m.A), st.binary(min_size=4, max_size=4)),
    st.tuples(st.just(m.AAAA), st.binary(min_size=16, max_size=16)),
    st.tuples(st.sampled_from((m.CNAME, m.NS, m.PTR)), FAMILY.map(m.written)),
    st.tuples(st.just(m.SOA), st.builds(m.soa, FAMILY, FAMILY, U32, U32, U32, U32, U32)),
    st.tuples(st.just(m.SRV), st.builds(m.srv, U16, U16, U16, FAMILY)),
    st.tuples(st.just(m.TXT), st.lists(st.text("ab", max_size=9), min_size=1, max_size=3).map(m.txt)),
)
RECORDS = st.lists(
    st.builds(lambda name, ttl, data: Record(name, data[0], ttl, data[1]), FAMILY, st.integers(0, 2**31 - 1), DATA)
)
Row = tuple[Name, int, int, bytes]


def query_of(name: str, kind: str = "A", **options: object) -> Query:
    return m.read_query(dns.message.make_query(name, kind, **options).to_wire())  # type: ignore[arg-type]


def rows(section: list[dns.rrset.RRset]) -> list[Row]:
    """Records as dnspython read them, one row each, names in lower case: a pointer leads to the spelling of the question."""
    return [(labels_of(r.name), r.rdtype, r.ttl, d.to_digestable()) for r in section for d in r]


def labels_of(name: dns.name.Name) -> Name:
    return tuple(label.lower() for label in name.labels[:-1])


def as_rows(records: list[Record]) -> list[Row]:
    return [(r.name, r.type, r.ttl, r.data) for r in records]


def parsed(data: bytes) -> dns.message.Message:
    return dns.message.from_wire(data, one_rr_per_rrset=True)


# Names.


@given(NAMES)
def test_a_written_name_is_what_dnspython_writes_and_is_read_again(name: Name) -> None:
    assert m.written(name) == dns.name.Name((*name, b"")).to_wire()
    assert m.name_in(b"xy" + m.written(name), 2) == name


@given(NAMES)
def test_a_name_as_text_is_one_for_dnspython(name: Name) -> None:
    assert labels_of(dns.name.from_text(m.text_of(name))) == name


@pytest.mark.parametrize(
    ("text", "name"),
    [("", ()), (".", ()), ("local", (b"local",)), ("Web.Default.", (b"web", b"default")), ("a" * 63, (b"a" * 63,))],
)
def test_a_name_of_text(text: str, name: Name) -> None:
    assert m.name_of(text) == name


@pytest.mark.parametrize("text", ["..", "a..b", ".a", "a" * 64, "é.example", ".".join(["a" * 49] * 5 + ["bbbbb"])])
def test_no_name(text: str) -> None:
    with pytest.raises(ValueError):
        m.name_of(text)


def test_a_name_has_at_most_255_bytes() -> None:
    assert len(m.written(m.name_of(".".join(["a" * 49] * 5 + ["bbb"])))) == 255


# Queries.


@given(NAMES, U16, st.sampled_from((1, 3, 4, 255, 65280)), st.booleans(), st.sampled_from((None, 0, 1, 255)), U16)
def test_a_query_is_read(name: Name, kind: int, class_: int, dnssec: bool, edns: int | None, size: int) -> None:
    query = dns.message.QueryMessage(id=7)
    query.flags = dns.flags.RD
    shouted = dns.name.Name((*(label.upper() for label in name), b""))
    query.question.append(dns.rrset.RRset(shouted, class_, kind))
    if edns is not None:
        option = dns.edns.GenericOption(65001, b"xyz")
        query.use_edns(edns, dns.flags.DO if dnssec else 0, size, options=[option])
    read = m.read_query(query.to_wire())
    assert (read.id, read.flags, read.opcode) == (7, m.RD, 0)
    assert read.question == (name, kind, class_)
    assert read.asked == query.to_wire()[12 : 12 + len(read.asked)] == shouted.to_wire() + struct.pack("!2H", kind, class_)
    if edns is None:
        assert read.edns is None
    else:
        assert read.edns == m.Edns(size, edns, dnssec, () if edns else ((65001, b"xyz"),))


HEADER = struct.pack("!6H", 7, m.RD, 1, 0, 0, 0)
WEB = b"\3web\0" + struct.pack("!2H", m.A, 1)
OPT = b"\0" + struct.pack("!2HIH", m.OPT, 1232, 0, 0)


def counted(*counts: int, flags: int = m.RD) -> bytes:
    return struct.pack("!6H", 7, flags, *counts)


@pytest.mark.parametrize(
    ("message", "rcode"),
    [
        (b"", None),
        (HEADER[:11], None),
        (counted(1, 0, 0, 0, flags=m.QR) + WEB, None),
        (HEADER, m.FORMERR),
        (HEADER + WEB[:-1], m.FORMERR),
        (counted(0, 0, 0, 0), m.FORMERR),
        (counted(2, 0, 0, 0) + WEB + WEB, m.FORMERR),
        (counted(1, 1, 0, 0) + WEB + OPT, m.FORMERR),
        (HEADER + b"\x40" + b"a" * 64 + b"\0" + WEB[-4:], m.FORMERR),
        (HEADER + b"\xc0\x0c" + WEB[-4:], m.FORMERR),
        (HEADER + (b"\x3f" + b"a" * 63) * 4 + b"\0" + WEB[-4:], m.FORMERR),
        (counted(1, 0, 0, 1) + WEB, m.FORMERR),
        (counted(1, 0, 0, 1) + WEB + OPT[:-1], m.FORMERR),
        (counted(1, 0, 0, 2) + WEB + OPT + OPT, m.FORMERR),
        (counted(1, 0, 1, 1) + WEB + OPT + OPT, m.FORMERR),
        (counted(1, 0, 0, 1) + WEB + b"\3web" + OPT, m.FORMERR),
        (counted(1, 0, 0, 1) + WEB + OPT[:-2] + b"\0\3abc", m.FORMERR),
        (counted(1, 0, 0, 1) + WEB + OPT[:-2] + b"\0\4\0\3\0\1", m.FORMERR),
        (counted(1, 0, 0, 1) + WEB + OPT[:-2] + b"\0\5", m.FORMERR),
        (counted(1, 0, 0, 0, flags=4 << 11) + WEB, m.NOTIMP),
        (counted(9, 9, 9, 9, flags=5 << 11), m.NOTIMP),
    ],
)
def test_no_query(message: bytes, rcode: int | None) -> None:
    with pytest.raises(Malformed) as error:
        m.read_query(message)
    assert error.value.rcode == rcode


def test_records_that_nobody_needs_are_passed_over() -> None:
    record = b"\xc0\x0c" + struct.pack("!2HIH", m.SOA, 1, 5, 3) + b"abc"
    read = m.read_query(counted(1, 0, 1, 2) + WEB + record + record + OPT)
    assert read.edns == m.Edns(1232) and read.question.name == (b"web",)


@given(st.binary(max_size=60), st.integers(0, 3), st.integers(0, 3))
def test_any_bytes_are_a_query_or_malformed(rest: bytes, authorities: int, additional: int) -> None:
    for message in (rest, counted(1, 0, authorities, additional) + rest, counted(1, 0, authorities, additional) + WEB + rest):
        try:
            query = m.read_query(message)
        except Malformed:
            continue
        assert m.fits(query.question.name) and m.respond(query, Answer())


def test_a_refusal_is_a_header_and_none_for_a_response() -> None:
    assert m.refusal(HEADER + b"?", m.FORMERR) == counted(0, 0, 0, 0, flags=m.QR | m.RD | m.FORMERR)
    assert m.refusal(counted(1, 0, 0, 0, flags=m.QR), m.FORMERR) is None
    assert m.refusal(b"abc", m.FORMERR) is None


# Responses.


@settings(max_examples=40)
@given(FAMILY, RECORDS, RECORDS, RECORDS, st.booleans(), st.sampled_from((0, 2, 3, 16)))
def test_a_response_means_what_was_answered(
    name: Name, records: list[Record], authority: list[Record], additional: list[Record], edns: bool, rcode: int
) -> None:
    query = query_of(m.text_of(name).upper(), use_edns=0 if edns else -1)
    answer = Answer(rcode if edns else rcode & 15, tuple(records), tuple(authority), tuple(additional))
    data = m.respond(query, answer)
    read = parsed(data)
    assert (read.id, read.rcode(), read.edns) == (query.id, answer.rcode, 0 if edns else -1)
    assert read.flags & ~15 == m.QR | m.AA | m.RD | m.RA
    assert [rows(part) for part in (read.answer, read.authority, read.additional)] == [
        as_rows(part) for part in (records, authority, additional)
    ]
    assert data[12 : 12 + len(query.asked)] == query.asked, "the spelling of the question is kept"


@settings(max_examples=40)
@given(FAMILY, RECORDS, RECORDS, st.integers(0, 400))
def test_a_response_is_cut_at_a_record(name: Name, records: list[Record], additional: list[Record], room: int) -> None:
    query = query_of(m.text_of(name), use_edns=0)
    limit = 12 + len(query.asked) + len(OPT) + room
    data = m.respond(query, Answer(records=tuple(records), additional=tuple(additional)), limit)
    read = parsed(data)
    assert len(data) <= limit
    answers, extra = rows(read.answer), rows(read.additional)
    assert answers == as_rows(records[: len(answers)]) and extra == as_rows(additional[: len(extra)])
    assert bool(read.flags & dns.flags.TC) == (len(answers) < len(records))
    assert not extra or len(answers) == len(records)


def test_what_fits_exactly_is_whole() -> None:
    query = query_of("web", use_edns=0)
    answer = Answer(records=tuple(Record((b"web",), m.A, 5, bytes((n,) * 4)) for n in range(3)))
    whole = m.respond(query, answer)
    assert m.respond(query, answer, len(whole)) == whole and not whole[2] & m.TC >> 8
    cut = m.respond(query, answer, len(whole) - 1)
    assert len(cut) == len(whole) - 16 and cut[2] & m.TC >> 8


def test_a_name_is_written_once() -> None:
    """The target of a SRV record is written out (RFC 2782); the owner of its address is a pointer to it."""
    query = query_of("_http._tcp.web.default.svc.cluster.local", "SRV")
    target = m.name_of("a-1.web.default.svc.cluster.local")
    srv = Record(query.question.name, m.SRV, 5, m.srv(0, 100, 80, target))
    data = m.respond(query, Answer(records=(srv,), additional=(Record(target, m.A, 5, b"\1\2\3\4"),)))
    assert len(data) == 12 + len(query.asked) + (2 + 10 + 6 + len(m.written(target))) + (2 + 10 + 4)


def test_names_in_data_are_compressed() -> None:
    query = query_of("old.default.svc.cluster.local")
    alias = Record(query.question.name, m.CNAME, 5, m.written(m.name_of("new.default.svc.cluster.local")))
    soa = Record(
        m.name_of("cluster.local"), m.SOA, 5, m.soa(m.name_of("ns.dns.cluster.local"), m.name_of("h.cluster.local"), *range(5))
    )
    data = m.respond(query, Answer(records=(alias,), authority=(soa,)))
    assert len(data) == 12 + len(query.asked) + (2 + 10 + 4 + 2) + (2 + 10 + (3 + 4 + 2) + (2 + 2) + 20)


def test_no_pointer_reaches_beyond_its_14_bits() -> None:
    records = [Record((b"n%d" % i, b"x"), m.PTR, 5, m.written((b"t%d" % i, b"y"))) for i in range(1500)]
    late, target = (b"late", b"z"), (b"target", b"w")
    records += [
        Record(late, m.A, 5, bytes(4)),
        Record(late, m.SRV, 5, m.srv(0, 0, 1, target)),
        Record(target, m.A, 5, bytes(4)),
    ]
    data = m.respond(query_of("q"), Answer(records=tuple(records)))
    assert len(data) > 0x4000 and rows(parsed(data).answer) == as_rows(records)


def test_a_question_of_chaos_gets_records_of_chaos() -> None:
    query = query_of("version.bind", "TXT", rdclass=dns.rdataclass.CH)
    (found,) = parsed(m.respond(query, Answer(records=(Record(query.question.name, m.TXT, 0, m.txt(("x",))),)))).answer
    assert found.rdclass == dns.rdataclass.CH


def test_the_root_is_a_name() -> None:
    query = query_of(".", "NS")
    assert query.question.name == ()
    records = [Record((), m.NS, 5, m.written((b"a", b"root")))]
    assert rows(parsed(m.respond(query, Answer(records=tuple(records)))).answer) == as_rows(records)


PLAIN = st.builds(
    lambda name, kind, flags, edns: dns.message.make_query(
        name, kind, flags=flags, use_edns=edns, payload=1400, want_dnssec=edns == 0
    ).to_wire(),
    st.sampled_from(("a.example", "WWW.Example.", "x." * 100 + "test", ".")),
    st.sampled_from(("A", "AAAA", "HTTPS", "TXT", "CNAME", "ANY", "AXFR")),
    st.sampled_from((0, dns.flags.RD, dns.flags.RD | dns.flags.CD, dns.flags.RD | dns.flags.AD, dns.flags.RD | dns.flags.TC)),
    st.sampled_from((-1, 0, 1)),
)


@given(PLAIN, st.integers(0, 40), st.binary(max_size=3))
def test_a_plain_query_is_read_as_every_other_is(message: bytes, at: int, change: bytes) -> None:
    """Whole or broken at any place: it is read to the same, or not as a plain one."""
    message = message[:at] + change + message[at + len(change) :]
    plain = m.read_plain(message)
    assert plain is None or plain == m.read_query(message, tcp=False)


@pytest.mark.parametrize("kind", ["A", "AAAA", "HTTPS"])
@pytest.mark.parametrize("edns", [-1, 0])
def test_what_most_resolvers_ask_is_plain(kind: str, edns: int) -> None:
    assert m.read_plain(dns.message.make_query("www.Example.com", kind, use_edns=edns).to_wire()) is not None
    assert m.read_plain(dns.message.make_query("www.example.com", "ANY", use_edns=edns).to_wire()) is None
    with_option = dns.message.make_query("a.example", kind, use_edns=0, options=[dns.edns.GenericOption(3, b"")])
    assert m.read_plain(with_option.to_wire()) is None, "NSID"


@given(NAMES, st.lists(NAMES, max_size=3))
def test_ends_of_written_names(name: Name, ends: list[Name]) -> None:
    expected = any(m.is_under(name, end) for end in ends)
    assert m.ends_with_any(m.written(name), frozenset(map(m.written, ends))) == expected
