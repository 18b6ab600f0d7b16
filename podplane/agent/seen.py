"""Which flows the pods of a node had in the last hour, for whoever asks what a change of policies would deny.

Nothing is counted or logged for a connection. The kernel's table of connections is read now and then: more often than an ended TCP
connection leaves it (net.netfilter.nf_conntrack_tcp_timeout_time_wait, 120 s), so that short ones are seen, too. What leaves it sooner (a
connection that was reset, UDP that is over for half a minute), and what is not tracked, may not be.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import math
from collections.abc import Callable, Collection
from typing import Protocol

from podplane.agent.parties import Parties
from podplane.agent.pause import Pause
from podplane.kernel.netlink import DumpInterrupted
from podplane.model.answers import Party, SeenFlow, SeenFlows
from podplane.model.config import CHECK_NAMESPACE
from podplane.policy.seen import FlowKey, Seen
from podplane.state.conntrack import TrackedFlow
from podplane.state.value import IPAddress

log = logging.getLogger(__name__)
LOOK_SECONDS, REST_SHARE = 100.0, 100
"""From one look to the next one; or so many times as long as it took, where that is longer."""
AGAIN_SECONDS = 1.0
"""An answer is no older."""
AT_ONCE = 200
"""So many flows are named between two pauses."""
CHECK_PORT, CHECK_SECONDS = 8079, 130.0
"""Where probers of `podplane check` listen if they can (`runtime.probe`), and how long after it connections to that are tracked."""
PROTOCOLS = {1: "ICMP", 6: "TCP", 17: "UDP", 58: "ICMP", 132: "SCTP"}


def is_of_check(protocol: str, port: int) -> bool:
    """Is it what a check sends, while one runs?"""
    return port == CHECK_PORT or protocol in ("ICMP", "ICMPV6")


class Tracking(Protocol):
    """The part of the kernel door that this needs."""

    def flows(self, ips: Collection[IPAddress]) -> set[TrackedFlow]:
        """Who is connected from and to these addresses, or was a moment ago."""


class Flows:
    """Those of one node; its methods run on one event loop. `own` are the addresses of its pods; whoever holds `turn` may go through the
    machine's connections."""

    def __init__(
        self,
        node_name: str,
        kernel: Tracking,
        own: Callable[[], Collection[IPAddress]],
        parties: Parties,
        turn: asyncio.Lock,
        clock: Callable[[], float],
    ) -> None:
        self._node_name, self._kernel, self._own, self._parties = node_name, kernel, own, parties
        self._turn, self._clock = turn, clock
        self._seen = Seen()
        self._since, self._looked_at = clock(), -math.inf
        self._next_at = self._since + LOOK_SECONDS
        self._error, self._checked_at = "", -math.inf
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Look, if it is time to; to be called again and again. Does not wait."""
        if CHECK_NAMESPACE in self._parties.caches.namespaces.objects:
            self._checked_at = self._clock()
        if self._clock() >= self._next_at and not self._is_busy:
            self._task = asyncio.get_running_loop().create_task(self._look(), name=f"flows {self._node_name}")

    @property
    def _is_busy(self) -> bool:
        return self._task is not None and not self._task.done()

    async def idle(self) -> None:
        """Wait until what was begun is done."""
        if self._task is not None and self._is_busy:
            await asyncio.wait([self._task])

    async def answer(self) -> SeenFlows:
        """Those of the last hour, and of now."""
        if self._clock() - self._looked_at >= AGAIN_SECONDS:
            self._next_at = min(self._next_at, self._clock())
            self.begin()
        await self.idle()
        now, pause, found = self._clock(), Pause(), list[SeenFlow]()
        for flow, age in self._seen.lately(now):
            found.append(SeenFlow(*flow, age))
            if len(found) % AT_ONCE == 0:
                await pause()
        return SeenFlows(self._node_name, now - self._since, self._error, found)

    async def _look(self) -> None:
        began = self._clock()
        try:
            async with self._turn:
                began = self._clock()
                found = await asyncio.to_thread(self._kernel.flows, list(self._own()))
            self._error, self._looked_at = "", self._clock()
            await self._note(found, self._looked_at)
        except (OSError, DumpInterrupted, RuntimeError) as error:  # RuntimeError: no thread can be started
            log.warning("flows node=%s error=%s", self._node_name, error)
            self._error = str(error)
        finally:
            ended = self._clock()
            self._next_at = ended + max(LOOK_SECONDS, REST_SHARE * (ended - began))

    async def _note(self, found: Collection[TrackedFlow], now: float) -> None:
        pause, names = Pause(), dict[bytes, Party]()
        for number, one in enumerate(found, 1):
            for address in (one.source, one.destination):
                if address not in names:
                    names[address] = self._parties.at(str(ipaddress.ip_address(address)))
            source, destination = names[one.source], names[one.destination]
            flow = FlowKey(source, destination, PROTOCOLS.get(one.protocol, str(one.protocol)), one.port)
            if not self._is_of_node(flow) and not self._is_of_check(flow, now):
                self._seen.add(flow, now)
            if number % AT_ONCE == 0:
                await pause()

    def _is_of_node(self, flow: FlowKey) -> bool:
        """Does the node send it? It reaches its own pods, whatever policies say."""
        return (flow.source.kind, flow.source.name) == ("node", self._node_name)

    def _is_of_check(self, flow: FlowKey, now: float) -> bool:
        """Is it what `podplane check` tries, or was it a moment ago?"""
        return now - self._checked_at < CHECK_SECONDS and is_of_check(flow.protocol, flow.port)
