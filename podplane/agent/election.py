"""One node of all answers for the addresses of a load balancer: whose name stands in the Lease of the Service.

    nobody holds it, or its holder went silent  → the first that writes its name has it; the preferred one tries first
    it is mine                                  → renewed each second, and given back when this node may not have it any more
    mine, and the API could not be reached      → after the Lease's duration somebody else has it: this node is silent

How long a holder is silent is measured by the own clock, from when its last sign was seen: clocks of machines differ. Each write is
refused if anybody wrote in between (resourceVersion), so of two that try at the same time one has it.
"""

from __future__ import annotations

import asyncio
import datetime
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec

from podplane.cluster.client import Client
from podplane.cluster.errors import AlreadyExists, ApiError, Conflict, NotFound
from podplane.cluster.events import Recorder
from podplane.model.lease import Lease
from podplane.model.objects import Node
from podplane.model.service import Service
from podplane.model.view import View
from podplane.services import announce

log = logging.getLogger(__name__)
LEASES, LABEL, PREFIX = "leases.coordination.k8s.io", "podplane.dev/load-balancer", "load-balancer-"
"""The label of these Leases says the name of the Service, in whose namespace they are."""
DURATION_SECONDS, RENEW_SECONDS, HASTE_SECONDS, AGAIN_SECONDS = 3, 1.0, 0.2, 0.1
"""A holder that is silent for so long lost it; how often it renews; how long the least preferred node waits for better ones;
when it tries again after a write that was refused."""
REMINDERS = 2
"""So often the neighbours are told again, at each renewal: a first word may get lost."""


class Speaker(Protocol):
    """What answers for addresses: the node's agent."""

    @property
    def view(self) -> View:
        """What it knows."""

    async def announce(self, path: str) -> None:
        """Answer for the addresses of this Service."""

    async def withdraw(self, path: str) -> None:
        """Answer for them no more."""


@dataclass(slots=True)
class Held:
    """A Lease of this node: when it was written last, for which addresses, and how often the neighbours are still to be told."""

    renewed: float
    ips: tuple[str, ...] = ()
    reminders: int = REMINDERS


