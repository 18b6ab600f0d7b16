"""Operations on packed sets (`state.nft_members`) as operations on some of their elements, and what became of these as one answer."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence

import msgspec

from podplane.kernel.nft.codec import ELEMENTS_PER_MESSAGE
from podplane.state.nft import Set
from podplane.state.nft_members import Members, SomeMembers
from podplane.state.operations import Failure, Operation, Report
from podplane.state.value import Value

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
        """The elements that change or come, and those that go: as many in an operation as in a message. One without any is done."""
        old, new = operation
        value = operation.value
        assert isinstance(value, Members) and (old is None or isinstance(old, Members))
        gone, came = (list(value), []) if new is None else value.differences(old)
        if not gone and not came:
            report.applied.append(operation)
            return [], []
        size = value.size
        before = {content[:size]: content for content in gone}
        changed = [one for one in came if one[:size] in before] if before else []
        came = [one for one in came if one[:size] not in before] if changed else came
        former = [before.pop(one[:size]) for one in changed]
        self._open[value.family, value.table, value.set] = _Open(operation, len(changed) + len(came) + len(before))
        puts = [Operation(one, other) for one, other in zip(_parts(value, former), _parts(value, changed), strict=True)]
        puts += [Operation(None, one) for one in _parts(value, came)]
        return puts, [Operation(one, None) for one in _parts(value, list(before.values()))]

    def folded(self, report: Report) -> Report:
        """The report, with answers about whole sets in the place of those about their elements."""
        if not self._open:
            return report
        done = Report([], [], report.recreated)
        for operation in report.applied:
            if isinstance(operation.value, SomeMembers):
                self._of(operation).applied.append(operation)
                self._settle(operation, done)
            else:
                done.applied.append(operation)
        for failure in report.failed:
            if isinstance(failure.operation.value, SomeMembers):
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
        one.left -= _count(operation)
        if one.left:
            return
        del self._open[_set_of(operation)]
        if one.error is None:
            done.applied.append(one.operation)
        else:
            done.failed.append(Failure(one.operation, one.error, _after(one.operation, one.applied) if one.applied else None))


def _parts(value: Members, contents: Sequence[bytes]) -> Iterator[SomeMembers]:
    """As many of these elements of a set in each as in a message."""
    for start in range(0, len(contents), ELEMENTS_PER_MESSAGE):
        some = tuple(contents[start : start + ELEMENTS_PER_MESSAGE])
        yield SomeMembers(family=value.family, table=value.table, set=value.set, contents=some)


def _count(operation: Operation) -> int:
    value = operation.value
    assert isinstance(value, SomeMembers)
    return len(value.contents)


def single(operations: Iterable[Operation]) -> list[Operation]:
    """These operations on elements, each on one element only."""
    return [one for operation in operations for one in _single(operation)]


def _single(operation: Operation) -> Iterator[Operation]:
    old, new = operation
    if isinstance(operation.value, SomeMembers):
        yield from (Operation(*pair) for pair in itertools.zip_longest(_each(old), _each(new)))
    else:
        yield operation


def _each(value: Value | None) -> Iterator[SomeMembers]:
    if isinstance(value, SomeMembers):
        yield from (msgspec.structs.replace(value, contents=(content,)) for content in value.contents)


def _set_of(operation: Operation) -> SetKey:
    value = operation.value
    assert isinstance(value, SomeMembers)
    return value.family, value.table, value.set


def _after(operation: Operation, applied: Iterable[Operation]) -> Members:
    """What a set holds after these of its elements."""
    value, old = operation.value, operation.old
    assert isinstance(value, Members)
    held = set(old) if isinstance(old, Members) else set()
    for one in applied:
        held.difference_update(one.old.contents if isinstance(one.old, SomeMembers) else ())
        held.update(one.new.contents if isinstance(one.new, SomeMembers) else ())
    owner = Set(family=value.family, table=value.table, name=value.set, key=value.key, interval=value.interval)
    return Members.of(owner, held)
