"""The cluster as an agent's process knows it: its watches, and what has to be known before the kernel is touched.

lists of all kinds ── the API answers ──► the Node ── it is there ──► uplink, settings ──► the agent
                   └─ it is away ──► what an agent before this one knew of the cluster, if it is there (`known`) ──► the Node …
until then: STATUS for the service manager, the same in the log once a minute, and no change of the kernel
"""

from __future__ import annotations

import asyncio
import datetime
import logging
import time
from collections.abc import Callable
from http import HTTPStatus

from podplane.agent.caches import NODES, Informers
from podplane.kubeapi.client import Client
from podplane.kubeapi.errors import ApiError
from podplane.kubeapi.retry import Backoff
from podplane.kubeapi.supervise import Supervisor
from podplane.machine.known import KnownCluster
from podplane.model.objects import Node
from podplane.model.words import counted

log = logging.getLogger(__name__)
HIGHEST_SECONDS = 5.0
"""The longest wait between two tries to list."""
AWAY_SECONDS = 5.0
"""An API that has not answered anything for so long is away, where what was known last is at hand."""
SAID_SECONDS = 60.0
"""What is waited for is in the log so often."""


EARLY, LATE = "certificate is not yet valid", "certificate has expired"
"""What OpenSSL says of certificates (X509_verify_cert_error_string)."""


def waits_for(error: ApiError, now: Callable[[], datetime.datetime] = lambda: datetime.datetime.now(datetime.UTC)) -> str:
    """What is waited for when the API answers this."""
    if error.code == HTTPStatus.UNAUTHORIZED:
        return f"the API refuses the credentials of this agent (401), and is asked again: {error}"
    if error.code == HTTPStatus.FORBIDDEN:
        return f"the API does not permit what this agent has to do: {error}: apply what `podplane agent rbac` prints"
    for words, what in ((EARLY, "is not valid yet"), (LATE, "has expired")):
        if words in str(error):
            clock = f"{now():%Y-%m-%d %H:%M:%S} UTC"
            return f"the API's certificate {what} by the clock of this machine, which says {clock}: is that right? ({error})"
    return f"waiting for the API: {error}"


class Waiting:
    """Says what is waited for: `status` each time that changes, the log once a minute, and `tell` what does not pass by itself."""

    def __init__(self, status: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._status, self._clock = status, clock
        self._text, self._logged_at = "", -SAID_SECONDS
        self.reason = "it is still starting"
        self.tell: Callable[[str], None] = lambda text: None

    def hindered(self, text: str, *more: str) -> None:
        """By this, which somebody has to do something about, and by more."""
        self.says(text + (f" (and {counted(len(more), 'more problem')})" if more else ""))
        for one in (text, *more):
            self.tell(one)

    def says(self, text: str) -> None:
        """For this."""
        if text != self._text:
            self._text = self.reason = text
            self._status(text)
        if self._clock() - self._logged_at >= SAID_SECONDS:
            self._logged_at = self._clock()
            log.warning("%s", text)


class Cluster:
    """Caches of the cluster, kept current by tasks of `supervisor`; its methods run on one event loop."""

    def __init__(self, client: Client, supervisor: Supervisor, node_name: str, waiting: Waiting, kept: KnownCluster) -> None:
        self.informers = Informers(client, kept)
        self._client, self._kept = client, kept
        self.caches = self.informers.caches
        self._supervisor = supervisor
        self.node_name = node_name
        self._waiting = waiting

    async def known(self) -> None:
        """Wait until everything was listed once, or, while the API is away, have what was known of it last; from then on it is watched."""
        backoff, loop = Backoff(highest=HIGHEST_SECONDS), asyncio.get_running_loop()
        may_recall = self._kept.path.exists()
        self._kept.begin()
        while (error := await self._sync(AWAY_SECONDS if may_recall else None)) is not None:
            if may_recall and await self._recall():
                is_away = error.code != HTTPStatus.UNAUTHORIZED
                why = "the API is away" if is_away else "the API refuses the credentials of this agent (401)"
                log.warning("%s: it begins with what was known of the cluster last: %s", why, error)
                break
            may_recall = False
            says = self._waiting.hindered if error.code == HTTPStatus.FORBIDDEN else self._waiting.says
            says(waits_for(error))
            await asyncio.sleep(backoff.delay(loop.time()))
        for name, watch in self.informers.watches.items():
            self._supervisor.add(name, watch)

    async def _sync(self, patience: float | None) -> ApiError | None:
        """Why the lists can't be had, or that nothing was answered within `patience` seconds; each of them is over when this returns."""
        lists = [informer.sync() for informer in self.caches.informers.values() if not informer.is_synced]
        tasks = list(map(asyncio.ensure_future, lists))
        try:
            await asyncio.wait(tasks, timeout=patience)
            if patience is not None and self._client.contact is None:
                return ApiError(504, "Timeout", f"it has not answered within {patience:g} s")
            answers = await asyncio.gather(*tasks, return_exceptions=True)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for answer in answers:
            if isinstance(answer, BaseException) and not isinstance(answer, ApiError):
                raise answer
        return next((answer for answer in answers if isinstance(answer, ApiError)), None)

    async def _recall(self) -> bool:
        """Have what an agent before this one knew; False when there is nothing of that, or this node is not in it."""
        former = await asyncio.to_thread(self._kept.read)
        if former is None or self.node_name not in former[NODES]:
            return False
        for resource, informer in self.caches.informers.items():
            if resource in former:
                await informer.recall(former[resource])
        self._kept.resume()
        return True

    async def node(self) -> Node:
        """Wait for the node's own object, with an address."""
        came = asyncio.Event()
        self.caches.nodes.subscribe(lambda old, new: came.set())
        while True:
            node = self.caches.nodes.objects.get(self.node_name)
            if node is not None and node.internal_ips:
                return node
            if node is not None:
                self._waiting.hindered(
                    f"waiting for the Node: {self.node_name} has no InternalIP: does its kubelet know one (--node-ip)?"
                )
            else:
                what = "does not exist: is its kubelet registered, is this its name?"
                self._waiting.says(f"waiting for the Node: {self.node_name} {what}")
            came.clear()
            try:
                await asyncio.wait_for(came.wait(), SAID_SECONDS)
            except TimeoutError:
                pass
