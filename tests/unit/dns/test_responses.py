"""Responses of other servers: what is kept of them, what is left out, and how long they are true. dnspython writes and reads them."""

from __future__ import annotations

import dns.flags
import dns.message
import dns.rdatatype
import dns.rrset
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from podplane.dns import message as m
from podplane.dns import relay, responses
from podplane.dns.responses import Limits, Reply

SOA = "example. 600 IN SOA ns.example. host.example. 1 7200 3600 86400 30"


def said(
    name: str,
    type_: str = "A",
    answer: tuple[str, ...] = (),
    authority: tuple[str, ...] = (),
    additional: tuple[str, ...] = (),
    *,
    rcode: int = 0,
    edns: bool = False,
    compress: bool = True,
) -> bytes:
    """A response."""
    response = dns.message.make_response(dns.message.make_query(name, type_, use_edns=edns), recursion_available=True)
    response.set_rcode(rcode)  # type: ignore[arg-type]
    for section, lines in ((response.answer, answer), (response.authority, authority), (response.additional, additional)):
        for line in lines:
            owner, ttl, class_, kind, data = line.split(None, 4)
            section.append(dns.rrset.from_text(owner, int(ttl), class_, kind, data))
    return response.to_wire(max_size=65535)


def read(message: bytes, limits: Limits | None = None) -> Reply:
    query = m.read_query(message[:2] + b"\1\0\0\1\0\0\0\0\0\0" + message[12 : m.skip_name(message, 12) + 4])
    assert responses.matches(message, query.asked)
    return responses.read(message, m.asked_of(query.question), limits or Limits())


def lines(reply: Reply) -> list[str]:
    """All records of a kept response, as dnspython reads them."""
    parsed = dns.message.from_wire(reply.message)
    return [
        line
        for section in (parsed.answer, parsed.authority, parsed.additional)
        for one in section
        for line in one.to_text().splitlines()
    ]


def test_an_answer_is_kept_as_it_is() -> None:
    reply = read(said("WWW.example", "A", ("www.example. 60 IN A 192.0.2.1",), edns=True))
    assert lines(reply) == ["www.example. 60 IN A 192.0.2.1"]
    assert (reply.rcode, reply.seconds, len(reply.ttls)) == (0, 60, 1)


def test_the_type_of_a_question_is_no_letter() -> None:
    """65 is HTTPS, and an "A"; 97 is something else."""
    for answer in ((), ("WWW.example. 60 IN HTTPS 1 .",)):
        assert read(said("WWW.example", "HTTPS", answer)).message[12:29] == b"\3www\7example\0\0\x41\0\1"


def test_name_servers_and_additional_records_are_left_out() -> None:
    answer = said(
        "a.example", "A", ("a.example. 60 IN A 192.0.2.1",), ("example. 9 IN NS ns.evil.",), ("ns.evil. 9 IN A 192.0.2.66",)
    )
    assert lines(read(answer)) == ["a.example. 60 IN A 192.0.2.1"]
    assert read(answer).seconds == 60


@pytest.mark.parametrize(
    "foreign", ["bank.test. 60 IN A 192.0.2.66", "a.example.test. 60 IN A 192.0.2.66", "example. 60 IN A 192.0.2.66"]
)
def test_records_of_other_names_are_left_out(foreign: str) -> None:
    for answer in (("a.example. 60 IN A 192.0.2.1", foreign), (foreign, "a.example. 60 IN A 192.0.2.1")):
        assert lines(read(said("a.example", "A", answer))) == ["a.example. 60 IN A 192.0.2.1"]


def test_an_answer_to_another_question_is_none() -> None:
    with pytest.raises(m.Malformed, match="another question"):
        read(said("a.example", "A", ("bank.test. 60 IN A 192.0.2.66",)))


