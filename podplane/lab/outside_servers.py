"""Built-in programs on the host outside, as destinations for pods: an echo server, say."""

from __future__ import annotations

import asyncio

from podplane.kernel.namespace import Namespace
from podplane.kernel.process import Process, ProcessError, Processes
from podplane.lab import underlay
from podplane.lab.errors import LabError
from podplane.runtime.pod import PATH

RESTART_SECONDS = 0.1


async def serve(processes: Processes, null: int, outside: Namespace, *words: str) -> Process:
    """Start one, with these words; `null` is a descriptor of /dev/null. LabError when nothing can be started here."""
    process = processes.spawn(list(words), (null,) * 3, netns=outside.fd, env={"PATH": PATH}, hostname=underlay.OUTSIDE)
    try:
        await process.started()
    except ProcessError as error:
        raise LabError(f"containers can't be started here: {error}") from None
    return process


async def keep(process: Process | None, processes: Processes, null: int, outside: Namespace, *words: str) -> None:
    """Start one, again whenever it ends; `process` is one that runs already. It does not return."""
    while True:
        if process is not None:
            await process.exited
            await asyncio.sleep(RESTART_SECONDS)
        process = await serve(processes, null, outside, *words)
