"""The threads of a lab's process for what blocks, or computes for long: all run from the start, so that their number never grows, and no
work fails later because no thread can be had."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor

from podplane.lab.errors import no_processes

MOST = 8
"""They share one interpreter: more only wait at the same time."""


def number() -> int:
    """How many threads there are for work: a few more than processors, because most work waits for the kernel."""
    return min(MOST, (os.cpu_count() or 1) + 4)


def started() -> ThreadPoolExecutor:
    """A pool, all of whose threads run. LabError when they can't be had."""
    count = number()
    pool, together = ThreadPoolExecutor(count, "work"), threading.Barrier(count + 1)
    try:
        for _ in range(count):
            pool.submit(together.wait)  # each keeps its thread, so that the next one gets a new one
    except RuntimeError:
        together.abort()
        raise no_processes(f"{count} threads") from None
    together.wait()
    return pool
