"""The writer: whatever the kernel does (refuse, raise, say nothing, take long), nobody waits for ever, and what is settled is settled."""

from __future__ import annotations

import asyncio
import itertools
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from podplane.agent import pause
from podplane.agent.writer import Writer
from podplane.kernel.errors import Denied, Exists, NotFound
from podplane.state.ledger import Ledger, Status
from podplane.state.network import Link
from podplane.state.operations import Failure, Operation, Report
from podplane.state.value import Identity, Value, fragment


def value(name: str, content: str, kind: str = "", netns: str = "") -> Link:
    """A version of an object; one with a kind takes long to remove."""
    return Link(netns=netns, name=name, alias=content, up=False, kind=kind)


class Strict:
    """A kernel in slices of two operations: as strict as the real one, and with whims that a test sets."""

    def __init__(self) -> None:
        self.values: dict[Identity, Value] = {}
        self.refused: set[str] = set()
        self.raises: Exception | None = None
        self.silent: set[str] = set()
        self.detached: list[str] = []
        self.order: list[str] = []
        self.in_step: Callable[[Operation], None] = lambda operation: None

    def steps(self, operations: Sequence[Operation]) -> Iterator[Report]:
        for start in range(0, len(operations), 2):
            if self.raises is not None:
                raise self.raises
            report = Report()
            for operation in operations[start : start + 2]:
                self.in_step(operation)
                self._carry_out(operation, report)
            yield report

    def remove_links(self, operations: Sequence[Operation]) -> Report:
        report = Report()
        for step in self.steps(operations):
            report.merge(step)
        return report

    def _carry_out(self, operation: Operation, report: Report) -> None:
        identity, name = operation.value.identity, getattr(operation.value, "name", "")
        if name in self.silent:
            return
        error = self._error(operation, name)
        if error is not None:
            report.failed.append(Failure(operation, error))
            return
        self.order.append(name)
        if operation.new is None:
            del self.values[identity]
        else:
            self.values[identity] = operation.new
        report.applied.append(operation)

    def _error(self, operation: Operation, name: str) -> Exception | None:
        identity = operation.value.identity
        if name in self.refused:
            return Denied(name, "Operation not permitted")
        if operation.new is None and identity not in self.values:
            return NotFound(name, "No such device")
        if operation.old is None and identity in self.values:
            return Exists(name, "File exists")
        return None

    def detach(self, name: str) -> None:
        self.detached.append(name)
        for identity in [i for i in self.values if i[1] == name]:
            del self.values[identity]


class Rig:
    """A writer over such a kernel."""

    def __init__(
        self, before_send: Callable[[], None] = lambda: None, sent: Callable[[Report], None] = lambda report: None
    ) -> None:
        self.ledger = Ledger(lambda wanted, found: wanted == found)
        self.kernel = Strict()
        self.now = 0.0
        self.writer = Writer("node1", self.ledger, self.kernel, lambda: self.now, before_send, sent)

    def want(self, key: str, *values: Value) -> list[Identity]:
        return self.ledger.replace(key, fragment(values))

    def read(self) -> None:
        """Correct what is known by what the kernel holds."""
        for _ in self.ledger.end_reading(self.ledger.begin_reading(), dict(self.kernel.values), lambda identity: True):
            pass

    async def settled(self, identities: Sequence[Identity]) -> list[Failure]:
        return await asyncio.wait_for(self.writer.settled(identities), 5)


def fail() -> None:
    raise ValueError("nobody foresaw this")


async def test_a_failure_before_a_send_does_not_keep_the_writer_from_sending() -> None:
    """An ADD must not be told that its objects are there when nothing was sent."""
    rig = Rig(before_send=fail)
    wanted = value("a", "1")
    assert await rig.settled(rig.want("x", wanted)) == []
    assert rig.kernel.values == {wanted.identity: wanted}
    assert rig.ledger.status(wanted.identity) is Status.DONE


async def test_a_failure_of_who_is_told_does_not_keep_the_writer_from_sending() -> None:
    rig = Rig(sent=lambda report: fail())
    one, two = value("a", "1"), value("b", "1")
    assert await rig.settled(rig.want("x", one, two)) == []
    assert len(rig.kernel.values) == 2


async def test_an_operation_of_which_the_door_says_nothing_is_refused_and_tried_again() -> None:
    rig = Rig()
    rig.kernel.silent = {"a"}
    changed = rig.want("x", value("a", "1"), value("b", "1"))
    (failure,) = await rig.settled(changed)
    assert "said nothing" in str(failure.error) and failure.operation.value == value("a", "1")
    rig.kernel.silent = set()
    rig.ledger.release_retries(1.0)
    assert await rig.settled(changed) == []


