"""What the release of the running kernel has, where the kernel itself can't be asked."""

from __future__ import annotations

import functools
import os

PID_MAX_PER_NAMESPACE = (6, 14)
"""The version of Linux since which `kernel.pid_max` is each PID namespace's own; before, it is the machine's."""


@functools.cache
def limits_processes() -> bool:
    """Can the number of a container's processes be bounded here?"""
    return is_linux(PID_MAX_PER_NAMESPACE)


def is_linux(version: tuple[int, int]) -> bool:
    """Is it this version of Linux, or a later one?"""
    release = os.uname().release.split(".")
    return tuple(int("".join(filter(str.isdigit, part.split("-")[0])) or 0) for part in release[:2]) >= version
