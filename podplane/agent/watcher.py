"""How an agent notices what others do to its kernel objects: in the node's own namespace within 100 ms.

    links, addresses, routes, neighbours   the kernel notifies (RTNLGRP_*); what a notification can't say (IPv4 routes
                                           vanish silently when their link goes down) is read again
    nf_tables                              the generation of the namespace is polled: one that podplane's own commits do
                                           not explain is a foreign commit
                                           (between two readings of which nobody committed, one is enough)
    sysctls                                of forwarding and reverse path filters the kernel notifies (RTNLGRP_*_NETCONF); all are polled
                                           now and then, by descriptors that stay open; those of a pod's link are read with its namespace
    proxies                                polled by a dump, while any is desired: the kernel notifies nothing of them
    a pod's namespace                      read when the pod's link loses its carrier or is gone; and each in turn, once a
                                           minute, as a subscription in each namespace would cost a socket for each pod

Own changes come back as notifications too: they confirm what is known. What deviates unexpectedly is a foreign change: the
writer repairs it, and an event on the Node says so.
"""

from __future__ import annotations

import itertools
import logging
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping

import msgspec

from podplane.agent.auditor import EVERYTHING, Auditor, Part, part_of
from podplane.agent.foreseen import unforeseen
from podplane.agent.kernel import Kernel, Monitor, SysctlWatch
from podplane.agent.pause import Pause
from podplane.kernel.errors import Denied, Exists, NotFound, Retry
from podplane.state.ledger import Ledger, Status
from podplane.state.links import LEAST_MTU, carries
from podplane.state.network import QDISC_HANDLE, Address, Fdb, Link, Neighbour, Qdisc, Route, Rule, Sysctl
from podplane.state.nft import NftValue
from podplane.state.nft_members import Members
from podplane.state.operations import Changes, Failure, LinkEvent, Operation, Report
from podplane.state.ownership import Ownership, is_foreign
from podplane.state.value import Identity, Value

log = logging.getLogger(__name__)

AUDIT_SECONDS = 60.0
"""Between two readings of everything that nothing in particular asks for, at least."""
AUDIT_REST, LONGEST_REST = 400, 600.0
"""After one, the next such one waits so many times as long as it took, when that is longer, and so many seconds at most: with a hundred
thousand objects a reading takes seconds, and notifications and generations tell of nearly everything at once."""
OBJECT_SECONDS = 25e-6
"""An object of a table takes so long to read and compare, before it is known of a first audit."""
RETRY_SECONDS = 0.1
"""After a refusal that contradicts what is known, the kernel is read so soon; each time that this does not help, after
twice the time."""
AUDIT_SHARE = 10
"""After a reading that a foreign commit asked for in vain, the next such one waits so many times as long as it took."""
LEAST_LINK_EVENT_SECONDS, LINK_EVENT_SECONDS = 0.02, 0.5
"""After a reading of the network that found nothing, the next one that others' links ask for waits so long at least: at first, as one event
seldom comes alone, and, twice as long each time, at most."""
SYSCTL_SECONDS = 0.07
"""Between two looks at the sysctls of the node that the kernel does not notify: as often as there are polls."""
SYSCTLS_AT_ONCE = 100
"""So many are read in one turn of the loop at a start: some 3 ms."""
UNREAD_SECONDS = 1.0
"""After a reading of tables that can't say what is in some set, the next one waits so long at least,
or AUDIT_SHARE times as long as it took."""
ROUTE = "Route"
"""The kind of object that the kernel takes only with an address on the link: to reach its gateway, or as its source (prefsrc)."""
OPEN_AGAIN_SECONDS = 1.0
"""A sysctl whose file is not there is looked for so often."""
CONTRADICTIONS = (Exists, NotFound, Retry, OSError)
"""Refusals that mean that the kernel holds, or may hold, something else than is known. After an OSError (an answer was lost, say) it is
not known what took effect."""


class Audit(msgspec.Struct, frozen=True):
    """The audits of one part: how many, when the last one ended (seconds of the agent's clock), how long it took, and whether it found,
    in this part or in one that was read with it, a deviation that was not known."""

    count: int
    ended: float
    seconds: float
    deviates: bool


