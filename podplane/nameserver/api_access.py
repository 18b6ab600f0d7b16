"""The way to the API, which a fault of a lab may cut: then nothing passes, as on a node that does not reach it."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from podplane.kubeapi.errors import ApiError
from podplane.kubeapi.messages import Answer, Request


class Transport(Protocol):
    """A `Handler` with connections."""

    async def __call__(self, request: Request) -> Answer:
        """Send a request."""

    async def close(self) -> None:
        """Close all connections; watches end with ApiError."""


class ApiAccess:
    """A `Handler`: requests go by a transport that is made anew after each cut. `closing` is to see to the end of the former one."""

    def __init__(self, make: Callable[[], Transport], closing: Callable[[Coroutine[Any, Any, None]], object]) -> None:
        self._make, self._closing = make, closing
        self._transport: Transport | None = make()

    async def __call__(self, request: Request) -> Answer:
        """Send a request. ApiError with code 503 while the way is cut."""
        if self._transport is None:
            raise ApiError(503, "ServiceUnavailable", "the API can't be reached: a fault cuts it off")
        return await self._transport(request)

    def cut(self) -> None:
        """Nothing passes from now on: watches end, and what is on its way is lost."""
        if self._transport is not None:
            self._closing(self._transport.close())
            self._transport = None

    async def close(self) -> None:
        """Close all connections."""
        if self._transport is not None:
            await self._transport.close()

    def join(self) -> None:
        """Undo a cut."""
        if self._transport is None:
            self._transport = self._make()
