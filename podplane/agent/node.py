"""One node of a cluster: its agent, its part in elections, its health servers. The same in a lab and in a process of its own.

    caches of the process ──► changed ──► agent, election, health
    host (lab or machine) ──► namespace, kernel door, who is attached
    supervisor            ──► agent, election, health: what ends unforeseen is started again, and the others go on

`restart` ends all of that and begins anew, as the end of a process and the start of another one would: what the new agent
knows comes from the API, from the kernel, and from the host, which knows what is attached.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import datetime
import logging
import time
from collections.abc import AsyncIterator, Callable, Collection
from typing import Any, NamedTuple

import msgspec

from podplane.agent import pod_gate
from podplane.agent.additional import FurtherInterfaces, further_of
from podplane.agent.agent import Agent
from podplane.agent.attachments import Attachments, Elsewhere, nowhere
from podplane.agent.backends import NodeBackends
from podplane.agent.caches import Caches
from podplane.agent.delegation import Plugins
from podplane.agent.election import Election
from podplane.agent.feature import Kind
from podplane.agent.foreseen import unforeseen
from podplane.agent.health import NodeHealth
from podplane.agent.host import Host
from podplane.agent.kernel import Kernel
from podplane.agent.name_server import NameServerEndpoints
from podplane.agent.peer_condition import PeerCondition
from podplane.agent.peer_plans import PeerPlans
from podplane.agent.planner import RecordEvent
from podplane.agent.poller import Poller
from podplane.agent.probing import Probing
from podplane.agent.reports import Reports
from podplane.agent.settings import Settings
from podplane.agent.status import Sources
from podplane.cni.network import Attached, Attachment, FurtherNetworkError, NetworkError, TryAgainError, Unready
from podplane.kubeapi.authorization import Authorizer
from podplane.kubeapi.client import Client
from podplane.kubeapi.events import Recorder
from podplane.kubeapi.retry import Backoff
from podplane.kubeapi.supervise import Supervisor
from podplane.model.answers import FormerNetwork
from podplane.model.config import NetworkConfig
from podplane.model.config_map import ConfigMap
from podplane.model.lease import Lease
from podplane.model.objects import Node
from podplane.model.service import EndpointSlice, Service
from podplane.policy.index import Change
from podplane.policy.peers import digest_of

log = logging.getLogger(__name__)
TASKS = ("agent", "election", "health", "name server endpoints", "backends", "probes", "condition")
"""What a restart ends and begins anew."""
PARTS = ("agent", "election", "health", "endpoints", "backends", "probing", "condition")
"""What runs them."""
READY_SECONDS = 30.0
"""So long an attachment waits for an agent; a kubelet gives a runtime two minutes for a sandbox."""

WITHDRAWAL_SECONDS = 0.02
"""From the end of the node's name server, of which peers are told at once, to the withdrawal of its address."""
WITHDRAWAL_MAX_SECONDS = 0.5
"""The same, where it is not seen that they were told: the API is slow, or away."""


class Started(msgspec.Struct, frozen=True):
    """What a start did: the objects that it changed in the kernel, those that the kernel refused, and how long it took."""

    changes: int
    refused: tuple[str, ...]
    seconds: float


class Concern(NamedTuple):
    """Whom a change of policies or pods concerns: everybody, nodes with one of these pods (by path), and those whose rules look into sets
    of these selectors (by their digests)."""

    is_everybodys: bool
    pods: frozenset[str]
    selectors: frozenset[str]

    @classmethod
    def of(cls, change: Change) -> Concern:
        """Of a change."""
        moved = frozenset(digest_of(move.selector) for move in change.moves)
        return cls(change.policy is not None, frozenset(change.pods), moved)


