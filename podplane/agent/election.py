"""One node of all answers for the addresses of a load balancer: whose name stands in the Lease of the Service, as long as it lives.

What is done about a Service is a table (`candidacy`); who lives is told by one Lease for each node (`liveness`).

    a life begins   when this node's own Lease is written; nothing that it held before counts
    goes on         with each renewal, once a second, while this node holds something or is about to take it; otherwise it writes nothing
    ends            2.5 s after the last renewal was sent that was written, whatever the API answers, or doesn't: this node is silent

Each write of a Service's Lease is refused if anybody wrote in between (resourceVersion), so of two that try one has it. Nothing here
waits for the API: `turn` decides by what is known, and begins requests; what they bring is for a later turn.
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
from podplane.agent.leases import Writer, node_of, service_of
from podplane.agent.liveness import RENEW_SECONDS, LeaseTerm, PeerHeartbeats, boot_clock
from podplane.kubeapi.client import Client
from podplane.kubeapi.events import Recorder
from podplane.model.lease import Lease
from podplane.model.objects import Node
from podplane.model.service import Service
from podplane.model.view import View
from podplane.services import announce

log = logging.getLogger(__name__)
AGAIN_SECONDS, ANSWER_SECONDS = 0.1, 1.25
"""When it tries again after a write that was refused; how long it waits for the API's answer."""
REQUESTS = 8
"""So many requests are on their way at once, beside the renewal."""


class Advertiser(Protocol):
    """What answers for addresses: the node's agent."""

    @property
    def view(self) -> View:
        """What it knows."""

    async def advertise(self, path: str) -> None:
        """Answer for the addresses of this Service."""

    async def withdraw(self, path: str) -> None:
        """Answer for them no more."""


class Work(enum.Enum):
    """What the API is asked for: about this node, another one, or a Service."""

    RENEW, ASK, TAKE, GIVE_BACK, TELL = range(5)


