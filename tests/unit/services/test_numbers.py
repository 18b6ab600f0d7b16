"""Numbers: nobody shares one, what is free again is given last, and an agent that starts goes on where the one before stopped."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podplane.services import tables
from podplane.services.numbers import NoNumber, Numbers, Series
from podplane.services.rules import CHOICE_BITS
from podplane.state.nft import Element


def frontend(port: int, name: str, group: int) -> Element:
    key = (ipaddress.ip_address("10.96.0.1"), "tcp", port)
    return tables.element("frontends", 4, key, (group << CHOICE_BITS | 1,), name)


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
        numbers.tidy(frontend(name, f"svc/{name}", number) for name, number in now.items())
        before = now


def test_a_number_that_is_free_again_is_given_last() -> None:
    numbers = Numbers(groups=Series(1, 100, "groups"))
    given_out = []
    for name in range(150):
        given_out.append(numbers.groups.of(str(name)))
        numbers.tidy([frontend(1, str(name), given_out[-1])])
    assert given_out == [*range(1, 101), *range(1, 51)]


def test_many_names_are_forgotten_when_nobody_uses_them() -> None:
    numbers = Numbers()
    for name in range(10_000):
        number = numbers.targets.of(str(name))
        numbers.tidy(())
    assert number == 10_000 and len(numbers.targets._by_name) < 2_000


def test_a_new_agent_takes_over_what_is_there_and_passes_over_what_is_remembered() -> None:
    ip = ipaddress.ip_address("10.0.0.1")
    found = [
        frontend(80, "svc/default/a:80", 7),
        tables.element("targets", 4, (3,), (ip, 80), "svc/default/a:80"),
        tables.choice(4, 9000, 2, 60),
        tables.choice(4, 9001, 2, 60, "inside"),
    ]
    client = (ipaddress.ip_address("10.0.0.9"), ip, "tcp", 80)
    numbers = Numbers()
    numbers.recover(found, [tables.element("affinity", 4, client, (41,))])
    assert numbers.groups.of("svc/default/a:80") == 7 and numbers.groups.of("another") == 8
    assert numbers.targets.of("svc/default/a:80/10.0.0.1/80") == 3
    assert numbers.targets.of("svc/default/a:80/10.0.0.2/80") == 42, "a client may still be remembered with a lower one"
    assert (numbers.way(2, 60, "frontends"), numbers.way(2, 60, "inside"), numbers.way(2, 0, "inside")) == (9000, 9001, 2)
    assert numbers.way(3, 60, "frontends") == 9002
