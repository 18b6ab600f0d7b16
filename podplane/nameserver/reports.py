"""What a node's name server tells over HTTP:

    /health     200 as long as it runs, as CoreDNS's plugin of that name answers
    /ready      200 once it answers questions; until then 503, and the names of what it waits for
    /metrics    figures for Prometheus (`metrics`)
    /status     the state of the server (`state`)
    /query/NAME/TYPE/ADDRESS    what this name is answered to who has this address, and why (`explanation`)
    /log/NUMBER the lines of the query log after this one (`query_log`)

Whoever reaches the node may ask the first three, as of CoreDNS; all else needs the right that an agent's reports need.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from podplane.kubeapi.authorization import PROXY, Authorizer
from podplane.nameserver.explanation import Explainer, Unanswerable
from podplane.nameserver.metrics import Counted, Metrics
from podplane.nameserver.query_log import QueryLog
from podplane.nameserver.state import State
from podplane.servers.figures import CONTENT_TYPE
from podplane.servers.http import Call, Reply
from podplane.servers.report_thread import Busy, ReportThread

TEXT = "text/plain; charset=utf-8"
OK = Reply(200, b"OK", TEXT)
BUSY = Reply(429, b"too many requests: try again later\n", TEXT, (("retry-after", "1"),))
NOT_FOUND = Reply(404, b"404 page not found\n", TEXT)


class Reports:
    """Answers for one node; its methods run on one event loop."""

    def __init__(
        self,
        node: str,
        state: State,
        counted: Counted,
        explainer: Explainer,
        query_log: QueryLog,
        authorizer: Authorizer,
    ) -> None:
        self._node = node
        self._counted = counted
        self._thread = ReportThread()
        self._explainer = explainer
        self._query_log = query_log
        self._state = state
        self._authorizer = authorizer

    async def answer(self, call: Call) -> Reply:
        """The answer to a request."""
        match call.path.strip("/").split("/"):
            case ["health"]:
                return OK
            case ["ready"]:
                missing = self._state.missing()
                return Reply(503, "\n".join(missing).encode(), TEXT) if missing else OK
            case ["metrics"]:
                return await self._metrics()
        return await self._refused(call) or await self._permitted(call)

    async def _metrics(self) -> Reply:
        metrics = Metrics(self._counted, self._state.status(self._node))
        try:
            return Reply(200, await self._thread.run(metrics.text), CONTENT_TYPE)
        except Busy:
            return BUSY

    async def _refused(self, call: Call) -> Reply | None:
        refusal = await self._authorizer.refusal(call.bearer, PROXY, call.viewer, call.client)
        if refusal is None:
            return None
        headers: Mapping[str, str] = {"www-authenticate": "Bearer"} if refusal.status == 401 else {}
        return Reply(refusal.status, f"{refusal.why}\n".encode(), TEXT, tuple(headers.items()))

    async def _permitted(self, call: Call) -> Reply:
        match call.path.strip("/").split("/"):
            case ["status"]:
                return Reply(200, msgspec.json.encode(self._state.status(self._node)))
            case ["query", *name, type_, ip] if name:  # one with a slash (RFC 2317) comes in parts
                try:
                    return Reply(200, msgspec.json.encode(await self._explainer.explain("/".join(name), type_, ip)))
                except Unanswerable as error:
                    return Reply(400, f"{error}\n".encode(), TEXT)
            case ["log", number] if number.isascii() and number.isdecimal():
                return Reply(200, msgspec.json.encode(self._query_log.after(int(number[:18]), self._node)))
        return NOT_FOUND