class NodeAgent:
    """One node; also its `cni.Network`, whichever agent is the present one. All methods run on one event loop."""

    agent: Agent
    election: Election
    health: NodeHealth
    endpoints: NameServerEndpoints
    backends: NodeBackends
    probing: Probing
    condition: PeerCondition

    def __init__(
        self,
        name: str,
        host: Host,
        settings: Settings,
        client: Client,
        caches: Caches,
        peers: PeerPlans,
        record_event: RecordEvent,
        now: Callable[[], datetime.datetime],
        poller: Poller | None = None,
        supervisor: Supervisor | None = None,
        plugins: Plugins | None = None,
        elsewhere: Elsewhere = nowhere,
    ) -> None:
        """`supervisor` may have other tasks of the process, which are reported with those of the agent, and end with them; `plugins` calls
        those of others, for further interfaces; `elsewhere` knows addresses that another network of the machine has given out."""
        self.name = name
        self._poller = poller or Poller()
        self._host = host
        self._settings = settings
        self._client = client
        self._caches = caches
        self._peers = peers
        self._record_event = record_event
        self._now = now
        self._plugins = plugins
        self._elsewhere = elsewhere
        self._further = self._further_interfaces()
        self._recorder = Recorder(client, "podplane", now, name)
        self.supervisor = supervisor or Supervisor()
        self._name_server_answers: bool | None = None
        self._may_answer_names = True
        self.machine_without: Callable[[], list[str]] = list
        """What the machine keeps from the node, a line each."""
        self.former_network: Callable[[], FormerNetwork | None] = lambda: None
        """What is left of the network that the node is migrated from."""
        self.machine_unready: Callable[[], str] = str
        """Why the machine is not fit for the node, though its agent runs; "" when it is."""
        self._restart = asyncio.Lock()
        self._starting: asyncio.Task[None] | None = None
        self._ready = asyncio.Event()
        self._start_error = ""
        self._calls = 0
        self._no_call = asyncio.Event()
        self._no_call.set()

    async def start(self) -> Started:
        """Begin with the cluster as the caches have it. The network is in place when this returns; `run` keeps it so.

        When it fails, the former agent stays the present one, so that another start finds what is attached.
        """
        former = {name: getattr(self, name) for name in PARTS} if self.has_agent else None
        try:
            return await self._begin()
        except BaseException as error:
            self._start_error = str(error) or type(error).__name__
            if former is not None:
                self.agent.watcher.close()
                await self.agent.denied.close()
                for name, part in former.items():
                    setattr(self, name, part)
            raise

    async def _begin(self) -> Started:
        began = time.monotonic()
        attached, last = tuple(self._host.attached()), self._host.last_ips()
        former = self.agent.view.node if self.has_agent and attached else None
        reserved = self.agent.network.addresses.reservations if self.has_agent else {}
        kernel = self._host.open_kernel()
        self._make_agent(kernel)
        self._make_parts(kernel)
        advertised = self.election.resume(self._caches.leases.objects.values()) if self.agent.serves else []
        await self.agent.start(attached, advertised, former)
        self.probing.begin()
        self.agent.network.addresses.continue_after(last)
        for uid, ips in reserved.items():
            self.agent.network.reserve(uid, ips)
        for path, service in self._caches.services.objects.items() if self.agent.serves else ():
            self.election.changed(path, service)
            self.health.service_changed(None, service)
        pod_gate.serve(self._caches, self.name, lambda path: path in self.agent.view.pods)
        self._ready.set()
        self._start_error = ""
        refused = tuple(str(one.error) for one in self.agent.ledger.refused.values())
        return Started(self.agent.writer.operations_applied, refused, time.monotonic() - began)

    def _make_agent(self, kernel: Kernel) -> None:
        self.backends = NodeBackends(
            self.name,
            lambda: self._caches,
            self._settings.network,
            self._client,
            self._record_event,
            self._set_routes,
            self._has_backend,
            lambda: self.agent.config.mtu,
            lambda: self.agent.uplink_mac,
        )
        self.agent = Agent(
            self.name,
            msgspec.structs.replace(self._settings, network=self.backends.current),
            kernel,
            self._caches,
            peers=self._peers,
            poller=self._poller,
            record_event=self._record_event,
            link_changed=self._host.link_changed,
            record=self._host,
            mtu_changed=self.backends.changed,
            elsewhere=self._elsewhere,
        )
        self.agent.view.has_name_server = self._name_server_answers is not False
        self.agent.view.may_answer_names = self._may_answer_names

    def _make_parts(self, kernel: Kernel) -> None:
        """What runs beside the agent."""
        self.election = Election(self.agent, self._client, self._recorder, self._now)
        self.probing = Probing(
            self.agent, kernel.echo, self._poller, self._record_event, self._is_api_there, lambda: self.condition.changed()
        )
        self.condition = PeerCondition(
            self._client,
            lambda: self.agent.view.registered,
            self.probing.problems,
            lambda: self.probing.is_settled,
            self._record_event,
            self._now,
        )
        sources = Sources(
            self.agent,
            self._caches,
            self.supervisor.report,
            lambda: self._client.contact,
            peers=self.probing,
            machine_without=lambda: self.machine_without(),
            former_network=lambda: self.former_network(),
        )
        reports = Reports(sources, Authorizer(self._client, self.name))
        self.health = NodeHealth(
            self.agent, reports, self._host.namespace, self._now, self._record_event, lambda: self.machine_unready()
        )
        self.endpoints = NameServerEndpoints(
            self.agent.view, self._client, self._record_event, bool(self._settings.dns.ips), self._name_server_answers
        )

    async def _set_routes(self, config: NetworkConfig) -> None:
        await self.agent.set_routes(config)

    def _is_api_there(self) -> bool:
        return self._client.contact is None or self._client.contact.is_reached

    def _has_backend(self, name: str) -> bool:
        return self.agent.has_backend(name)

    def run(self) -> None:
        """Keep everything running, in tasks of the supervisor, until `close`."""
        works = (
            lambda: self.agent.run(),
            lambda: self.election.run(),
            lambda: self.health.run(),
            lambda: self.endpoints.run(),
            lambda: self.backends.run(),
            lambda: self.probing.run(),
            lambda: self.condition.run(),
        )
        for name, run in zip(TASKS, works, strict=True):
            self.supervisor.add(name, run)

    async def close(self) -> None:
        """End: what the kernel holds stays as it is."""
        if self._starting is not None:
            self._starting.cancel()
        await self.supervisor.close()
        await self.agent.stop()

    def _further_interfaces(self) -> FurtherInterfaces:
        return FurtherInterfaces(self._client, self._settings.network, self._networks_of, self._own_ips, self._plugins)

    async def restart(self, settings: Settings | None = None) -> Started:
        """End the agent and begin with a new one, with other settings maybe. What a runtime has asked for is finished before, and what it
        asks for meanwhile waits.

        A restart that fails is tried again with back-off until one succeeds, here or by another call.
        """
        async with self._restart:
            self._ready.clear()
            await self._no_call.wait()
            for name in TASKS:
                await self.supervisor.remove(name)
            await self.agent.stop()
            if settings is not None:
                self._settings = settings
                self._further = self._further_interfaces()
            try:
                started = await self.start()
            except Exception:
                if self._starting is None or self._starting.done():
                    self._starting = asyncio.get_running_loop().create_task(self._keep_starting(), name=f"start {self.name}")
                raise
            self.run()
            return started

    async def _keep_starting(self) -> None:
        backoff, loop = Backoff(), asyncio.get_running_loop()
        while not self._ready.is_set():
            await asyncio.sleep(backoff.delay(loop.time()))
            if not self._ready.is_set():
                try:
                    await self.restart()
                except Exception as error:
                    log.warning("start node=%s error=%s", self.name, error, exc_info=unforeseen(error))

    def read_from(self, caches: Caches) -> None:
        """Read the cluster from these caches from now on. `changed` tells what differs in them."""
        self._caches = caches
        self.agent.read_from(caches)

    def changed(self, kind: Kind, old: Any, new: Any) -> None:
        """An object came (no old), changed or went (no new)."""
        self.agent.changed(kind, old, new)
        if kind is Node:
            self.election.node_changed(old, new)
            self.probing.changed(old, new)
            if self.backends.is_about(new or old):
                self.backends.changed()
            if (new or old).metadata.name == self.name:
                self.endpoints.changed()
                self.condition.changed()
        elif kind is ConfigMap:
            self.backends.changed()
        elif kind is EndpointSlice and self.endpoints.is_about(new or old):
            self.endpoints.changed()
        if self.agent.serves:
            self._serviced(kind, old, new)

    def _serviced(self, kind: Kind, old: Any, new: Any) -> None:
        """The same, as far as it is about how Services are offered."""
        if kind is Service:
            self.health.service_changed(old, new)
            self.election.changed((new or old).metadata.path, new)
        elif kind is EndpointSlice:
            for slice_ in (old, new):
                if slice_ is not None and slice_.service:
                    self.election.changed(slice_.service, None)
        elif kind is Lease:
            self.election.lease_changed(old, new)

    def is_concerned(self, change: Concern) -> bool:
        """May this change concern what is planned here? All nodes of a process are asked whenever a pod changes."""
        if change.is_everybodys:
            return True
        if not self.has_agent:
            return False
        agent, selectors = self.agent, change.selectors
        return not agent.view.pods.keys().isdisjoint(change.pods) or bool(
            selectors and not selectors.isdisjoint(agent.selectors)
        )

    def name_server_changed(self, *, answers: bool, ends: bool = False) -> None:
        """The node's own name server answers now, or does not; before the first call it is taken to be about to. One that `ends`
        answers for a while what is asked yet: questions that are on their way keep the translation of their answers.

        Peers are told before its pods are led to them, so that nodes whose servers go at the same time don't send pods to each other.
        """
        self._name_server_answers = answers
        if not self.has_agent:
            return
        self.endpoints.answers, self.endpoints.ends = answers, ends
        self.endpoints.changed()
        if answers:
            self.agent.name_server_changed(is_here=True)
        else:
            loop = asyncio.get_running_loop()
            loop.call_later(WITHDRAWAL_SECONDS, self._withdraw, loop.time() + WITHDRAWAL_MAX_SECONDS)

    @property
    def is_name_server_offered(self) -> bool:
        """Are other nodes led to the node's own name server, as far as is known here?"""
        return self.has_agent and self.endpoints.is_offered

    @property
    def is_name_server_in_use(self) -> bool:
        """May what they were led to there before go on, likewise?"""
        return self.has_agent and self.endpoints.is_in_use

    def names_changed(self, *, may_answer: bool) -> None:
        """The cluster's DNS is podplane's to answer now, or is not: then nothing of it is on the node, nor offered to others."""
        self._may_answer_names = may_answer
        if self.has_agent:
            self.agent.names_changed(may_answer=may_answer)
            self.endpoints.changed()

    def _withdraw(self, until: float) -> None:
        """Have pods ask others, once the Service does not lead to this node any more: what it had led here, and is under way, would lose
        the translation of its answer when the Service changes. Not later than `until`."""
        if self._name_server_answers is not False:
            return
        loop = asyncio.get_running_loop()
        if self.endpoints.is_offered and loop.time() < until:
            loop.call_later(WITHDRAWAL_SECONDS, self._withdraw, until)
        else:
            self.agent.name_server_changed(is_here=False)

    @property
    def has_agent(self) -> bool:
        """Was it started?"""
        return hasattr(self, "agent")

    # `cni.NodeNetwork`; while no agent is ready, callers wait.

    @contextlib.asynccontextmanager
    async def _network(self, patience: float | None = None) -> AsyncIterator[Attachments]:
        """The present agent's, once it is ready; it stays the present one meanwhile. NetworkError when it is not ready within `patience`
        seconds."""
        try:
            async with asyncio.timeout(patience):
                while not self._ready.is_set():  # it may be cleared again before a task that waits for it goes on
                    await self._ready.wait()
        except TimeoutError:
            why = self._start_error or "it is still starting"
            raise TryAgainError(f"the agent of {self.name} is not ready after {patience:g} s: {why}") from None
        self._calls += 1
        self._no_call.clear()
        try:
            yield self.agent.network
        finally:
            self._calls -= 1
            if not self._calls:
                self._no_call.set()

    async def add(self, request: Attachment) -> Attached:
        """Attach a pod: it is under its policies then. NetworkError when it can't be."""
        await pod_gate.until_known(self._caches, request, self.name)
        pod = self._caches.pods.objects.get(f"{request.namespace}/{request.name}")
        if pod is not None and request.pod_uid and request.pod_uid == pod.static_uid:  # the API has it by another uid
            request = dataclasses.replace(request, pod_uid=pod.metadata.uid)
        wanted = await self._further.networks(request)
        async with self._network(READY_SECONDS) as network:
            got = await network.add(request)
            try:
                await self._further.add(network, request, got, wanted)
            except NetworkError as error:
                try:
                    await self._detach(network, request)
                except NetworkError as second:  # a runtime asks again with DEL
                    log.warning("detach pod=%s/%s error=%s", request.namespace, request.name, second)
                raise FurtherNetworkError(str(error)) from None
            return got

    async def _detach(self, network: Attachments, request: Attachment) -> None:
        """An interface; with a pod's own one, all that it has."""
        await self._further.delete(request)
        for one in (*further_of(network, request), request):
            await network.delete(one)

    def _networks_of(self, path: str) -> str:
        """The annotation by which a pod asks for further networks; "" for none."""
        pod = self._caches.pods.objects.get(path)
        return pod.networks if pod is not None else ""

    def _own_ips(self) -> tuple[str, ...]:
        node = self._caches.nodes.objects.get(self.name)
        return node.internal_ips if node is not None else ()

    async def delete(self, request: Attachment) -> None:
        """Detach a pod; waits until an agent is ready to do it."""
        async with self._network() as network:
            await self._detach(network, request)

    async def check(self, request: Attachment) -> None:
        """Is the network of a pod as planned?"""
        async with self._network(READY_SECONDS) as network:
            for one in (request, *further_of(network, request)):
                await network.check(one)
            await self._further.check(request)

    async def gc(self, keep: Collection[Attachment]) -> None:
        """Detach what is not kept."""
        async with self._network() as network:
            await self._further.gc(keep)
            await network.gc([*keep, *(other for one in keep for other in further_of(network, one))])

    def find(self, id_: tuple[str, str]) -> Attached | None:
        """What an attachment got; None of one that isn't attached."""
        return self.agent.network.find(id_) if self.has_agent else None

    def attachments(self) -> Collection[Attachment]:
        """All that there are, without pods' further interfaces."""
        return [one for one in self.agent.network.attachments() if one.further is None] if self.has_agent else ()

    def unready(self) -> Unready | None:
        """Why no pod can be attached now."""
        if not self._ready.is_set():
            return Unready(f"the agent of {self.name} is not ready: {self._start_error or 'it is still starting'}")
        if why := self.agent.view.why_no_pods:
            return Unready(why)
        node = self.agent.view.registered
        if node is not None and node.has_no_network:
            return Unready(f"the network of node {self.name} is down", is_limited=True)
        if full := self.agent.network.addresses.full:
            return Unready(f"all addresses of block {full} of node {self.name} are in use: delete pods of it")
        return None
