"""Units of nf_tables: in which order sets come, and the elements of packed sets, many in one operation."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from podplane.kernel.errors import KernelError
from podplane.kernel.nft.codec import ELEMENTS_PER_MESSAGE
from podplane.kernel.nft.packed import Packed, single
from podplane.kernel.nft.units import Unit, units
from podplane.state.nft import Set
from podplane.state.nft_members import Members, SomeMembers, packed
from podplane.state.operations import Failure, Operation, Report

PLACE: Any = {"family": "inet", "table": "t"}
PEERS = Set(**PLACE, name="peers", key=("ipv4_addr",), packed=True)
Contents = dict[int, str]


def members(contents: Contents) -> Members:
    return Members.of(PEERS, [packed(number.to_bytes(4, "big"), comment) for number, comment in contents.items()])


def some(last: int) -> st.SearchStrategy[Contents]:
    return st.dictionaries(st.integers(1, last), st.sampled_from(("a", "b")))


def made(*operations: Operation) -> list[Unit]:
    found = units(operations, {(*PLACE.values(), "peers"): PEERS}, lambda _: None, Packed(), Report())
    return [unit for unit in found if unit is not None]


def test_sets_that_there_are_few_of_come_before_those_that_there_are_thousands_of() -> None:
    """The kernel looks for a set by its name among all those that came before it."""
    few = [Set(**PLACE, name=f"few{n}", key=("ipv4_addr",)) for n in range(2)]
    many = [Set(**PLACE, name=f"many{n}", key=("ipv4_addr",), packed=True) for n in range(2)]
    found = made(*(Operation(None, one) for one in (many[0], few[0], many[1], few[1])))
    assert [unit.operations[0].new for unit in found] == [*few, *many]


def test_a_message_has_so_many_elements_and_a_unit_two_messages() -> None:
    count = 3 * ELEMENTS_PER_MESSAGE + 5
    old = dict.fromkeys(range(10), "a")
    new = {number: "b" if number < 5 else "a" for number in range(5, 5 + count)} | {0: "b", 1: "b"}
    found = made(Operation(members(old), members(new)))
    sizes = [[len(one.value.contents) for one in unit.operations if isinstance(one.value, SomeMembers)] for unit in found]
    assert sizes == [[2], [ELEMENTS_PER_MESSAGE], [ELEMENTS_PER_MESSAGE], [ELEMENTS_PER_MESSAGE], [3]]
    assert [len(unit.messages) for unit in found] == [2, 1, 1, 1, 1]
    few = made(Operation(members({1: "a"}), members({1: "b", 2: "a"})))
    assert [len(unit.messages) for unit in few] == [2], "what changes and what comes are sent together"


@given(some(600), some(600), st.data())
def test_operations_on_some_elements_lead_from_one_version_to_the_other(
    old: Contents, new: Contents, data: st.DataObject
) -> None:
    operation, report, whole = Operation(members(old) if old else None, members(new)), Report(), Packed()
    puts, removals = whole.elements(operation, report)
    held = set(members(old))
    for one in single([*puts, *removals]):
        gone = set(one.old.contents) if isinstance(one.old, SomeMembers) else set()
        came = set(one.new.contents) if isinstance(one.new, SomeMembers) else set()
        assert gone <= held and not came & held and len(gone) <= 1 and len(came) <= 1
        held = held - gone | came
    assert held == set(members(new))
    assert all(
        len(one.value.contents) <= ELEMENTS_PER_MESSAGE for one in (*puts, *removals) if isinstance(one.value, SomeMembers)
    )
    assert report.applied == ([] if puts or removals else [operation])
    # Whatever becomes of them, and in which order: one answer about the whole, with what the kernel holds.
    answers, refused = Report(), data.draw(st.booleans())
    for one in data.draw(st.permutations([*puts, *removals])):
        part = Report(failed=[Failure(one, KernelError("x", "no"))]) if refused else Report(applied=[one])
        answers.merge(whole.folded(part))
    expected = [operation] if puts or removals else []
    assert [one.operation for one in answers.failed] == (expected if refused else [])
    assert answers.applied == ([] if refused else expected)
