"""The zone of the host outside: what names have, how it denies, and that long answers are cut and whole where they should be."""

from __future__ import annotations

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import pytest

from podplane.dns import example_zone
from podplane.dns import message as m
from podplane.dns.message import Record, name_of
from podplane.dns.static_zone import StaticZone, respond

ZONE = example_zone.zone(["203.0.113.10", "2001:db8:113::a"])
MANY = {f"203.0.113.{n}" for n in range(101, 121)}


def ask(name: str, kind: str = "A", *, payload: int = 0, tcp: bool = True) -> dns.message.Message:
    """The response, as dnspython reads it."""
    query = dns.message.make_query(name, kind, use_edns=0 if payload else False, payload=payload or 1232)
    data = respond(ZONE, query.to_wire(), tcp=tcp)
    assert data is not None
    response = dns.message.from_wire(data)
    assert query.is_response(response)
    return response


def texts(response: dns.message.Message, kind: str) -> set[str]:
    wanted = dns.rdatatype.from_text(kind)
    return {item.to_text() for rrset in response.answer if rrset.rdtype == wanted for item in rrset}


@pytest.mark.parametrize(
    ("name", "kind", "found"),
    [
        ("example.test", "A", {"203.0.113.10"}),
        ("WWW.Example.TEST", "AAAA", {"2001:db8:113::a"}),
        ("example.test", "NS", {"ns.example.test."}),
        ("example.test", "MX", {"10 mail.example.test."}),
        ("txt.example.test", "TXT", {'"outside of the cluster"'}),
        ("_http._tcp.example.test", "SRV", {"0 1 8080 www.example.test."}),
        ("alias.example.test", "CNAME", {"www.example.test."}),
        ("alias.example.test", "A", {"203.0.113.10"}),
        ("many.example.test", "A", MANY),
        ("away.example.test", "CNAME", {"www.elsewhere.test."}),
    ],
)
def test_names_have_their_records(name: str, kind: str, found: set[str]) -> None:
    response = ask(name, kind)
    assert response.rcode() == dns.rcode.NOERROR and response.flags & dns.flags.AA
    assert texts(response, kind) == found


@pytest.mark.parametrize(
    ("name", "kind", "rcode", "aliases"),
    [
        ("www.example.test", "TXT", dns.rcode.NOERROR, 0),
        ("_tcp.example.test", "A", dns.rcode.NOERROR, 0),
        ("alias.example.test", "MX", dns.rcode.NOERROR, 1),
        ("nowhere.example.test", "A", dns.rcode.NXDOMAIN, 0),
        ("a.www.example.test", "A", dns.rcode.NXDOMAIN, 0),
        ("dangling.example.test", "A", dns.rcode.NXDOMAIN, 1),
    ],
)
def test_what_is_not_there_is_denied_with_the_soa(name: str, kind: str, rcode: int, aliases: int) -> None:
    response = ask(name, kind)
    assert response.rcode() == rcode and response.flags & dns.flags.AA
    assert [rrset.rdtype for rrset in response.answer] == [dns.rdatatype.CNAME] * aliases
    (soa,) = response.authority
    assert (soa.rdtype, soa[0].minimum) == (dns.rdatatype.SOA, example_zone.NEGATIVE_TTL)


def test_aliases_that_lead_away_or_in_a_circle() -> None:
    away = ask("away.example.test")
    assert (away.rcode(), len(away.answer), away.authority) == (dns.rcode.NOERROR, 1, [])
    assert ask("loop.example.test").rcode() == dns.rcode.SERVFAIL


@pytest.mark.parametrize("name", ["test", "example.com", "notexample.test", "."])
def test_names_of_others_are_refused(name: str) -> None:
    response = ask(name)
    assert response.rcode() == dns.rcode.REFUSED and not response.answer and not response.flags & dns.flags.AA


@pytest.mark.parametrize("payload", [0, 512, 1232, 4096])
def test_long_answers_are_cut_to_what_the_client_takes_and_whole_over_tcp(payload: int) -> None:
    query = dns.message.make_query("many.example.test", "A", use_edns=0 if payload else False, payload=payload or 512)
    data = respond(ZONE, query.to_wire())
    assert data is not None and len(data) <= max(payload, 512)
    response = dns.message.from_wire(data)
    assert bool(response.flags & dns.flags.TC) == (payload < 1232)
    whole = ask("many.example.test", "A", payload=payload)
    assert len(texts(whole, "A")) == 20 and len(texts(whole, "CNAME")) == 7 and not whole.flags & dns.flags.TC


def test_what_is_no_question_gets_a_code_or_silence() -> None:
    assert respond(ZONE, b"short") is None
    assert respond(ZONE, b"\0\1\x80" + bytes(9)) is None, "a response"
    assert (respond(ZONE, b"\0\1\1\0" + bytes(8)) or b"")[3] & 15 == m.FORMERR
    update = dns.message.make_query("example.test", "SOA")
    update.set_opcode(dns.opcode.UPDATE)
    assert dns.message.from_wire(respond(ZONE, update.to_wire()) or b"").rcode() == dns.rcode.NOTIMP
    version = dns.message.make_query("example.test", "SOA", use_edns=1)
    assert dns.message.from_wire(respond(ZONE, version.to_wire()) or b"").rcode() == dns.rcode.BADVERS


def test_an_address_family_that_the_host_has_not_has_no_records() -> None:
    zone = example_zone.zone(["203.0.113.10"])
    answer = zone.answer(m.Question(name_of("www.example.test"), m.AAAA))
    assert (answer.rcode, answer.records, len(answer.authority)) == (m.NOERROR, (), 1)


def test_a_longer_circle_of_aliases_ends() -> None:
    apex = name_of("x.test")
    names = [(label.encode(), *apex) for label in "abc"]
    zone = StaticZone(
        apex, [Record(one, m.CNAME, 1, m.written(to)) for one, to in zip(names, names[1:] + names[:1], strict=True)]
    )
    assert zone.answer(m.Question(names[0], m.A)).rcode == m.SERVFAIL
