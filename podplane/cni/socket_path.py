"""Paths of Unix sockets that are longer than a socket's address may be."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

PATH_BYTES = 107
"""Of the path in an address (sun_path without its zero, unix(7))."""


@contextlib.contextmanager
def reachable(path: Path) -> Iterator[str]:
    """A name of the path that is short enough for a socket's address, for as long as it takes to bind or connect it."""
    if len(os.fsencode(path)) <= PATH_BYTES:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
