"""Operations on packed sets (`state.nft_members`) as operations on their elements, and what became of these as one answer."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from podplane.state import nft_types as types
from podplane.state.nft import Set
from podplane.state.nft_members import Member, Members
from podplane.state.operations import Failure, Operation, Report

SetKey = tuple[str, str, str]


class _Open(msgspec.Struct):
    """An operation whose elements are on their way: how many, and what became of the others."""

    operation: Operation
    left: int
    applied: list[Operation] = msgspec.field(default_factory=list)
    error: Exception | None = None


class Packed:
    """The operations on packed sets of one call."""

    def __init__(self) -> None:
        self._open: dict[SetKey, _Open] = {}

    def elements(self, operation: Operation, report: Report) -> tuple[list[Operation], list[Operation]]:
        """The elements that come or change, and those that go. One without any is done."""
        old, new = operation
        value = operation.value
        assert isinstance(value, Members) and (old is None or isinstance(old, Members))
        gone, came = (list(value), []) if new is None else value.differences(old)
        size, key = types.size(value.key), (value.family, value.table, value.set)

        def member(content: bytes) -> Member:
            return Member(family=value.family, table=value.table, set=value.set, content=content)

        before = {content[:size]: content for content in gone}
        puts = [
            Operation(member(found) if (found := before.pop(one[:size], None)) is not None else None, member(one))
            for one in came
        ]
        removals = [Operation(member(one), None) for one in before.values()]
        if puts or removals:
            self._open[key] = _Open(operation, len(puts) + len(removals))
        else:
            report.applied.append(operation)
        return puts, removals

    def folded(self, report: Report) -> Report:
        """The report, with answers about whole sets in the place of those about their elements."""
        if not self._open:
            return report
        done = Report([], [], report.recreated)
        for operation in report.applied:
            if isinstance(operation.value, Member):
                self._of(operation).applied.append(operation)
                self._settle(operation, done)
            else:
                done.applied.append(operation)
        for failure in report.failed:
            if isinstance(failure.operation.value, Member):
                one = self._of(failure.operation)
                one.error = one.error or failure.error
                self._settle(failure.operation, done)
            else:
                done.failed.append(failure)
        return done

    def _of(self, operation: Operation) -> _Open:
        return self._open[_set_of(operation)]

    def _settle(self, operation: Operation, done: Report) -> None:
        one = self._of(operation)
        one.left -= 1
        if one.left:
            return
        del self._open[_set_of(operation)]
        if one.error is None:
            done.applied.append(one.operation)
        else:
            done.failed.append(Failure(one.operation, one.error, _after(one.operation, one.applied) if one.applied else None))


def _set_of(operation: Operation) -> SetKey:
    value = operation.value
    assert isinstance(value, Member)
    return value.family, value.table, value.set


def _after(operation: Operation, applied: Iterable[Operation]) -> Members:
    """What a set holds after these of its elements."""
    value, old = operation.value, operation.old
    assert isinstance(value, Members)
    held = set(old) if isinstance(old, Members) else set()
    for one in applied:
        held -= {one.old.content} if isinstance(one.old, Member) else set()
        held |= {one.new.content} if isinstance(one.new, Member) else set()
    owner = Set(family=value.family, table=value.table, name=value.set, key=value.key)
    return Members.of(owner, held)
