"""Numbers: nobody shares one, what is free again is given last, and an agent that starts goes on where the one before stopped."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podplane.services import tables
from podplane.services.model import Group
from podplane.services.numbers import NoNumber, Numbers, Series
from podplane.services.rules import CHAIN_BITS
from podplane.state.conntrack import Target
from podplane.state.nft import Element


def frontend(port: int, name: str, group: int) -> Element:
    key = (ipaddress.ip_address("10.96.0.1"), "tcp", port)
    return tables.element("frontends", 4, key, (group << CHAIN_BITS | 1,), name)


def group_of(name: str, *targets: Target, seconds: int = 0) -> Group:
    return Group(name, 4, targets, seconds)


def tidy(numbers: Numbers, *groups: Group) -> None:
    if numbers.is_crowded(len(groups)):
        numbers.keep(groups)


def test_a_name_keeps_its_number() -> None:
    series = Series(1, 10, "things")
    assert [series.of(name) for name in ("a", "b", "a", "c", "b")] == [1, 2, 1, 3, 2]


def test_when_all_are_in_use_it_says_so() -> None:
    series = Series(1, 3, "things")
    for name in "abc":
        series.of(name)
    with pytest.raises(NoNumber, match="there are 3 things on this node, and no room for one more"):
        series.of("d")
    assert series.of("b") == 2


@given(st.lists(st.sets(st.integers(0, 30), max_size=8), max_size=40))
def test_what_is_in_use_at_once_has_numbers_of_its_own_and_keeps_them(steps: list[set[int]]) -> None:
    """Whatever comes and goes, with little room: numbers are given again, but never twice at once."""
    numbers = Numbers(groups=Series(1, 32, "groups"))
    before: dict[int, int] = {}
    for step in steps:
        now = {name: numbers.groups.of(f"svc/{name}") for name in sorted(step)}
        assert len(set(now.values())) == len(now) and all(1 <= number <= 32 for number in now.values())
        assert all(now[name] == before[name] for name in now.keys() & before.keys())
        tidy(numbers, *(group_of(f"svc/{name}") for name in now))
        before = now


def test_a_number_that_is_free_again_is_given_last() -> None:
    numbers = Numbers(groups=Series(1, 100, "groups"))
    given_out = []
    for name in range(150):
        given_out.append(numbers.groups.of(str(name)))
        tidy(numbers, group_of(str(name)))
    assert given_out == [*range(1, 101), *range(1, 51)]


def test_many_names_are_forgotten_when_nobody_uses_them() -> None:
    numbers = Numbers()
    for name in range(10_000):
        numbers.groups.of(str(name))
        numbers.member_ids(group_of(str(name)), [TARGET])
        numbers.slots(group_of(str(name), TARGET))
        tidy(numbers)
    assert len(numbers.groups._by_name) < 2_000 and len(numbers._members) < 2_000 and len(numbers._slots) < 2_000


TARGET = Target(ipaddress.ip_address("10.0.0.1"), 80)
OTHERS = [Target(ipaddress.ip_address(f"10.0.0.{n}"), 80) for n in range(2, 9)]


@given(st.lists(st.sets(st.integers(0, 6)), max_size=30))
def test_members_have_numbers_of_their_own_and_keep_them_while_they_are_there(steps: list[set[int]]) -> None:
    numbers = Numbers()
    before: dict[Target, int] = {}
    for step in steps:
        targets = [OTHERS[n] for n in sorted(step)]
        now = dict(zip(targets, numbers.member_ids(group_of("svc/a"), targets), strict=True))
        assert len(set(now.values())) == len(now)
        assert all(now[target] == before[target] for target in now.keys() & before.keys())
        before = now


def test_a_member_that_comes_does_not_get_the_number_of_one_that_just_went() -> None:
    numbers = Numbers()
    numbers.member_ids(group_of("svc/a"), [TARGET])
    assert numbers.member_ids(group_of("svc/a"), OTHERS[:1]) == [2]


def test_a_new_agent_takes_over_what_is_there() -> None:
    group = 7 << CHAIN_BITS
    found = [
        frontend(80, "svc/default/a:80", 7),
        tables.element("inside", 4, (TARGET.ip, "tcp", 81), (8 << CHAIN_BITS | 1,), "svc/default/b:81"),
        tables.element("targets", 4, (group | 3,), tuple(TARGET), "svc/default/a:80"),
        tables.chain_element(4, 9000, 2, 60),
        tables.chain_element(4, 9001, 10_000),
        tables.chain_element(4, 2, 2),
    ]
    numbers = Numbers()
    numbers.recover(found)
    assert [numbers.groups.of(name) for name in ("svc/default/a:80", "svc/default/b:81", "another")] == [7, 8, 9]
    assert numbers.member_ids(group_of("svc/default/a:80"), [*OTHERS[:1], TARGET]) == [4, 3]
    assert [numbers.chain(*shape) for shape in ((2, 60), (10_000, 0), (2, 0), (3, 60))] == [9000, 9001, 2, 9002]


@given(st.lists(st.sets(st.integers(0, 6)), max_size=30))
def test_whoever_stays_keeps_its_place_unless_that_is_gone(steps: list[set[int]]) -> None:
    numbers = Numbers()
    before: list[Target] = []
    for step in steps:
        targets = [OTHERS[n] for n in sorted(step)]
        after = numbers.slots(group_of("svc/a", *targets))
        assert sorted(after) == targets, "each has one"
        moved = [t for i, t in enumerate(after) if t in before and before.index(t) != i]
        assert all(before.index(t) >= len(after) for t in moved)
        before = after


def test_one_that_goes_moves_one_other_at_most() -> None:
    numbers = Numbers()
    numbers.slots(group_of("svc/a", *OTHERS))
    assert numbers.slots(group_of("svc/a", *OTHERS[1:])) == [OTHERS[-1], *OTHERS[1:-1]]


def test_a_new_agent_takes_over_the_places() -> None:
    group = 7 << CHAIN_BITS
    kept = [tables.element("targets", 4, (group | k,), tuple(OTHERS[k]), "svc/b") for k in (1, 2)]
    ids = [tables.element("ids", 4, (group, 2 - k), (group | k,), "svc/b") for k in (1, 2)]
    plain = [tables.element("endpoints", 4, (group, k), tuple(OTHERS[5 - k]), "svc/a") for k in range(3)]
    numbers = Numbers()
    numbers.recover([*kept, *ids, *plain])
    assert numbers.slots(group_of("svc/a", *OTHERS[3:6])) == OTHERS[5:2:-1]
    assert numbers.slots(group_of("svc/b", *OTHERS[1:3])) == [OTHERS[2], OTHERS[1]]
