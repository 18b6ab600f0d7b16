"""The reconcile loop of one node, and its `Network`.

Events mark keys dirty; one loop plans what is dirty and sends the difference to the kernel. A key costs its own
fragment, whatever the size of the rest. Attaching a pod does not wait for the loop: it plans and applies its own key at once.

The kernel is trusted to hold what it acknowledged. It is read back, and compared with the whole desired state, at the
start, after an operation failed, and by a slow audit: what somebody else changed or removed is put right then.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Protocol

import msgspec

from podplane.agent import features
from podplane.agent.addresses import NodeAddresses
from podplane.agent.features import PeerPlans
from podplane.cni.network import Attached, Attachment, NetworkError
from podplane.ipam.pool import Exhausted
from podplane.kernel.namespace import Namespace
from podplane.model.config import ROUTE_PROTOCOL, NetworkConfig
from podplane.model.objects import Node
from podplane.model.service import EndpointSlice, Service
from podplane.model.view import Sandbox, View
from podplane.nodes.plan import TABLE
from podplane.pods.plan import VETH_PREFIX
from podplane.services.announce import announced_ips
from podplane.services.plan import Numbers, stale_targets
from podplane.services.tables import TABLE as SERVICES_TABLE
from podplane.state.desired import Desired, compose
from podplane.state.mac import mac_of
from podplane.state.network import Link, Sysctl
from podplane.state.operations import Failure, Operation, Report
from podplane.state.ownership import Ownership
from podplane.state.value import Identity, IPAddress, Value

log = logging.getLogger(__name__)

MIN_INTERVAL, AUDIT_INTERVAL, RETRY_INTERVAL = 0.005, 60.0, 1.0
"""Seconds: between two reconciles, between two audits, and from a failure to the audit that tries again."""


Failed = Mapping[Identity, Exception]
"""Why operations failed, by what they were about."""


class Kernel(Protocol):
    """The door to one node's kernel state, as `kernel.door` opens it."""

    def attach(self, name: str, namespace: Namespace) -> None:
        """Give a network namespace the name by which values speak of it."""

    def detach(self, name: str) -> None:
        """Forget a namespace: what was in it counts as gone."""

    def apply(self, operations: Sequence[Operation]) -> Report:
        """Carry out the operations; each is in the report."""

    def read(self, owner: Ownership, sysctls: Iterable[str] = ()) -> dict[Identity, Value]:
        """What the kernel holds of this owner in the node's own namespace, and the values of these sysctls."""

    def announce(self, link: str, ips: Iterable[IPAddress]) -> None:
        """Tell the neighbours on a link that these addresses are here."""

    def forget(self, targets: Collection[tuple[IPAddress, int]]) -> int:
        """Delete tracked UDP and SCTP connections that were translated to these addresses and ports."""

    def matches(self, wanted: Value, found: Value) -> bool:
        """Does what was found fulfil what is wanted (fields left to the kernel may have any value)?"""


