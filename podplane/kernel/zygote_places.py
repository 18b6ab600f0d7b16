"""What the zygote makes for pods beside processes: namespaces, and file systems for volumes."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable

import msgspec

from podplane.kernel.sandbox import Sandbox as Namespaces
from podplane.kernel.zygote_answers import Silence, answered, close_all
from podplane.kernel.zygote_messages import Event


class ZygoteSandbox(msgspec.Struct, eq=False):
    """Namespaces that the zygote makes; their descriptors are here."""

    id: int
    _forget: Callable[[int], object]
    _made: asyncio.Future[Namespaces]
    _silence: Silence = lambda: ""
    _is_given: bool = False
    _is_released: bool = False

    async def netns(self) -> int:
        """A descriptor of its network namespace. OSError when there can be none."""
        made = await answered(self._made, self._silence)
        self._is_given = True
        return made.net

    @property
    def is_answered(self) -> bool:
        """Is it known whether there is one?"""
        return self._made.done()

    @property
    def namespaces(self) -> Namespaces | None:
        """Their descriptors, while there are any."""
        return self._made.result() if self._made.done() and not self._made.exception() and not self._is_released else None

    def release(self) -> None:
        """Let go of it. Idempotent."""
        made = self.namespaces
        self._is_released = True
        if made is not None:
            close_all((made.ipc, made.uts) if self._is_given else made)
        if self.is_answered:
            self._forget(self.id)

    def tell(self, event: Event, descriptors: list[int]) -> None:
        """Take news: the descriptors, or the errno that forbids it."""
        if self._is_released or self._made.done():  # who asked has gone
            close_all(descriptors)
            self._forget(self.id)
        elif descriptors:
            self._made.set_result(Namespaces(*descriptors))
        else:
            self._made.set_exception(OSError(event.code or errno.EIO, event.error))
            self._made.exception()  # looked at, so that nobody needs to wait for it
            self._forget(self.id)


class ZygoteMounts(msgspec.Struct, eq=False):
    """File systems that the zygote makes and holds."""

    id: int
    _ask_release: Callable[[int], None]
    _made: asyncio.Future[None]
    _silence: Silence = lambda: ""
    _is_released: bool = False

    async def made(self) -> None:
        """Wait until they are there. OSError when that can't be."""
        await answered(self._made, self._silence)

    def release(self) -> None:
        """Let go of them. Idempotent."""
        if not self._is_released:
            self._is_released = True
            self._ask_release(self.id)

    def tell(self, event: Event) -> None:
        """Take news: they are there, or the errno that forbids it."""
        if self._made.done():  # who asked has gone
            return
        if event.error:
            self._made.set_exception(OSError(event.code or errno.EIO, event.error))
            self._made.exception()  # looked at, so that nobody needs to wait for it
        else:
            self._made.set_result(None)
