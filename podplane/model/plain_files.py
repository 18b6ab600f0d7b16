"""Reading files that others write: a folder of theirs may have a FIFO, a device, or something without end in it."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

LARGEST_BYTES = 1024 * 1024


def read(path: Path, largest: int = LARGEST_BYTES) -> bytes:
    """A regular file, or one that a symbolic link leads to. OSError, which names it, for anything else, or when it has more bytes than
    `largest`; it never waits for a writer."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    with open(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        content = file.read(largest + 1)
    if len(content) > largest:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), str(path))
    return content


def has(path: Path, content: bytes) -> bool:
    """Is it a file with just that in it?"""
    try:
        return read(path, len(content)) == content
    except OSError:
        return False