async def test_when_no_thread_can_be_started_a_removal_is_refused_and_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig()
    veth = value("a", "1", "veth")
    await rig.settled(rig.want("x", veth))

    async def no_thread(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    rig.want("x")
    with monkeypatch.context() as patch:
        patch.setattr("asyncio.to_thread", no_thread)
        (failure,) = await rig.settled([veth.identity])
    assert failure.operation == Operation(veth, None) and "new thread" in str(failure)
    rig.ledger.release_retries(1.0)
    assert await rig.settled([veth.identity]) == []
    assert not rig.kernel.values


async def test_what_somebody_waits_for_overtakes_a_large_change(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pause, "TURN_SECONDS", 0)  # each slice counts as a long one
    rig = Rig()
    rig.want("large", *(value(f"n{n}", "1") for n in range(100)))
    rig.writer.wake()
    await asyncio.sleep(0)
    urgent = value("urgent", "1")
    assert await rig.settled(rig.want("pod", urgent)) == []
    assert rig.kernel.order.index("urgent") < 20, "it is in the kernel while the large change is under way"
    assert len(rig.kernel.order) < 50
    await rig.writer.idle()
    assert len(rig.kernel.values) == 101


async def test_what_is_waited_for_together_is_sent_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of it is on its way when somebody waits for all of it: the other half may need the first one."""
    monkeypatch.setattr(pause, "TURN_SECONDS", 0)  # each slice counts as a long one
    rig = Rig()
    first = rig.want("pod", *(value(f"n{n}", "1") for n in range(20)))
    rig.writer.wake()
    await asyncio.sleep(0)
    both = [*first, *rig.want("peer", value("last", "1"))]
    assert await rig.settled(both) == []
    assert rig.kernel.order[-1] == "last"


async def test_other_tasks_have_a_turn_between_the_slices_of_a_large_change(monkeypatch: pytest.MonkeyPatch) -> None:
    """The number of turns grows with the size of the change: no turn is longer than a slice of the door."""
    monkeypatch.setattr(pause, "TURN_SECONDS", 0)  # each slice counts as a long one

    async def turns(count: int) -> int:
        rig = Rig()
        rig.want("large", *(value(f"n{n}", "1") for n in range(count)))
        rig.writer.wake()
        found = 0
        while len(rig.kernel.values) < count:
            await asyncio.sleep(0)
            found += 1
        return found

    assert await turns(20) >= 10
    assert await turns(200) >= 100


async def test_other_tasks_have_a_turn_between_the_slices_of_what_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many who wait at one time, while a large change is under way, don't make one long turn; the change goes on after them."""
    monkeypatch.setattr(pause, "TURN_SECONDS", 0)  # each slice counts as a long one
    rig = Rig()
    rig.want("large", *(value(f"n{n}", "1") for n in range(100)))
    rig.writer.wake()
    await asyncio.sleep(0)
    waiting = [asyncio.ensure_future(rig.settled(rig.want(f"pod{n}", value(f"urgent{n}", "1")))) for n in range(40)]
    steps: list[int] = []
    while not all(one.done() for one in waiting):
        await asyncio.sleep(0)
        steps.append(len(rig.kernel.order))
    assert max(later - before for before, later in itertools.pairwise(steps)) <= 4, "a turn has a slice or two"
    last = max(number for number, name in enumerate(rig.kernel.order) if name.startswith("urgent"))
    assert last < 70 and [await one for one in waiting] == [[]] * 40
    await rig.writer.idle()
    assert len(rig.kernel.values) == 140


async def test_while_links_are_removed_in_a_thread_all_else_goes_on_and_what_comes_meanwhile_is_removed_together() -> None:
    rig = Rig()
    veths = [value(name, "1", "veth") for name in "abc"]
    await rig.settled(rig.want("x", *veths, value("eth0", "1", netns="pod/a")))
    entered, go_on = threading.Event(), threading.Event()
    groups: list[list[str]] = []

    def slowly(operations: Sequence[Operation]) -> Report:
        groups.append([operation.value.name for operation in operations])  # type: ignore[attr-defined]  # links
        entered.set()
        assert go_on.wait(5)
        return Strict.remove_links(rig.kernel, operations)

    rig.kernel.remove_links = slowly  # type: ignore[method-assign]
    rig.want("x", *veths[1:])
    rig.writer.wake()
    assert await asyncio.to_thread(entered.wait, 5)
    rig.want("x")
    rig.writer.detach("pod/a")
    await asyncio.wait_for(rig.writer.detached("pod/a"), 5)
    assert rig.kernel.detached == ["pod/a"]
    other = value("other", "1")
    assert await asyncio.wait_for(rig.settled(rig.want("y", other)), 5) == []
    again = asyncio.create_task(rig.settled(rig.want("z", msgspec.structs.replace(veths[0], alias="2"))))
    await asyncio.sleep(0.01)
    assert groups == [["a"]] and not again.done(), "a link of that name is made once the other one is gone"
    go_on.set()
    assert await asyncio.wait_for(again, 5) == []
    await rig.writer.idle()
    assert groups == [["a"], ["b", "c"]]
    assert {one.name for one in rig.kernel.values.values()} == {"a", "other"}  # type: ignore[attr-defined]  # links
    assert not rig.ledger.refused and rig.ledger.counts()[Status.PENDING] == 0


async def test_of_thousands_of_refusals_one_line_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    rig = Rig()
    names = [f"n{n}" for n in range(2000)]
    rig.kernel.refused = set(names)
    rig.want("x", *(value(name, "1") for name in names))
    with caplog.at_level(logging.WARNING):
        rig.writer.wake()
        await rig.writer.idle()
    assert len(rig.ledger.refused) == 2000
    (record,) = caplog.records
    assert "refused=2000" in record.getMessage() and record.getMessage().count("Operation not permitted") == 3


async def test_who_waits_for_what_is_not_wanted_any_more_waits_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its creation was refused, and meanwhile nobody wants it: it is settled at once, not when all else is sent."""
    monkeypatch.setattr(pause, "TURN_SECONDS", 0)  # each slice counts as a long one
    rig = Rig()
    rig.kernel.refused = {"a"}
    wanted = value("a", "1")
    changed = rig.want("x", wanted)
    rig.want("large", *(value(f"n{n}", "1") for n in range(100)))

    def want_it_no_more(operation: Operation) -> None:
        if operation.value == wanted:
            rig.want("x")

    rig.kernel.in_step = want_it_no_more
    assert await rig.settled(changed) == []
    assert wanted.identity not in rig.kernel.values and len(rig.kernel.values) < 50


STEPS = st.lists(
    st.one_of(
        st.tuples(
            st.just("want"),
            st.sampled_from("xy"),
            st.dictionaries(st.sampled_from("abc"), st.sampled_from("12"), max_size=3),
        ),
        st.tuples(st.just("wait"), st.sampled_from("xy"), st.none()),
        st.tuples(st.just("large"), st.integers(0, 30), st.none()),
        st.tuples(st.just("refuse"), st.sampled_from("abc"), st.booleans()),
        st.tuples(st.just("raise"), st.booleans(), st.none()),
        st.tuples(st.just("silent"), st.sampled_from("abc"), st.booleans()),
        st.tuples(st.just("foreign"), st.sampled_from("abc"), st.sampled_from([None, "9"])),
        st.tuples(st.just("detach"), st.none(), st.none()),
        st.tuples(st.just("retry"), st.none(), st.none()),
        st.tuples(st.just("turns"), st.integers(1, 5), st.none()),
    ),
    max_size=30,
)


@given(STEPS)
@settings(deadline=None, max_examples=150)
def test_everybody_who_waits_is_answered(steps: list[tuple[str, Any, Any]]) -> None:
    asyncio.run(_play(steps))


async def _play(steps: list[tuple[str, Any, Any]]) -> None:
    rig, waiting = Rig(), []
    for step, one, other in steps:
        if step == "wait":
            fragment_ = rig.ledger.desired.fragment(one)
            waiting.append(asyncio.create_task(rig.writer.settled(list(fragment_))))
        elif step == "turns":
            for _ in range(one):
                await asyncio.sleep(0)
        else:
            _disturb(rig, step, one, other)
    await asyncio.wait_for(asyncio.gather(*waiting), 5)
    await asyncio.wait_for(rig.writer.idle(), 5)
    await _recover(rig)
    assert rig.kernel.values == dict(rig.ledger.desired)
    assert not rig.writer._waiters and not rig.writer._urgent and not rig.writer._detached


def _disturb(rig: Rig, step: str, one: Any, other: Any) -> None:
    kernel = rig.kernel
    if step == "want":
        kinds = {"a": "veth"}
        values = [value(f"{one}{n}", c, kinds.get(n, ""), "pod/1" if n == "b" else "") for n, c in other.items()]
        changed = rig.want(one, *values)
        asyncio.get_running_loop().create_task(rig.writer.settled(changed))
    elif step == "large":
        rig.want("large", *(value(f"n{n}", "1") for n in range(one)))
        rig.writer.wake()
    elif step in ("refuse", "silent"):
        names = kernel.refused if step == "refuse" else kernel.silent
        change = names.add if other else names.discard
        change(f"x{one}")
    elif step == "raise":
        kernel.raises = OSError(24, "Too many open files") if one else None
    elif step == "foreign":
        identity = value(f"y{one}", "").identity
        if other is None:
            kernel.values.pop(identity, None)
        else:
            kernel.values[identity] = value(f"y{one}", other)
        rig.ledger.observe(identity, kernel.values.get(identity))
        rig.writer.wake()
    elif step == "detach":
        rig.writer.detach("pod/1")
    elif step == "retry":
        rig.ledger.release_retries(0.0, every=True)
        rig.writer.wake()


async def _recover(rig: Rig) -> None:
    """The kernel is well again, and is read and written until both agree."""
    rig.kernel.refused.clear()
    rig.kernel.silent.clear()
    rig.kernel.raises = None
    for _ in range(4):
        rig.read()
        rig.ledger.release_retries(0.0, every=True)
        rig.writer.wake()
        await asyncio.wait_for(rig.writer.idle(), 5)
