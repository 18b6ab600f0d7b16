"""What of Python keeps an event loop waiting: garbage collections, and threads that hold the interpreter's lock."""

from __future__ import annotations

import gc
import sys

THRESHOLDS = 1_000, 5, 10_000
"""Of `gc.set_threshold`. A collection of the youngest generation looks at what was made since the last one and is still there: some 1,000
objects, 0.4 ms. One of the two younger looks at 5,000, 1 to 2 ms; of a million, 100 ms and more. The oldest is looked at after fifty
million."""
SWITCH_SECONDS = 0.0002
"""So long a thread computes on when the event loop wants the lock. The loop wants it after each system call that gives it up: some ten
times for a request of the API, each of which would wait Python's 5 ms while a thread reads a kernel's tables."""


def shorten() -> None:
    """For a process that serves: what it has by now stays, and is not looked at again; collections are short, and threads give way. One
    that collected nothing while it started does so from now on."""
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
    gc.enable()
    sys.setswitchinterval(SWITCH_SECONDS)