class Agent:
    """One node's agent; its methods run on one event loop."""

    def __init__(
        self,
        node_name: str,
        config: NetworkConfig,
        kernel: Kernel,
        peers: PeerPlans | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.view = View(node_name, {}, {})
        self.config = config
        self.desired = Desired()
        self.ownership = Ownership(
            links=frozenset({config.bridge}),
            link_prefixes=(VETH_PREFIX,),
            neighbour_links=frozenset({config.uplink}),
            route_protocol=ROUTE_PROTOCOL,
            tables=frozenset({TABLE, SERVICES_TABLE}),
        )
        self._kernel = kernel
        self._peers = peers or PeerPlans()
        self._clock = clock
        self._nodes: dict[str, Node] = {}
        self._sandboxes: dict[str, Sandbox] = {}
        self._services: dict[str, Service] = {}
        self._slices: dict[str, dict[str, EndpointSlice]] = {}
        self._numbers = Numbers()
        self.view.nodes, self.view.sandboxes = self._nodes, self._sandboxes
        self._announced: set[str] = set()
        self.view.announced = self._announced
        self.view.services, self.view.slices = self._services, self._slices
        self._addresses = NodeAddresses(())
        self._dirty: set[str] = set()
        self._wake = asyncio.Event()
        self._audit_at = 0.0
        self._kernel_busy = asyncio.Lock()
        self._queue: list[tuple[list[Operation], asyncio.Future[Failed]]] = []
        self._sending: asyncio.Task[None] | None = None

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
        found = self._kernel.read(self.ownership)
        self._numbers.recover(found.values())
        for node in nodes.values():
            self.node_changed(None, node)
        for service in services:
            self.service_changed(None, service)
        for slice_ in slices:
            self.slice_changed(None, slice_)
        for path in announced:
            self._announced.add(path)
            self._dirty.add(f"{features.ANNOUNCE}/{path}")
        for request, ips in attached:
            self._addresses.reserve(request.pod_uid, ips)
            self._admit(request, ips)
        self._replan()
        self._wake.clear()
        return self.audit(found)

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
        self._dirty.update(features.affected(old, new, self.view))
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
        self._dirty.add(key)
        self._wake.set()

    async def run(self) -> None:
        """Reconcile until cancelled; a failure is logged and tried again."""
        while True:
            try:
                await self._turn()
            except Exception:
                log.exception("reconcile node=%s", self.view.node_name)
                self._audit_at = self._clock() + RETRY_INTERVAL
                await asyncio.sleep(RETRY_INTERVAL)

    async def _turn(self) -> None:
        """Wait for a change, or for the next audit, and see to it."""
        timeout = max(0.0, self._audit_at - self._clock())
        try:
            await asyncio.wait_for(self._wake.wait(), timeout)
        except TimeoutError:
            async with self._kernel_busy:
                self.audit()
            return
        await asyncio.sleep(MIN_INTERVAL)
        self._wake.clear()
        await self.reconcile()

    async def reconcile(self) -> Report:
        """Plan what is dirty and send the difference."""
        return await self._apply(compose(self._replan()))

    def _replan(self) -> list[Operation]:
        dirty, self._dirty = sorted(self._dirty), set()
        operations: list[Operation] = []
        for key in dirty:
            try:
                operations += self._plan(key)
            except Exception:  # of an object that makes no sense; what was planned for it before stays
                log.exception("plan node=%s key=%s", self.view.node_name, key)
        return operations

    def _plan(self, key: str) -> list[Operation]:
        """Plan one key anew; the difference to what was planned before."""
        return self.desired.replace(key, features.plan(key, self.view, self.config, self._peers, self._numbers))

    async def _apply(self, operations: list[Operation]) -> Report:
        """Send operations, together with all others of this moment; what became of these."""
        if not operations:
            return Report()
        loop = asyncio.get_running_loop()
        outcome: asyncio.Future[Failed] = loop.create_future()
        self._queue.append((operations, outcome))
        if self._sending is None:
            self._sending = loop.create_task(self._send())
        failed = await outcome
        if not failed:
            return Report(operations)
        return Report(
            [o for o in operations if o.value.identity not in failed],
            [Failure(o, failed[o.value.identity]) for o in operations if o.value.identity in failed],
        )

    async def _send(self) -> None:
        """Send what is queued until nothing is; ten pods that come at once are one change of the kernel."""
        while self._queue:
            changes, self._queue = self._queue, []
            together = changes[0][0] if len(changes) == 1 else compose([operation for own, _ in changes for operation in own])
            operations, removals = _staged(together)
            async with self._kernel_busy:
                report = await self._carry_out(operations)
                await self._forget_flows(operations)
                failed = {failure.operation.value.identity: failure.error for failure in report.failed}
                for _, outcome in changes:
                    if not outcome.done():
                        outcome.set_result(failed)
                if removals:
                    await self._carry_out(removals)
        self._sending = None

    async def _forget_flows(self, operations: list[Operation]) -> None:
        """Connections to endpoints that are gone begin anew, where they wouldn't end by themselves."""
        stale = stale_targets(operations)
        if stale:
            try:
                await asyncio.to_thread(self._kernel.forget, stale)
            except OSError as error:
                log.warning("conntrack node=%s error=%s", self.view.node_name, error)

    async def _carry_out(self, operations: list[Operation]) -> Report:
        """Ask the kernel; what becomes of a failure that is no refusal (too many open files, say) is a report too."""
        began = self._clock()
        try:
            if any(map(_takes_long, operations)):
                report = await asyncio.to_thread(self._kernel.apply, operations)
            else:
                report = self._kernel.apply(operations)
        except Exception as error:
            log.exception("apply node=%s", self.view.node_name)
            report = Report(failed=[Failure(operation, error) for operation in operations])
        self._log("reconcile", report, began)
        if report.failed:
            self._audit_at = min(self._audit_at, self._clock() + RETRY_INTERVAL)
            self._wake.set()
        return report

    def _log(self, what: str, report: Report, began: float) -> None:
        level = logging.WARNING if report.failed else logging.DEBUG
        milliseconds = (self._clock() - began) * 1000
        counts = f"applied={len(report.applied)} failed={len(report.failed)} ms={milliseconds:.1f}"
        log.log(level, "%s node=%s %s %s", what, self.view.node_name, counts, "; ".join(map(str, report.failed[:3])))

    def audit(self, found: Mapping[Identity, Value] | None = None) -> Report:
        """Compare all of the kernel with the desired state, and put the difference right; `found` is what was just read of it."""
        self._audit_at = self._clock() + AUDIT_INTERVAL
        began = self._clock()
        own = [value.name for value in self.desired.values() if isinstance(value, Sysctl) and not value.netns]
        seen = self._kernel.read(self.ownership if found is None else Ownership(), own)
        found = {**(found or {}), **seen}
        report = self._kernel.apply(self._differences(found))
        self._log("audit", report, began)
        if report.failed:
            self._audit_at = self._clock() + RETRY_INTERVAL
        return report

    def _differences(self, found: Mapping[Identity, Value]) -> list[Operation]:
        """Between the desired state and what was found on the node; pods' own namespaces are not read back."""
        surplus = [Operation(value, None) for identity, value in found.items() if identity not in self.desired]
        missing = [
            Operation(found.get(identity), value)
            for identity, value in self.desired.items()
            if not value.netns and (identity not in found or not self._kernel.matches(value, found[identity]))
        ]
        return surplus + missing

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
        self._dirty.discard(key)
        try:
            report = await self._replace(key)
        except Exception as error:
            await self.delete(request)
            raise NetworkError(f"pod {request.namespace}/{request.name}: {error}") from error
        if report.failed:
            await self.delete(request)
            raise NetworkError(f"pod {request.namespace}/{request.name}: {_first(report.failed)}")
        return Attached(ips=ips, interface=request.ifname, mac=mac_of_first(ips))

    def _admit(self, request: Attachment, ips: tuple[str, ...]) -> str:
        """Know of a pod with these addresses; the key to plan."""
        sandbox = self._sandbox(request, ips)
        self._kernel.attach(sandbox.netns, request.netns)
        self._sandboxes[sandbox.key] = sandbox
        self._dirty.add(sandbox.key)
        return sandbox.key

    async def delete(self, request: Attachment) -> None:
        """Detach a pod; of one that isn't attached, nothing happens."""
        sandbox = self._sandbox(request, ())
        if self._sandboxes.pop(sandbox.key, None) is not None:
            self._kernel.detach(sandbox.netns)
            await self._replace(sandbox.key)
        self._addresses.release(request.pod_uid)

    async def check(self, request: Attachment) -> None:
        """NetworkError unless the pod's kernel objects are as planned (CNI CHECK)."""
        key = self._sandbox(request, ()).key
        if key not in self._sandboxes:
            raise NetworkError(f"pod {request.namespace}/{request.name} is not attached")
        found = self._kernel.read(self.ownership)
        for identity, value in features.plan(key, self.view, self.config, self._peers, self._numbers).items():
            if not value.netns and (identity not in found or not self._kernel.matches(value, found[identity])):
                raise NetworkError(f"pod {request.namespace}/{request.name}: {value} is not in the kernel as planned")

    async def gc(self, keep: Collection[Attachment]) -> None:
        """Detach every pod that is not in `keep` (CNI GC)."""
        kept = {request.pod_uid for request in keep}
        for key, sandbox in list(self._sandboxes.items()):
            if sandbox.uid not in kept:
                del self._sandboxes[key]
                self._kernel.detach(sandbox.netns)
                await self._replace(key)
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
        return await self._apply(compose(self._plan(key)))


def _takes_long(operation: Operation) -> bool:
    """Removing a link makes the kernel wait for all its readers (synchronize_net): some 20 ms."""
    return operation.new is None and isinstance(operation.old, Link)


def _staged(operations: Sequence[Operation]) -> tuple[list[Operation], list[Operation]]:
    """What is done at once, and what nobody has to wait for: a link that is to go is only set down at first, and that ends its traffic."""
    at_once, removals = [], []
    for operation in operations:
        link = operation.old
        if _takes_long(operation) and isinstance(link, Link) and link.kind and not link.netns:
            down = msgspec.structs.replace(link, up=False)
            at_once.append(Operation(link, down))
            removals.append(Operation(down, None))
        else:
            at_once.append(operation)
    return at_once, removals


def _first(failed: list[Failure]) -> str:
    """The first failure in words, and how many more there are."""
    more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
    return f"{failed[0].error}{more}"


def mac_of_first(ips: tuple[str, ...]) -> str:
    """The MAC of a pod's interface, made of its first address."""
    return mac_of(ipaddress.ip_address(ips[0]))
