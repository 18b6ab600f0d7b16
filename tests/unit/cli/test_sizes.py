"""The largest packet that passes is found exactly, by few questions, and told with both nodes and the direction."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from podplane.cli.check import sizes
from podplane.cli.check.promises import FULL_SIZE, Probe

NODE_OF = {"a": "node1", "b": "node2"}


def probe(size: int, ip: str = "10.244.2.2") -> Probe:
    """A packet of full size, from node1 to node2."""
    return Probe(FULL_SIZE, "a", "b", "icmp", ip, size=size)


class Way:
    """Packets of so many bytes pass; of each round it is remembered how many were asked for."""

    def __init__(self, passes: int) -> None:
        self.passes = passes
        self.rounds: list[int] = []

    def ask(self, asked: list[Probe]) -> dict[Probe, dict[str, object]]:
        self.rounds.append(len(asked))
        return {one: {"ok": one.size <= self.passes, "error": "no answer"} for one in asked}


@given(
    st.integers(sizes.SMALLEST + 1, 9000).flatmap(lambda size: st.tuples(st.just(size), st.integers(sizes.SMALLEST, size - 1)))
)
def test_the_exact_size_is_found(case: tuple[int, int]) -> None:
    size, passes = case
    way = Way(passes)
    assert sizes.passing([probe(size)], {probe(size): {"ok": False}}, way.ask) == {probe(size): passes}
    assert len(way.rounds) <= 4 and max(way.rounds, default=0) <= sizes.AT_ONCE


def test_where_nothing_passes_one_round_is_enough() -> None:
    way = Way(0)
    assert sizes.passing([probe(1500)], {}, way.ask) == {probe(1500): 0}
    assert way.rounds == [sizes.AT_ONCE]


def test_what_was_answered_is_not_asked_for_and_of_many_ways_some_are() -> None:
    way = Way(1400)
    many = [probe(1500, f"10.244.2.{n}") for n in range(sizes.MOST_WAYS + 5)]
    assert sizes.passing([probe(1500)], {probe(1500): {"ok": True}}, way.ask) == {} and not way.rounds
    assert len(sizes.passing(many, {}, way.ask)) == sizes.MOST_WAYS


def test_both_nodes_the_direction_and_the_size_that_passes_are_named() -> None:
    said = "node1 → node2: packets of 1500 bytes do not pass, {} (a → b 10.244.2.2)"
    assert sizes.sentence(probe(1500), 1400, NODE_OF) == said.format("1400 bytes pass")
    assert sizes.sentence(probe(1500), 0, NODE_OF) == said.format("none passes, whatever its size")
