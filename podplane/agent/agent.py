"""The reconcile loop of one node, and its `Network`.

Events mark keys dirty; one loop plans what is dirty (see `planner`) and sends the difference to the kernel (see `reconciler`). A key costs
its own fragment, whatever the size of the rest. Attaching a pod does not wait for the loop: it plans and applies its own key at once.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import time
from collections.abc import Callable, Collection, Iterable, Mapping

import msgspec

from podplane.agent import features
from podplane.agent.addresses import NodeAddresses
from podplane.agent.features import PeerPlans
from podplane.agent.flows import Flows
from podplane.agent.planner import Planner
from podplane.agent.reconciler import Kernel, Reconciler, Trouble
from podplane.cni.network import Attached, Attachment, NetworkError
from podplane.ipam.pool import Exhausted
from podplane.model.config import ROUTE_PROTOCOL, NetworkConfig
from podplane.model.objects import Node
from podplane.model.service import EndpointSlice, Service
from podplane.model.view import Sandbox, View
from podplane.nodes.plan import TABLE
from podplane.pods import bridge
from podplane.pods.plan import VETH_PREFIX
from podplane.routes.table import backend
from podplane.services.announce import announced_ips
from podplane.services.report import Flow
from podplane.services.tables import TABLE as SERVICES_TABLE
from podplane.state.desired import compose
from podplane.state.mac import mac_of
from podplane.state.network import Sysctl
from podplane.state.operations import Failure, Report
from podplane.state.ownership import Ownership

log = logging.getLogger(__name__)

MIN_INTERVAL, LOOK_INTERVAL, RETRY_INTERVAL = 0.005, 0.5, 1.0
"""Seconds: between two reconciles, between two looks at what others did, and after a failure that nobody foresaw."""


def _tell_nobody(key: str, why: str, reason: str = "") -> None:
    """Nobody is interested."""


class Agent:
    """One node's agent; its methods run on one event loop."""

    def __init__(
        self,
        node_name: str,
        config: NetworkConfig,
        kernel: Kernel,
        peers: PeerPlans | None = None,
        clock: Callable[[], float] = time.monotonic,
        trouble: Trouble = _tell_nobody,
    ) -> None:
        self.view = View(node_name, {}, {})
        if config.bridge_family and not kernel.has_bridge_family():
            config = msgspec.structs.replace(config, bridge_family=False)
        self.config = config
        routes = backend(config.backend)
        owned = routes.owns(config)
        ownership = Ownership(
            links=frozenset({config.bridge, *routes.devices}),
            link_prefixes=(VETH_PREFIX,),
            neighbour_links=owned.neighbour_links,
            route_protocol=ROUTE_PROTOCOL,
            tables=frozenset({TABLE, SERVICES_TABLE, bridge.TABLE}) | owned.tables,
        )
        self.reconciler = Reconciler(node_name, kernel, ownership, clock, trouble)
        self._kernel = kernel
        self._clock = clock
        self._nodes: dict[str, Node] = {}
        self._sandboxes: dict[str, Sandbox] = {}
        self._attached: dict[str, tuple[Attachment, tuple[str, ...]]] = {}
        self._services: dict[str, Service] = {}
        self._slices: dict[str, dict[str, EndpointSlice]] = {}
        self._flows = Flows(node_name, kernel)
        self.view.nodes, self.view.sandboxes = self._nodes, self._sandboxes
        self._announced: set[str] = set()
        self.view.announced = self._announced
        self.view.services, self.view.slices = self._services, self._slices
        self._addresses = NodeAddresses(())
        self._planner = Planner(self.view, config, self.reconciler.desired, peers or PeerPlans(), self._flows, trouble)
        self._wake = self.reconciler.wake
        self._look_at = 0.0
        self._reconciled_at = clock()

    def start(
        self,
        nodes: Mapping[str, Node],
        attached: Iterable[tuple[Attachment, tuple[str, ...]]] = (),
        services: Iterable[Service] = (),
        slices: Iterable[EndpointSlice] = (),
        announced: Iterable[str] = (),
    ) -> Report:
        """Take the first picture of the cluster, and make the kernel agree with it.

        `attached` are the pods that an agent before this one attached, with their addresses, and `announced` the Services for which
        it answered: their network stays as it is.
        """
        found = self.reconciler.read()
        self._planner.recover(found.values())
        for node in nodes.values():
            self.node_changed(None, node)
        for service in services:
            self.service_changed(None, service)
        for slice_ in slices:
            self.slice_changed(None, slice_)
        for path in announced:
            self._announced.add(path)
            self._planner.touch(f"{features.ANNOUNCE}/{path}")
        for request, ips in attached:
            self._addresses.reserve(request.pod_uid, ips)
            self._admit(request, ips)
        self._planner.replan()
        self._wake.clear()
        report = self.reconciler.audit(found)
        self._flows.flush_stale_blocking()
        return report

    def node_changed(self, old: Node | None, new: Node | None) -> None:
        """A node object came, changed or went; the loop does the rest."""
        node = new or old
        if node is None:
            return
        name = node.metadata.name
        if new is None:
            self._nodes.pop(name, None)
        else:
            self._nodes[name] = new
        if name == self.view.node_name and new and (not old or old.spec.pod_cidrs != new.spec.pod_cidrs):
            self._addresses = NodeAddresses(new.spec.pod_cidrs)
            for sandbox in self._sandboxes.values():
                self._addresses.reserve(sandbox.uid, sandbox.ips)
        self._planner.touch(*features.affected(old, new, self.view))
        self._wake.set()

    def service_changed(self, old: Service | None, new: Service | None) -> None:
        """A Service came, changed or went; the loop does the rest."""
        service = new or old
        if service is None:
            return
        path = service.metadata.path
        if new is None:
            self._services.pop(path, None)
        else:
            self._services[path] = new
        self._touch(f"{features.SERVICE}/{path}")
        if path in self._announced:
            self._touch(f"{features.ANNOUNCE}/{path}")

    def slice_changed(self, old: EndpointSlice | None, new: EndpointSlice | None) -> None:
        """An EndpointSlice came, changed or went; the loop does the rest."""
        if old is not None and (new is None or old.service != new.service):
            own = self._slices.get(old.service, {})
            own.pop(old.metadata.name, None)
            if not own:
                self._slices.pop(old.service, None)
            self._touch(f"{features.SERVICE}/{old.service}")
        if new is not None and new.service:
            self._slices.setdefault(new.service, {})[new.metadata.name] = new
            self._touch(f"{features.SERVICE}/{new.service}")

    async def announce(self, path: str) -> None:
        """Answer on the uplink for the load balancer addresses of a Service, and tell the neighbours; again, and it tells them again."""
        self._announced.add(path)
        await self._replace(f"{features.ANNOUNCE}/{path}")
        service = self._services.get(path)
        if service is not None:
            self._kernel.announce(self.config.uplink, announced_ips(service, self.view.versions))

    async def withdraw(self, path: str) -> None:
        """Answer for them no more."""
        self._announced.discard(path)
        await self._replace(f"{features.ANNOUNCE}/{path}")

    def _touch(self, key: str) -> None:
        self._planner.touch(key)
        self._wake.set()

    async def run(self) -> None:
        """Reconcile until cancelled; a failure is logged and tried again."""
        while True:
            try:
                await self._turn()
            except Exception:
                log.exception("reconcile node=%s", self.view.node_name)
                self.reconciler.audit_soon()
                await asyncio.sleep(RETRY_INTERVAL)

    async def _turn(self) -> None:
        """Wait for a change and see to it; now and then, look whether somebody else was at work."""
        try:
            async with asyncio.timeout(max(0.0, self._look_at - self._clock())):  # wait_for may overlook that it is cancelled
                await self._wake.wait()
        except TimeoutError:
            pass
        if self._clock() >= self._look_at:
            if await self.reconciler.look():
                self._flows.mark_all_stale()
                await self._flows.flush_stale()
            self._look_at = self._clock() + LOOK_INTERVAL
        if self._wake.is_set():
            await asyncio.sleep(MIN_INTERVAL)
            self._wake.clear()
            await self.reconcile()
            self._reconciled_at = self._clock()

    @property
    def is_behind(self) -> bool:
        """Does a change wait to be seen to?"""
        return self._planner.is_behind

    @property
    def seconds_since_reconcile(self) -> float:
        """How long ago the last change was seen to."""
        return self._clock() - self._reconciled_at

    def connections(self) -> list[Flow]:
        """The tracked connections of this node through Services; blocks, and may be called from any thread."""
        return self._kernel.connections()

    async def reconcile(self) -> Report:
        """Plan what is dirty and send the difference."""
        report = await self.reconciler.apply(compose(self._planner.replan()))
        await self._flows.flush_stale()
        return report

    # Network: what `runtime`, and later the CNI plugin, ask of this node.

    async def add(self, request: Attachment) -> Attached:
        """Attach a pod: addresses, links and routes are in place when this returns. NetworkError says why not."""
        node = self.view.node
        if node is None or not node.spec.pod_cidrs:
            raise NetworkError(f"node {self.view.node_name} has no pod block yet: it gets one when the cluster has room")
        try:
            ips = self._addresses.allocate(request.pod_uid, request.requested_ips)
        except Exhausted as error:
            raise NetworkError(f"{error}: delete pods of {self.view.node_name}, or run them on another node") from None
        key = self._admit(request, ips)
        self._planner.settle(key)
        try:
            report = await self._replace(key)
        except Exception as error:
            await self.delete(request)
            raise NetworkError(f"pod {request.namespace}/{request.name}: {error}") from error
        if report.failed:
            await self.delete(request)
            raise NetworkError(f"pod {request.namespace}/{request.name}: {_first(report.failed)}")
        return Attached(ips=ips, interface=request.ifname, mac=mac_of_first(ips))

    @property
    def attached(self) -> Collection[tuple[Attachment, tuple[str, ...]]]:
        """The pods that are attached, each with its addresses."""
        return self._attached.values()

    def _admit(self, request: Attachment, ips: tuple[str, ...]) -> str:
        """Know of a pod with these addresses; the key to plan."""
        sandbox = self._sandbox(request, ips)
        self._attached[sandbox.key] = (request, ips)
        self._kernel.attach(sandbox.netns, request.netns)
        self._sandboxes[sandbox.key] = sandbox
        self._planner.touch(sandbox.key)
        return sandbox.key

    async def delete(self, request: Attachment) -> None:
        """Detach a pod; of one that isn't attached, nothing happens."""
        sandbox = self._sandbox(request, ())
        if sandbox.key in self._sandboxes:
            await self._detach(sandbox)
        self._addresses.release(request.pod_uid)

    async def _detach(self, sandbox: Sandbox) -> None:
        del self._sandboxes[sandbox.key], self._attached[sandbox.key]
        self._kernel.detach(sandbox.netns)
        await self._replace(sandbox.key)

    async def check(self, request: Attachment) -> None:
        """NetworkError unless the pod's kernel objects are as planned (CNI CHECK)."""
        key = self._sandbox(request, ()).key
        if key not in self._sandboxes:
            raise NetworkError(f"pod {request.namespace}/{request.name} is not attached")
        fragment = self._planner.fragment(key)
        sysctls = [value.name for value in fragment.values() if isinstance(value, Sysctl) and not value.netns]
        found = {**await self.reconciler.settled(), **self._kernel.read(Ownership(), sysctls)}
        for identity, value in fragment.items():
            if not value.netns and (identity not in found or not self._kernel.matches(value, found[identity])):
                raise NetworkError(f"pod {request.namespace}/{request.name}: {value} is not in the kernel as planned")

    async def gc(self, keep: Collection[Attachment]) -> None:
        """Detach every pod that is not in `keep` (CNI GC)."""
        kept = {request.pod_uid for request in keep}
        for sandbox in list(self._sandboxes.values()):
            if sandbox.uid not in kept:
                await self._detach(sandbox)
        for owner in self._addresses.owners - kept:
            self._addresses.release(owner)

    def reserve(self, uid: str, ips: tuple[str, ...]) -> None:
        """Keep the addresses of a pod that is not attached yet but had them before a restart."""
        self._addresses.reserve(uid, ips)

    def _sandbox(self, request: Attachment, ips: tuple[str, ...]) -> Sandbox:
        return Sandbox(
            namespace=request.namespace,
            name=request.name,
            uid=request.pod_uid,
            netns=f"pod/{request.pod_uid}",
            ips=ips,
            ifname=request.ifname,
        )

    async def _replace(self, key: str) -> Report:
        return await self.reconciler.apply(compose(self._planner.plan(key)))


def _first(failed: list[Failure]) -> str:
    """The first failure in words, and how many more there are."""
    more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
    return f"{failed[0].error}{more}"


def mac_of_first(ips: tuple[str, ...]) -> str:
    """The MAC of a pod's interface, made of its first address."""
    return mac_of(ipaddress.ip_address(ips[0]))