class Watcher:
    """One node's; its methods run on one event loop. `start` before the others."""

    def __init__(
        self,
        node_name: str,
        ledger: Ledger,
        kernel: Kernel,
        ownership: Ownership,
        clock: Callable[[], float],
        repaired: Callable[[str, bool], None],
        link_changed: Callable[[str, LinkEvent], None] = lambda name, event: None,
    ) -> None:
        """`repaired` is called with what was repaired, in words, and whether tables were among it; `link_changed` with
        events of others' links."""
        self.auditor = Auditor(node_name, ledger, kernel, ownership, self._foreign_change)
        self._node_name = node_name
        self._ledger = ledger
        self._kernel = kernel
        self.ownership = ownership
        self._clock = clock
        self._tell = repaired
        self._tell_link_changed = link_changed
        self._monitor: Monitor | None = None
        self._sysctls: SysctlWatch | None = None
        self._watched: set[str] = set()
        self._polled: dict[str, str] = {}
        """The sysctls that are polled, as they were desired after so many changes (`Ledger.sysctl_changes`):"""
        self._polled_of = -1
        self._open_again_at = self._sysctls_at = 0.0
        self._pods: dict[str, str] = {}
        self._pods_to_read: dict[str, None] = {}
        self._unread: set[str] = set()
        """Namespaces of pods that could not be entered at the last try."""
        self._next_pod_at = 0.0
        self._audit_at = dict.fromkeys(Part, 0.0)
        self._retry_seconds = RETRY_SECONDS
        self._foreign_commit = False
        self._is_table_read = False
        """Were the tables read, and did nobody commit any change of them since? They hold what they held, then."""
        self._patience_until = self._link_patience_until = 0.0
        self._link_event_seconds = LEAST_LINK_EVENT_SECONDS
        self._foreign: dict[Identity, None] = {}
        self._remade: set[str] = set()
        """Links that were made anew for another setting, links of others that went, and those that went with these, since the network was
        read: what lay on them went, too, and nobody changed it."""
        self._repairs: Counter[str] = Counter()
        self.repaired: Counter[str] = Counter()
        """Objects that were repaired since the start, by kind."""
        self.audits: dict[Part, Audit] = {}
        """What is known of the audits of each part."""

    def start(self) -> Monitor:
        """Subscribe to what changes from now on."""
        self.close()
        self._monitor = self._kernel.monitor(self.ownership)
        self._kernel.foreign_commit()  # what is committed from now on is news
        phase = zlib.crc32(self._node_name.encode()) % 1000 / 1000  # nodes of one process do not read at one moment
        self._audit_at = dict.fromkeys(Part, self._clock() + AUDIT_SECONDS * (1 + phase) / 2)
        self._next_pod_at = self._clock() + AUDIT_SECONDS * (1 + phase) / 4
        return self._monitor

    def put_off(self, values: int) -> None:
        """The kernel is known to hold so many values at the end of a start: the first audit of tables waits as those after it do."""
        at = self._clock() + min(AUDIT_REST * OBJECT_SECONDS * values, LONGEST_REST)
        self._audit_at[Part.TABLES] = max(self._audit_at[Part.TABLES], at)

    def close(self) -> None:
        """End the subscriptions."""
        for part in (self._monitor, self._sysctls):
            if part is not None:
                part.close()
        self._monitor = self._sysctls = None

    def fileno(self) -> int:
        """Readable when there are notifications; negative when there is nothing to wait for."""
        return self._monitor.fileno() if self._monitor is not None else -1

    def mtu_of(self, link: str) -> int:
        """The MTU of a link of others, in bytes; 0 when it is not there."""
        return self._monitor.mtu_of(link) if self._monitor is not None else 0

    def attach(self, link: str, netns: str) -> None:
        """The far end of this link of the node is in a pod's namespace: that is read when the link loses its carrier."""
        self._pods[link] = netns

    def detach(self, link: str) -> None:
        """The link goes."""
        self._unread.discard(self._pods.pop(link, ""))

    # Notifications.

    def take_notifications(self) -> None:
        """Correct what is known by the notifications that there are."""
        if self._monitor is None:
            return
        changes = self._monitor.changes()
        self._note_what_went(changes)
        for one in changes.observations:
            if self._ledger.observe(one.identity, self._unless_foreign(one.identity, one.value)):
                self._foreign_change((one.identity,))
            if isinstance(one.value, Fdb) and one.identity not in self._ledger.desired:
                self._audit_at[Part.NETWORK] = (
                    self._clock()
                )  # it may have moved here from another port, of which nothing is notified
            if one.value is None and one.identity[0] == "Link":
                self._ledger.lose_sysctls(str(one.identity[2]))
                if one.identity in self._ledger.desired:  # shapers and filters went with it, of which nothing is notified
                    self._audit_at[Part.NETWORK] = self._clock()
        if changes.lost:
            self._audit_at[Part.NETWORK] = self._clock()
        for name, event in changes.links.items():
            self._link_changed(name, event)
        if changes.settings:
            self._try(self._poll_sysctls)

    def _note_what_went(self, changes: Changes) -> None:
        """Links of others that went, for a moment maybe, and podplane's that the kernel removed with them."""
        gone = {name for name, one in changes.links.items() if not one.is_present or (one.came and one.may_have_lost)}
        theirs = {name for name in gone if not self._makes(name)}
        if theirs:
            vanished = [one.identity for one in changes.observations if one.value is None]
            self._remade |= theirs | {str(one[2]) for one in vanished if self._lower_of(one) in theirs}

    def _makes(self, link: str) -> bool:
        """Is this a link that podplane makes, and does not only configure?"""
        wanted = self._ledger.desired.get(Link(name=link).identity)
        return isinstance(wanted, Link) and bool(wanted.kind)

    def _lower_of(self, identity: Identity) -> str:
        """The link without which the kernel removes this one of podplane's; "" for none."""
        wanted = self._ledger.desired.get(identity)
        return wanted.vxlan.device if isinstance(wanted, Link) and wanted.vxlan is not None else ""

    def _unless_foreign(self, identity: Identity, value: Value | None) -> Value | None:
        """What is known to be there of podplane's: an object of somebody else in the place of ours means that ours is not there,
        and one where none is wanted is left alone."""
        wanted = self._ledger.desired.get(identity)
        if value is not None and wanted is not None:
            return None if is_foreign(wanted, value) else value
        match value:
            case Route() | Neighbour() | Rule() if value.protocol != self.ownership.route_protocol:
                return None
            case Qdisc() if value.handle != QDISC_HANDLE:
                return None
            case Link() if not self.ownership.owns_link(value.name, value.alias):
                return None
        return value

    def _link_changed(self, name: str, event: LinkEvent) -> None:
        if (netns := self._pods.get(name)) is not None:
            if event.lost_carrier or not event.is_present:
                self._pods_to_read[netns] = None
        elif not name.startswith(self.ownership.link_prefixes or ("\0",)):
            if event.may_have_lost:
                self._read_network_soon()
            if event.came and name not in self.ownership.links:
                self._open_again_at = 0.0  # the link may be a new one of that name, with sysctls of its own
                self._ledger.release_retries(self._clock(), every=True)
            elif not event.is_present:  # it may have been in the way
                self._ledger.release_retries(self._clock(), every=True)
            if event.has_address:
                self._ledger.try_anew([one for one in self._ledger.refused if one[0] == ROUTE])
            elif event.has_network:
                self._ledger.try_anew([one for one in self._ledger.refused if one[0] == ROUTE and self._leads_over(one, name)])
            if (event.came or event.may_have_lost) and name not in self.ownership.links:
                self._tell_link_changed(name, event)

    def _read_network_soon(self) -> None:
        """At once, or when the last reading that found nothing is long enough ago."""
        now = self._clock()
        if now > self._link_patience_until + LINK_EVENT_SECONDS:
            self._link_event_seconds = LEAST_LINK_EVENT_SECONDS
        self._audit_at[Part.NETWORK] = min(self._audit_at[Part.NETWORK], max(now, self._link_patience_until))

    def _leads_over(self, route: Identity, link: str) -> bool:
        wanted = self._ledger.desired.get(route)
        return isinstance(wanted, Route) and wanted.link == link

    # Polls.

    def look(self, *, every: bool = False) -> bool:
        """Look at what the kernel does not notify, in one short turn, whether that is due or, with `every`, not; True when `read_due` has
        something to do."""
        now = self._clock()
        self._ledger.release_retries(now)
        if every or now >= self._sysctls_at:
            self._sysctls_at = now + SYSCTL_SECONDS
            self._try(self._poll_sysctls)
        self._try(self._poll_proxies)
        self._try(self._poll_generation)
        self._choose_pod(now)
        return bool(
            self._pods_to_read
            or self._foreign
            or self._repairs
            or self._ledger.has_due
            or (self._foreign_commit and now >= self._patience_until)
            or now >= min(self._audit_at.values())
        )

    def _try(self, poll: Callable[[], None]) -> None:
        try:
            poll()
        except Exception as error:  # the next poll comes soon, and the others go on
            log.warning("poll node=%s error=%s", self._node_name, error, exc_info=unforeseen(error))

    async def read_due(self) -> None:
        """Read what is due to be read, and report what was repaired."""
        now = self._clock()
        for netns in list(self._pods_to_read):
            del self._pods_to_read[netns]
            await self.audit_pod(netns)
        if self._foreign_commit and now >= self._patience_until:
            await self._audit_foreign_commit()
        if due := frozenset(self._due_parts(now)):
            await self._audit(due)
        self._report_repairs()

    def _due_parts(self, now: float) -> Iterator[Part]:
        for part, at in self._audit_at.items():
            if now >= at:
                if part is Part.TABLES and self._is_table_read and not self.auditor.unread:
                    self._audit_at[part] = now + AUDIT_SECONDS
                else:
                    yield part

    async def read_sysctls(self, pause: Pause) -> None:
        """Correct what is known of the sysctls of the node that are wanted: those that are there and have no other value are as desired."""
        every = list(self._ledger.sysctls.items())
        for start in range(0, len(every), SYSCTLS_AT_ONCE):
            self._read_sysctls(dict(every[start : start + SYSCTLS_AT_ONCE]))
            await pause()

    def _read_sysctls(self, wanted: Mapping[str, str]) -> None:
        watch = self._kernel.sysctl_watch(wanted)
        try:
            changed = watch.changed(wanted)
            for name, value in wanted.items():
                if name not in watch.unwatched:
                    sysctl = Sysctl(name=name, value=changed.get(name, value))
                    self._ledger.observe(sysctl.identity, sysctl)
        finally:
            watch.close()

    def _poll_sysctls(self) -> None:
        if self._polled_of != self._ledger.sysctl_changes:
            self._polled_of, self._polled = self._ledger.sysctl_changes, dict(self._ledger.polled_sysctls)
            for link in self.ownership.links:  # the bridge; those of pods' links are read in turn
                self._polled |= self._ledger.sysctls_of(link)
        self._observe_sysctls(self._watch_sysctls(self._polled), self._polled)

    def _observe_sysctls(self, watch: SysctlWatch, wanted: Mapping[str, str]) -> None:
        for name, value in watch.changed(wanted).items():
            sysctl = Sysctl(name=name, value=value)
            if self._ledger.observe(sysctl.identity, sysctl):
                self._foreign_change((sysctl.identity,))

    def _read_sysctls_of(self, link: str) -> None:
        """Correct what is known of the sysctls of a pod's link: there are too many to poll them all."""
        if wanted := self._ledger.sysctls_of(link):
            watch = self._kernel.sysctl_watch(wanted)
            try:
                self._observe_sysctls(watch, wanted)
            finally:
                watch.close()

    def _poll_proxies(self) -> None:
        if not self._ledger.proxies:
            return
        found = self._kernel.read_proxies(self.ownership)
        for identity in (*self._ledger.proxies, *(identity for identity in found if identity not in self._ledger.proxies)):
            if self._ledger.observe(identity, found.get(identity)):
                self._foreign_change((identity,))

    def _poll_generation(self) -> None:
        if self._kernel.foreign_commit():
            self._foreign_commit, self._is_table_read = True, False

    def _choose_pod(self, now: float) -> None:
        """Have one pod's namespace read, so that each is read once in AUDIT_SECONDS (with very many pods: one a poll)."""
        if not self._pods or now < self._next_pod_at:
            return
        link = next(iter(self._pods))
        netns = self._pods[link] = self._pods.pop(link)  # it is the last one now
        self._pods_to_read[netns] = None
        self._next_pod_at = now + AUDIT_SECONDS / len(self._pods)

    async def audit_pod(self, netns: str) -> None:
        """Read a pod's namespace. It may go meanwhile, and one that can't be read keeps nothing else from being read."""
        try:
            for link in [link for link, place in self._pods.items() if place == netns]:
                self._read_sysctls_of(link)
            await self.auditor.audit_pod(netns)
            self._unread.discard(netns)
        except Denied as error:
            if not self._unread:
                log.warning("audit node=%s pods are not looked into, nor repaired inside: %s", self._node_name, error)
            self._unread.add(netns)
        except Exception as error:
            log.log(
                logging.WARNING if netns in self._pods.values() else logging.DEBUG,
                "audit node=%s namespace=%s error=%s",
                self._node_name,
                netns,
                error,
                exc_info=unforeseen(error),
            )

    def is_own_doing(self, netns: str) -> None:
        """What was found to deviate in this namespace is what an agent left half made: it is nobody's repair."""
        self._foreign = {identity: None for identity in self._foreign if identity[1] != netns}

    def _watch_sysctls(self, polled: Mapping[str, str]) -> SysctlWatch:
        """The sysctls that are polled, with open files; opened anew when others are wanted, or those of a link came back."""
        wanted, now = polled.keys(), self._clock()
        if self._sysctls is None or wanted != self._watched or (self._sysctls.unwatched and now >= self._open_again_at):
            if self._sysctls is not None:
                self._sysctls.close()
            self._watched, self._open_again_at = set(wanted), now + OPEN_AGAIN_SECONDS
            self._sysctls = self._kernel.sysctl_watch(self._watched)
        return self._sysctls

    async def _audit_foreign_commit(self) -> None:
        self._foreign_commit = False
        began = self._clock()
        deviates = await self._audit(frozenset({Part.TABLES}))
        ended = self._clock()
        self._patience_until = ended + (0 if deviates else AUDIT_SHARE) * (ended - began)

    async def _audit(self, parts: frozenset[Part] = EVERYTHING) -> bool:
        began, remade = self._clock(), set(self._remade)
        self._is_table_read |= Part.TABLES in parts  # what is committed while it is read is news
        try:
            deviates = await self.auditor.audit(parts)
        except Exception as error:
            self._is_table_read = False
            log.warning("audit node=%s error=%s", self._node_name, error, exc_info=unforeseen(error))
            self._again_later(parts)
            return False
        ended = self._clock()
        rest = min(AUDIT_REST * (ended - began), LONGEST_REST)
        self._audit_at |= dict.fromkeys(parts, ended + max(AUDIT_SECONDS, rest))
        if Part.TABLES in parts and self.auditor.unread:
            self._audit_at[Part.TABLES] = ended + max(UNREAD_SECONDS, AUDIT_SHARE * (ended - began))
        if Part.NETWORK in parts:
            self._remade -= remade
        if Part.NETWORK in parts and deviates:
            self._link_event_seconds = LEAST_LINK_EVENT_SECONDS
        elif Part.NETWORK in parts:
            self._link_patience_until = ended + max(self._link_event_seconds, AUDIT_SHARE * (ended - began))
            self._link_event_seconds = min(LINK_EVENT_SECONDS, 2 * self._link_event_seconds)
        for part in parts:
            count = self.audits[part].count if part in self.audits else 0
            self.audits[part] = Audit(count + 1, ended, ended - began, deviates)
        return deviates

    def _again_later(self, parts: Iterable[Part]) -> None:
        at = self._clock() + self._retry_seconds
        self._retry_seconds = min(AUDIT_SECONDS, 2 * self._retry_seconds)
        self._audit_at |= dict.fromkeys(parts, at)

    async def read_again(self, refused: Iterable[Failure]) -> bool:
        """Read what these refusals contradict, and have them tried again at once; False when they contradict nothing."""
        identities = [failure.operation.value.identity for failure in refused if isinstance(failure.error, CONTRADICTIONS)]
        if identities:
            await self._audit(frozenset(map(part_of, identities)))
            self._ledger.retry(identities)
        return bool(identities)

    # What was sent.

    def sent(self, report: Report) -> None:
        """What the writer sent: repairs among it, and refusals that contradict what is known."""
        if self._is_table_read:
            sent = itertools.chain(report.applied, (failure.operation for failure in report.failed))
            self._is_table_read = not any(isinstance(new if new is not None else old, NftValue) for old, new in sent)
        for operation in report.applied if self._foreign else ():
            identity = operation.value.identity
            if identity in self._foreign:
                del self._foreign[identity]
                kind, count = _repaired(operation)
                self._repairs[kind] += count
                self.repaired[kind] += count
                if isinstance(operation.new, Link) and (netns := self._pods.get(operation.new.name)) is not None:
                    self._pods_to_read[netns] = None  # the link was made anew, and so its far end in the pod
        self._remade |= {link.name for link in report.recreated}
        for link in report.recreated:
            self._ledger.lose_sysctls(link.name)
        if report.recreated:  # the kernel removed what lay on the former link
            self._audit_at[Part.NETWORK] = self._clock()
        contradicted = {part_of(f.operation.value.identity) for f in report.failed if isinstance(f.error, CONTRADICTIONS)}
        if contradicted:
            soon = {part: at for part, at in self._audit_at.items() if part in contradicted}
            self._again_later(part for part, at in soon.items() if at > self._clock() + self._retry_seconds)
        elif report.applied:
            self._retry_seconds = RETRY_SECONDS

    def _foreign_change(self, identities: Iterable[Identity]) -> None:
        theirs = (one for one in identities if not self._went_with_link(one) and not self._went_with_ipv6(one))
        self._foreign.update(dict.fromkeys(theirs))

    def _went_with_ipv6(self, identity: Identity) -> bool:
        """Is it of IPv6, on a link of others that carries too little for that? Then the kernel took it, before the agent planned without it
        (addrconf_notify)."""
        wanted = self._ledger.desired.get(identity)
        link = getattr(wanted, "link", "")
        if not link or identity[1] or carries(6, self.mtu_of(link) or LEAST_MTU[6]):
            return False
        match wanted:
            case Route():
                return wanted.destination.version == 6
            case Address() | Neighbour():
                return wanted.ip.version == 6
        return False

    def _went_with_link(self, identity: Identity) -> bool:
        if not self._remade or identity[1]:
            return False
        match self._ledger.desired.get(identity):
            case Link() as wanted:
                link = wanted.name
            case Sysctl(link="") as wanted:  # net.ipv4.conf.LINK.…
                link = "".join(wanted.name.split(".")[3:4]).replace("/", ".")
            case wanted:
                link = getattr(wanted, "link", "")
        return link in self._remade

    def _report_repairs(self) -> None:
        self._foreign = {identity: None for identity in self._foreign if self._ledger.is_deviating(identity)}
        if not self._repairs or any(self._ledger.status(identity) is Status.PENDING for identity in self._foreign):
            return
        repairs, self._repairs = self._repairs, Counter()
        what = ", ".join(f"{count} {kind if count == 1 else _plural(kind)}" for kind, count in sorted(repairs.items()))
        has_tables = any(kind.startswith("nft ") for kind in repairs)
        self._tell(f"somebody else changed podplane's objects in the kernel; repaired: {what}", has_tables)


def _repaired(operation: Operation) -> tuple[str, int]:
    """The kind of what was repaired, and how many these were: packed elements are many in one value."""
    old, new = operation.old, operation.new
    if not isinstance(operation.value, Members):
        return str(operation.value.identity[0]).lower(), 1
    before, after = (one if isinstance(one, Members) else None for one in (old, new))
    differing = sum(map(len, after.differences(before))) if after is not None else len(before or ())
    return "nft element", differing


def _plural(kind: str) -> str:
    """Of a kind of object: routes, addresses, proxies."""
    return f"{kind[:-1]}ies" if kind.endswith("y") else f"{kind}es" if kind.endswith("s") else f"{kind}s"
