"""`agnhost logs-generator`: so many lines of a log, evenly within a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from podplane.runtime.agnhost.common import Context, klog
from podplane.runtime.agnhost.flags import UsageError, Value

FLAGS: Mapping[str, Value] = {"log-lines-total": 0, "run-duration": 0.0}
SHORT = {"t": "log-lines-total", "d": "run-duration"}
METHODS, NAMESPACES = ("GET", "POST", "PUT"), ("kube-system", "default", "ns")
LETTERS = "bcdfghjklmnpqrstvwxz2456789"
"""Of Kubernetes' random names."""
NAME_LENGTHS, STATUSES = (3, 4), (200, 599)


def run(context: Context) -> int:
    """Write the lines."""
    total, seconds = context.flags.number("log-lines-total"), context.flags.seconds("run-duration")
    if total <= 0:
        raise UsageError(f"Invalid total number of lines: {total}")
    if seconds <= 0:
        raise UsageError(f"Invalid duration: {seconds:g}s")
    from random import Random  # touches what every program would keep

    context.ready()
    began, random = time.monotonic(), Random()
    for number in range(total):
        klog(line(number, random.randrange))
        time.sleep(max(0.0, began + seconds * (number + 1) / total - time.monotonic()))
    return 0


def line(number: int, below: Callable[[int], int]) -> str:
    """A line as an API server might write it; `below` gives a random number below its argument."""
    method, namespace = METHODS[below(len(METHODS))], NAMESPACES[below(len(NAMESPACES))]
    shortest, longest = NAME_LENGTHS
    name = "".join(LETTERS[below(len(LETTERS))] for _ in range(shortest + below(longest - shortest + 1)))
    status = STATUSES[0] + below(STATUSES[1] - STATUSES[0] + 1)
    return f"{number} {method} /api/v1/namespaces/{namespace}/pods/{name} {status}"
