"""What a node says on its own Node about peers that it does not reach: the condition PeersUnreachable, and an event.

Nothing is written while all is well and was well before. A condition changes when its reason has stood for a moment, and not more often
than every `QUIET_SECONDS`. Peers that are not ready are left out: the API knows of them. It is True when something is wrong, as conditions
of nodes other than Ready are.
"""

from __future__ import annotations

import asyncio
import datetime
import logging
from collections.abc import Callable, Sequence
from typing import NamedTuple

from podplane.agent.keys import NodeKey
from podplane.agent.planner import RecordEvent
from podplane.kubeapi.client import Client
from podplane.kubeapi.keeping import keep
from podplane.kubeapi.retry import FailureLog
from podplane.model.answers import PeerProblem
from podplane.model.objects import Node
from podplane.probes.problems import sentence
from podplane.probes.table import State

log = logging.getLogger(__name__)
TYPE = "PeersUnreachable"
BLOCKED, LOST, WELL = "PodsUnreachable", "NodesUnreachable", "PeersReached"
"""Reasons: pods of peers are not reached though the peers themselves are; nor are they; all is well."""
STANDS_SECONDS, QUIET_SECONDS = 2.0, 30.0
NAMED = 5
"""So many peers are named."""


class Said(NamedTuple):
    """What is said: is anything wrong, the reason, the message."""

    is_wrong: bool
    reason: str
    message: str


def said_of(problems: Sequence[PeerProblem]) -> Said:
    """What is to be said of these. Loss alone changes all the time, and is no reason."""
    lost = [one for one in problems if one.loss == 1 and not one.is_not_ready]
    if not lost:
        return Said(False, WELL, "pods of all peers are reached, of those that are watched and ready")
    reason = BLOCKED if any(one.underlay == State.REACHED.value for one in lost) else LOST
    more = [f"{len(lost) - NAMED} more are not reached"] if len(lost) > NAMED else []
    return Said(True, reason, "; ".join([*map(sentence, lost[:NAMED]), *more]))


class PeerCondition:
    """Of one node; its methods run on one event loop. `problems` are those that there are; `node` is its Node, None while it has none;
    `is_settled`: was every way tried for as long as it takes to judge it?"""

    def __init__(
        self,
        client: Client,
        node: Callable[[], Node | None],
        problems: Callable[[], Sequence[PeerProblem]],
        is_settled: Callable[[], bool],
        record_event: RecordEvent,
        now: Callable[[], datetime.datetime],
    ) -> None:
        self._client = client
        self._node, self._problems, self._is_settled = node, problems, is_settled
        self._record_event = record_event
        self._now = now
        self._wake = asyncio.Event()
        self._wanted: Said | None = None
        self._since = 0.0
        self._told: Said | None = None
        self._told_at = -QUIET_SECONDS

    def changed(self) -> None:
        """A way changed its state, or the Node what it says."""
        self._wake.set()

    async def run(self) -> None:
        """Say it, until cancelled."""
        await keep(self._wake, self._step, FailureLog(log, "condition of the node"))

    async def _step(self, now: float) -> float | None:
        """Say what is to be said; so many seconds later there may be more, None: when something changes."""
        node, said = self._node(), said_of(self._problems())
        if said != self._wanted:
            self._wanted, self._since = said, now
        if node is None or self._is_said(node, said):
            return None
        if not self._is_settled():
            return STANDS_SECONDS
        if (rest := max(self._since + STANDS_SECONDS, self._told_at + QUIET_SECONDS) - now) > 0:
            return rest
        await self._say(node, said)
        self._told, self._told_at = said, now
        return QUIET_SECONDS  # somebody may have written over it

    def _is_said(self, node: Node, said: Said) -> bool:
        is_there = _status_of(node) == "True"
        return is_there == said.is_wrong and (not said.is_wrong or said == self._told)

    async def _say(self, node: Node, said: Said) -> None:
        """The time of its transition is that of its status: where that stays, the API keeps it. What an agent before this one said has had
        its event."""
        is_other = _status_of(node) != str(said.is_wrong)
        time = self._now().strftime("%Y-%m-%dT%H:%M:%SZ")
        condition = {
            "type": TYPE,
            "status": str(said.is_wrong),
            "reason": said.reason,
            "message": said.message,
            "lastHeartbeatTime": time,
            **({"lastTransitionTime": time} if is_other else {}),
        }
        name = node.metadata.name
        await self._client.patch_own_status("nodes", "", name, {"conditions": [condition]}, node.metadata.uid)
        log.warning("node=%s %s", name, said.message)
        if said.is_wrong and (is_other or self._told is not None):
            self._record_event(NodeKey(name), said.message, TYPE)


def _status_of(node: Node) -> str:
    """What the condition is on a Node; "" where there is none."""
    return next((one.status for one in node.status.conditions if one.type == TYPE), "")