def test_aliases_are_followed_whatever_their_order() -> None:
    chain = ("a.example. 60 IN CNAME b.example.", "b.example. 50 IN CNAME c.test.", "c.test. 40 IN A 192.0.2.1")
    straight = read(said("a.example", "A", chain))
    assert lines(straight) == list(chain)
    assert straight.seconds == 40
    assert lines(read(said("a.example", "A", (*chain[::-1], "d.test. 9 IN A 192.0.2.66")))) == list(chain)


def aliases(count: int) -> list[str]:
    """From `a0.example` to the address of the last one."""
    chain = [f"a{i}.example. 60 IN CNAME a{i + 1}.example." for i in range(count)]
    return [*chain, f"a{count}.example. 60 IN A 192.0.2.1"]


@pytest.mark.parametrize("turn", [1, -1])
def test_so_many_aliases_have_an_end_and_more_are_an_error(turn: int) -> None:
    most = aliases(responses.MAX_ALIASES)
    assert lines(read(said("a0.example", "A", tuple(most[::turn])))) == most
    with pytest.raises(responses.Endless, match="more than 32 aliases, which is too long"):
        read(said("a0.example", "A", tuple(aliases(responses.MAX_ALIASES + 1)[::turn])))


@pytest.mark.parametrize("targets", ["a", "ba", "bcb"])
def test_aliases_that_lead_in_a_circle_are_an_error(targets: str) -> None:
    chain = tuple(f"{a}.example. 60 IN CNAME {b}.example." for a, b in zip("a" + targets, targets, strict=False))
    with pytest.raises(responses.Endless, match="in a circle"):
        read(said("a.example", "A", chain))
    assert lines(read(said("a.example", "CNAME", chain))) == list(chain[:1]), "who asks for the alias gets it"


def test_an_alias_of_a_whole_zone_is_kept() -> None:
    chain = ("example. 60 IN DNAME test.", "a.example. 60 IN CNAME a.test.", "a.test. 60 IN A 192.0.2.1")
    assert lines(read(said("a.example", "A", chain))) == list(chain)
    assert lines(read(said("b.example", "A", ("x.example. 60 IN DNAME test.", "b.example. 60 IN A 192.0.2.2")))) == [
        "b.example. 60 IN A 192.0.2.2"
    ]


@pytest.mark.parametrize("rcode", [0, 3])
@pytest.mark.parametrize(("ttl", "seconds"), [(600, 30), (20, 20)])
def test_that_nothing_is_there_is_kept_as_long_as_the_zone_says(rcode: int, ttl: int, seconds: int) -> None:
    reply = read(said("a.example", "A", (), (SOA.replace("600", str(ttl), 1),), rcode=rcode))
    assert (reply.rcode, reply.seconds) == (rcode, seconds)
    assert lines(reply) == [SOA.replace("600", str(seconds), 1)]


def test_without_the_zones_own_word_nothing_is_not_kept() -> None:
    assert read(said("a.example", "A", rcode=3)).seconds == 0
    assert read(said("a.test", "A", (), (SOA,), rcode=3)).seconds == 0
    assert lines(read(said("a.test", "A", (), (SOA,), rcode=3))) == []


def test_an_alias_to_nothing_is_kept_as_long_as_both_are_true() -> None:
    reply = read(said("a.test", "A", ("a.test. 10 IN CNAME b.example.",), (SOA, "example. 9 IN NS ns.example."), rcode=3))
    assert (lines(reply), reply.seconds) == (["a.test. 10 IN CNAME b.example.", SOA.replace("600", "30", 1)], 10)


def test_limits_of_times() -> None:
    answer = said("a.example", "A", ("a.example. 86400 IN A 192.0.2.1", "a.example. 1 IN A 192.0.2.2")[:1])
    assert (read(answer, Limits(most=100)).seconds, lines(read(answer, Limits(most=100)))) == (
        100,
        ["a.example. 100 IN A 192.0.2.1"],
    )
    short = said("a.example", "A", ("a.example. 1 IN A 192.0.2.1",))
    assert (read(short, Limits(least=5)).seconds, lines(read(short, Limits(least=5)))) == (5, ["a.example. 5 IN A 192.0.2.1"])
    assert read(said("a.example", "A", (), (SOA,)), Limits(negative=7)).seconds == 7
    assert read(said("a.example", "A", ("a.example. 0 IN A 192.0.2.1",))).seconds == 0


