"""Removing a folder in which a pod could make what it liked: names of folders that are thousands deep, or a million files.

What is found in a folder's folders is moved up beside them, one level a step, so no path and no recursion is ever deep, each entry costs
the same, and others have turns of the loop. No link is followed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Generator, Iterator

TURN_SECONDS = 0.005
"""So long others wait."""
FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


async def remove(path: str) -> None:
    """Remove a folder and all that is in it; nothing happens when it is not there. OSError when something of it stays."""
    since = time.monotonic()
    for _ in steps(path):
        if time.monotonic() - since > TURN_SECONDS:
            await asyncio.sleep(0)
            since = time.monotonic()


def steps(path: str) -> Iterator[None]:
    """The same, an entry a step."""
    try:
        top = os.open(path, FOLDER)
    except FileNotFoundError:
        return
    number = 0
    try:
        while names := os.listdir(top):
            for name in names:
                yield
                if not _unlinked(name, top):
                    number = yield from _flatten(name, top, number)
    finally:
        os.close(top)
    os.rmdir(path)


def _flatten(name: str, top: int, number: int) -> Generator[None, None, int]:
    """Remove a folder of `top`, and move its folders there, under numbers from this one on; the next number."""
    folder = os.open(name, FOLDER, dir_fd=top)
    try:
        for below in os.listdir(folder):
            yield
            if not _unlinked(below, folder):
                number = _moved(below, folder, top, number)
    finally:
        os.close(folder)
    os.rmdir(name, dir_fd=top)
    return number


def _moved(name: str, folder: int, top: int, number: int) -> int:
    """Move a folder to `top`, under a number that no entry has; the next number."""
    while True:
        number += 1
        with contextlib.suppress(OSError):
            os.stat(str(number), dir_fd=top, follow_symlinks=False)
            continue
        os.rename(name, str(number), src_dir_fd=folder, dst_dir_fd=top)
        return number


def _unlinked(name: str, folder: int) -> bool:
    """Remove what is no folder; False of one."""
    try:
        os.unlink(name, dir_fd=folder)
    except IsADirectoryError:
        return False
    except FileNotFoundError:
        pass
    return True
