"""Values of the configuration: servers as they are written, names, rewrites."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podplane.dns.config import Rewrite, Upstream, domain_name, upstream_of

LABELS = st.from_regex(r"[a-z0-9]{1,8}", fullmatch=True)
IPS = st.ip_addresses().map(str)


@pytest.mark.parametrize(
    ("text", "server"),
    [
        ("192.0.2.1", Upstream("192.0.2.1")),
        ("192.0.2.1:5353", Upstream("192.0.2.1", 5353)),
        ("2001:DB8::1", Upstream("2001:db8::1")),
        ("[2001:db8::1]:5353", Upstream("2001:db8::1", 5353)),
        ("[2001:db8::1]", Upstream("2001:db8::1")),
        ("tls://192.0.2.1", Upstream("192.0.2.1", 853, True)),
        ("tls://192.0.2.1:8853#Dns.Example", Upstream("192.0.2.1", 8853, True, "dns.example")),
        ("tls://[2001:db8::1]:53", Upstream("2001:db8::1", 53, True)),
    ],
)
def test_servers_are_written_as_addresses(text: str, server: Upstream) -> None:
    assert upstream_of(text) == server


@given(IPS, st.integers(1, 65535), st.booleans(), st.lists(LABELS, min_size=1, max_size=3).map(".".join))
def test_a_server_is_read_as_it_is_shown(ip: str, port: int, tls: bool, name: str) -> None:
    server = Upstream(ip, port, tls, name if tls else "")
    try:
        read = upstream_of(str(server))
    except ValueError as error:
        assert "one machine" in str(error)
        return
    assert read == server


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "'' is no IP address"),
        ("dns.example", "'dns.example' is no IP address"),
        ("192.0.2.300", "'192.0.2.300' is no IP address"),
        ("192.0.2.1:0", "'192.0.2.1:0' has no port from 1 to 65535"),
        ("192.0.2.1:", "'192.0.2.1:' has no port from 1 to 65535"),
        ("192.0.2.1:65536", "'192.0.2.1:65536' has no port from 1 to 65535"),
        (
            "192.0.2.1#dns.example",
            "'192.0.2.1#dns.example' has a name, which only servers over TLS have: tls://192.0.2.1#dns.example",
        ),
        ("tls://192.0.2.1#", "'' is no name"),
        ("0.0.0.0", "0.0.0.0 is no address of one machine"),
        ("224.0.0.251", "224.0.0.251 is no address of one machine"),
        ("fe80::1%eth0", "fe80::1%eth0 is no address of one machine"),
        ("https://192.0.2.1/dns-query", "'https://192.0.2.1/dns-query' is no IP address"),
    ],
)
def test_what_is_no_server_is_told(text: str, why: str) -> None:
    with pytest.raises(ValueError) as refused:
        upstream_of(text)
    assert str(refused.value) == why


@pytest.mark.parametrize(
    "text",
    ["", ".", "a..b", ".a", "a b", "*.example", "a" * 64, "b\u00fccher.example", "a.example:53", ".".join(["a" * 50] * 6)],
)
def test_what_is_no_name_is_told(text: str) -> None:
    with pytest.raises(ValueError, match=r"is no name|ASCII form"):
        domain_name(text)


def test_names_have_any_case_and_maybe_a_dot_at_the_end() -> None:
    assert domain_name("DB.Corp.example.") == domain_name("db.corp.example") == (b"db", b"corp", b"example")


def test_a_name_stands_for_another() -> None:
    rule = Rewrite(domain_name("old.example"), domain_name("web.default.svc.cluster.local"))
    assert rule.of(domain_name("old.example")) == domain_name("web.default.svc.cluster.local")
    assert rule.of(domain_name("a.old.example")) is None


def test_a_suffix_stands_for_another() -> None:
    rule = Rewrite(domain_name("old.example"), domain_name("new.test"), suffix=True)
    assert rule.of(domain_name("a.b.old.example")) == domain_name("a.b.new.test")
    assert rule.of(domain_name("old.example")) == domain_name("new.test")
    assert rule.of(domain_name("gold.example")) is None
    assert rule.of(domain_name("example")) is None