def test_a_ttl_with_the_uppermost_bit_is_none() -> None:
    answer = bytearray(said("a.example", "A", ("a.example. 60 IN A 192.0.2.1",)))
    at = read(bytes(answer)).ttls[0]
    answer[at] = 0x80
    assert (read(bytes(answer)).seconds, lines(read(bytes(answer)))) == (0, ["a.example. 0 IN A 192.0.2.1"])


def test_failures_are_not_kept() -> None:
    assert [read(said("a.example", "A", (), (SOA,), rcode=rcode)).seconds for rcode in (2, 5)] == [0, 0]


def test_a_server_that_names_others_is_told() -> None:
    assert read(said("a.example", "A", (), ("example. 60 IN NS ns.example.",))).is_referral
    assert not read(said("a.example", "A", (), (SOA,))).is_referral
    assert not read(said("a.example", "A", ("a.example. 60 IN A 192.0.2.1",), ("example. 60 IN NS ns.example.",))).is_referral


def test_signatures_pass_and_proofs_of_wildcards_too() -> None:
    signature = "60 IN RRSIG A 13 2 60 20300101000000 20200101000000 1 example. AAAA"
    answer = ("a.example. 60 IN A 192.0.2.1", f"a.example. {signature}")
    assert len(lines(read(said("a.example", "A", answer)))) == 2
    proof = ("a.example. 60 IN NSEC c.example. A RRSIG NSEC", f"a.example. {signature}")
    assert len(lines(read(said("a.example", "A", answer, proof)))) == 4
    assert len(lines(read(said("a.example", "A", answer, (f"example. {signature}",))))) == 2


def test_all_records_are_written_out_for_who_needs_them() -> None:
    answer = ("a.example. 60 IN MX 10 mail.a.example.", "a.example. 60 IN MX 20 a.example.")
    found, authority = responses.records(read(said("a.example", "MX", answer)).message)
    assert [one.data for one in found] == [b"\0\x0a\4mail\1a\7example\0", b"\0\x14\1a\7example\0"]
    assert authority == ()
    _, authority = responses.records(read(said("b.example", "MX", (), (SOA,))).message)
    assert authority[0].data.startswith(b"\2ns\7example\0\4host\7example\0")


def test_questions_and_responses_are_told_apart() -> None:
    answer = said("a.example", "A", ("a.example. 60 IN A 192.0.2.1",))
    asked = answer[12 : m.skip_name(answer, 12) + 4]
    assert responses.matches(answer, asked)
    assert not responses.matches(answer, asked.upper())
    assert not responses.matches(answer[:2] + b"\1\0" + answer[4:], asked), "a query"
    assert not responses.matches(answer[:4] + b"\0\2" + answer[6:], asked), "of two questions"
    assert not responses.matches(answer[:20], asked)


@pytest.mark.parametrize("pointer", [b"\xc0\x1d", b"\xc0\x30", b"\xff\xff"])
def test_pointers_that_do_not_lead_back_are_malformed(pointer: bytes) -> None:
    answer = said("a.example", "A", ("a.example. 60 IN A 192.0.2.1",))
    at = m.skip_name(answer, 12) + 4
    with pytest.raises(m.Malformed):
        read(answer[:at] + pointer + answer[at + 2 :])


