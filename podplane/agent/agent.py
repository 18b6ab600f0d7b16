"""One node's agent: what changes in the cluster becomes desired state, and desired state becomes kernel state.

    an API object changes → `changed` marks keys (planner) → `reconcile` plans them → ledger → writer → kernel → ledger
    the kernel changes    → watcher → ledger → writer → kernel → ledger

Adding a feature touches none of this: see `features`.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import msgspec

from podplane.agent import refusals
from podplane.agent.ability import as_the_kernel_can
from podplane.agent.attachments import AttachedPod, Attachments, Elsewhere, nowhere
from podplane.agent.caches import Caches
from podplane.agent.closing import Closing
from podplane.agent.denied import DeniedLog
from podplane.agent.effects import Effects
from podplane.agent.feature import Kind
from podplane.agent.features import FEATURES
from podplane.agent.kernel import Kernel
from podplane.agent.keys import (
    AdvertisementKey,
    AttachmentKey,
    Key,
    NameServerKey,
    NodeKey,
    PeerKey,
    PolicyNameServersKey,
    PolicyPodKey,
    ServiceKey,
)
from podplane.agent.own_node import OwnNode
from podplane.agent.ownership import ownership
from podplane.agent.parties import Parties
from podplane.agent.pause import Pause, beside
from podplane.agent.peer_plans import PeerPlans
from podplane.agent.planner import NOT_APPLIED, REPAIRED, Planner, RecordEvent
from podplane.agent.poller import Poller
from podplane.agent.record import NoRecord, Record
from podplane.agent.resets import Resets
from podplane.agent.seen import Flows
from podplane.agent.settings import Settings
from podplane.agent.watcher import Watcher
from podplane.agent.writer import Writer
from podplane.kernel.errors import KernelError
from podplane.model.answers import PolicyCounts
from podplane.model.config import NetworkConfig
from podplane.model.objects import Node
from podplane.model.service import Service
from podplane.model.view import View
from podplane.policy.counts import counted, in_force
from podplane.policy.feature import PolicyMemory
from podplane.policy.tables import TABLE as POLICY_TABLE
from podplane.routes import ways
from podplane.routes.table import backend
from podplane.routes.usable import usable
from podplane.routes.withdrawal import found_withdrawn
from podplane.servers.durations import Durations
from podplane.services import lifetime
from podplane.services.feature import ServicesMemory
from podplane.state.conntrack import Connection
from podplane.state.ledger import SET, Ledger, Status
from podplane.state.network import Link
from podplane.state.nft import NftValue, Set
from podplane.state.operations import LinkEvent, Report
from podplane.state.value import Identity, IPAddress, Value

log = logging.getLogger(__name__)

MIN_INTERVAL, MAX_INTERVAL, RETRY_SECONDS = 0.005, 0.05, 1.0
"""Seconds: from one reconcile to the next one, so that many changes of one moment are planned together (as long as it took, but at least
and at most so long); from an unforeseen failure to the next try."""
ETHERNET_MTU = 1500
"""Bytes: until an uplink was seen."""
ROUTE_FIELDS = ("backend", "former_backends", "mtu", "vxlan_vni", "vxlan_port", "tunnel_offload")
"""Fields of NetworkConfig that may change while an agent runs."""
REPAIRS_KEPT = 10


def _no_events(key: Key, message: str, reason: str = NOT_APPLIED) -> None:
    """Events are not wanted."""


def _needed_later(found: Mapping[Identity, Value]) -> dict[Identity, Value]:
    """Of what the kernel had when the agent started, what is looked at when all is planned: sets, and tables of features that ask for them.
    It may be a hundred thousand objects; the ledger lets go of each as it is planned."""
    tables = frozenset().union(*(feature.tables for feature in FEATURES if feature.after_start))
    return {
        i: one for i, one in found.items() if i[0] == SET or (isinstance(one, NftValue) and (one.family, one.table) in tables)
    }


class Agent:
    """One node's agent; its methods run on one event loop. `caches` are those of the process: they are only read."""

    def __init__(
        self,
        node_name: str,
        settings: Settings,
        kernel: Kernel,
        caches: Caches,
        *,
        peers: PeerPlans | None = None,
        poller: Poller | None = None,
        clock: Callable[[], float] = time.monotonic,
        record_event: RecordEvent = _no_events,
        link_changed: Callable[[str, LinkEvent], None] = lambda name, event: None,
        record: Record | None = None,
        mtu_changed: Callable[[], None] = lambda: None,
        elsewhere: Elsewhere = nowhere,
    ) -> None:
        """`mtu_changed` is called after the MTU of the network between nodes has changed (`underlay_mtu`); `elsewhere` knows addresses of
        the node's blocks that another network of the machine has given out."""
        self._kernel, self._clock, self._record_event, self._mtu_changed = kernel, clock, record_event, mtu_changed
        self._poller = poller or Poller()
        self._take_settings(as_the_kernel_can(settings, kernel))
        self._take_caches(node_name, caches)
        self._begin_facts()
        self._begin_loop()
        shared = PeerPlans() if peers is None else peers  # an empty one is shared too
        self._make_writers(node_name, shared, link_changed)
        self._make_network(record or NoRecord(), elsewhere)
        self._make_policies(node_name, caches)

    def _take_settings(self, settings: Settings) -> None:
        self._settings = settings
        self.config = self._wanted = settings.network
        """`_wanted` has the MTU of the settings, `config` that which the uplink carries, where it is less."""
        self.serves = settings.services.enabled
        """Does it serve Services, or another proxy of the node?"""
        self._name_servers = settings.dns.ips

    def _take_caches(self, node_name: str, caches: Caches) -> None:
        """What planners see of the cluster."""
        self.view = View(node_name, caches.nodes.objects, caches.services.objects, caches.slices_by_service)
        self.view.policies, self.view.claims = caches.policy_index, caches.claims
        self._usable: tuple[Node, NetworkConfig, Node] | None = None
        """The node's own object, settings, and what of it counts."""
        self.view.as_usable = self._as_usable
        self._own_node = OwnNode(self.view, self._record_event)
        caches.add_name_servers(self._name_servers)
        self._advertised: set[str] = set()
        self.view.advertised = self._advertised

    def _begin_facts(self) -> None:
        """What is found out of the machine; nothing is, so far."""
        self._carried = ETHERNET_MTU
        """Bytes: what the uplink carries."""
        self.uplink_mac = ""
        """Where peers are told of it; "" where they ask for it."""
        self.without_offload: list[str] = []
        """Types of tunnels whose checksums and segments are made in software, and why."""
        self._answers_until = -math.inf
        """By the clock: so long the kernel is to answer for what is advertised, whatever becomes of this agent."""
        self.repairs: deque[tuple[float, str]] = deque(maxlen=REPAIRS_KEPT)
        """The last repairs: when (seconds of the clock), and what."""

    def _begin_loop(self) -> None:
        """When the loop is to do something."""
        self._wake, self._due = asyncio.Event(), asyncio.Event()
        self._may_send = False
        self.reconciles = Durations()
        self._reconciled_at = self._clock()
        self._interval = MIN_INTERVAL
        """Seconds until the next reconcile may begin."""

    def _make_writers(self, node_name: str, peers: PeerPlans, link_changed: Callable[[str, LinkEvent], None]) -> None:
        """What plans, what reads the kernel, and what writes to it."""
        kernel, clock = self._kernel, self._clock
        self.ledger = Ledger(kernel.matches)
        self._effects = Effects(node_name, kernel, self._committed, self._poller.turn)
        self.planner = Planner(
            self.view, self._settings, self.ledger, peers, self._record_event, self._effects.add, self._in_kernel
        )
        self.watcher = Watcher(node_name, self.ledger, kernel, ownership(self.config), clock, self._repaired, link_changed)
        self.writer = Writer(node_name, self.ledger, kernel, clock, self.watcher.take_notifications, self._sent)

    def _make_network(self, record: Record, elsewhere: Elsewhere) -> None:
        """What attaches pods."""
        self.network = Attachments(
            self.view,
            self._kernel,
            self.ledger,
            self.planner,
            self.writer,
            self.watcher,
            self._wake.set,
            self._effects.judge.forgotten,
            self._emptied,
            record,
            lambda ip, pod_uid: self._parties.names(ip, pod_uid),
            elsewhere,
        )

    def _make_policies(self, node_name: str, caches: Caches) -> None:
        """What becomes of policies, and of the flows that they are about."""
        kernel, clock = self._kernel, self._clock
        policies: PolicyMemory = self.planner.memory(PolicyPodKey)
        self._policies = policies
        self._closing = Closing(
            self.ledger, policies, clock, self.planner.mark, lambda: self._effects.add(policies.after_repair())
        )
        self.enforced = policies.enforced
        """What policies its pods are under."""
        self.selectors = policies.selectors
        """Those whose pods are in sets that its rules look into, by their digests: the moves of no others concern it."""
        self._resets = Resets(node_name, kernel, self._namespaces, self._poller.turn, self._may_have_taken_back)
        self._parties = Parties(caches, self.enforced)
        self.flows = Flows(node_name, kernel, lambda: self._namespaces().keys(), self._parties, self._poller.turn, clock)
        self.denied = DeniedLog(
            node_name,
            kernel,
            self._parties,
            self.enforced,
            self.services,
            clock,
            is_wanted=self.config.log_denied,
            tcp_denied=self._resets.tcp_denied,
        )

    # What it is told.

    async def start(
        self, attached: Iterable[AttachedPod] = (), advertised: Iterable[str] = (), former: Node | None = None
    ) -> None:
        """Take the cluster as the caches have it, and make the kernel agree with it.

        `attached` are the pods that an agent before this one attached, with their addresses, and `advertised` the Services
        whose addresses it advertised: their network stays as it is. `former` is what that agent planned with, should the API have no Node.
        """
        self.watcher.start()
        self._plan_by(self._wanted)
        found = await self.watcher.auditor.read_all()
        await beside(len(found), self.planner.recover, found.values())
        not_ready = [one for one in self.view.nodes.values() if not one.is_ready and one.metadata.name != self.view.node_name]
        self.view.withdrawn = await beside(len(found), found_withdrawn, found.values(), not_ready)
        pause = Pause()
        for slice_ in self.ledger.end_reading(self.ledger.begin_reading(), found, lambda identity: False):
            del slice_
            await pause()
        found = await beside(len(found), _needed_later, found)
        self._advertised.update(advertised)
        if former := self._own_node.resume(former):
            self._plan_with(None, former)
        for kind, objects in ((Node, self.view.nodes), (Service, self.view.services)):  # slices come with their Services
            for one in list(objects.values()):
                self.changed(kind, None, one)
                await pause()
        for path in self._advertised:
            self.planner.mark(AdvertisementKey(path))
        await self.network.resume(attached, pause)
        self._own_node.check_addresses()
        self.planner.after_repair()
        await self.planner.replan(pause)
        size = len(found) + len(self.ledger.desired)
        self._effects.add(await beside(size, self.planner.after_start, found))
        await self.watcher.auditor.rebuild_outgrown(found)
        await self.watcher.read_sysctls(pause)
        self._may_send = True
        await self.reconcile()
        await self._effects.idle()
        self.watcher.put_off(len(self.ledger.desired))

    def changed(self, kind: Kind, old: Any, new: Any) -> None:
        """An object of this kind came (no old), changed or went (no new); the caches have it already, and the loop does
        the rest."""
        if kind is Node:
            self._plan_with(*self._own_node.changed(old, new))
        elif self.planner.changed(kind, old, new):
            self._wake.set()

    def _plan_with(self, old: Node | None, new: Node | None) -> None:
        """A Node is planned with otherwise, from now on or no longer."""
        if new is not None and new.metadata.name == self.view.node_name:
            self.network.blocks_changed(self._as_usable(new).spec.pod_cidrs)
            if old is not None and old.spec.pod_cidrs != new.spec.pod_cidrs:
                self._own_node.check_addresses()
        if self.planner.changed(Node, old, new):
            self._wake.set()

    def _as_usable(self, node: Node) -> Node:
        """What of a Node counts here. That of the own one does not depend on others, and is asked for all the time."""
        if self._usable is not None and self._usable[0] is node and self._usable[1] is self.config:
            return self._usable[2]
        name, own, claims = node.metadata.name, self.view.node_name, self.view.claims
        found = usable(node, self.config, claims.lost(name, own) if claims is not None else {}).node
        if name == own:
            self._usable = node, self.config, found
        return found

    def _emptied(self) -> None:
        """No pod is attached any more."""
        if former := self._own_node.emptied():
            self._plan_with(former, None)

    async def set_routes(self, config: NetworkConfig) -> None:
        """Reach other nodes by the backends of these settings. When this returns the kernel has, or has refused, what the node itself needs
        for that; its peers follow."""
        fields = {name: getattr(config, name) for name in ROUTE_FIELDS}
        self._plan_by(msgspec.structs.replace(self._wanted, **fields))
        key = NodeKey(self.view.node_name)
        await self.writer.settled([*self.planner.plan(key), *self.ledger.desired.fragment(key)])
        self._mark_routes()

    def _plan_by(self, wanted: NetworkConfig) -> None:
        """Plan by these settings from now on, with the MTU that the uplink carries. While there is no uplink, it is as it was."""
        carried = self.watcher.mtu_of(wanted.uplink) or self._carried
        self._wanted, self._carried = wanted, carried
        driver = self._kernel.driver(wanted.uplink)
        self.uplink_mac = self._kernel.mac(wanted.uplink) if wanted.permanent_neighbours else ""
        self.config = msgspec.structs.replace(wanted, mtu=min(wanted.mtu, carried), uplink_driver=driver)
        self._tell_offload(ways.without_offload(self.config))
        self._settings = msgspec.structs.replace(self._settings, network=self.config)
        self.planner.configure(self._settings)

    def _tell_offload(self, without: list[str]) -> None:
        if without != self.without_offload:
            said = "; ".join(without) or "all tunnels leave checksums and segments to what is below them again"
            log.warning("offload node=%s %s", self.view.node_name, said)
        self.without_offload = without

    def _mark_routes(self) -> None:
        """Plan anew what depends on the backend and on the MTU."""
        for name in self.view.nodes:
            self.planner.mark(PeerKey(name))
        self.planner.mark_all((AttachmentKey,))
        self._wake.set()

    def withdraw_routes(self, names: frozenset[str]) -> None:
        """Routes to these peers are withdrawn from now on, and to no others."""
        for name in names ^ self.view.withdrawn:
            self.planner.mark(PeerKey(name))
            self._wake.set()
        self.view.withdrawn = names

    def _follow_uplink(self) -> None:
        """Does the uplink carry more or less than before? Then pods and tunnels get another MTU, in place."""
        if self.watcher.mtu_of(self.config.uplink) in (0, self._carried):
            return
        before = self.config.mtu
        self._plan_by(self._wanted)
        if self.config.mtu != before:
            log.warning("mtu node=%s uplink=%s is=%d was=%d", self.view.node_name, self.config.uplink, self.config.mtu, before)
            self.planner.mark(NodeKey(self.view.node_name))
            self._mark_routes()
            self._mtu_changed()

    def has_backend(self, name: str) -> bool:
        """Are the links there that this backend needs on the node?"""
        node = self.view.node
        needed = backend(name).plan_node(node, self.config) if node is not None else {}
        return all(self.ledger.status(one) is Status.DONE for one, value in needed.items() if isinstance(value, Link))

    def read_from(self, caches: Caches) -> None:
        """Read the cluster from these caches from now on. `changed` tells what differs in them; policies are planned anew."""
        view, own = self.view, self.view.node
        view.nodes, view.services, view.slices = caches.nodes.objects, caches.services.objects, caches.slices_by_service
        view.policies, view.claims = caches.policy_index, caches.claims
        self._parties.caches = caches
        caches.add_name_servers(self._name_servers)
        self._own_node.resume(own)
        self.planner.mark_all((PolicyPodKey,))
        self.planner.mark(PolicyNameServersKey(view.node_name))
        self._wake.set()

    def name_server_changed(self, *, is_here: bool) -> None:
        """The node's own name server answers now, or does not."""
        if self.view.has_name_server != is_here:
            self.view.has_name_server = is_here
            for kind in (NameServerKey, PolicyNameServersKey):
                self.planner.mark(kind(self.view.node_name))
            self._wake.set()

    def names_changed(self, *, may_answer: bool) -> None:
        """The cluster's DNS is podplane's to answer now, or is not."""
        if self.view.may_answer_names != may_answer:
            self.view.may_answer_names = may_answer
            self.planner.mark(NameServerKey(self.view.node_name))
            self._wake.set()

    async def advertise(self, path: str) -> None:
        """Answer on the uplink for the load balancer addresses of a Service, and tell the neighbours; called again, it
        tells them again. Raises the kernel's error when it refuses that."""
        self._advertised.add(path)
        await self._apply(AdvertisementKey(path))
        self._prolong()
        await self._effects.announce()

    def answer_for(self, seconds: float) -> None:
        """The node's lease term lasts for so long: the kernel answers for what is advertised until then, and longer if this is called
        again."""
        self._answers_until = self._clock() + seconds
        self._prolong()

    def _prolong(self) -> None:
        milliseconds = int(1000 * max(0.0, self._answers_until - self._clock()))
        for one in lifetime.lifetimes(self.view.versions, self.config) if milliseconds else ():
            if Set(family=one.family, table=one.table, name=one.set, key=()).identity not in self.ledger.desired:
                continue
            try:
                self._kernel.prolong(*one, milliseconds)
            except KernelError as error:
                log.warning("announce node=%s error=%s", self.view.node_name, error)

    async def withdraw(self, path: str) -> None:
        """Answer for them no more. Raises the kernel's error when it still answers, or may."""
        self._advertised.discard(path)
        await self._apply(AdvertisementKey(path))

    async def _apply(self, key: Key) -> None:
        changed = self.planner.plan(key)
        failed = await self.writer.settled([*changed, *self.ledger.desired.fragment(key)])
        if failed:
            raise failed[0].error

    # What it does.

    async def run(self) -> None:
        """Reconcile, watch and poll until cancelled."""
        loop = asyncio.get_running_loop()
        fd = self.watcher.fileno()
        if fd >= 0:
            loop.add_reader(fd, self._notified)
        self._poller.add(self._look)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._keep(self._reconcile_changes))
                group.create_task(self._keep(self._follow_looks))
        finally:
            self._poller.remove(self._look)
            if fd >= 0:
                loop.remove_reader(fd)

    async def _keep(self, work: Callable[[], Any]) -> None:
        """Do one thing again and again; a failure is logged, and tried again."""
        while True:
            try:
                await work()
            except Exception:
                log.exception("agent node=%s", self.view.node_name)
                await asyncio.sleep(RETRY_SECONDS)

    async def _reconcile_changes(self) -> None:
        await self._wake.wait()
        since = self._clock() - self._reconciled_at
        if 0 <= since < self._interval:
            await asyncio.sleep(self._interval - since)
        self._wake.clear()
        try:
            await self.reconcile()
        except Exception:
            self._wake.set()
            raise

    async def reconcile(self) -> None:
        """Plan what is dirty, and wait until the kernel has it, or has refused it."""
        began = self._clock()
        await self.planner.replan(Pause())
        if self.planner.is_behind:
            self._wake.set()
        await self._committed()
        if self._closing.follow():
            await self.planner.replan(Pause())
            await self._committed()
        await self._effects.announce()
        self._effects.begin()
        self.denied.follow()
        self._reconciled_at = self._clock()
        self._interval = min(max(MIN_INTERVAL, self._reconciled_at - began), MAX_INTERVAL)
        self.reconciles.add(self._reconciled_at - began)

    async def _committed(self) -> None:
        """Wait until all that is planned was sent."""
        self.writer.wake()
        await self.writer.caught_up()

    async def _in_kernel(self, identities: Collection[Identity]) -> None:
        """Wait until nothing of these is pending; at a start all is sent together, when all is planned."""
        if self._may_send:
            await self.writer.settled(identities)

    async def idle(self) -> None:
        """Wait until nothing is due, and connections are judged again where what may pass has changed (what failed may be due later)."""
        await self.writer.idle()
        self._effects.begin()
        await self._effects.idle()
        await self.network.idle()
        await self._resets.idle()
        await self.flows.idle()

    def _namespaces(self) -> dict[IPAddress, str]:
        """The network namespaces of this node's pods, by their addresses."""
        own = (one for one in self.view.sandboxes.values() if one.network is None)
        return {ipaddress.ip_address(ip): one.netns for one in own for ip in one.ips}

    def _may_have_taken_back(self) -> bool:
        return self._policies.takes_back and self._effects.judge.has_judged

    def _look(self) -> None:
        self._resets.begin()
        self.flows.begin()
        self.denied.follow()
        if self.watcher.look() or self._effects.has_due or self._closing.has_due:
            self._due.set()

    async def _follow_looks(self) -> None:
        await self._due.wait()
        self._due.clear()
        await self._read_due()

    async def poll(self) -> None:
        """Look at what the kernel does not notify, read what is due to be read, and wait until what comes of it is sent."""
        self.watcher.look(every=True)
        self._follow_uplink()
        await self._read_due()
        await self._effects.idle()

    async def _read_due(self) -> None:
        await self.watcher.read_due()
        await self._committed()
        if self._closing.follow():
            self._wake.set()
        self._effects.begin()
        await self._effects.announce()

    def _sent(self, report: Report) -> None:
        self.watcher.sent(report)
        if self._closing.concerns(report):
            self._wake.set()
        for key, message in refusals.events(report, self.ledger, self.view, self.enforced):
            self._record_event(key, message)

    def _notified(self) -> None:
        try:
            self.watcher.take_notifications()
        except Exception:
            log.exception("notifications node=%s", self.view.node_name)
        self._follow_uplink()
        self.writer.wake()

    def _repaired(self, message: str, has_tables: bool) -> None:
        log.warning("repaired node=%s %s", self.view.node_name, message)
        self.repairs.append((self._clock(), message))
        self._record_event(NodeKey(self.view.node_name), message, REPAIRED)
        if has_tables:
            self.planner.after_repair()

    async def stop(self) -> None:
        """End: what the kernel holds stays as it is."""
        await self.idle()
        self.watcher.close()
        await self.denied.close()
        self.planner.close()

    # What there is to say.

    def now(self) -> float:
        """Seconds of the clock that times in the ledger, in audits and repairs are of."""
        return self._clock()

    @property
    def is_behind(self) -> bool:
        """Does a change wait to be planned?"""
        return self.planner.is_behind

    @property
    def seconds_since_reconcile(self) -> float:
        """How long ago changes were last planned and sent."""
        return self._clock() - self._reconciled_at

    @property
    def services(self) -> ServicesMemory:
        """What this node serves of Services."""
        memory: ServicesMemory = self.planner.memory(ServiceKey)
        return memory

    def policy_counts(self) -> Callable[[], PolicyCounts]:
        """How often policies decided here: a function that blocks, and may be called in any thread, for what is in force now."""
        rules = in_force(self.enforced)
        return lambda: counted(rules, self._kernel.counts(*POLICY_TABLE))

    def connections(self) -> list[Connection]:
        """The tracked connections of this node through Services; blocks, and may be called from any thread."""
        return self._kernel.connections()
