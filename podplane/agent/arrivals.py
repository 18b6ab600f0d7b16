"""Who waits for pods of the API to be known, and what is asked for as soon as they are."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

from podplane.kubeapi.cache import Cache
from podplane.kubeapi.currency import Shared
from podplane.model.pod_info import PodInfo

Ask = Callable[[str], Awaitable[bool]]
"""Is all known of a namespace that its pods wait for, as of the time of the call or later?"""


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


class AskedAhead:
    """What the attachments of some nodes' pods wait for, asked when the pods come: a runtime begins some milliseconds later."""

    def __init__(self, pods: Cache[PodInfo]) -> None:
        self._pods = pods
        self._nodes: dict[str, Ask] = {}
        self._asked: dict[str, asyncio.Task[bool]] = {}
        """By the paths of pods."""
        self._shared = Shared[str, bool]()
        pods.subscribe(self._changed)

    def serve(self, node: str, ask: Ask, is_attached: Callable[[str], bool]) -> None:
        """From now on ask for each pod that comes to this node, and now for those that are there and not attached yet. Pods of a namespace
        that come at one time share an answer."""
        self._nodes[node] = ask
        for path, pod in self._pods.objects.items():
            if pod.node == node and not is_attached(path):
                self._came(pod)

    def _changed(self, old: PodInfo | None, new: PodInfo | None) -> None:
        if new is not None:
            self._came(new)
        elif old is not None:
            self._asked.pop(old.metadata.path, None)

    def _came(self, pod: PodInfo) -> None:
        path, ask = pod.metadata.path, self._nodes.get(pod.node)
        if ask is None or path in self._asked or pod.host_network or pod.has_ended:
            return
        namespace = pod.metadata.namespace
        answer = self._shared.ask(namespace, partial(ask, namespace))
        self._asked[path] = asyncio.get_running_loop().create_task(answer, name=f"ask for {path}")

    async def is_known(self, path: str) -> bool:
        """Is what was asked for a pod known, as of a time when the pod was? False when it was not asked, too."""
        asked = self._asked.get(path)
        return asked is not None and await asyncio.shield(asked)