@dataclass(slots=True, eq=False)
class Election:
    """One node's part in the elections of all Services; its methods run on one event loop."""

    speaker: Speaker
    client: Client
    recorder: Recorder
    now: Callable[[], datetime.datetime]
    clock: Callable[[], float] = time.monotonic
    _leases: dict[str, Lease] = field(default_factory=dict)
    _seen: dict[str, float] = field(default_factory=dict)
    _held: dict[str, Held] = field(default_factory=dict)
    _attempts: dict[str, float] = field(default_factory=dict)
    _wanted: set[str] = field(default_factory=set)
    _wake: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def node(self) -> str:
        """Who this is."""
        return self.speaker.view.node_name

    def held(self, leases: Iterable[Lease]) -> list[str]:
        """The Services for which this node answered when its former agent ended."""
        return [path_of(lease) for lease in leases if LABEL in lease.metadata.labels and lease.holder == self.node]

    def lease_changed(self, old: Lease | None, new: Lease | None) -> None:
        """A Lease came, changed or went."""
        lease = new or old
        if lease is None or LABEL not in lease.metadata.labels:
            return
        path, known = path_of(lease), self._leases.get(path_of(lease))
        if new is None:
            self._leases.pop(path, None)
        elif known is None or _is_newer(new, known):
            self._leases[path] = new
            self._seen[path] = self.clock()
        if new is None or known is None or known.holder != new.holder:
            self._wake.set()

    def changed(self, path: str, service: Service | None) -> None:
        """Something about this Service, its endpoints or this node changed."""
        if service is not None and announce.is_ours(service):
            self._wanted.add(path)
        elif path not in self._wanted:
            return
        self._wake.set()

    def node_changed(self, old: Node | None, new: Node | None) -> None:
        """A node came, changed or went; only this one's own matters."""
        if any(node is not None and node.metadata.name == self.node for node in (old, new)) and self._wanted:
            self._wake.set()

    async def run(self) -> None:
        """Take part until cancelled."""
        while True:
            self._wake.clear()
            patience = await self.turn()
            try:
                async with asyncio.timeout(patience):
                    await self._wake.wait()
            except TimeoutError:
                pass

    async def turn(self) -> float | None:
        """See to all Services; in how many seconds to do so again, unless something changes before. None when there are none."""
        return min([await self._see_to(path) for path in sorted(self._wanted)], default=None)

    async def _see_to(self, path: str) -> float:
        """Do what is to be done about one Service; in how many seconds to look again."""
        try:
            return await self._decide(path)
        except ApiError as error:
            log.warning("election node=%s service=%s error=%s", self.node, path, error)
        except OSError as error:
            log.warning("announce node=%s service=%s error=%s", self.node, path, error)
        await self._give_up_in_time(path)
        return RENEW_SECONDS

    async def _decide(self, path: str) -> float:
        view, lease = self.speaker.view, self._leases.get(path)
        service, node = view.services.get(path), view.node
        able = bool(service and node and announce.may_announce(service, view.slices.get(path, {}).values(), node))
        if lease is not None and lease.holder == self.node:
            if able and service is not None:
                return await self._keep(path, lease, service)
            return await self._release(path, lease)
        if path in self._held:
            await self._fall_silent(path)
        if service is None or not announce.is_ours(service):
            self._wanted.discard(path)
        if not able or service is None:
            return DURATION_SECONDS
        left = self._seconds_to_attempt(path, lease)
        if left > 0:
            return left
        await self._take(path, service, lease)
        return RENEW_SECONDS

    def _seconds_to_attempt(self, path: str, lease: Lease | None) -> float:
        """Until this node may try to get it: not while it is somebody's, and the more it is preferred the sooner."""
        now = self.clock()
        left = self._seen[path] + DURATION_SECONDS - now if lease is not None and lease.holder else 0.0
        if left > 0:
            self._attempts.pop(path, None)
            return left
        return self._attempts.setdefault(path, now + HASTE_SECONDS * announce.preference(path, self.node)) - now

    async def _take(self, path: str, service: Service, lease: Lease | None) -> None:
        """Write this node's name, unless somebody else was faster."""
        del self._attempts[path]
        stamp = self._stamp()
        spec = {"holderIdentity": self.node, "leaseDurationSeconds": DURATION_SECONDS, "acquireTime": stamp, "renewTime": stamp}
        if lease is not None:
            if not await self._write(lease, spec):
                return
        else:
            try:
                made = await self.client.create(LEASES, service.metadata.namespace, _lease(service, spec))
            except AlreadyExists:
                return
            self.lease_changed(None, msgspec.convert(made, Lease))
        await self._begin(path, service)

    async def _begin(self, path: str, service: Service) -> None:
        self._held[path] = Held(self.clock(), service.balanced_ips)
        await self.speaker.announce(path)
        about = {"name": service.metadata.name, "namespace": service.metadata.namespace, "uid": service.metadata.uid}
        message = f"{', '.join(service.balanced_ips)} announced by {self.node}"
        await self.recorder.record("v1/Service", about, "Announced", message)

    async def _keep(self, path: str, lease: Lease, service: Service) -> float:
        """Renew it when it is time."""
        held = self._held.setdefault(path, Held(-RENEW_SECONDS))  # one of this node's former agent
        if held.ips != service.balanced_ips:
            held.ips, held.reminders = service.balanced_ips, REMINDERS
            await self.speaker.announce(path)
        left = held.renewed + RENEW_SECONDS - self.clock()
        if left > 0:
            return left
        if not await self._write(lease, {"renewTime": self._stamp()}):
            await self._give_up_in_time(path)
            return AGAIN_SECONDS
        held.renewed = self.clock()
        if held.reminders:
            held.reminders -= 1
            await self.speaker.announce(path)
        return RENEW_SECONDS

    async def _release(self, path: str, lease: Lease) -> float:
        """Give it back, so that another one has it at once."""
        try:
            await self._write(lease, {"holderIdentity": ""})
        finally:
            await self._fall_silent(path)
        return DURATION_SECONDS

    async def _write(self, lease: Lease, spec: Mapping[str, Any]) -> bool:
        """Merge into a Lease; False, and nothing is written, when it isn't as it was seen last."""
        metadata = lease.metadata
        body = {"metadata": {"resourceVersion": metadata.resource_version}, "spec": spec}
        try:
            written = await self.client.patch(LEASES, metadata.namespace, metadata.name, body, uid=metadata.uid)
        except (Conflict, NotFound):
            return False
        self.lease_changed(lease, msgspec.convert(written, Lease))  # the watch tells it later
        return True

    async def _give_up_in_time(self, path: str) -> None:
        held = self._held.get(path)
        if held is not None and self.clock() - held.renewed >= DURATION_SECONDS:
            await self._fall_silent(path)

    async def _fall_silent(self, path: str) -> None:
        self._held.pop(path, None)
        await self.speaker.withdraw(path)

    def _stamp(self) -> str:
        return self.now().strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _is_newer(one: Lease, other: Lease) -> bool:
    """Was it written later? Versions of one resource are numbers that grow (KEP-5504); what can't be compared is taken for news."""
    versions = one.metadata.resource_version, other.metadata.resource_version
    return (
        one.metadata.uid != other.metadata.uid or not all(map(str.isdecimal, versions)) or int(versions[0]) > int(versions[1])
    )


def path_of(lease: Lease) -> str:
    """The Service that a Lease is about."""
    return f"{lease.metadata.namespace}/{lease.metadata.labels[LABEL]}"


def _lease(service: Service, spec: Mapping[str, Any]) -> dict[str, Any]:
    """A Lease that goes with its Service."""
    about = service.metadata
    owner = {"apiVersion": "v1", "kind": "Service", "name": about.name, "uid": about.uid}
    metadata = {"name": PREFIX + about.name, "labels": {LABEL: about.name}, "ownerReferences": [owner]}
    return {"metadata": metadata, "spec": spec}
