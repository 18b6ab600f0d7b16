"""A node's connection to the API, which a fault may cut, and the objects as the node knows them while it is cut.

All nodes of a lab share one cache of each kind. A node that is cut from the API must not see what changes meanwhile, so it reads
copies; when the connection is back, it is told the difference, as a node of its own finds it when it lists again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from podplane.agent.caches import Caches
from podplane.agent.pause import Pause
from podplane.kubeapi.errors import ApiError
from podplane.kubeapi.messages import Answer, Handler, Request
from podplane.model.objects import Model

Objects = tuple[dict[str, Any], ...]
"""Of each cache, in the order of `Caches.every`, its objects by path."""


class ApiConnection:
    """A `Handler`: requests go to another one, and while it is cut, nowhere. `causes` are why it is, in words."""

    def __init__(self, node_name: str, handler: Handler) -> None:
        self._node_name = node_name
        self._handler = handler
        self.causes: dict[str, None] = {}

    @property
    def is_cut(self) -> bool:
        """Does nothing pass?"""
        return bool(self.causes)

    async def __call__(self, request: Request) -> Answer:
        """Send a request. ApiError with code 503 while the connection is cut; an answer on its way then is lost."""
        self._check()
        answer = await self._handler(request)
        self._check()
        return answer

    def _check(self) -> None:
        if self.is_cut:
            why = " and ".join(self.causes)
            raise ApiError(503, "ServiceUnavailable", f"{self._node_name} can't reach the API: {why}")


def differences(old: Mapping[str, Model], new: Mapping[str, Model]) -> Iterator[tuple[Any, Any]]:
    """(old, new) of what differs, in the order of paths: None as old for an object that came, None as new for one that went.

    `new` may change between two steps: each is compared as it is then. An object with another uid is another one: the former
    goes, and it comes.
    """
    for path in sorted({*old, *new}):
        before, after = old.get(path), new.get(path)
        if before is not None and after is not None and _uid(before) != _uid(after):
            yield before, None
            before, after = None, new.get(path)
        if before != after:
            yield before, after


def _uid(model: Any) -> str:
    uid: str = model.metadata.uid
    return uid


def objects_of(caches: Caches) -> Objects:
    """What these caches have now, in the order of `Caches.every`."""
    return tuple(dict(cache.objects) for cache in caches.every())


async def copy_of(objects: Objects, pause: Pause) -> Caches:
    """Caches with these objects, which stay as they are. They are filled in slices: indices over 10,000 pods take half a second."""
    copy = Caches()
    for cache, models in zip(copy.every(), objects, strict=True):
        for model in models.values():
            cache.set(model)
            await pause()
    return copy
