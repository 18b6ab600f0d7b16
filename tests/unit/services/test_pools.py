"""Pools of addresses for load balancers: what their texts stand for, and who gets which address."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podplane.services.pools import Claim, Pool, grant, is_settled, parse, pool_of
from podplane.state.value import IPAddress


def ip(text: str) -> IPAddress:
    return ipaddress.ip_address(text)


SMALL = pool_of("small", ["192.0.2.1-192.0.2.3", "2001:db8::/126"])


@pytest.mark.parametrize(
    ("text", "first", "last"),
    [
        ("192.0.2.7", "192.0.2.7", "192.0.2.7"),
        ("192.0.2.0/30", "192.0.2.0", "192.0.2.3"),
        ("192.0.2.1-192.0.2.9", "192.0.2.1", "192.0.2.9"),
        ("2001:db8::1 - 2001:db8::ff", "2001:db8::1", "2001:db8::ff"),
    ],
)
def test_an_entry_is_an_address_a_network_or_first_and_last(text: str, first: str, last: str) -> None:
    found = parse(text)
    assert (found.first, found.last) == (ip(first), ip(last))
    assert found.first in found and found.last in found and ip("10.0.0.1") not in found


@pytest.mark.parametrize(
    "text",
    ["", "a", "192.0.2.9-192.0.2.1", "192.0.2.1-2001:db8::1", "192.0.2.1/24", "127.0.0.0/8", "224.0.0.1", "::-::5", "1-2-3"],
)
def test_what_is_no_address_is_a_problem_of_the_pool_and_the_rest_of_it_counts(text: str) -> None:
    with pytest.raises(ValueError):
        parse(text)
    pool = pool_of("p", [text, "192.0.2.1"])
    assert pool.size == 1 and len(pool.problems) == 1


def test_each_family_that_is_wanted_gets_an_address() -> None:
    given_ = grant(Claim((4, 6)), [SMALL], set())
    assert given_.ips == (ip("192.0.2.1"), ip("2001:db8::")) and not given_.problems


def test_addresses_that_it_has_are_kept_and_those_of_others_are_not_given() -> None:
    assert grant(Claim((4,), has=(ip("192.0.2.2"),)), [SMALL], {ip("192.0.2.1")}).ips == (ip("192.0.2.2"),)
    assert grant(Claim((4,), has=(ip("192.0.2.2"),)), [SMALL], {ip("192.0.2.2")}).ips == (ip("192.0.2.1"),)
    assert grant(Claim((4,), has=(ip("198.51.100.1"),)), [SMALL], set()).ips == (ip("192.0.2.1"),)


def test_an_address_that_is_asked_for_is_given_or_it_is_said_why_not() -> None:
    wanted = Claim((4,), wanted=(ip("192.0.2.3"),))
    assert grant(wanted, [SMALL], set()).ips == (ip("192.0.2.3"),)
    assert grant(wanted, [SMALL], {ip("192.0.2.3")}) == ((), ("192.0.2.3 is in use already: ask for another one",))
    (problem,) = grant(Claim((4,), wanted=(ip("198.51.100.1"),)), [SMALL], set()).problems
    assert problem == "198.51.100.1 is in no pool for this Service: add it to a LoadBalancerPool"


def test_when_nothing_is_left_it_is_said_of_which_pools() -> None:
    used = {ip(f"192.0.2.{n}") for n in (1, 2, 3)}
    assert grant(Claim((4, 6)), [SMALL], used) == (
        (ip("2001:db8::"),),
        ("all IPv4 addresses of small are in use: add some to a LoadBalancerPool",),
    )
    (problem,) = grant(Claim((4,)), [], set()).problems
    assert problem == "there is no LoadBalancerPool with IPv4 addresses for this Service: make one"


@pytest.mark.parametrize(
    ("claim", "taken", "settled"),
    [
        (Claim((4,), has=(ip("192.0.2.1"),)), (), True),
        (Claim((4,)), (), False),
        (Claim((4, 6), has=(ip("192.0.2.1"),)), (), False),
        (Claim((4,), has=(ip("192.0.2.1"), ip("2001:db8::"))), (), False),
        (Claim((4,), has=(ip("192.0.2.1"),)), ("192.0.2.1",), False),
        (Claim((4,), has=(ip("198.51.100.1"),)), (), False),
        (Claim((4,), (ip("192.0.2.2"),), (ip("192.0.2.1"),)), (), False),
        (Claim((4, 6), (ip("192.0.2.2"),), (ip("192.0.2.2"),)), (), True),
    ],
)
def test_who_has_what_it_wants_is_settled(claim: Claim, taken: tuple[str, ...], settled: bool) -> None:
    assert is_settled(claim, [SMALL], {ip(text) for text in taken}) is settled


last_octets = st.sets(st.integers(0, 15))


@given(last_octets, st.lists(st.integers(0, 15), min_size=1, max_size=4), st.sets(st.sampled_from((4, 6)), min_size=1))
def test_what_is_granted_is_of_a_pool_nobody_elses_and_settles(used: set[int], firsts: list[int], versions: set[int]) -> None:
    pools: list[Pool] = [pool_of(f"p{n}", [f"192.0.2.{n}-192.0.2.15", f"2001:db8::{n:x}"]) for n in firsts]
    others = {ip(f"192.0.2.{n}") for n in used} | {ip(f"2001:db8::{n:x}") for n in used}
    claim = Claim(tuple(sorted(versions)))
    ips, problems = grant(claim, pools, others)
    assert all(any(one in pool for pool in pools) and one not in others for one in ips)
    assert len(ips) + len(problems) == len(versions)
    again = Claim(claim.versions, has=ips)
    assert grant(again, pools, others).ips == ips, "granting again changes nothing"
    assert is_settled(again, pools, set()) is (not problems)
