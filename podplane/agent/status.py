"""The state of a node's agent in words and figures, made when somebody asks for it: nothing of it is kept for each kernel object.

Counting walks over all objects that are wanted, with pauses. Lists are cut at `LISTED`; their counts are not. Ages are in seconds.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Protocol

from podplane import __version__
from podplane.agent.agent import Agent
from podplane.agent.caches import Caches
from podplane.agent.keys import Key, NodeKey, PeerKey
from podplane.agent.pause import Pause
from podplane.kubeapi.client import Contact
from podplane.kubeapi.supervise import TaskReport
from podplane.loop_turns import TurnLoop
from podplane.model.answers import (
    ApiStatus,
    AuditStatus,
    BlockedKey,
    CacheStatus,
    FormerNetwork,
    NodeStatus,
    ObjectCount,
    PeerProblem,
    PeerWay,
    RefusedObject,
    Repair,
    Summary,
    TaskStatus,
)
from podplane.state.ledger import Refused, Status
from podplane.state.nft_members import MEMBERS, Members
from podplane.state.value import Identity
from podplane.state.words import in_words

LISTED = 100
"""So many refused objects and blocked keys are listed."""
REASON = 200
"""So many characters of a reason are in a summary."""
STEP = 500
"""So many objects are counted between two looks at the clock."""
Counts = Mapping[tuple[str, str], Counter[Status]]
"""(feature, kind of object) → how many of each status."""


class Peers(Protocol):
    """What probes say of the ways to peers."""

    def ways(self) -> list[PeerWay]:
        """Each of them."""

    def problems(self) -> list[PeerProblem]:
        """Those that are lost, or lose much."""

    def unmet(self) -> list[str]:
        """Why nothing is known of peers; [] where they are probed."""


class _NoPeers:
    """Nobody probes."""

    def ways(self) -> list[PeerWay]:
        """None."""
        return []

    def problems(self) -> list[PeerProblem]:
        """None."""
        return []

    def unmet(self) -> list[str]:
        """Nothing is asked for."""
        return []


NO_PEERS = _NoPeers()


def _short(text: str) -> str:
    return text if len(text) <= REASON else f"{text[: REASON - 1]}…"


class Sources:
    """Where the state of one node is read."""

    def __init__(
        self,
        agent: Agent,
        caches: Caches,
        tasks: Callable[[], Mapping[str, TaskReport]],
        contact: Callable[[], Contact | None],
        clock: Callable[[], float] = time.monotonic,
        peers: Peers = NO_PEERS,
        machine_without: Callable[[], list[str]] = list,
        former_network: Callable[[], FormerNetwork | None] = lambda: None,
    ) -> None:
        """`tasks` gives the reports of the node's supervised tasks, `contact` that of its client, with times of `clock`, `machine_without`
        what the machine keeps from the node, `former_network` what is left of the one that it is migrated from."""
        self.agent = agent
        self.peers = peers
        self._machine_without = machine_without
        self._former_network = former_network
        self._caches = caches
        self._tasks = tasks
        self._contact = contact
        self._clock = clock

    def summary(self) -> Summary:
        """How much is wrong: quick, whatever there is."""
        agent = self.agent
        restarts = sum(task.restarts for task in self._tasks().values())
        contact = self._contact()
        error = "" if contact is None or contact.is_reached else contact.error
        return Summary(
            agent.view.node_name,
            len(agent.ledger.refused),
            len(agent.planner.blocked),
            restarts,
            error,
            self.peers.problems(),
            self._unmet(),
            self._first_refused(),
            next((_short(f"{key}: {why}") for key, why in agent.planner.blocked.items()), ""),
        )

    def unmet(self) -> list[str]:
        """What the node does without of what it is asked for, a line each."""
        return self._unmet()

    def _first_refused(self) -> str:
        ledger = self.agent.ledger
        for identity, refused in ledger.refused.items():
            value = ledger.desired.get(identity) or ledger.deviations.get(identity)
            return _short(f"{in_words(identity, value)}: {refused.error}")
        return ""

    def _unmet(self) -> list[str]:
        """What the node does without of what its Node and those of peers ask for."""
        return [*self._machine_without(), *self.peers.unmet(), *self.agent.planner.unmet_of((NodeKey, PeerKey))][:LISTED]

    async def status(self) -> NodeStatus:
        """The whole state. Its parts are of the moment when they were read."""
        counts = await self.counts()
        agent, now = self.agent, self.agent.now()
        loop = asyncio.get_running_loop()
        return NodeStatus(
            node=agent.view.node_name,
            objects=[
                ObjectCount(feature, kind, row[Status.DONE], row[Status.PENDING], row[Status.REFUSED])
                for (feature, kind), row in sorted(counts.items())
            ],
            refused=len(agent.ledger.refused),
            refused_objects=self._refused(now),
            blocked=len(agent.planner.blocked),
            blocked_keys=self._blocked(),
            unmet=self._unmet(),
            without_offload=agent.without_offload,
            former_network=self._former_network(),
            dirty_keys=agent.planner.dirty_keys(),
            operations_applied=agent.writer.operations_applied,
            operations_refused=agent.writer.operations_refused,
            audits=self._audits(now),
            repaired=dict(agent.watcher.repaired),
            last_repairs=[Repair(now - at, what) for at, what in agent.repairs],
            tasks=[TaskStatus(name, task.is_running, task.restarts, task.last_error) for name, task in self.tasks().items()],
            caches=self.caches(),
            api=self._api(),
            reconcile_age=agent.seconds_since_reconcile,
            peers=self.peers.ways(),
            unreached=self.peers.problems(),
            version=__version__,
            longest_turn=loop.turns.longest.seconds if isinstance(loop, TurnLoop) else None,
        )

    async def counts(self) -> Counts:
        """Objects by feature, kind and status. One that several keys share counts once."""
        ledger, pause = self.agent.ledger, Pause()
        found: dict[tuple[str, str], Counter[Status]] = {}
        wanted = tuple(ledger.desired)
        for number, identity in enumerate((*wanted, *ledger.deviations)):
            if number % STEP == 0:
                await pause()
            status = ledger.status(identity)
            is_counted = number >= len(wanted) and identity in ledger.desired
            if status is not Status.UNKNOWN and not is_counted:  # unknown: it went meanwhile
                found.setdefault(self._row(identity), Counter())[status] += self._count(identity)
        return found

    def tasks(self) -> Mapping[str, TaskReport]:
        """The supervised tasks of the node."""
        return self._tasks()

    def caches(self) -> list[CacheStatus]:
        """The caches of the process."""
        informers = self._caches.informers.values()
        return [CacheStatus(one.resource, len(one.objects), one.is_synced, dict(one.failures)) for one in informers]

    def blocked_by_feature(self) -> Counter[str]:
        """How many keys of each feature are blocked."""
        return Counter(self.agent.planner.feature_of(type(key)) for key in self.agent.planner.blocked)

    def _row(self, identity: Identity) -> tuple[str, str]:
        owner = self.agent.ledger.desired.owner(identity)
        kind = "nft element" if identity[0] == MEMBERS else str(identity[0])
        return (self.agent.planner.feature_of(type(owner)) if isinstance(owner, Key) else "", kind)

    def _count(self, identity: Identity) -> int:
        """One object; of what is packed, how many it stands for."""
        value = self.agent.ledger.desired.get(identity) if identity[0] == MEMBERS else None
        return len(value) if isinstance(value, Members) else 1

    def _refused(self, now: float) -> list[RefusedObject]:
        oldest = heapq.nsmallest(LISTED, self.agent.ledger.refused.items(), key=lambda item: item[1].since)
        return [self._refused_object(identity, refused, now) for identity, refused in oldest]

    def _refused_object(self, identity: Identity, refused: Refused, now: float) -> RefusedObject:
        ledger = self.agent.ledger
        value = ledger.desired.get(identity) or ledger.deviations.get(identity)
        return RefusedObject(
            in_words(identity, value),
            [str(key) for key in ledger.desired.owners(identity)[:LISTED]],
            str(refused.error),
            now - refused.since,
            refused.tries,
            max(0.0, refused.next_try - now),
        )

    def _blocked(self) -> list[BlockedKey]:
        blocked = itertools.islice(self.agent.planner.blocked.items(), LISTED)
        return [BlockedKey(str(key), self.agent.planner.feature_of(type(key)), why) for key, why in blocked]

    def _audits(self, now: float) -> list[AuditStatus]:
        audits = self.agent.watcher.audits.items()
        return [
            AuditStatus(part.value, one.count, now - one.ended, one.seconds, one.deviates)
            for part, one in sorted(audits, key=lambda item: item[0].value)
        ]

    def _api(self) -> ApiStatus | None:
        contact = self._contact()
        return None if contact is None else ApiStatus(contact.is_reached, self._clock() - contact.at, contact.error)
