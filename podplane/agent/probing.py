"""Probes of a node's peers, and what follows from them: which peers' routes are withdrawn, and what is told of ways that are lost.

    the poller's look ── due? ──► echo requests (kernel) ── answers, at the next look ──► table (probes.table)
    a way was lost, a Node became NotReady ──► probes.withdrawal ──► the agent plans the peer's routes anew

A node watches some of its peers (`probes.choice`), and others while the API says that they are not ready. Looks come with those of all
agents of the process, and cost nothing while nothing is due.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
import math
import time
from collections.abc import Callable, Iterable, Sequence

from podplane.agent.agent import Agent
from podplane.agent.kernel import Echo
from podplane.agent.keys import PeerKey
from podplane.agent.planner import RecordEvent
from podplane.agent.poller import Poller
from podplane.model.answers import PeerProblem, PeerWay
from podplane.model.objects import Node
from podplane.model.paths import OVERLAY, Path
from podplane.probes import choice
from podplane.probes.problems import problems
from podplane.probes.table import INTERVAL_SECONDS, Plan, State, Table
from podplane.probes.withdrawal import Surroundings, Suspect, withdrawn
from podplane.routes import underlay
from podplane.routes.targets import carried_in, paths
from podplane.routes.usable import TELLERS

log = logging.getLogger(__name__)
FIRST_SECONDS = 1.0
"""After a start the first probes wait for so long: the peers may be starting, too."""
SUSPECTS, TURN_SECONDS = 64, 2.0
"""So many peers that are not ready are watched at one time besides the others; of more each so many for so long, in turn."""
NODES_AT_PACE = 100
"""In a cluster of more nodes those peers are probed the more seldom."""
NODE_SECONDS = 2e-4
"""Peers are not chosen more often than every so many seconds for each node of the cluster."""
JUDGE_SECONDS = 1.0
"""While some peer is not ready, it is judged so often, for the API may be there again."""
SOON_SECONDS = 0.01
AGAIN_SECONDS = 5.0
"""Where echo requests can't be sent, it is tried again so often."""
WITHDRAWN = "RoutesWithdrawn"
"""Reason of an event on a Node."""


