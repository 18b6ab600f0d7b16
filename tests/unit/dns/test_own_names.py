"""Names of the configuration (hosts, rewrites), and those for special use."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podplane.dns import message as m
from podplane.dns.config import Rewrite
from podplane.dns.hosts import Hosts
from podplane.dns.message import Answer, Name, Question, name_of
from podplane.dns.rewrites import RewrittenNames
from podplane.dns.special_names import SpecialNames

TTL = 7
TYPES = st.sampled_from([m.A, m.AAAA, m.PTR, m.TXT, m.CNAME, m.SRV])


def ips(answer: Answer | None) -> list[str]:
    assert answer is not None
    return [str(ipaddress.ip_address(record.data)) for record in answer.records]


def is_negative(answer: Answer | None, rcode: int) -> bool:
    """No records, and a SOA record that lets resolvers keep that."""
    assert answer is not None
    (soa,) = answer.authority
    return answer.rcode == rcode and not answer.records and soa.type == m.SOA and soa.ttl == TTL


# hosts


HOSTS = Hosts(
    {
        "192.0.2.7": (name_of("db.corp.example"), name_of("db")),
        "192.0.2.8": (name_of("db.corp.example"),),
        "2001:db8::7": (name_of("db.corp.example"),),
    },
    TTL,
)


def test_a_name_has_all_its_addresses_of_the_type() -> None:
    assert ips(HOSTS.answer(Question(name_of("db.corp.example"), m.A))) == ["192.0.2.7", "192.0.2.8"]
    assert ips(HOSTS.answer(Question(name_of("db.corp.example"), m.AAAA))) == ["2001:db8::7"]


@pytest.mark.parametrize(("name", "type_"), [("db", m.AAAA), ("db.corp.example", m.MX), ("7.2.0.192.in-addr.arpa", m.A)])
def test_a_name_with_other_records_exists(name: str, type_: int) -> None:
    assert is_negative(HOSTS.answer(Question(name_of(name), type_)), m.NOERROR)


def test_an_address_has_all_its_names() -> None:
    answer = HOSTS.answer(Question(name_of(ipaddress.ip_address("192.0.2.7").reverse_pointer), m.PTR))
    assert answer is not None
    assert [record.data for record in answer.records] == [m.written(name_of("db.corp.example")), m.written(name_of("db"))]
    six = HOSTS.answer(Question(name_of(ipaddress.ip_address("2001:db8::7").reverse_pointer), m.PTR))
    assert six is not None
    assert [record.data for record in six.records] == [m.written(name_of("db.corp.example"))]


@pytest.mark.parametrize("name", ["corp.example", "a.db.corp.example", "9.2.0.192.in-addr.arpa"])
def test_other_names_are_asked_elsewhere(name: str) -> None:
    assert HOSTS.answer(Question(name_of(name), m.A)) is None


# rewrites


REWRITTEN = RewrittenNames(
    [Rewrite(name_of("old.example"), name_of("new.test")), Rewrite(name_of("gone"), name_of("x" * 60), True)], TTL
)


def test_a_rewritten_name_is_an_alias() -> None:
    answer = REWRITTEN.answer(Question(name_of("old.example"), m.AAAA))
    assert answer is not None
    assert answer.records == (m.Record(name_of("old.example"), m.CNAME, TTL, m.written(name_of("new.test"))),)
    assert answer.follow == name_of("new.test")


def test_the_alias_itself_may_be_asked_for() -> None:
    answer = REWRITTEN.answer(Question(name_of("a.gone"), m.CNAME))
    assert answer is not None
    assert answer.follow is None
    assert answer.records[0].data == m.written((b"a", b"x" * 60))


def test_an_alias_that_would_be_too_long_does_not_exist() -> None:
    answer = REWRITTEN.answer(Question((b"y" * 63, b"y" * 63, b"y" * 63, b"y" * 10, b"gone"), m.A))
    assert is_negative(answer, m.NXDOMAIN)


def test_what_no_rule_is_about_is_asked_elsewhere() -> None:
    assert REWRITTEN.answer(Question(name_of("a.old.example"), m.A)) is None


# Special names.


SPECIAL = SpecialNames(TTL, {name_of("corp.onion"), name_of("lan.local")}, {name_of("office.local")})


@pytest.mark.parametrize("name", ["localhost", "a.localhost", "a.b.localhost"])
def test_localhost_is_this_machine(name: str) -> None:
    assert ips(SPECIAL.answer(Question(name_of(name), m.A))) == ["127.0.0.1"]
    assert ips(SPECIAL.answer(Question(name_of(name), m.AAAA))) == ["::1"]
    assert is_negative(SPECIAL.answer(Question(name_of(name), m.MX)), m.NOERROR)


@pytest.mark.parametrize("ip", ["127.0.0.1", "::1"])
def test_the_loopback_addresses_are_localhost(ip: str) -> None:
    name = name_of(ipaddress.ip_address(ip).reverse_pointer)
    answer = SPECIAL.answer(Question(name, m.PTR))
    assert answer is not None
    assert [record.data for record in answer.records] == [m.written(name_of("localhost"))]
    assert is_negative(SPECIAL.answer(Question(name, m.A)), m.NOERROR)


@pytest.mark.parametrize(
    "name",
    [
        "invalid",
        "a.invalid",
        "shop.onion",
        "x.alt",
        "7.0.0.127.in-addr.arpa",
        "127.in-addr.arpa",
        "4.3.2.0.in-addr.arpa",
        "255.255.255.255.in-addr.arpa",
        "0." * 32 + "ip6.arpa",
        "x.resolver.arpa",
        "local",
        "printer.local",
        "_http._tcp.local",
        "my printer._ipp._tcp.local",
        "b._dns-sd._udp.local",
    ],
)
def test_some_names_are_nowhere(name: str) -> None:
    assert is_negative(SPECIAL.answer(Question(name_of(name), m.A)), m.NXDOMAIN)


@pytest.mark.parametrize("name", ["resolver.arpa", "_dns.resolver.arpa"])
def test_no_other_resolver_is_named(name: str) -> None:
    assert is_negative(SPECIAL.answer(Question(name_of(name), 64)), m.NOERROR)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "example",
        "x.test",
        "x.internal",
        "x.home.arpa",
        "1.0.0.10.in-addr.arpa",
        "254.255.255.255.in-addr.arpa",
        "2." + "0." * 31 + "ip6.arpa",
        "arpa",
        "in-addr.arpa",
        "localhost.example",
        "db.corp.local",
        "office.local",
        "lan.local",
        "a.lan.local",
        "_tcp.lan.local",
        "a.corp.onion",
        "corp.onion",
    ],
)
def test_all_others_are_asked_elsewhere(name: str) -> None:
    assert SPECIAL.answer(Question(name_of(name), m.A)) is None


LABELS = st.sampled_from(
    [b"a", b"0", b"1", b"127", b"arpa", b"ip6", b"in-addr", b"local", b"localhost", b"_tcp", b"invalid", b"resolver"]
)


@given(st.lists(LABELS, max_size=6).map(tuple), TYPES)
def test_whatever_is_answered_can_be_written(name: Name, type_: int) -> None:
    answer = SPECIAL.answer(Question(name, type_))
    if answer is not None:
        asked = m.written(name) + m.TAIL.pack(type_, m.INTERNET)
        response = m.respond(m.Query(1, m.RD, asked), answer)
        assert bool(answer.records) != bool(answer.authority)
        assert response[m.HEADER.size :].startswith(asked)
