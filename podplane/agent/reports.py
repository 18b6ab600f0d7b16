"""What a node tells those who may read it (`authorization`), on its health port:

    /status                 the state of the agent (`status`); /status/summary: only how much is wrong
    /metrics                figures for Prometheus (`metrics`)
    /routes                 the routes of the node, who asked for each, and through which tunnel it leads
    /traffic                the tracked connections through Services: how many, packets, bytes
    /policies               how often each rule of policies allowed, and how often none did
    /denied                 what was denied in the last minutes; /denied/12: after the change 12
    /flows                  who was connected with the node's pods in the last hour, and what policies denied lately
    /services/default/web   frontends and endpoints of a Service as they are in this node's tables

An answer that takes long is made by itself: of more questions some wait, and the others are refused with 429.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import TypeVar

import msgspec

from podplane.agent.metrics import Metrics
from podplane.agent.route_report import routes
from podplane.agent.status import Sources
from podplane.kubeapi.authorization import METRICS, PROXY, Authorizer
from podplane.model.answers import DeniedFlows, RouteStatus, SeenFlows
from podplane.servers.figures import CONTENT_TYPE
from podplane.servers.http import Call, Reply
from podplane.servers.report_thread import LIMIT, Busy, ReportThread
from podplane.services import report

T = TypeVar("T")
TEXT = "text/plain; charset=utf-8"
NAMES = frozenset(
    {"denied", "flows", "healthz", "livez", "metrics", "policies", "readyz", "routes", "services", "status", "traffic"}
)
"""The first parts of the paths that there are."""
DIGITS = 18
"""A number in a path has at most so many."""
NOT_FOUND = Reply(404, b"404 page not found\n", TEXT)
BUSY = Reply(429, b"too many requests: try again later\n", TEXT, (("retry-after", "1"),))


class Reports:
    """Answers for one node; its methods run on one event loop."""

    def __init__(self, sources: Sources, authorizer: Authorizer) -> None:
        self._sources = sources
        self._agent = sources.agent
        self._authorizer = authorizer
        self._thread = ReportThread()
        self._counting = asyncio.Lock()
        self._counts_wanted = 0
        self.requests: Counter[tuple[str, int]] = Counter()
        """Requests that were answered, by the first part of the path ("other" for one that there is not) and the status."""

    async def answer(self, call: Call) -> Reply:
        """The answer to a request that needs a right."""
        reply = await self._refused(call) or await self._permitted(call)
        self.count(call, reply)
        return reply

    def count(self, call: Call, reply: Reply) -> None:
        """This request was answered so."""
        name = call.path.strip("/").partition("/")[0]
        self.requests[name if name in NAMES else "other", reply.status] += 1

    async def _refused(self, call: Call) -> Reply | None:
        subresource = METRICS if call.path.strip("/") == "metrics" else PROXY
        refusal = await self._authorizer.refusal(call.bearer, subresource, call.viewer, call.client)
        if refusal is None:
            return None
        headers = (("www-authenticate", "Bearer"),) if refusal.status == 401 else ()
        return Reply(refusal.status, f"{refusal.why}\n".encode(), TEXT, headers)

    async def _permitted(self, call: Call) -> Reply:
        try:
            match call.path.strip("/").split("/"):
                case ["traffic"]:
                    return Reply(200, await self._thread.run(self._traffic))
                case ["status"]:
                    return Reply(200, msgspec.json.encode(await self._counted(self._sources.status)))
                case ["status", "summary"]:
                    return Reply(200, msgspec.json.encode(self._sources.summary()))
                case ["routes"]:
                    return Reply(200, msgspec.json.encode(await self._counted(self._routes)))
                case ["metrics"]:
                    policies = await self._thread.run(self._agent.policy_counts())
                    metrics = Metrics(self._sources, await self._counted(self._sources.counts), self.requests, policies)
                    return Reply(200, await self._thread.run(metrics.text), CONTENT_TYPE)
                case ["policies"]:
                    return Reply(200, msgspec.json.encode(await self._thread.run(self._agent.policy_counts())))
                case ["denied", *after] if len(after) < 2 and all(map(_is_number, after)):
                    return Reply(200, msgspec.json.encode(await self._denied(*map(int, after))))
                case ["flows"]:
                    found = await self._flows()
                    return Reply(200, await self._thread.run(lambda: msgspec.json.encode(found)))
                case ["services", namespace, name]:
                    table = self._agent.services.table(f"{namespace}/{name}")
                    return Reply(200, msgspec.json.encode(report.described(table)))
        except Busy:
            return BUSY
        return NOT_FOUND

    async def _counted(self, count: Callable[[], Awaitable[T]]) -> T:
        """Walk over all objects, after whoever does so now. Busy when many wait."""
        if self._counts_wanted >= LIMIT:
            raise Busy
        self._counts_wanted += 1
        try:
            async with self._counting:
                return await count()
        finally:
            self._counts_wanted -= 1

    async def _routes(self) -> list[RouteStatus]:
        return await routes(self._agent.ledger, self._agent.view.withdrawn)

    async def _denied(self, after: int = 0) -> DeniedFlows:
        log = self._agent.denied
        dropped = await self._thread.run(log.dropped)
        await log.has_told(dropped)
        return log.flows(after, dropped)

    async def _flows(self) -> SeenFlows:
        log = self._agent.denied
        await log.has_told(await self._thread.run(log.dropped))
        return msgspec.structs.replace(await self._agent.flows.answer(), denied=log.by_policies())

    def _traffic(self) -> bytes:
        """In the thread: of the agent's memory it only looks up one name after another."""
        return msgspec.json.encode(report.traffic(self._agent.connections(), self._agent.services))


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= DIGITS
