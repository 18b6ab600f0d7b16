"""Programs that are called once: their environment and standard input go in, status and output come out (plugins of CNI)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping
from typing import NamedTuple


class Answer(NamedTuple):
    """Of a call: its exit status, negative for a signal, and what it wrote."""

    status: int
    output: bytes
    errors: bytes


async def call(program: str, environment: Mapping[str, str], content: bytes, seconds: float) -> Answer:
    """Run a program in this process' own namespaces. OSError when it can't be started, TimeoutError when it does not end in time: then it,
    and what it started, is ended."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        program, stdin=pipe, stdout=pipe, stderr=pipe, env=dict(environment), start_new_session=True
    )
    try:
        async with asyncio.timeout(seconds):
            output, errors = await process.communicate(content)
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        raise
    return Answer(process.returncode or 0, output, errors)
