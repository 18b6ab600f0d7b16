"""Elects the advertiser of each load balancer: the node that is the holder of the Service's Lease, as long as its lease term lasts.

What a node does about a Service is a table (`candidacy`); lease terms and the heartbeats of peers are in `liveness`.

    a term begins   when this node's heartbeat Lease is written; nothing that the node held before counts
    continues       with each renewal, once a second, while this node holds a Lease or is about to acquire one; otherwise it writes nothing
    expires         2.5 s after the last successful renewal was sent, whatever the API answers: this node withdraws all addresses

Terms are of the node's boot clock; the wall clock, which may jump, is in what people read.

A write of a Service's Lease is refused if anybody wrote in between (resourceVersion), so only one of several candidates acquires it.
Nothing here waits for the API: `turn` decides by what is known, and begins requests; a later turn handles the answers.
"""

from __future__ import annotations

import asyncio
import datetime
import enum
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from podplane.agent.candidacy import Candidacy, Holder, Step, decide
from podplane.agent.inflight import InFlight
from podplane.agent.leases import LEASES as LEASES
from podplane.agent.leases import LeaseWriter, node_of, service_of
from podplane.agent.liveness import RENEW_SECONDS, LeaseTerm, Moment, PeerHeartbeats, boot_clock, boot_id
from podplane.kubeapi.client import Client
from podplane.kubeapi.events import Recorder
from podplane.model.config import NetworkConfig
from podplane.model.lease import Lease
from podplane.model.objects import Node
from podplane.model.service import Service
from podplane.model.view import View
from podplane.services import announce

log = logging.getLogger(__name__)
WITHDRAWAL_RETRY_SECONDS = 1.0
CONFLICT_RETRY_SECONDS, REQUEST_TIMEOUT_SECONDS = 0.1, 1.25
"""From a write that was refused to the next try; how long an answer of the API is waited for."""
MAX_REQUESTS = 8
"""The most requests in flight at once, beside the renewal."""


class Advertiser(Protocol):
    """What advertises the addresses of a Service on the node's network: the node's agent."""

    @property
    def view(self) -> View:
        """The cluster as this node knows it."""

    @property
    def config(self) -> NetworkConfig:
        """The settings that all features share."""

    async def advertise(self, path: str) -> None:
        """Answer ARP and neighbour solicitations for the addresses of this Service, and announce them; again: announce them again."""

    def answer_for(self, seconds: float) -> None:
        """The lease term lasts for so long: answer until then, whatever becomes of this process, and longer if this is called again."""

    async def withdraw(self, path: str) -> None:
        """Stop advertising them. Raises when this node may still answer for them."""


class RequestKind(enum.Enum):
    """Requests to the API: about this node, a peer, or a Service."""

    RENEW, READ_HEARTBEAT, ACQUIRE, RELEASE, RECORD_EVENT = range(5)


