"""Attaching to a container that is about to end: the listener hears what comes, and that nothing comes any more."""

from __future__ import annotations

import asyncio
import datetime
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from podplane.runtime.output import LogFile, Output
from podplane.runtime.streams import Attachment


def opened(tmp_path: Path) -> Output:
    output = Output.open(LogFile(tmp_path / "log", lambda: datetime.datetime.now(datetime.UTC)), -1, stdin=False, tty=False)
    output.stdio = tuple(os.dup(fd) if fd >= 0 else fd for fd in output.stdio)  # type: ignore[assignment]  # the process's own
    output.begin()
    return output


def attached(output: Output) -> Attachment:
    container: Any = SimpleNamespace(output=output, process=object(), spec=SimpleNamespace(name="main", stdin_once=False))
    request: Any = SimpleNamespace(pod="web", stdin=False)
    return Attachment.to(container, request)


async def heard(attachment: Attachment) -> list[bytes]:
    async with asyncio.timeout(5):
        return [data async for _, data in attachment.output()]


@pytest.mark.parametrize("ended", [0, 1, 2])
async def test_streams_that_ended_before_are_not_waited_for(tmp_path: Path, ended: int) -> None:
    output = opened(tmp_path)
    streams = list(output.stdio[1:])
    for _ in range(ended):
        os.close(streams.pop(0))
    for _ in range(1000):
        if output.open_streams > 2 - ended:
            await asyncio.sleep(0.001)
    attachment = attached(output)
    for fd in streams:
        os.write(fd, b"last words")
        os.close(fd)
    assert await heard(attachment) == [b"last words"] * (2 - ended)
    output.close()


async def test_what_a_container_left_running_keeps_no_listener(tmp_path: Path) -> None:
    output = opened(tmp_path)
    attachment = attached(output)
    output.close()  # the container has ended, and somebody still has its streams
    assert await heard(attachment) == []
    for fd in output.stdio[1:]:
        os.close(fd)


async def test_a_terminal_is_listened_to_before_it_is_there(tmp_path: Path) -> None:
    output = Output.open(LogFile(tmp_path / "log", lambda: datetime.datetime.now(datetime.UTC)), -1, stdin=True, tty=True)
    assert output.terminal is not None
    output.begin()
    attachment = attached(output)
    output.resize(100, 30)
    typed = asyncio.ensure_future(output.write(b"typed\n"))
    ours, theirs = os.openpty()
    output.terminal.take(ours)
    await typed
    assert os.read(theirs, 99) == b"typed\n"
    assert os.get_terminal_size(theirs) == (100, 30)
    os.write(theirs, b"said")
    os.close(theirs)
    assert b"".join(await heard(attachment)).endswith(b"said")
    output.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(ours)


async def test_a_terminal_that_never_comes_keeps_no_listener(tmp_path: Path) -> None:
    output = Output.open(LogFile(tmp_path / "log", lambda: datetime.datetime.now(datetime.UTC)), -1, stdin=True, tty=True)
    assert output.terminal is not None
    attachment = attached(output)
    output.close()
    assert await heard(attachment) == []
    late, theirs = os.openpty()
    output.terminal.take(late)
    os.close(theirs)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(late)
