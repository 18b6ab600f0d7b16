"""Commands in containers: their output, as it comes, until it has ended or nobody listens."""

from __future__ import annotations

import asyncio
import contextlib
import os

from podplane.kernel.process import NotYet
from podplane.kernel.zygote_messages import NOT_EXECUTABLE
from podplane.kubeapi.channels import STDERR, STDOUT
from podplane.runtime.exec import CommandExecution
from tests.unit.runtime.fakes import FakeProcesses


def execution() -> tuple[CommandExecution, int, int]:
    """A command, and the far ends of its output and its errors."""
    (out, their_out), (err, their_err) = os.pipe2(os.O_NONBLOCK), os.pipe2(os.O_NONBLOCK)
    process = FakeProcesses().spawn(["true"], (0, 1, 2))
    return CommandExecution(process, [(STDOUT, out), (STDERR, err)], -1, {out, err}), their_out, their_err


async def test_all_output_comes_and_then_the_end() -> None:
    command, out, err = execution()
    os.write(out, b"one")
    os.write(err, b"two")
    os.close(err)
    found = []
    async for channel, data in command.output():
        found.append((channel, data))
        if len(found) == 2:
            os.write(out, b"three")
            os.close(out)
    assert sorted(found) == [(STDOUT, b"one"), (STDOUT, b"three"), (STDERR, b"two")]
    command.abandon()


async def test_a_listener_that_goes_leaves_no_task_behind() -> None:
    command, out, err = execution()

    async def listen() -> None:
        async for _ in command.output():
            heard.set()

    heard = asyncio.Event()
    os.write(out, b"one")
    listener = asyncio.ensure_future(listen())
    await heard.wait()
    listener.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await listener
    assert asyncio.all_tasks() == {asyncio.current_task()}
    command.abandon()
    os.close(out)
    os.close(err)


async def test_a_command_of_whose_start_nothing_is_heard_ends_with_the_reason() -> None:
    command, out, err = execution()

    async def silent() -> None:
        raise NotYet("the zygote has said nothing for 30 s")

    command.process.started = silent  # type: ignore[method-assign]
    assert [data async for data in command.output()] == []
    assert await command.outcome() == (NOT_EXECUTABLE, "the zygote has said nothing for 30 s")
    command.abandon()
    os.close(out)
    os.close(err)