def test_pointers_that_lead_to_each_other_are_bounded() -> None:
    """Of some thousand records, each named by some thousand pointers, it would take half a minute to find that out."""

    def chained(pointers: int) -> bytes:
        head = m.HEADER.pack(0, m.QR, 1, 2, 0, 0) + m.written((b"a",)) + m.TAIL.pack(m.TXT, m.INTERNET)
        first = len(head) + 2 + m.RECORD.size
        places = [first, *range(first + 1, first + 2 * pointers, 2)]
        data = b"\0" + b"".join(m.LENGTH.pack(m.POINTER | place) for place in places[: pointers - 1])
        record = m.RECORD.pack(m.TXT, m.INTERNET, 5, len(data)) + data
        return head + b"\xc0\x0c" + record + m.LENGTH.pack(m.POINTER | places[pointers - 1]) + m.RECORD.pack(m.TXT, 1, 5, 0)

    assert read(chained(responses.MAX_POINTERS)).rcode == m.NOERROR
    with pytest.raises(m.Malformed):
        read(chained(responses.MAX_POINTERS + 1))


LONGEST = b"\x3f" + 63 * b"e"
LABELS = st.lists(st.sampled_from((b"\1a", b"\3Bcd", LONGEST)), max_size=3)


@given(st.lists(st.tuples(LABELS, st.integers(-3, 20)), max_size=12))
@example([([LONGEST, LONGEST], -1), ([], 0), ([LONGEST, LONGEST], 0)])
def test_names_that_are_known_already_are_read_alike(names: list[tuple[list[bytes], int]]) -> None:
    """Each name ends with the root, or with one of those that were written before it."""
    message, places, known = b"", list[int](), dict[int, m.Name]()
    for labels, end in names:
        is_pointer = 0 <= end < len(places)
        places.append(len(message))
        message += b"".join(labels) + (m.LENGTH.pack(m.POINTER | places[end]) if is_pointer else b"\0")
    for at in (*places, *range(len(message))):
        try:
            expected = responses.name_at(message, at)
        except m.Malformed:
            with pytest.raises(m.Malformed):
                responses.name_at(message, at, known)
        else:
            assert responses.name_at(message, at, known) == expected


@given(data=st.data())
def test_whatever_comes_is_read_or_malformed(data: st.DataObject) -> None:
    chain = ("a.example. 60 IN CNAME b.example.", "b.example. 50 IN MX 10 c.test.", "z.test. 40 IN A 192.0.2.1")
    answer = bytearray(said("a.example", "MX", chain, (SOA,), edns=True))
    for at, byte in data.draw(st.lists(st.tuples(st.integers(6, len(answer) - 1), st.integers(0, 255)), max_size=4)):
        answer[at] = byte
    answer[12:27] = said("a.example", "MX")[12:27]
    del answer[data.draw(st.integers(27, len(answer))) :]
    try:
        reply = read(bytes(answer))
        responses.records(reply.message)
        query = m.read_query(said("a.example", "MX")[:2] + b"\1\0\0\1\0\0\0\0\0\0" + bytes(answer[12:27]))
        limit = data.draw(st.integers(40, 600))
        sent = relay.relayed(query, relay.aged(reply.message, reply.ttls, 7), reply.rcode, limit)
        assert len(sent) <= limit
    except m.Malformed:
        return
    dns.message.from_wire(sent, continue_on_error=True)


@given(
    ttls=st.lists(st.integers(0, 5000), min_size=1, max_size=4),
    edns=st.booleans(),
    cut=st.integers(0, 3),
    limits=st.builds(Limits, st.integers(0, 30), st.integers(30, 4000), st.integers(0, 300)),
)
def test_the_short_way_and_the_long_way_say_the_same(ttls: list[int], edns: bool, cut: int, limits: Limits) -> None:
    message = said("A.example", "A", tuple(f"a.example. {ttl} IN A 192.0.2.{i}" for i, ttl in enumerate(ttls)), edns=edns)
    message = message[: len(message) - cut]
    found: list[Reply | str] = []
    with pytest.MonkeyPatch.context() as patch:
        for _ in range(2):
            try:
                found.append(read(message, limits))
            except m.Malformed as error:
                found.append(str(error))
            patch.setattr(responses, "_plain", lambda *_: None)
    assert found[0] == found[1]