@dataclass(slots=True, eq=False)
class Election:
    """One node's part in the elections of all Services; its methods run on one event loop."""

    advertiser: Advertiser
    client: Client
    recorder: Recorder
    now: Callable[[], datetime.datetime]
    clock: Callable[[], float] = boot_clock
    _writer: Writer = field(init=False)
    _heartbeats: PeerHeartbeats = field(init=False)
    _requests: InFlight[tuple[Work, str], Lease | None] = field(init=False)
    _term: LeaseTerm = field(default_factory=LeaseTerm)
    _candidacies: dict[str, Candidacy] = field(default_factory=dict)
    _due: dict[str, float] = field(default_factory=dict)
    """When Services are to be looked at."""
    _eager: set[str] = field(default_factory=set)
    """What this node is about to take."""
    _mine: set[str] = field(default_factory=set)
    """What it holds, confirmed in its present life."""
    _answers: set[str] = field(default_factory=set)
    """For what it answers: of what it holds."""
    _speech: dict[str, bool] = field(default_factory=dict)
    """What the advertiser is to be told in this turn: to answer, or to do so no more."""
    _wake: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self._writer = Writer(self.client, self.node, self.now)
        self._heartbeats = PeerHeartbeats(self.clock)
        self._requests = InFlight(REQUESTS, ANSWER_SECONDS, self._wake.set)

    @property
    def node(self) -> str:
        """Who this is."""
        return self.advertiser.view.node_name

    # What it is told.

    def resume(self, leases: Iterable[Lease]) -> list[str]:
        """Begin with the Leases as they are; the Services for which this node's former agent answered, and it may go on."""
        for lease in leases:
            self.lease_changed(None, lease)
        own = self._heartbeats.lease(self.node)
        if own is not None and self._term.resume(own, self.clock(), self.now()):
            own_ones = self._candidacies.items()
            self._mine = {path for path, one in own_ones if (one.holder, one.life) == (self.node, self._term.name)}
            self._answers = set(self._mine)
        return sorted(self._mine)

    def lease_changed(self, old: Lease | None, new: Lease | None) -> None:
        """A Lease came, changed or went."""
        lease = new or old
        if lease is None:
            return
        if node := node_of(lease):
            if new is not None:
                self._heartbeats.seen(node, new)
            else:
                self._heartbeats.gone(node, lease)
        elif path := service_of(lease):
            self._note(path, lease, is_gone=new is None)

    def _note(self, path: str, lease: Lease, *, is_gone: bool = False) -> None:
        """A Service's Lease as somebody saw it, maybe after one that is newer."""
        candidacy = self._candidacies.setdefault(path, Candidacy())
        known, holder = candidacy.lease, candidacy.holder
        if is_gone and known is not None and known.metadata.uid == lease.metadata.uid:
            candidacy.lease = None
        elif not is_gone and (known is None or lease.is_newer(known)):
            candidacy.lease = lease
        if known is None or candidacy.lease is None or candidacy.holder != holder:
            self._reconsider(path)

    def changed(self, path: str, service: Service | None) -> None:
        """Something about this Service, its endpoints or this node changed."""
        if service is not None and announce.is_own_load_balancer(service):
            self._candidacies.setdefault(path, Candidacy())
        if path in self._candidacies:
            self._reconsider(path)

    def node_changed(self, old: Node | None, new: Node | None) -> None:
        """A node came, changed or went; only this one's own matters."""
        if any(node is not None and node.metadata.name == self.node for node in (old, new)):
            self._reconsider(*self._candidacies)

    def _reconsider(self, *paths: str) -> None:
        if paths:
            self._due.update(dict.fromkeys(paths, 0.0))
            self._wake.set()

    # What it does.

    async def run(self) -> None:
        """Take part until cancelled."""
        try:
            while True:
                self._wake.clear()
                patience = await self.turn()
                try:
                    async with asyncio.timeout(patience):
                        await self._wake.wait()
                except TimeoutError:
                    pass
        finally:
            self._requests.close()

    async def turn(self) -> float | None:
        """See to all that is due; in how many seconds to do so again, unless something changes before. None when nothing will be."""
        if self._term.is_over(self.clock()):
            self._lose_all()
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
        await self._speak()
        return self._renew()

    def _decide(self, path: str, now: float) -> None:
        """Decide about one Service, unless that has to wait for an answer."""
        candidacy, view = self._candidacies[path], self.advertiser.view
        if (Work.TAKE, path) in self._requests or (Work.GIVE_BACK, path) in self._requests:
            return
        service, node = view.services.get(path), view.node
        able = bool(service and node and announce.may_announce(service, view.slices_of(path), node))
        holder = self._holder(path, candidacy, now)
        step = decide(holder, able=able)
        if step is not Step.ANSWER:
            self._lose(path)
        if step is not Step.TAKE:
            self._calm(path, candidacy)
        match step:
            case Step.ANSWER if service:
                self._answer(path, candidacy, service, now)
            case Step.TAKE if service:
                self._take(path, candidacy, service, now, is_reborn=holder is Holder.REBORN)
            case Step.ASK:
                self._requests.begin((Work.ASK, candidacy.holder), partial(self._writer.read, candidacy.holder))
            case Step.GIVE_BACK if path in self._speech:
                self._reconsider(path)  # once it is silent
            case Step.GIVE_BACK if candidacy.lease:
                self._requests.begin((Work.GIVE_BACK, path), partial(self._writer.give_back, candidacy.lease))
            case Step.WAIT if able:
                self._due[path] = self._heartbeats.silent_at(candidacy.holder)
            case Step.WAIT if candidacy.lease is None and not (service and announce.is_own_load_balancer(service)):
                del self._candidacies[path]

    def _holder(self, path: str, candidacy: Candidacy, now: float) -> Holder:
        """How it is with the node that has a Service."""
        name = candidacy.holder
        if name in ("", self.node):
            return Holder.NOBODY if not name else Holder.CONFIRMED if path in self._mine else Holder.SELF
        if self._heartbeats.is_dead(name):
            return Holder.DEAD
        if now >= self._heartbeats.silent_at(name):
            return Holder.SILENT
        sign = self._heartbeats.lease(name)
        return Holder.REBORN if sign is not None and sign.spec.acquire_time != candidacy.life else Holder.LIVES

    def _answer(self, path: str, candidacy: Candidacy, service: Service, now: float) -> None:
        """Answer for a Service, and see that the neighbours know."""
        if path not in self._answers:
            self._answers.add(path)
            candidacy.ips = ()
            self._requests.begin((Work.TELL, path), partial(self._tell, service))
        if candidacy.has_news(service.load_balancer_ips, now):
            self._speech[path] = True
        if candidacy.reminders:
            self._due[path] = candidacy.remind_at

    async def _tell(self, service: Service) -> None:
        """Let users know by an event."""
        about = {"name": service.metadata.name, "namespace": service.metadata.namespace, "uid": service.metadata.uid}
        message = f"{', '.join(service.load_balancer_ips)} announced by {self.node}"
        await self.recorder.record("v1/Service", about, "Announced", message)

    def _take(self, path: str, candidacy: Candidacy, service: Service, now: float, *, is_reborn: bool) -> None:
        """Write this node's name when it is time, and when it lives: it is looked at again when its life begins."""
        self._eager.add(path)
        left = candidacy.wait(path, self.node, now, is_reborn=is_reborn)
        if left > 0:
            self._due[path] = now + left
        elif not self._term.is_over(now):
            self._requests.begin((Work.TAKE, path), partial(self._writer.take, service, candidacy.lease, self._term.name))

    def _calm(self, path: str, candidacy: Candidacy) -> None:
        """It is not about to take this."""
        self._eager.discard(path)
        candidacy.attempt_at = None

    def _lose(self, path: str) -> None:
        """It does not hold this."""
        self._mine.discard(path)
        if path in self._answers:
            self._answers.remove(path)
            self._speech[path] = False

    def _lose_all(self) -> None:
        """Its life is over: others may have what it held, or is just writing itself."""
        if self._mine:
            log.warning("election node=%s: no sign of life was written in time, silent for %d", self.node, len(self._mine))
        for kind, path in self._requests:
            if kind is Work.TAKE:
                self._requests.abandon((kind, path))
                self._reconsider(path)
        self._reconsider(*self._mine)
        for path in list(self._mine):
            self._lose(path)

    async def _speak(self) -> None:
        """Answer, and fall silent, as was decided."""
        speech, self._speech = self._speech, {}
        advertiser = self.advertiser
        said = [advertiser.advertise(path) if answers else advertiser.withdraw(path) for path, answers in speech.items()]
        for path, error in zip(speech, await asyncio.gather(*said, return_exceptions=True), strict=True):
            if isinstance(error, Exception):
                log.warning("announce node=%s service=%s error=%s", self.node, path, error)

    def _renew(self) -> float | None:
        """Give a sign of life when it is time, if one is needed; the seconds until something is to be done by itself."""
        now, node, key = self.clock(), self.advertiser.view.node, (Work.RENEW, self.node)
        times = list(self._due.values())
        if self._mine:
            times.append(self._term.until)
        if node is not None and (self._mine or self._eager) and key not in self._requests:
            if now >= self._term.renew_at:
                life = self._term.begin_renewal(now, self._writer.stamp())
                request = partial(self._writer.renew, node, self._heartbeats.lease(self.node), life)
                self._requests.begin(key, request, at_once=True)
            else:
                times.append(self._term.renew_at)
        return max(0.0, min(times) - now) if times else None

    # What the API answers.

    def _answered(self, kind: Work, name: str, lease: Lease | None) -> None:
        now = self.clock()
        if kind is Work.RENEW and lease is not None:
            self._heartbeats.seen(name, lease)
            if self._term.renewed(now):
                self._reconsider(*self._eager)
        elif kind is Work.ASK:
            self._heartbeats.asked(name, lease)
            self._reconsider(*self._held_by(name))
        elif kind in (Work.TAKE, Work.GIVE_BACK):
            self._calm(name, self._candidacies[name])
            if lease is None:
                self._due[name] = now + AGAIN_SECONDS  # the watch tells what it is
            else:
                self._written(kind, name, lease)

    def _written(self, kind: Work, path: str, lease: Lease) -> None:
        """A Service's Lease is as this node wrote it, or was so for a moment."""
        self._note(path, lease)
        if kind is Work.TAKE and self._candidacies[path].lease == lease:
            self._mine.add(path)
        self._reconsider(path)

    def _failed(self, kind: Work, name: str) -> None:
        """There was no answer, or one that nobody foresaw."""
        now = self.clock()
        if kind is Work.RENEW:
            self._term.failed(now)
        elif kind is Work.ASK:
            self._due.update(dict.fromkeys(self._held_by(name), now + RENEW_SECONDS / 2))
        elif kind in (Work.TAKE, Work.GIVE_BACK):
            self._due[name] = now + RENEW_SECONDS

    def _held_by(self, node: str) -> list[str]:
        return [path for path, candidacy in self._candidacies.items() if candidacy.holder == node]