class Probing:
    """Of one node; its methods run on one event loop. `is_current`: does the API answer this node?"""

    def __init__(
        self,
        agent: Agent,
        open_echo: Callable[[], Echo],
        poller: Poller,
        record_event: RecordEvent,
        is_current: Callable[[], bool],
        changed: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`changed` is called when some way was lost, or is reached again."""
        self._agent, self._view = agent, agent.view
        self._open_echo, self._poller = open_echo, poller
        self._record_event = record_event
        self._is_current = is_current
        self._tell_changed = changed
        self._clock = clock
        self.table = Table()
        self._echo: Echo | None = None
        self._why_no_echo = ""
        self._has_chosen = False
        self._not_ready: dict[str, None] = {}
        self._was_ready: set[str] = set()
        """Of those that are not, and that have been ready since this agent started."""
        self._config = agent.config
        self._is_dirty = self._is_to_judge = True
        self._judge_at = 0.0
        self._changes = 0
        """Of the table, when it was judged last."""
        self._chosen: tuple[str, ...] = ()
        self._choose_at = 0.0
        self._are_chosen = False
        self._turn, self._turn_at = 0, math.inf
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._first_at = clock() + FIRST_SECONDS + choice.phase(self._view.node_name, INTERVAL_SECONDS)

    # What it is told.

    def begin(self) -> None:
        """The agent has started: the view is that of the cluster."""
        own = self._view.node_name
        self._not_ready = {name: None for name, node in self._view.nodes.items() if name != own and not node.is_ready}

    def changed(self, old: Node | None, new: Node | None) -> None:
        """A Node came (no old), changed or went (no new); the view has it."""
        one = new or old
        if one is None:
            return
        name = one.metadata.name
        if old is None or new is None:
            self._are_chosen = False
        was = name in self._not_ready
        if name != self._view.node_name:
            self._note_readiness(name, old, new)
        is_watched = name == self._view.node_name or self.table.of(name) or name in self._chosen
        if is_watched or not self._are_chosen or was != (name in self._not_ready):
            self._is_dirty = True
        if was != (name in self._not_ready):
            self._look_soon()

    def _note_readiness(self, name: str, old: Node | None, new: Node | None) -> None:
        if new is None or new.is_ready:
            self._not_ready.pop(name, None)
            self._was_ready.discard(name)
        else:
            if old is not None and old.is_ready:
                self._was_ready.add(name)
            if name not in self._not_ready:
                self._not_ready[name] = None
                self.table.hasten(name, self._clock())
        self._is_to_judge = True

    # What it does.

    async def run(self) -> None:
        """Probe until cancelled."""
        self._echo = await self._opened()
        self._poller.add(self.look)
        self._loop = asyncio.get_running_loop()
        try:
            await self._loop.create_future()
        finally:
            self._poller.remove(self.look)
            if self._timer is not None:
                self._timer.cancel()
            self._loop = self._timer = None
            self._echo.close()
            self._echo = None

    def _look_soon(self) -> None:
        """Some peer is to be judged within a second, and looks give way to others on a busy loop: until it is, there is a timer."""
        if self._loop is not None and self._timer is None:
            self._timer = self._loop.call_later(SOON_SECONDS, self._look_again)

    def _look_again(self) -> None:
        self._timer = None
        self.look()
        if self.table.is_hasty and self._loop is not None:
            rest = max(SOON_SECONDS, self.table.due_at - self._clock())
            self._timer = self._loop.call_later(rest, self._look_again)

    async def _opened(self) -> Echo:
        while True:
            try:
                echo = self._open_echo()
            except OSError as error:
                if str(error) != self._why_no_echo:
                    log.warning("probes node=%s error=%s", self._view.node_name, error)
                self._why_no_echo = str(error)
                await asyncio.sleep(AGAIN_SECONDS)
            else:
                self._why_no_echo = ""
                return echo

    def look(self) -> None:
        """Send what is due, take what was answered, and judge."""
        now = self._clock()
        if self._is_dirty or self._agent.config is not self._config or now >= self._turn_at:
            self._choose(now)
        if self.table.waiting and self._echo is not None:
            for answer in self._echo.receive():
                self.table.answered(answer.sequence, answer.ip, answer.seconds, now)
        if now >= self.table.due_at and self._echo is not None:
            for sequence, path in self.table.due(now):
                self._echo.send(path.ip, sequence)
        if self._is_to_judge or self.table.changes != self._changes or now >= self._judge_at:
            self._judge(now)

    def _choose(self, now: float) -> None:
        """Have the ways in the table that are to be watched."""
        nodes, own = self._view.nodes, self._view.node
        if not self._are_chosen:
            if now < self._choose_at:
                return
            self._choose_at = now + NODE_SECONDS * len(nodes)
            self._chosen = choice.watched(self._view.node_name, nodes.keys())
            self._are_chosen = True
        self._is_dirty, self._has_chosen, self._config = False, True, self._agent.config
        suspects = self._suspects(now) if own is not None else ()
        known = {row.path.peer for row in self.table.rows}
        self.table.set(self._wanted(self._chosen if own is not None else (), suspects, now), now)
        for name in suspects:
            if name not in known:
                self.table.hasten(name, now)

    def _wanted(self, chosen: Iterable[str], suspects: Iterable[str], now: float) -> dict[Path, Plan]:
        """Of suspects the ways to their pods decide. All nodes of the cluster probe them: the more seldom, the more nodes there are."""
        pace = max(1.0, len(self._view.nodes) / NODES_AT_PACE)
        found = {path: Plan(now, pace) for name in suspects for path in self._paths(name) if path.layer == OVERLAY}
        return found | {path: Plan(max(now, self._first_at)) for name in chosen for path in self._paths(name)}

    def _suspects(self, now: float) -> Sequence[str]:
        """Peers that may be withdrawn, or are; of very many some, in turn."""
        withdrawn = self._view.withdrawn
        found = [*withdrawn, *(name for name in self._not_ready if name not in withdrawn and self._was_well(name))]
        if len(found) <= SUSPECTS:
            self._turn_at = math.inf
            return found
        self._turn_at = now + TURN_SECONDS
        first, self._turn = self._turn, (self._turn + SUSPECTS) % len(found)
        return (found[first:] + found[:first])[:SUSPECTS]

    def _was_well(self, name: str) -> bool:
        node = self._view.nodes.get(name)
        return name in self._was_ready or self.table.has_answered(name) or (node is not None and node.is_silent)

    def _paths(self, name: str) -> tuple[Path, ...]:
        peer, own = self._view.nodes.get(name), self._view.node
        if peer is None or own is None:
            return ()
        return paths(self._view.as_usable(peer), own, self._config)

    def _judge(self, now: float) -> None:
        """Withdraw routes, or take that back. Of one that is not probed now only that it is ready can be new."""
        if self.table.changes != self._changes:
            self._tell_changed()
        self._is_to_judge, self._changes, self._judge_at = False, self.table.changes, now + JUDGE_SECONDS
        former = self._view.withdrawn
        if not self._not_ready and not former:
            return
        probed = [name for name in self.table.peers if name in self._not_ready and name in self._view.nodes]
        stay = former & self._not_ready.keys() - set(probed)
        names = stay | withdrawn(former, map(self._suspect, probed), self._surroundings())
        if names != former:
            self._agent.withdraw_routes(names)
            self._is_dirty = True
            self._tell(former, names)

    def _suspect(self, name: str) -> Suspect:
        node, has_answered = self._view.nodes[name], self.table.has_answered(name)
        return Suspect(
            name=name,
            is_ready=node.is_ready,
            pods=self.table.pods_of(name),
            was_well=self._was_well(name),
            has_answered=has_answered,
        )

    def _surroundings(self) -> Surroundings:
        lost = {row.path.peer for row in self.table.lost() if self.table.pods_of(row.path.peer) is State.LOST}
        return Surroundings(
            nodes=len(self._view.nodes),
            failing=len(lost | self._not_ready.keys()),
            is_answered=self.table.is_any_reached,
            is_current=self._is_current(),
        )

    def ways(self) -> list[PeerWay]:
        """What there is to say of each way."""
        now = self._clock()
        return [
            PeerWay(
                peer=row.path.peer,
                layer=row.path.layer,
                backend=row.path.backend,
                ip=row.path.ip,
                state=row.state.value,
                latency=row.latency,
                loss=row.loss,
                probes=row.sent,
                age=now - row.since,
                is_withdrawn=row.path.peer in self._view.withdrawn,
            )
            for row in self.table.rows
        ]

    def problems(self) -> list[PeerProblem]:
        """Which peers are not reached, or not well."""
        config = self._agent.config
        return problems(
            self.table,
            lambda backend: carried_in(backend, config),
            self._not_ready,
            self._view.withdrawn,
            self._clock(),
            lambda name: underlay.narrow(self._view.nodes.get(name), config),
        )

    @property
    def is_settled(self) -> bool:
        """Is it known of every way whether it is reached?"""
        is_probed = self._echo is not None and self._has_chosen
        return is_probed and not any(row.state is State.UNKNOWN for row in self.table.rows)

    def unmet(self) -> list[str]:
        """Why nothing is known of peers; [] where they are probed."""
        return [f"peers can't be probed: {self._why_no_echo}"] if self._why_no_echo else []

    def _tell(self, former: frozenset[str], now: frozenset[str]) -> None:
        node, gone = self._view.node_name, sorted(now - former)
        is_teller = bool(gone) and self._is_teller()
        for name in gone:
            log.warning("node=%s routes to %s are withdrawn: it is not ready and does not answer", node, name)
            if is_teller:
                what = (
                    "it is not ready, and its pods' gateway does not answer: what is sent to its pods is refused (unreachable)"
                )
                self._record_event(PeerKey(name), f"{what} until it is ready or answers", WITHDRAWN)
        for name in sorted(former - now):
            if name in self._view.nodes:
                log.warning("node=%s routes to %s are back", node, name)

    def _is_teller(self) -> bool:
        """Does this node write events about peers? In a large cluster all would write the same."""
        ready = (name for name, node in self._view.nodes.items() if node.is_ready)
        return self._view.node_name in heapq.nsmallest(TELLERS, ready)
