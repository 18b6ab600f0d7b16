"""Laws of the places of questions that are on their way."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from podplane.dns.asking import Ask
from podplane.dns.message import Name
from podplane.nameserver.places import Place, Places
from podplane.servers.later import Later

ZONES: list[Name] = [(), (b"dead",), (b"corp", b"example")]
TOTAL, OF_CLIENT = 24, 10
ASK = Ask(b"\1a\0\0\1\0\1")

clients = st.integers(0, 9).map(lambda number: f"10.244.1.{number}")
askers = st.tuples(clients, st.sampled_from(ZONES))


def place(ip: str, zone: Name) -> Place:
    return Place(ip, zone, ASK, Later())


def fill(places: Places, wanted: list[tuple[str, Name]]) -> list[Place]:
    """Those that hold a place in the end, oldest first."""
    held: list[Place] = []
    for ip, zone in wanted:
        one = place(ip, zone)
        given_up = places.enter(one)
        held.append(one)
        if given_up is not None:
            held.remove(given_up)
    return held


@given(st.lists(st.tuples(askers, st.booleans()), max_size=150), st.randoms(use_true_random=False))
def test_places_are_bounded_and_the_one_with_most_loses_its_newest(
    steps: list[tuple[tuple[str, Name], bool]], random: object
) -> None:
    places = Places(TOTAL, OF_CLIENT)
    held: list[Place] = []
    for (ip, zone), leaves in steps:
        if leaves and held:
            places.leave(held.pop(random.randrange(len(held))))  # type: ignore[attr-defined]
            continue
        counts = Counter((one.ip, one.zone) for one in held)
        one = place(ip, zone)
        given_up = places.enter(one)
        of_client = sum(count for (whose, _), count in counts.items() if whose == ip)
        if of_client >= OF_CLIENT:
            most = max(count for (whose, _), count in counts.items() if whose == ip)
        else:
            most = max(counts.values(), default=0) if len(held) >= TOTAL else None
        if most is None:
            assert given_up is None
        elif most <= counts[ip, zone] + 1:
            assert given_up is one
        else:
            assert given_up is not None and counts[given_up.ip, given_up.zone] == most
            assert given_up is [x for x in held if (x.ip, x.zone) == (given_up.ip, given_up.zone)][-1]
            assert of_client < OF_CLIENT or given_up.ip == ip
            held.remove(given_up)
        if given_up is not one:
            held.append(one)
        assert len(places) == len(held) <= TOTAL and places.is_full == (len(held) == TOTAL)
        assert max(Counter(x.ip for x in held).values(), default=0) <= OF_CLIENT


@given(st.lists(st.tuples(clients, st.just(ZONES[1])), max_size=200), clients, st.integers(1, 2))
def test_a_dead_zone_takes_no_place_of_another(flood: list[tuple[str, Name]], ip: str, few: int) -> None:
    """Whoever asks about names of a zone whose servers say nothing, however often, and whoever then asks about another zone."""
    places = Places(TOTAL, OF_CLIENT)
    held = fill(places, flood)
    for _ in range(few):
        one = place(ip, ZONES[2])
        assert places.enter(one) is not one
    assert len(places) <= TOTAL and len(held) <= TOTAL


@given(st.lists(askers.filter(lambda one: one[0] != "10.244.1.0"), max_size=300))
def test_clients_that_ask_without_end_take_no_place_of_one_that_asks_once(flood: list[tuple[str, Name]]) -> None:
    places = Places(TOTAL * 2, OF_CLIENT)
    fill(places, flood)
    one = place("10.244.1.0", ())
    assert places.enter(one) is not one


@given(st.lists(askers, max_size=100))
def test_what_is_left_is_gone_as_a_whole(wanted: list[tuple[str, Name]]) -> None:
    places = Places(TOTAL, OF_CLIENT)
    for one in fill(places, wanted):
        places.leave(one)
    assert len(places) == 0 and places.__dict__["_clients"] == {}
    assert len(fill(places, [("10.244.1.1", ())] * OF_CLIENT)) == OF_CLIENT
