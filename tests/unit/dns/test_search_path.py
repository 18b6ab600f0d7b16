"""What a resolver asks for after its first question."""

from __future__ import annotations

import dns.name
import dns.resolver
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from podplane.dns.message import Name, name_of, text_of
from podplane.dns.resolv_conf import ResolvConf
from podplane.dns.search_path import NOWHERE, SearchPath, of_conf

DOMAINS = ("shop.svc.cluster.local", "svc.cluster.local", "cluster.local", "corp.example")
PATH = of_conf(ResolvConf(("10.96.0.10",), DOMAINS, ("ndots:5",)))


def after(name: str, path: SearchPath = PATH) -> list[str]:
    return [text_of(one) for one in path.after(name_of(name))]


def test_the_rest_of_the_path_follows_the_first_name_and_the_name_itself_ends_it() -> None:
    assert after("example.com.shop.svc.cluster.local") == [
        "example.com.svc.cluster.local.",
        "example.com.cluster.local.",
        "example.com.corp.example.",
        "example.com.",
    ]


@pytest.mark.parametrize(
    "name",
    [
        "example.com.other.svc.cluster.local",  # somebody else's first question
        "example.com.svc.cluster.local",  # the second
        "example.com",  # the last
        "shop.svc.cluster.local",
        "api.shop.svc.cluster.local",  # an absent Service
        "_http._tcp.api.shop.svc.cluster.local",
        "a.b.c.d.e.f.shop.svc.cluster.local",  # five dots: was asked for as it is before
        "example.com.barbershop.svc.cluster.local",
        ".",
    ],
)
def test_other_questions_begin_no_search(name: str) -> None:
    assert after(name) == []


def test_a_port_of_a_name_outside_is_searched_for() -> None:
    assert after("_sip._tcp.example.com.shop.svc.cluster.local")[-1] == "_sip._tcp.example.com."


def test_a_name_of_four_dots_is_searched_for() -> None:
    assert after("a.b.c.d.e.shop.svc.cluster.local")[-1] == "a.b.c.d.e."
    assert after("a.b.shop.svc.cluster.local", of_conf(ResolvConf((), DOMAINS, ("ndots:1",)))) == []


def test_nobody_knows_the_path_of_nobody() -> None:
    assert NOWHERE.after(name_of("a.b")) == ()
    assert after("example.com.svc.cluster.local", SearchPath(((), name_of("svc.cluster.local")), 5)) == []


def test_the_root_as_a_domain_is_the_name_itself_and_names_come_once() -> None:
    path = of_conf(ResolvConf((), ("shop.svc.cluster.local", ".", "x", "no..name", "x", "é"), ("ndots:5",)))
    assert after("a.b.shop.svc.cluster.local", path) == ["a.b.", "a.b.x."]


def test_names_that_are_too_long_are_not_asked_for() -> None:
    long = ".".join(["y" * 60] * 3)
    path = of_conf(ResolvConf((), ("x", long), ("ndots:5",)))
    base = ".".join(["z" * 60] * 2)
    assert after(f"{base}.x", path) == [f"{base}."]


label = st.text("abc", min_size=1, max_size=3)
domain = st.lists(label, min_size=1, max_size=3).map(".".join)


@given(st.lists(domain, min_size=1, max_size=4, unique=True), st.lists(label, min_size=2, max_size=6), st.integers(0, 7))
def test_it_is_what_another_resolver_tries(domains: list[str], labels: list[str], ndots: int) -> None:
    """dnspython's stub resolver as the judge."""
    other = dns.resolver.Resolver(configure=False)
    other.search, other.ndots = [dns.name.from_text(one) for one in domains], ndots
    tried: list[Name] = [
        name.labels[:-1] for name in other._get_qnames_to_try(dns.name.from_text(".".join(labels), None), search=True)
    ]
    first = tuple(part.encode() for part in (*labels, *domains[0].split(".")))
    assume(tried[0] == first)
    rest = of_conf(ResolvConf((), tuple(domains), (f"ndots:{ndots}",))).after(first)
    assert rest == tuple(name for name in dict.fromkeys(tried[1:]) if name != first)
