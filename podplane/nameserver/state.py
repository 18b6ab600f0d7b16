"""The state of the name server in words and figures, made when somebody asks for it."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from podplane.kubeapi.client import Contact
from podplane.kubeapi.informer import Informer
from podplane.kubeapi.supervise import TaskReport
from podplane.model.answers import ApiStatus, CacheStatus, TaskStatus
from podplane.model.name_server import MemoryStatus, NameServerStatus, UpstreamStatus
from podplane.nameserver.configuration import Configuration
from podplane.nameserver.objects import Objects
from podplane.nameserver.rates import Rates


class State:
    """Where the state is read; all nodes of a process have one. Its methods run on the event loop."""

    def __init__(
        self,
        objects: Objects,
        configuration: Configuration,
        zones: Sequence[str],
        upstreams: Callable[[], Sequence[UpstreamStatus]],
        memory: Callable[[], MemoryStatus],
        tasks: Callable[[], Mapping[str, TaskReport]],
        contact: Callable[[], Contact | None],
        rates: Rates,
        restarts: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`upstreams`, `memory`, `tasks` and `contact` give what there is at the moment; times are those of `clock`."""
        self._objects = objects
        self._configuration = configuration
        self._zones = list(zones)
        self._upstreams = upstreams
        self._memory = memory
        self._tasks = tasks
        self._contact = contact
        self._rates = rates
        self._restarts = restarts
        self._clock = clock
        self._started = clock()
        self._ready = False

    def ready(self) -> None:
        """The server answers questions from now on."""
        self._ready = True

    def missing(self) -> list[str]:
        """What the server waits for; empty from the moment that it answers questions."""
        if self._ready:
            return []
        return [one.resource for one in self._informers if not one.is_synced] or ["sockets"]

    def caches(self) -> list[CacheStatus]:
        """The caches of the cluster's objects."""
        return [CacheStatus(one.resource, len(one.objects), one.is_synced, dict(one.failures)) for one in self._informers]

    @property
    def _informers(self) -> tuple[Informer[Any], ...]:
        return *self._objects.informers, self._configuration.informer

    def heard_age(self) -> float | None:
        """How long ago the API said last how things are; None before it did."""
        heard = min(one.heard for one in self._informers)
        return self._clock() - heard if math.isfinite(heard) else None

    def status(self, node: str) -> NameServerStatus:
        """All of it, as this node's server tells it."""
        return NameServerStatus(
            node=node,
            pid=os.getpid(),
            age=self._clock() - self._started,
            restarts=self._restarts,
            missing=self.missing(),
            answers=self._rates.answers(node),
            answers_a_second=self._rates.rate(node),
            config=self._configuration.status,
            zones=self._zones,
            upstreams=list(self._upstreams()),
            memory=self._memory(),
            tasks=[TaskStatus(name, one.is_running, one.restarts, one.last_error) for name, one in self._tasks().items()],
            caches=self.caches(),
            heard_age=self.heard_age(),
            api=self._api(),
        )

    def _api(self) -> ApiStatus | None:
        contact = self._contact()
        return None if contact is None else ApiStatus(contact.is_reached, self._clock() - contact.at, contact.error)
