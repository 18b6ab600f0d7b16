"""Which peers' routes are withdrawn."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from podplane.probes.table import State
from podplane.probes.withdrawal import Surroundings, Suspect, withdrawn

DEAD = Suspect(name="node2", is_ready=False, pods=State.LOST)
AROUND = Surroundings(nodes=3, failing=1, is_answered=True)
NONE: frozenset[str] = frozenset()
ITS = frozenset({"node2"})


def test_a_node_that_is_not_ready_and_does_not_answer_is_withdrawn() -> None:
    assert withdrawn(NONE, [DEAD], AROUND) == ITS


@pytest.mark.parametrize(
    "suspect",
    [
        pytest.param({"is_ready": True}, id="it is ready"),
        pytest.param({"pods": State.REACHED}, id="it answers: its kubelet alone died, or its Lease is old"),
        pytest.param({"pods": State.UNKNOWN}, id="nobody tried yet"),
        pytest.param({"was_well": False}, id="it was never well: it is about to begin"),
    ],
)
def test_neither_is_enough(suspect: dict[str, object]) -> None:
    assert withdrawn(NONE, [msgspec.structs.replace(DEAD, **suspect)], AROUND) == NONE


def test_while_most_nodes_fail_at_once_no_more_are_withdrawn_and_what_is_stays() -> None:
    outage = Surroundings(nodes=3, failing=2, is_answered=True)
    assert outage.is_outage and withdrawn(NONE, [DEAD], outage) == NONE
    assert withdrawn(ITS, [DEAD], outage) == ITS
    assert not Surroundings(nodes=2, failing=1, is_answered=True).is_outage


def test_while_the_api_is_away_nothing_is_withdrawn_and_what_answers_comes_back() -> None:
    away = msgspec.structs.replace(AROUND, is_current=False)
    assert withdrawn(NONE, [DEAD], away) == NONE
    assert withdrawn(ITS, [DEAD], away) == ITS
    assert withdrawn(ITS, [msgspec.structs.replace(DEAD, pods=State.REACHED)], away) == NONE


def test_silence_where_nobody_answers_proves_nothing() -> None:
    mute = msgspec.structs.replace(DEAD, has_answered=False)
    assert withdrawn(NONE, [mute], msgspec.structs.replace(AROUND, is_answered=False)) == NONE
    assert withdrawn(NONE, [mute], AROUND) == ITS
    assert withdrawn(NONE, [DEAD], msgspec.structs.replace(AROUND, is_answered=False)) == ITS


def test_it_stays_until_the_node_is_ready_or_answers() -> None:
    unknown = msgspec.structs.replace(DEAD, pods=State.UNKNOWN, was_well=False, has_answered=False)  # an agent started again
    assert withdrawn(ITS, [unknown], AROUND) == ITS
    assert withdrawn(ITS, [msgspec.structs.replace(DEAD, is_ready=True)], AROUND) == NONE
    assert withdrawn(ITS, [msgspec.structs.replace(DEAD, pods=State.REACHED)], AROUND) == NONE
    assert withdrawn(ITS, [], AROUND) == NONE  # it was deleted


SUSPECTS = st.lists(
    st.builds(
        Suspect,
        name=st.sampled_from([f"node{n}" for n in range(6)]),
        is_ready=st.booleans(),
        pods=st.sampled_from(State),
        was_well=st.booleans(),
        has_answered=st.booleans(),
    ),
    unique_by=lambda one: one.name,
)
SURROUNDINGS = st.builds(
    Surroundings, nodes=st.integers(1, 10), failing=st.integers(0, 10), is_answered=st.booleans(), is_current=st.booleans()
)


@given(st.frozensets(st.sampled_from([f"node{n}" for n in range(6)])), SUSPECTS, SURROUNDINGS)
def test_laws(now: frozenset[str], suspects: list[Suspect], around: Surroundings) -> None:
    result = withdrawn(now, suspects, around)
    by_name = {one.name: one for one in suspects}
    assert all(not by_name[name].is_ready and by_name[name].pods is not State.REACHED for name in result)
    assert all(by_name[name].pods is State.LOST for name in result - now)
    if around.is_outage or not around.is_current:
        assert result <= now
    assert withdrawn(result, suspects, around) == result
