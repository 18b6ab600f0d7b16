"""What an agent's process answers over HTTP before its agent does: it is alive, and not ready. Nobody has to say who he is.

:10256/livez              200
:10256/healthz, /readyz   503, and what is waited for
:10256/…                  503, the same: who asks comes again

Beside kube-proxy, which has that port, at the agent's other one.
"""

from __future__ import annotations

import logging
import os

from podplane.agent.health import ready
from podplane.kernel.namespace import Namespace
from podplane.machine.cluster import Waiting
from podplane.model.answers import STARTING
from podplane.model.config import AGENT_PORT
from podplane.servers.http import Call, HttpServer, Reply, listeners

log = logging.getLogger(__name__)
VERSIONS = (4, 6)


class WaitingPort:
    """The server; its methods run on one event loop."""

    def __init__(self, waiting: Waiting, port: int = AGENT_PORT) -> None:
        self._waiting = waiting
        self._port = port
        self._server = HttpServer(self._answer)

    async def open(self, namespace: Namespace) -> None:
        """Answer. A port that is in use is in the log: the agent will say so in an event."""
        try:
            await self._server.listen(namespace.run(listeners, self._port, VERSIONS, False))
        except OSError as error:
            log.warning("port=%d error=%s", self._port, os.strerror(error.errno) if error.errno else error)

    def close(self) -> None:
        """Give the port to the agent."""
        self._server.close()

    async def _answer(self, call: Call) -> Reply:
        match call.path.strip("/"):
            case "livez":
                return ready("")
            case "healthz" | "readyz":
                return ready(self._waiting.reason)
        return ready(f"{STARTING}: {self._waiting.reason}")
