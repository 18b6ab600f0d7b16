"""What policies deny on a node, for whoever asks: some of the packets, with the names that their ends have when they come.

The kernel's rules have 100 packets a second logged for each reason, whatever is denied (`policy.tables`); all are counted in the kernel.
They are read while a policy selects any pod of this node: nothing is read where nobody has policies, and nothing is written anywhere.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from collections.abc import Callable
from typing import NamedTuple

from podplane.agent.kernel import Kernel, PacketLog
from podplane.agent.parties import Parties
from podplane.agent.seen import is_of_check
from podplane.kernel.errors import KernelError
from podplane.model.answers import DeniedFlow, DeniedFlows, Party, SeenFlow
from podplane.model.config import CHECK_NAMESPACE
from podplane.policy.compiling import SHORT
from podplane.policy.denials import Denials
from podplane.policy.enforced import AllEnforced
from podplane.policy.tables import BY_RULE, DENIALS, FAMILY, FOREIGN, GATE, IN, LOG_GROUP, NAME, OUT, denial_counter
from podplane.services.feature import ServicesMemory
from podplane.state.conntrack import Frontend
from podplane.state.packet_log import LoggedPacket

log = logging.getLogger(__name__)
AGAIN_SECONDS = 5.0
"""From one try to read the log to the next one, when somebody else reads it."""
LATE_SECONDS = 0.15
"""A packet that was counted is read so much later at most (`kernel.packet_log.FLUSH_SECONDS`, and what the kernel's timers take)."""
COUNTERS = tuple(map(denial_counter, DENIALS))


def can_log(kernel: Kernel) -> bool:
    """Does the kernel log packets to a group of NFLOG (CONFIG_NETFILTER_NETLINK_LOG)?"""
    try:
        kernel.check_packet_log(LOG_GROUP)
    except (KernelError, OSError) as error:
        log.warning("denied packets are not told: %s", error)
        return False
    return True


class Denied(NamedTuple):
    """A packet that was denied, with names."""

    reason: str
    source: Party
    destination: Party
    protocol: str
    port: int
    policies: tuple[str, ...]
    in_check: bool


class DeniedLog:
    """The reader of one node; its methods run on one event loop, but for `dropped`."""

    def __init__(
        self,
        node_name: str,
        kernel: Kernel,
        parties: Parties,
        enforced: AllEnforced,
        services: ServicesMemory,
        clock: Callable[[], float],
        *,
        is_wanted: bool,
        tcp_denied: Callable[[], None] = lambda: None,
    ) -> None:
        """`tcp_denied` is called when packets of TCP were."""
        self._tcp_denied = tcp_denied
        self._parties = parties
        self._node_name = node_name
        self._kernel = kernel
        self._enforced = enforced
        self._services = services
        self._clock = clock
        self._is_wanted = is_wanted
        self._denials = Denials[Denied](lambda one: one.in_check)
        self._log: PacketLog | None = None
        self._closing: asyncio.Future[None] | None = None
        self._fd = -1
        self._since = 0.0
        self._dropped_before = self._told_before = 0
        self._why = "" if is_wanted else "it does not log what is denied"
        self._again_at = 0.0

    def follow(self) -> None:
        """Read the log as long as a policy selects any pod of the node."""
        is_wanted = self._is_wanted and self._enforced.any_under_policies
        if is_wanted == (self._log is not None):
            return
        if not is_wanted:
            self._close()
        elif self._clock() >= self._again_at and (self._closing is None or self._closing.done()):
            self._open()

    def _open(self) -> None:
        try:
            self._dropped_before = self.dropped()
            self._log = self._kernel.packet_log(LOG_GROUP)
        except (KernelError, OSError) as error:
            self._again_at = self._clock() + AGAIN_SECONDS
            if self._why != str(error):
                self._why = str(error)
                log.warning("denied packets are not told node=%s: %s", self._node_name, error)
            return
        self._why, self._since, self._told_before = "", self._clock(), self._denials.change
        self._fd = self._log.fileno()
        if self._fd >= 0:
            asyncio.get_running_loop().add_reader(self._fd, self.take)

    async def close(self) -> None:
        """Read no more; what was read is kept."""
        self._close()
        if self._closing is not None:
            await self._closing

    def _close(self) -> None:
        """In a thread: who closes a netfilter socket waits until the kernel has freed what was deleted of nf_tables: of a large policy
        for seconds (net/netfilter/nf_tables_api.c, nft_rcv_nl_event)."""
        if self._log is None:
            return
        loop = asyncio.get_running_loop()
        if self._fd >= 0:
            loop.remove_reader(self._fd)
        self._closing, self._log = loop.run_in_executor(None, self._log.close), None

    def take(self) -> None:
        """Read what was logged."""
        if self._log is None:
            return
        try:
            now = self._clock()
            packets = self._log.packets()
            for packet in packets:
                self._denials.add(self._named(packet), now)
            if any(packet.protocol == "tcp" for packet in packets):
                self._tcp_denied()
        except Exception:
            log.exception("denied packets node=%s", self._node_name)

    @property
    def told(self) -> int:
        """How many packets were told apart, since the start."""
        return self._denials.change

    def dropped(self) -> int:
        """How many packets the kernel dropped; may be called in any thread."""
        return sum(self._kernel.counts(FAMILY, NAME, COUNTERS).values())

    async def has_told(self, dropped: int) -> None:
        """What was logged of so many packets is read when this returns: the kernel keeps it for some moments."""
        self.take()
        if self._log is not None and dropped - self._dropped_before > self.told - self._told_before:
            await asyncio.sleep(LATE_SECONDS)
            self.take()

    def by_policies(self) -> list[SeenFlow]:
        """What policies denied in the last minutes, but for what `podplane check` tried."""
        now = self._clock()
        entries = ((one.what, now - one.last) for one in self._denials.after(0, now))
        return [
            SeenFlow(one.source, one.destination, one.protocol.upper(), one.port, age)
            for one, age in entries
            if one.reason not in (GATE, FOREIGN) and not one.in_check
        ]

    def flows(self, after: int, dropped: int) -> DeniedFlows:
        """What was denied, the newest first: all of the last minutes, or what came after a `change`."""
        now, change = self._clock(), self._denials.change
        if after > change:  # whoever asks saw what another agent counted
            after = 0
        told = change - self._told_before
        return DeniedFlows(
            node=self._node_name,
            change=change,
            told=told,
            dropped=max(told, dropped - self._dropped_before),
            since=None if self._log is None else now - self._since,
            error=self._why,
            flows=[
                DeniedFlow(one.number, *one.what[:-1], one.packets, now - one.first, now - one.last, one.what.in_check)
                for one in self._denials.after(after, now)
            ],
        )

    # Names.

    def _named(self, packet: LoggedPacket) -> Denied:
        destination = self._parties.at(packet.destination)
        if not destination.kind:
            destination = self._service(packet) or destination
        policies = self._policies(packet, IN) or self._policies(packet, OUT)
        source = self._parties.at(packet.source)
        is_tried = bool(source.kind and destination.kind) or is_of_check(packet.protocol.upper(), packet.port)
        in_check = is_tried and CHECK_NAMESPACE in self._parties.caches.namespaces.objects
        return Denied(packet.prefix, source, destination, packet.protocol, packet.port, policies, in_check)

    def _policies(self, packet: LoggedPacket, direction: str) -> tuple[str, ...]:
        """Those that deny a packet in this direction: by default, or those of which a rule does (one of them)."""
        enforced = self._enforced.at(packet.destination if direction == IN else packet.source)
        if enforced is None:
            return ()
        if packet.prefix == BY_RULE[direction]:
            found = (one for one in enforced.programs if one.denies and SHORT[one.direction] == direction)
            return tuple(f"ClusterNetworkPolicy {one.name}" for one in found)
        return enforced.groups[direction].policies if packet.prefix == direction and direction in enforced.groups else ()

    def _service(self, packet: LoggedPacket) -> Party | None:
        """The Service that has what a packet was sent to: it was not passed on to an endpoint."""
        path = self._services.holder(Frontend(packet.protocol, ipaddress.ip_address(packet.destination), packet.port))
        return Party(packet.destination, "service", path) if path else None
