"""`podplane/client`: does nothing until it is told to end; a place to run the machine's tools in (`kubectl exec`)."""

from __future__ import annotations

import signal
import sys
from collections.abc import Mapping

from podplane.kernel.zygote_child import Ready


def main(argv: list[str], environment: Mapping[str, str], ready: Ready) -> int:
    """Wait for SIGTERM or SIGINT."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    ready()
    while True:
        signal.pause()
