"""The end of a terminal that the lab has. It is made in the container (`kernel.terminals`), and comes when the program runs: what is
written before waits, and a size that is told before is set then."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

import msgspec

from podplane.runtime.descriptors import set_size, write_all


class Terminal(msgspec.Struct, eq=False):
    """`fd` is its descriptor, -1 as long as there is none. `taken` is called when it comes."""

    taken: Callable[[int], None] = lambda _: None
    fd: int = -1
    is_closed: bool = False
    _size: tuple[int, int] = (0, 0)
    _there: asyncio.Event = msgspec.field(default_factory=asyncio.Event)

    def take(self, fd: int) -> None:
        """Here it is; it belongs to this object from now on."""
        if self.is_closed:
            os.close(fd)
            return
        os.set_blocking(fd, False)
        self.fd = fd
        set_size(fd, *self._size)
        self._there.set()
        self.taken(fd)

    @property
    def is_awaited(self) -> bool:
        """May it still come?"""
        return not self._there.is_set() and not self.is_closed

    async def there(self) -> int:
        """Wait for its descriptor."""
        await self._there.wait()
        return self.fd

    async def write(self, data: bytes) -> None:
        """As if it were typed; what is left when it ends is dropped."""
        if (fd := await self.there()) >= 0:
            await write_all(fd, data)

    def resize(self, columns: int, rows: int) -> None:
        """Its new size."""
        self._size = (columns, rows)
        if self.fd >= 0:
            set_size(self.fd, columns, rows)

    def close(self) -> None:
        """Let go of it; idempotent."""
        self.is_closed = True
        if self.fd >= 0:
            loop = asyncio.get_running_loop()
            loop.remove_reader(self.fd)
            loop.remove_writer(self.fd)
            os.close(self.fd)
            self.fd = -1