@dataclass(slots=True, eq=False)
class Election:
    """The candidate of one node in the elections of all Services; its methods run on one event loop."""

    advertiser: Advertiser
    client: Client
    recorder: Recorder
    now: Callable[[], datetime.datetime]
    clock: Callable[[], float] = boot_clock
    boot: str = field(default_factory=boot_id)
    _writer: LeaseWriter = field(init=False)
    _heartbeats: PeerHeartbeats = field(init=False)
    _requests: InFlight[tuple[RequestKind, str], Lease | None] = field(init=False)
    _term: LeaseTerm = field(default_factory=LeaseTerm)
    _candidacies: dict[str, Candidacy] = field(default_factory=dict)
    _due: dict[str, float] = field(default_factory=dict)
    """When each Service is decided about next."""
    _acquiring: set[str] = field(default_factory=set)
    """The Services whose Leases this node is about to acquire."""
    _held: set[str] = field(default_factory=set)
    """The Services whose Leases this node acquired in its present term."""
    _advertised: set[str] = field(default_factory=set)
    """The Services that it advertises, all of which it holds."""
    _advertiser_calls: dict[str, bool] = field(default_factory=dict)
    _still_answering: set[str] = field(default_factory=set)
    """Services whose addresses could not be withdrawn: their Leases are kept until they are."""
    """The Services to advertise (True) or to withdraw (False) at the end of this turn."""
    _wake: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self._writer = LeaseWriter(self.client, self.node, self.now)
        self._heartbeats = PeerHeartbeats(self.clock)
        self._requests = InFlight(MAX_REQUESTS, REQUEST_TIMEOUT_SECONDS, self._wake.set)

    @property
    def node(self) -> str:
        """The name of this node."""
        return self.advertiser.view.node_name

    # What changed.

    def resume(self, leases: Iterable[Lease]) -> list[str]:
        """Start with these Leases; the Services that the agent before this one advertised, and whose term this agent continues."""
        for lease in leases:
            self.lease_changed(None, lease)
        own = self._heartbeats.lease(self.node)
        if own is not None and self._term.resume(own, Moment(self.boot, self.clock())):
            candidacies = self._candidacies.items()
            self._held = {path for path, one in candidacies if (one.holder, one.term) == (self.node, self._term.name)}
            self._advertised = set(self._held)
        return sorted(self._held)

    def lease_changed(self, old: Lease | None, new: Lease | None) -> None:
        """A Lease came, changed or went."""
        lease = new or old
        if lease is None:
            return
        if node := node_of(lease):
            if new is not None:
                self._heartbeats.observe(node, new)
            else:
                self._heartbeats.deleted(node, lease)
        elif path := service_of(lease):
            self._observe_lease(path, lease, is_gone=new is None)

    def _observe_lease(self, path: str, lease: Lease, *, is_gone: bool = False) -> None:
        """A version of a Service's Lease was seen, written or read, which may be older than the known one."""
        candidacy = self._candidacies.setdefault(path, Candidacy())
        known, holder = candidacy.lease, candidacy.holder
        if is_gone and known is not None and known.metadata.uid == lease.metadata.uid:
            candidacy.lease = None
        elif not is_gone and (known is None or lease.is_newer(known)):
            candidacy.lease = lease
        if known is None or candidacy.lease is None or candidacy.holder != holder:
            self._mark_due(path)

    def changed(self, path: str, service: Service | None) -> None:
        """A Service or its endpoints came, changed or went; `service` is None when only the endpoints did, or when it went."""
        if service is not None and announce.is_own_load_balancer(service):
            self._candidacies.setdefault(path, Candidacy())
        if path in self._candidacies:
            self._mark_due(path)

    def node_changed(self, old: Node | None, new: Node | None) -> None:
        """A node came, changed or went; only this node's own object matters."""
        if any(node is not None and node.metadata.name == self.node for node in (old, new)):
            self._mark_due(*self._candidacies)

    def _mark_due(self, *paths: str) -> None:
        if paths:
            self._due.update(dict.fromkeys(paths, 0.0))
            self._wake.set()

    # What it does.

    async def run(self) -> None:
        """Take part in the elections until cancelled."""
        try:
            while True:
                self._wake.clear()
                timeout = await self.turn()
                try:
                    async with asyncio.timeout(timeout):
                        await self._wake.wait()
                except TimeoutError:
                    pass
        finally:
            self._requests.close()

    async def turn(self) -> float | None:
        """Handle answers and all that is due; the seconds until the next turn, unless something changes before. None: no turn is needed."""
        if self._term.is_expired(self.clock()):
            self._expire()
        for (kind, name), answer in self._requests.take_answers():
            if isinstance(answer, Exception):
                log.warning("election node=%s %s %s: %s", self.node, kind.name.lower(), name, answer)
                self._failed(kind, name)
            else:
                self._answered(kind, name, answer)
        now = self.clock()
        for path in [path for path, at in self._due.items() if at <= now]:
            del self._due[path]
            self._decide(path, now)
        await self._call_advertiser()
        return self._renew()

    def _decide(self, path: str, now: float) -> None:
        """Decide about one Service, unless a write of its Lease is in flight."""
        candidacy, view = self._candidacies[path], self.advertiser.view
        if (RequestKind.ACQUIRE, path) in self._requests or (RequestKind.RELEASE, path) in self._requests:
            return
        service, node = view.services.get(path), view.registered
        eligible = bool(
            service
            and node
            and announce.may_announce(service, view.slices_of(path), node)
            and announce.is_on_its_link(service, node, self.advertiser.config.subnets)
        )
        holder = self._holder(path, candidacy, now)
        step = decide(holder, eligible=eligible)
        if step is not Step.ADVERTISE:
            self._lose(path)
        if step is not Step.ACQUIRE:
            self._stop_acquiring(path, candidacy)
        match step:
            case Step.ADVERTISE if service:
                self._advertise(path, candidacy, service, now)
            case Step.ACQUIRE if service:
                self._acquire(path, candidacy, service, now, is_new_term=holder is Holder.NEW_TERM)
            case Step.READ_HEARTBEAT:
                self._requests.begin(
                    (RequestKind.READ_HEARTBEAT, candidacy.holder), partial(self._writer.read, candidacy.holder)
                )
            case Step.RELEASE if path in self._still_answering:
                self._still_answering.remove(path)
                self._advertiser_calls[path] = False
                self._mark_due(path)
            case Step.RELEASE if path in self._advertiser_calls:
                self._mark_due(path)  # once it has withdrawn the addresses
            case Step.RELEASE if candidacy.lease:
                self._requests.begin((RequestKind.RELEASE, path), partial(self._writer.release, candidacy.lease))
            case Step.WAIT if eligible:
                self._due[path] = self._heartbeats.suspected_at(candidacy.holder)
            case Step.WAIT if candidacy.lease is None and not (service and announce.is_own_load_balancer(service)):
                del self._candidacies[path]

    def _holder(self, path: str, candidacy: Candidacy, now: float) -> Holder:
        """The holder of a Service's Lease, as this node sees it."""
        name = candidacy.holder
        if name in ("", self.node):
            return Holder.NONE if not name else Holder.SELF if path in self._held else Holder.SELF_FORMER_TERM
        if self._heartbeats.is_expired(name):
            return Holder.EXPIRED
        if now >= self._heartbeats.suspected_at(name):
            return Holder.SUSPECTED
        heartbeat = self._heartbeats.lease(name)
        return Holder.NEW_TERM if heartbeat is not None and heartbeat.spec.acquire_time != candidacy.term else Holder.LIVE

    def _advertise(self, path: str, candidacy: Candidacy, service: Service, now: float) -> None:
        """Advertise a Service, and announce its addresses when that is due."""
        if path not in self._advertised:
            self._advertised.add(path)
            self._still_answering.discard(path)
            candidacy.announced_ips = ()
            self._requests.begin((RequestKind.RECORD_EVENT, path), partial(self._record_event, service))
        if candidacy.take_announcement(service.load_balancer_ips, now):
            self._advertiser_calls[path] = True
        if candidacy.repeats_left:
            self._due[path] = candidacy.repeat_at

    async def _record_event(self, service: Service) -> None:
        """Record on the Service that this node advertises it."""
        about = {"name": service.metadata.name, "namespace": service.metadata.namespace, "uid": service.metadata.uid}
        message = f"{', '.join(service.load_balancer_ips)} announced by {self.node}"
        await self.recorder.record("v1/Service", about, "Announced", message)

    def _acquire(self, path: str, candidacy: Candidacy, service: Service, now: float, *, is_new_term: bool) -> None:
        """Acquire a Service's Lease after the candidate delay. Without a lease term, this is decided again when a term begins."""
        self._acquiring.add(path)
        left = candidacy.seconds_to_acquire(path, self.node, now, is_new_term=is_new_term)
        if left > 0:
            self._due[path] = now + left
        elif not self._term.is_expired(now):
            self._requests.begin(
                (RequestKind.ACQUIRE, path), partial(self._writer.acquire, service, candidacy.lease, self._term.name)
            )

    def _stop_acquiring(self, path: str, candidacy: Candidacy) -> None:
        """This node is not about to acquire the Lease of this Service."""
        self._acquiring.discard(path)
        candidacy.acquire_at = None

    def _lose(self, path: str) -> None:
        """This node does not hold the Lease of this Service, or not any more: withdraw its addresses."""
        self._held.discard(path)
        if path in self._advertised:
            self._advertised.remove(path)
            self._advertiser_calls[path] = False

    def _expire(self) -> None:
        """The lease term expired: other nodes may acquire what this node held, or is about to acquire."""
        if self._held:
            log.warning(
                "election node=%s: the heartbeat was not renewed in time, withdrawing %d load balancers",
                self.node,
                len(self._held),
            )
        for kind, path in self._requests:
            if kind is RequestKind.ACQUIRE:
                self._requests.abandon((kind, path))
                self._mark_due(path)
        self._mark_due(*self._held)
        for path in list(self._held):
            self._lose(path)

    async def _call_advertiser(self) -> None:
        """Advertise and withdraw what was decided in this turn. A withdrawal that fails is tried again."""
        calls, self._advertiser_calls = self._advertiser_calls, {}
        advertiser = self.advertiser
        if any(calls.values()):
            advertiser.answer_for(self._term.expires_at - self.clock())
        work = [advertiser.advertise(path) if wanted else advertiser.withdraw(path) for path, wanted in calls.items()]
        for path, error in zip(calls, await asyncio.gather(*work, return_exceptions=True), strict=True):
            if isinstance(error, Exception):
                log.warning("announce node=%s service=%s error=%s", self.node, path, error)
                if not calls[path]:
                    self._still_answering.add(path)
                    self._due[path] = self.clock() + WITHDRAWAL_RETRY_SECONDS

    def _renew(self) -> float | None:
        """Renew the heartbeat Lease when that is due and needed; the seconds until the next turn, None when none is needed."""
        now, node, key = self.clock(), self.advertiser.view.registered, (RequestKind.RENEW, self.node)
        times = list(self._due.values())
        if self._held:
            times.append(self._term.expires_at)
        if node is not None and (self._held or self._acquiring) and key not in self._requests:
            if now >= self._term.renew_at:
                term = self._term.begin_renewal(now, self._writer.timestamp())
                sent = str(Moment(self.boot, now))
                request = partial(self._writer.renew, node, self._heartbeats.lease(self.node), term, sent)
                self._requests.begin(key, request, at_once=True)
            else:
                times.append(self._term.renew_at)
        return max(0.0, min(times) - now) if times else None

    # Answers of the API.

    def _answered(self, kind: RequestKind, name: str, lease: Lease | None) -> None:
        now = self.clock()
        if kind is RequestKind.RENEW and lease is not None:
            self._heartbeats.observe(name, lease)
            if self._term.renewed(now):
                self._mark_due(*self._acquiring)
            if self._held:
                self.advertiser.answer_for(self._term.expires_at - now)
        elif kind is RequestKind.READ_HEARTBEAT:
            self._heartbeats.confirm(name, lease)
            self._mark_due(*self._held_by(name))
        elif kind in (RequestKind.ACQUIRE, RequestKind.RELEASE):
            self._stop_acquiring(name, self._candidacies[name])
            if lease is None:
                self._due[name] = now + CONFLICT_RETRY_SECONDS  # until then the watch has the newer version
            else:
                self._written(kind, name, lease)

    def _written(self, kind: RequestKind, path: str, lease: Lease) -> None:
        """This node wrote a Service's Lease; others may have written it since."""
        self._observe_lease(path, lease)
        if kind is RequestKind.ACQUIRE and self._candidacies[path].lease == lease:
            self._held.add(path)
        self._mark_due(path)

    def _failed(self, kind: RequestKind, name: str) -> None:
        """A request failed or was not answered in time."""
        now = self.clock()
        if kind is RequestKind.RENEW:
            self._term.failed(now)
        elif kind is RequestKind.READ_HEARTBEAT:
            self._due.update(dict.fromkeys(self._held_by(name), now + RENEW_SECONDS / 2))
        elif kind in (RequestKind.ACQUIRE, RequestKind.RELEASE):
            self._due[name] = now + RENEW_SECONDS

    def _held_by(self, node: str) -> list[str]:
        return [path for path, candidacy in self._candidacies.items() if candidacy.holder == node]
