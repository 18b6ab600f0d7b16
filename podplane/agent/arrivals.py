"""Who waits for pods of the API to be known."""

from __future__ import annotations

import asyncio

from podplane.kubeapi.cache import Cache
from podplane.model.pod_info import PodInfo


class Arrivals:
    """Those of a cache of pods."""

    def __init__(self, pods: Cache[PodInfo]) -> None:
        self._pods = pods
        self._awaited: dict[str, list[asyncio.Future[None]]] = {}
        pods.subscribe(self._changed)

    def _changed(self, old: PodInfo | None, new: PodInfo | None) -> None:
        if new is not None and self._awaited:
            for one in self._awaited.pop(new.metadata.path, ()):
                if not one.done():
                    one.set_result(None)

    def is_known(self, path: str, uid: str) -> bool:
        """Is this pod in the cache, and not another one of its name?"""
        pod = self._pods.objects.get(path)
        return pod is not None and pod.is_of(uid)

    async def wait(self, path: str, uid: str, seconds: float) -> bool:
        """Wait until it is; False when it is not within so many seconds."""
        try:
            async with asyncio.timeout(seconds):
                while not self.is_known(path, uid):
                    waiting = asyncio.get_running_loop().create_future()
                    self._awaited.setdefault(path, []).append(waiting)
                    try:
                        await waiting
                    finally:
                        self._forget(path, waiting)
        except TimeoutError:
            return False
        return True

    def _forget(self, path: str, waiting: asyncio.Future[None]) -> None:
        """Who gave up is not kept."""
        if waiting in (awaited := self._awaited.get(path, [])):
            awaited.remove(waiting)
            if not awaited:
                del self._awaited[path]
