"""Pools of addresses for load balancers: what their texts stand for, and their allocation."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podplane.services.pools import AddressRequest, Pool, allocate, definition, is_settled, pool_of
from podplane.services.ranges import Allocated, merged, parse
from podplane.state.value import IPAddress


def ip(text: str) -> IPAddress:
    return ipaddress.ip_address(text)


def taken(*texts: str) -> Allocated[str]:
    """These addresses are others'."""
    found: Allocated[str] = Allocated()
    for text in texts:
        found.add(ip(text), "another one")
    return found


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


def test_people_may_write_the_short_name_of_pools() -> None:
    names = definition()["spec"]["names"]
    assert (names["plural"], names["singular"], names["shortNames"]) == ("loadbalancerpools", "loadbalancerpool", ["lbpool"])


def test_each_family_that_is_wanted_gets_an_address() -> None:
    given_ = allocate(AddressRequest((4, 6)), [SMALL], taken())
    assert given_.ips == (ip("192.0.2.1"), ip("2001:db8::")) and not given_.problems


def test_addresses_that_it_has_are_kept_and_those_of_others_are_not_given() -> None:
    assert allocate(AddressRequest((4,), current=(ip("192.0.2.2"),)), [SMALL], taken("192.0.2.1")).ips == (ip("192.0.2.2"),)
    assert allocate(AddressRequest((4,), current=(ip("192.0.2.2"),)), [SMALL], taken("192.0.2.2")).ips == (ip("192.0.2.1"),)
    assert allocate(AddressRequest((4,), current=(ip("198.51.100.1"),)), [SMALL], taken()).ips == (ip("192.0.2.1"),)


def test_an_address_that_is_asked_for_is_given_or_it_is_said_why_not() -> None:
    wanted = AddressRequest((4,), wanted=(ip("192.0.2.3"),))
    assert allocate(wanted, [SMALL], taken()).ips == (ip("192.0.2.3"),)
    assert allocate(wanted, [SMALL], taken("192.0.2.3")) == ((), ("192.0.2.3 is in use already: ask for another one",))
    (problem,) = allocate(AddressRequest((4,), wanted=(ip("198.51.100.1"),)), [SMALL], taken()).problems
    assert problem == "198.51.100.1 is in no pool for this Service: add it to a LoadBalancerPool"


def test_when_nothing_is_left_it_is_said_of_which_pools() -> None:
    assert allocate(AddressRequest((4, 6)), [SMALL], taken("192.0.2.1", "192.0.2.2", "192.0.2.3")) == (
        (ip("2001:db8::"),),
        ("all IPv4 addresses of small are in use: add some to a LoadBalancerPool",),
    )
    (problem,) = allocate(AddressRequest((4,)), [], taken()).problems
    assert problem == "there is no LoadBalancerPool with IPv4 addresses for this Service: make one"


@pytest.mark.parametrize(
    ("requested", "others", "settled"),
    [
        (AddressRequest((4,), current=(ip("192.0.2.1"),)), (), True),
        (AddressRequest((4,)), (), False),
        (AddressRequest((4, 6), current=(ip("192.0.2.1"),)), (), False),
        (AddressRequest((4,), current=(ip("192.0.2.1"), ip("2001:db8::"))), (), False),
        (AddressRequest((4,), current=(ip("192.0.2.1"),)), ("192.0.2.1",), False),
        (AddressRequest((4,), current=(ip("198.51.100.1"),)), (), False),
        (AddressRequest((4,), (ip("192.0.2.2"),), (ip("192.0.2.1"),)), (), False),
        (AddressRequest((4, 6), (ip("192.0.2.2"),), (ip("192.0.2.2"),)), (), True),
    ],
)
def test_a_service_with_the_addresses_that_it_requests_is_settled(
    requested: AddressRequest, others: tuple[str, ...], settled: bool
) -> None:
    assert is_settled(requested, [SMALL], taken(*others)) is settled


last_octets = st.sets(st.integers(0, 15))


