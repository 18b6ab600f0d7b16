"""Descriptors that don't block, on an event loop: waiting for them, writing to them, and the size of a terminal."""

from __future__ import annotations

import asyncio
import fcntl
import os
import struct
import termios


async def ready(fd: int, *, writing: bool) -> None:
    """Wait until the descriptor can be read, or written."""
    loop = asyncio.get_running_loop()
    is_ready: asyncio.Future[None] = loop.create_future()
    add, remove = (loop.add_writer, loop.remove_writer) if writing else (loop.add_reader, loop.remove_reader)

    def tell() -> None:
        if not is_ready.done():
            is_ready.set_result(None)

    add(fd, tell)
    try:
        await is_ready
    finally:
        remove(fd)


async def write_all(fd: int, data: bytes) -> bool:
    """Write all of it; False when nobody reads any more."""
    while data:
        try:
            data = data[os.write(fd, data) :]
        except BlockingIOError:
            await ready(fd, writing=True)
        except OSError:
            return False
    return True


def set_size(terminal: int, columns: int, rows: int) -> None:
    """The terminal's new size; what is no size is left alone."""
    if 0 < columns < 1 << 16 and 0 < rows < 1 << 16:
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
