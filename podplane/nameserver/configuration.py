"""The configuration as the ConfigMap has it, taken over as soon as it changes.

no ConfigMap, or nothing in it     the defaults
one that makes sense               it counts from now on; subscribers are told
one that does not                  the last one that did goes on; the error is in the state, in the log, and an Event of the ConfigMap
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Collection
from typing import Any

from podplane.dns.config import NAME, NAMESPACE, Config
from podplane.dns.message import Name
from podplane.kubeapi.client import Client
from podplane.kubeapi.events import WARNING, Recorder
from podplane.kubeapi.informer import Informer
from podplane.model.config_map import ConfigMap
from podplane.model.name_server import ConfigStatus
from podplane.nameserver.objects import backoff

log = logging.getLogger(__name__)
PATH = f"{NAMESPACE}/{NAME}"
REASON = "InvalidConfig"
GOES_ON, DEFAULTS = "the last good configuration goes on", "the defaults count"
AGAIN_SECONDS = 30.0
"""So long until an Event is tried again that could not be written: the API was away, or there were too many (one more every 5 minutes)."""
Changed = Callable[[Config], Awaitable[None] | None]
"""Told the configuration that counts from now on; what it returns is awaited."""


class Configuration:
    """What the ConfigMap says, for a cluster of this domain, whose name servers have the addresses `own`.

    `current` is the configuration that counts. Its methods run on one event loop.
    """

    def __init__(
        self,
        client: Client,
        recorder: Recorder,
        domain: Name,
        own: Collection[str],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.current = Config()
        fields = f"metadata.name={NAME}"
        self.informer = Informer(client, "configmaps", ConfigMap, namespace=NAMESPACE, fields=fields, backoff=backoff())
        self.informer.subscribe(lambda old, new: self._touched.set())
        self._recorder = recorder
        self._domain, self._own = domain, own
        self._clock = clock
        self._touched = asyncio.Event()
        self._error, self._instead = "", DEFAULTS
        self._is_unsaid = False
        self._taken = clock()
        self._subscribers: list[Changed] = []

    def subscribe(self, changed: Changed) -> None:
        """Tell this one of each new configuration."""
        self._subscribers.append(changed)

    @property
    def status(self) -> ConfigStatus:
        """Where the configuration is from, and what is wrong with the ConfigMap."""
        age = self._clock() - self._taken
        return ConfigStatus(PATH, PATH in self.informer.objects, self._error, age, self._instead if self._error else "")

    async def sync(self) -> None:
        """Have the configuration. ApiError when it can't be had."""
        await self.informer.sync()
        await self._take()

    @property
    def watches(self) -> dict[str, Callable[[], Awaitable[object]]]:
        """What keeps it current, by name: to be run by a supervisor."""
        return {"watch of the configuration": self.informer.run, "configuration": self.run}

    async def run(self) -> None:
        """Take over what changes, until cancelled."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(AGAIN_SECONDS if self._is_unsaid else None):
                    await self._touched.wait()
            if self._touched.is_set():
                await self._take()
            else:
                await self._say()

    async def _take(self) -> None:
        self._touched.clear()
        object_ = self.informer.objects.get(PATH)
        try:
            config = Config() if object_ is None else await asyncio.to_thread(_read, object_, self._domain, self._own)
        except ValueError as error:
            self._error = str(error)
            log.warning("configuration configmap=%s error=%s", PATH, error)
            await self._say()
            return
        self._error, self._instead, self._is_unsaid = "", GOES_ON, False
        if config != self.current:
            self.current = config
            self._taken = self._clock()
            await self._tell(config)

    async def _tell(self, config: Config) -> None:
        for changed in self._subscribers:
            try:
                if (work := changed(config)) is not None:
                    await work
            except Exception:
                log.exception("configuration subscriber=%r", changed)  # what fails in one part keeps the others from nothing

    async def _say(self) -> None:
        """The last configuration goes on: say why, by an Event."""
        object_ = self.informer.objects.get(PATH)
        about: dict[str, Any] = {"namespace": NAMESPACE, "name": NAME, "uid": object_.metadata.uid if object_ else ""}
        message = f"{self._instead}: {self._error}"
        self._is_unsaid = not await self._recorder.record("v1/ConfigMap", about, REASON, message, WARNING)


def _read(object_: ConfigMap, domain: Name, own: Collection[str]) -> Config:
    """In a thread: half a megabyte of YAML takes longer than a turn of the loop may. ConfigError when it means nothing."""
    from podplane.dns import config_text  # YAML is loaded where there is some

    return config_text.of_data(object_.data or {}, (object_.binary_data or {}).keys(), domain, own)
