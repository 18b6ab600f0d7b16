"""Programs that are called once: their environment and standard input go in, status and output come out (plugins of CNI)."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
from collections.abc import Mapping
from typing import NamedTuple

OUTPUT_BYTES = 1 << 20
"""So much of output and of errors each is taken: this process has to hold it."""
CHUNK_BYTES = 1 << 16
END_SECONDS = 5.0
"""A program that was killed may take so long to end."""


class Answer(NamedTuple):
    """Of a call: its exit status, negative for a signal, and what it wrote."""

    status: int
    output: bytes
    errors: bytes


async def call(program: str, environment: Mapping[str, str], content: bytes, seconds: float) -> Answer:
    """Run a program in this process' own namespaces. OSError when it can't be started, or writes too much, TimeoutError when it does not
    end in time: then it, and what it started, is ended."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        program, stdin=pipe, stdout=pipe, stderr=pipe, env=dict(environment), start_new_session=True
    )
    assert process.stdin is not None and process.stdout is not None and process.stderr is not None
    parts = [asyncio.ensure_future(_read(process.stdout)), asyncio.ensure_future(_read(process.stderr))]
    try:
        async with asyncio.timeout(seconds):
            await _write(process.stdin, content)
            output, errors = await asyncio.gather(*parts)
            await process.wait()
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        for part in parts:
            part.cancel()
        await asyncio.gather(*parts, return_exceptions=True)
        with contextlib.suppress(TimeoutError):  # asyncio waits for the ends of its pipes, which another process may hold
            async with asyncio.timeout(END_SECONDS):
                await asyncio.gather(_pass_over(process.stdout), _pass_over(process.stderr))
                await process.wait()
        raise
    return Answer(process.returncode or 0, output, errors)


async def _write(to: asyncio.StreamWriter, content: bytes) -> None:
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it does not read all
        to.write(content)
        await to.drain()
    to.close()


async def _read(stream: asyncio.StreamReader) -> bytes:
    data = bytearray()
    while chunk := await stream.read(CHUNK_BYTES):
        data += chunk
        if len(data) > OUTPUT_BYTES:
            raise OSError(errno.EFBIG, f"it writes more than {OUTPUT_BYTES} bytes")
    return bytes(data)


async def _pass_over(stream: asyncio.StreamReader) -> None:
    while await stream.read(CHUNK_BYTES):
        pass
