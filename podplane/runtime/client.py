"""`podplane/client`: does nothing until it is told to end; a place to run the machine's tools in (`kubectl exec`).

As process 1 of a PID namespace it has nothing left of processes that ended without a parent: it is also what `registry.k8s.io/pause` is.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Mapping

from podplane.kernel.zygote_child import Ready


def main(argv: list[str], environment: Mapping[str, str], ready: Ready) -> int:
    """Wait for SIGTERM or SIGINT."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel waits for them (waitpid(2))
    ready()
    while True:
        signal.pause()
