"""Events of the Node about what keeps its agent from beginning, written before there is an agent, and by a process that has to end.

An object that is not known yet is named as kubelets do it: by its name, which stands for its uid, so that `kubectl describe node` finds it.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import logging
import os
import time
from collections.abc import Callable, Mapping, Set
from typing import Any

from podplane.kubeapi.access import Access
from podplane.kubeapi.errors import ApiError
from podplane.kubeapi.events import WARNING, Recorder
from podplane.model.objects import Node

log = logging.getLogger(__name__)
REASON = "NetworkNotReady"
QUIET_SECONDS = 60.0
"""The same is not written again for so long."""
LAST_WORDS_SECONDS, BETWEEN_SECONDS = 5.0, 1.0
"""The API has so long to take an event; a manager that starts the next process at once (sd_notify(3)) is held up for so long."""
MANAGER = "NOTIFY_SOCKET"
REMEMBERED = 100


class NodeEvents:
    """Of one Node; its methods run on one event loop."""

    def __init__(
        self, recorder: Recorder, node_name: str, nodes: Mapping[str, Node], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._recorder, self._node_name, self._nodes, self._clock = recorder, node_name, nodes, clock
        self._written: dict[str, float] = {}
        self._tasks: set[asyncio.Task[bool]] = set()

    def __call__(self, message: str) -> None:
        """Write it, soon, unless it was written a moment ago. An API that is away is not told later."""
        now = self._clock()
        if now - self._written.get(message, -QUIET_SECONDS) < QUIET_SECONDS:
            return
        if len(self._written) >= REMEMBERED:
            self._written.clear()
        self._written[message] = now
        record = self._recorder.record("v1/Node", self._reference(), REASON, message, WARNING)
        task = asyncio.get_running_loop().create_task(record)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    @property
    def pending(self) -> Set[asyncio.Task[Any]]:
        """What writes events now."""
        return self._tasks

    def _reference(self) -> dict[str, str]:
        node = self._nodes.get(self._node_name)
        return {"name": self._node_name, "uid": node.metadata.uid if node is not None else self._node_name}


def last_words(access: Access, node_name: str, message: str) -> None:
    """Write an event about an agent that does not start, if the API takes one soon: nothing else is done about it."""
    from podplane.kubeapi.client import Client
    from podplane.kubeapi.transport import HttpTransport

    async def write() -> None:
        transport = HttpTransport(access)
        try:
            now = lambda: datetime.datetime.now(datetime.UTC)  # noqa: E731  # one clock, for one call
            recorder = Recorder(Client(transport, ""), "podplane", now, one_of_many=True)
            async with asyncio.timeout(LAST_WORDS_SECONDS):
                await recorder.record("v1/Node", {"name": node_name, "uid": node_name}, REASON, message, WARNING)
        finally:
            await transport.close()

    with contextlib.suppress(ApiError, OSError, TimeoutError, RuntimeError, ValueError):
        asyncio.run(write())
    if MANAGER in os.environ:
        time.sleep(BETWEEN_SECONDS)
