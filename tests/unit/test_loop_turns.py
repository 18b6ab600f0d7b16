"""The loop that measures its turns: what it counts, and what it holds responsible."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podplane import loop_turns
from podplane.event_loop import EventLoop
from podplane.loop_turns import Turn, TurnLoop, Turns


class Clock:
    """A clock that goes only when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def work(self, seconds: float) -> None:
        """Time passes."""
        self.now += seconds


def turn_of(turns: Turns, clock: Clock, *seconds: float) -> None:
    """One turn with a callback for each of these lengths."""
    turns.begin([])
    for one in seconds:
        turns.timed(clock.work, one)
    turns.end()


@given(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=20))
def test_the_longest_is_kept_and_each_over_the_limit_is_counted(lengths: list[float]) -> None:
    clock, reported = Clock(), []
    turns = Turns(0.02, reported.append, clock)
    for length in lengths:
        turn_of(turns, clock, length)
        clock.work(5)  # time in select() is no part of a turn
    expected = [length for length in lengths if length > 0.0200001]
    assert turns.count == len(lengths)
    assert len(expected) <= turns.long == len(reported) <= sum(length > 0.0199999 for length in lengths)
    assert turns.longest.seconds == pytest.approx(max(lengths), abs=1e-6)


def test_the_callback_that_took_most_of_a_turn_is_named() -> None:
    clock = Clock()
    turns = Turns(clock=clock)
    turns.begin([])
    turns.timed(clock.work, 0.01)

    def slow() -> None:
        clock.work(0.03)

    turns.timed(slow)
    turns.timed(clock.work, 0.005)
    turns.end()
    assert turns.longest.callback.endswith("slow")
    assert turns.longest.callback_seconds == pytest.approx(0.03)
    assert str(turns.longest).startswith("45.0 ms, of which 30.0 ms in ")


def test_many_short_callbacks_are_not_blamed_on_one() -> None:
    clock = Clock()
    turns = Turns(clock=clock)
    turn_of(turns, clock, *[0.01] * 5)
    assert turns.longest.callback.startswith("many callbacks, the slowest ")


def test_a_callback_that_raises_is_timed_and_its_exception_goes_on() -> None:
    clock = Clock()
    turns = Turns(clock=clock)

    def fails() -> None:
        clock.work(0.5)
        raise KeyError

    turns.begin([])
    with pytest.raises(KeyError):
        turns.timed(fails)
    turns.end()
    assert turns.longest.callback.endswith("fails")


def test_reset_forgets_also_the_turn_under_way() -> None:
    clock = Clock()
    turns = Turns(clock=clock)
    turn_of(turns, clock, 1.0)
    turns.begin([])
    clock.work(1.0)
    turns.reset()
    turns.end()
    assert (turns.count, turns.long, turns.longest) == (0, 0, Turn())


# On a loop. The clock stands still but for what the callbacks do, so nothing here depends on how fast a machine is.


def run(clock: Clock, main: Callable[[], object]) -> Turns:
    """Run a coroutine function on a loop that measures by this clock."""
    turns = Turns(clock=clock)
    with asyncio.Runner(loop_factory=lambda: TurnLoop(turns)) as runner:
        runner.run(main())  # type: ignore[arg-type]  # what a coroutine function returns
    return turns


def test_a_task_is_named_by_its_coroutine() -> None:
    clock = Clock()

    async def busy() -> None:
        await asyncio.sleep(0)
        clock.work(0.3)

    async def main() -> None:
        await asyncio.create_task(busy())

    turns = run(clock, main)
    assert turns.long == 1
    assert turns.longest == Turn(pytest.approx(0.3), turns.longest.callback, pytest.approx(0.3))
    assert turns.longest.callback == f"task {busy.__qualname__}"


def test_a_task_that_a_future_woke_is_named_too() -> None:
    clock = Clock()

    async def main() -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(future.set_result, None)
        await future
        clock.work(0.3)

    assert run(clock, main).longest.callback == f"task {main.__qualname__}"


@pytest.mark.parametrize("way", ["call_later", "call_at", "call_soon_threadsafe"])
def test_each_way_to_a_callback_is_timed(way: str) -> None:
    clock = Clock()

    async def main() -> None:
        loop, done = asyncio.get_running_loop(), asyncio.Event()

        def slow() -> None:
            clock.work(0.3)
            done.set()

        if way == "call_later":
            loop.call_later(0, slow)
        elif way == "call_at":
            loop.call_at(loop.time(), slow)
        else:
            threading.Thread(target=loop.call_soon_threadsafe, args=(slow,)).start()
        await done.wait()

    turns = run(clock, main)
    assert turns.longest.callback.endswith("slow")
    assert turns.longest.callback_seconds == pytest.approx(0.3)


def test_the_callback_of_a_socket_is_named_with_its_descriptor() -> None:
    clock = Clock()
    numbers = []

    async def main() -> None:
        loop, done = asyncio.get_running_loop(), asyncio.Event()
        ours, theirs = socket.socketpair()

        def readable() -> None:
            clock.work(0.3)
            ours.recv(1)
            done.set()

        with ours, theirs:
            numbers.append(ours.fileno())
            loop.add_reader(ours, readable)
            theirs.send(b"x")
            await done.wait()
            await asyncio.sleep(0)
            loop.remove_reader(ours)

    turns = run(clock, main)
    assert turns.longest.seconds == pytest.approx(0.3)
    assert f"fd {numbers[0]}: " in turns.longest.callback
    assert "readable" in turns.longest.callback


def test_a_cancelled_callback_does_not_run() -> None:
    async def main() -> None:
        loop, ran = asyncio.get_running_loop(), []
        loop.call_soon(ran.append, 1).cancel()
        loop.call_later(0, ran.append, 2).cancel()
        await asyncio.sleep(0.001)
        assert not ran

    run(Clock(), main)


# The switch.


@pytest.mark.parametrize("value", [None, "", "0", "yes"])
def test_without_the_variable_the_loop_is_asyncios_own(value: str | None) -> None:
    assert loop_turns.loop_factory({} if value is None else {loop_turns.VARIABLE: value}) is EventLoop


def test_with_it_long_turns_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    factory = loop_turns.loop_factory({loop_turns.VARIABLE: "1"})
    assert factory is not None

    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, TurnLoop)
        loop.turns.limit = 0.0  # each turn is too long now

    with caplog.at_level(logging.WARNING), asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main())
    assert any("long turn of the event loop" in record.message and "task " in record.message for record in caplog.records)