@given(last_octets, st.lists(st.integers(0, 15), min_size=1, max_size=4), st.sets(st.sampled_from((4, 6)), min_size=1))
def test_allocated_addresses_are_free_and_settle_the_request(used: set[int], firsts: list[int], versions: set[int]) -> None:
    pools: list[Pool] = [pool_of(f"p{n}", [f"192.0.2.{n}-192.0.2.15", f"2001:db8::{n:x}"]) for n in firsts]
    others = taken(*(f"192.0.2.{n}" for n in used), *(f"2001:db8::{n:x}" for n in used))
    request = AddressRequest(tuple(sorted(versions)))
    ips, problems = allocate(request, pools, others)
    assert all(any(one in pool for pool in pools) and not others.owners(one) for one in ips)
    assert len(ips) + len(problems) == len(versions)
    again = AddressRequest(request.versions, current=ips)
    assert allocate(again, pools, others).ips == ips, "allocating again changes nothing"
    assert is_settled(again, pools, others) is (not problems)


def test_addresses_of_services_and_pods_are_no_part_of_a_pool() -> None:
    networks = {"Services": [ipaddress.ip_network("192.0.2.4/30")], "pods": [ipaddress.ip_network("2001:db8::/32")]}
    pool = pool_of("p", ["192.0.2.3-192.0.2.9", "2001:db8::1-2001:db8::5"], networks)
    assert [str(one.first) + "-" + str(one.last) for one in pool.ranges] == ["192.0.2.3-192.0.2.3", "192.0.2.8-192.0.2.9"]
    assert pool.problems == (
        "'192.0.2.3-192.0.2.9' has addresses of 192.0.2.4/30, which are those of Services: they are not given",
        "'2001:db8::1-2001:db8::5' has addresses of 2001:db8::/32, which are those of pods: they are not given",
    )


octet_ranges = st.lists(st.tuples(st.integers(0, 15), st.integers(0, 15)).map(sorted), max_size=4)


@given(octet_ranges, st.lists(st.integers(0, 15), max_size=2), last_octets)
def test_a_pool_counts_each_address_once(parts: list[list[int]], firsts: list[int], used: set[int]) -> None:
    networks = {"pods": [ipaddress.ip_network(f"192.0.2.{n}/{32 - (n & -n or 16).bit_length() + 1}") for n in firsts]}
    pool = pool_of("p", [f"192.0.2.{first}-192.0.2.{last}" for first, last in parts], networks)
    theirs = {str(one) for network in networks["pods"] for one in network}
    usable = {f"192.0.2.{n}" for first, last in parts for n in range(first, last + 1)} - theirs
    assert pool.size == len(usable) and sum(one.size for one in merged(pool.ranges)) == len(usable)
    assert {f"192.0.2.{n}" for n in range(16) if ip(f"192.0.2.{n}") in pool} == usable
    assert pool.in_use(taken(*(f"192.0.2.{n}" for n in used))) == len(usable & {f"192.0.2.{n}" for n in used})


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 9), st.sampled_from("ab"))), st.integers(0, 9), st.integers(0, 9))
def test_who_has_which_address_is_what_was_added_and_not_removed(
    steps: list[tuple[bool, int, str]], first: int, last: int
) -> None:
    found: Allocated[str] = Allocated()
    expected: dict[int, set[str]] = {}
    for add, number, who in steps:
        (found.add if add else found.remove)(ip(f"192.0.2.{number}"), who)
        (expected.setdefault(number, set()).add if add else expected.setdefault(number, set()).discard)(who)
    assert all(found.owners(ip(f"192.0.2.{n}")) == expected.get(n, set()) for n in range(10))
    first, last = sorted((first, last))
    range_ = parse(f"192.0.2.{first}-192.0.2.{last}")
    held = [n for n in range(first, last + 1) if expected.get(n)]
    assert found.within(range_) == [ip(f"192.0.2.{n}") for n in held] and found.count(range_) == len(held)
    gap = next((n for n in range(first, last + 1) if n not in held), None)
    assert found.free(range_) == (ip(f"192.0.2.{gap}") if gap is not None else None)
