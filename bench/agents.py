"""The one place where benches touch podplane's agent: one on the real kernel of the namespace that this process is in.

What a bench needs of an agent is here, and no more: start it on a picture of the cluster, change objects, wait until the kernel has what
follows, attach and detach pods. So an agent that is used otherwise changes this module only.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from podplane.agent.agent import Agent
from podplane.agent.caches import Caches
from podplane.agent.keys import PeerKey
from podplane.agent.poller import Poller
from podplane.agent.probing import Probing
from podplane.agent.settings import Settings
from podplane.cni.network import Attachment
from podplane.kernel import netlink
from podplane.kernel.door import Kernel
from podplane.kernel.namespace import CurrentNamespace, Namespace, NetworkNamespace, Workers
from podplane.kernel.opener import KernelOpener
from podplane.kubeapi.cache import Cache
from podplane.model.config import NetworkConfig
from podplane.model.objects import Metadata, Node, NodeAddress, NodeSpec, NodeStatus
from podplane.model.pod_info import PodInfo
from podplane.model.policy import NetworkPolicy
from podplane.model.service import EndpointSlice, Service
from podplane.state.desired import ELEMENTS
from podplane.state.operations import Operation, Report
from podplane.state.value import Value, fragment

NAME, BLOCK = "node1", "10.128.0.0/24"
SETTINGS = Settings(network=NetworkConfig(cluster_cidrs=("10.128.0.0/9",), service_cidrs=("10.96.0.0/12",)))
Attached = tuple[Attachment, tuple[str, ...]]


def node(name: str = NAME, *blocks: str, ip: str = "192.168.1.10") -> Node:
    """A node with blocks of addresses for its pods."""
    return Node(
        metadata=Metadata(name=name),
        spec=NodeSpec(pod_cidrs=blocks or (BLOCK,)),
        status=NodeStatus(addresses=(NodeAddress("InternalIP", ip),)),
    )


@dataclass(frozen=True)
class Cluster:
    """What an agent is started with."""

    nodes: Mapping[str, Node] = field(default_factory=lambda: {NAME: node()})
    services: Iterable[Service] = ()
    slices: Iterable[EndpointSlice] = ()
    attached: Iterable[Attached] = ()


class WatchedKernel(Kernel):
    """Knows when a change was last in force (`time.perf_counter`), and with how much of this process' time: what nothing leads to any more
    is removed after that."""

    done_at = used = 0.0
    done = asyncio.Event()

    def steps(self, operations: Sequence[Operation]) -> Iterator[Report]:
        """As its base."""
        for report in super().steps(operations):
            if any(one.new is not None or one.value.identity[0] in ELEMENTS for one in report.applied):
                self.done_at, self.used = time.perf_counter(), time.process_time()
            yield report
        self.done.set()


class OneAgent:
    """An agent of node1; its methods run on one event loop. RuntimeError when the kernel refuses anything."""

    def __init__(self, kernel: Kernel | None = None, caches: Caches | None = None, settings: Settings = SETTINGS) -> None:
        self.kernel = kernel or real_kernel()
        self._caches = caches or Caches()
        self._agent = Agent(NAME, settings, self.kernel, self._caches)

    async def start(self, cluster: Cluster) -> bool:
        """Make the kernel agree with the cluster; was there anything to write?"""
        self.cache(cluster)
        return await self.begin(cluster.attached)

    def cache(self, cluster: Cluster) -> None:
        """Fill the caches, as a process does before its agent starts."""
        for one in cluster.nodes.values():
            self._caches.nodes.set(one)
        for service in cluster.services:
            self._caches.services.set(service)
        for slice_ in cluster.slices:
            self._caches.slices.set(slice_)

    async def begin(self, attached: Iterable[Attached] = ()) -> bool:
        """Start on what is cached; was there anything to write?"""
        await self._agent.start(attached)
        self._caches.subscribe(self._agent.changed)
        self._check()
        return self._agent.writer.operations_applied > 0

    async def run(self) -> None:
        """Reconcile until cancelled, as in production."""
        await self._agent.run()

    def probing(self, poller: Poller) -> Probing:
        """Its probes, which are told of changes of nodes from now on."""
        made = Probing(self._agent, self.kernel.echo, poller, lambda *_: None, lambda: True)
        made.begin()
        self._caches.nodes.subscribe(made.changed)
        return made

    def want(self, values: Iterable[Value]) -> None:
        """Want these objects too, as a feature would."""
        self._agent.ledger.replace("bench", fragment(values))

    @property
    def sysctls(self) -> Mapping[str, str]:
        """The sysctls that the agent sets."""
        return self._agent.ledger.sysctls

    def node_changed(self, old: Node | None, new: Node | None) -> None:
        """A node came, changed or went."""
        _changed(self._caches.nodes, old, new)

    def plan_peers_again(self) -> None:
        """All peers are to be planned anew, as after a change of the settings."""
        self._agent.planner.mark_all((PeerKey,))

    def service_changed(self, old: Service | None, new: Service | None) -> None:
        """A Service came, changed or went."""
        _changed(self._caches.services, old, new)

    def slice_changed(self, old: EndpointSlice | None, new: EndpointSlice | None) -> None:
        """An EndpointSlice came, changed or went."""
        _changed(self._caches.slices, old, new)

    def pod_changed(self, old: PodInfo | None, new: PodInfo | None) -> None:
        """A pod of the cluster came, changed or went."""
        _changed(self._caches.pods, old, new)

    def policy_changed(self, old: NetworkPolicy | None, new: NetworkPolicy | None) -> None:
        """A policy came, changed or went."""
        _changed(self._caches.policies, old, new)

    async def settle(self) -> None:
        """Bring all changes so far to the kernel."""
        await self._agent.reconcile()
        self._check()

    async def idle(self) -> None:
        """Wait until nothing is under way any more: the links of pods that went are removed."""
        await self._agent.idle()

    async def add(self, request: Attachment) -> tuple[str, ...]:
        """Attach a pod; its addresses. NetworkError when it can't be."""
        return (await self._agent.network.add(request)).ips

    async def delete(self, request: Attachment) -> None:
        """Detach a pod."""
        await self._agent.network.delete(request)

    @property
    def attached(self) -> list[Attached]:
        """The pods that are attached, each with its addresses: what the next agent is started with."""
        return list(self._agent.network.attached)

    @property
    def written(self) -> int:
        """So many operations took effect in the kernel."""
        return self._agent.writer.operations_applied

    async def stop(self) -> None:
        """End; the kernel keeps what it has."""
        await self._agent.stop()

    def _check(self) -> None:
        refused = self._agent.ledger.refused
        if refused:
            identity, refusal = next(iter(refused.items()))
            raise RuntimeError(f"{identity}: {refusal.error}")


def _changed(cache: Cache[Any], old: Any, new: Any) -> None:
    if new is not None:
        cache.set(new)
    elif old is not None:
        cache.remove(old.metadata.path)


def real_kernel() -> WatchedKernel:
    """The kernel of the namespace that this process is in."""
    return kernel_of(CurrentNamespace())


def kernel_of(namespace: Namespace) -> WatchedKernel:
    """The kernel of a namespace that is a node."""
    return WatchedKernel(namespace, KernelOpener())


def delete_policies() -> None:
    """Take away the table of policies, which keeps pods from addresses of others, too, of the namespace where this is called."""
    subprocess.run(["nft", "delete", "table", "inet", "podplane-policy"], check=True)


def delete_spoof_guard() -> None:
    """Take away what else keeps pods from addresses of others: locked ports, and rules of the bridge about what frames are."""
    chain = ["bridge", "podplane-pods", "prerouting"]
    listed = subprocess.run(["nft", "-a", "list", "chain", *chain], check=True, capture_output=True, text=True).stdout
    for handle in re.findall(r"goto (?:others|groups|answered).*# handle (\d+)", listed):
        subprocess.run(["nft", "delete", "rule", *chain, "handle", handle], check=True)
    links = json.loads(subprocess.run(["bridge", "-j", "link"], check=True, capture_output=True, text=True).stdout)
    for link in links:
        subprocess.run(["bridge", "link", "set", "dev", link["ifname"], "locked", "off"], check=True)


def pod(number: int, workers: Workers) -> Attachment:
    """A pod to attach, with a network namespace of its own."""
    return Attachment(f"sandbox-{number}", f"uid-{number}", "default", f"pod-{number}", NetworkNamespace.create(workers))


def sandbox_of(info: PodInfo, workers: Workers) -> Attachment:
    """A pod that the API knows, to attach."""
    metadata = info.metadata
    netns = NetworkNamespace.create(workers)
    return Attachment(f"sandbox-{metadata.uid}", metadata.uid, metadata.namespace, metadata.name, netns)


def make_uplink() -> None:
    """Make the node's uplink here. Nothing is touched where there are links already: that is no namespace of a bench's."""
    if [name for _, name in socket.if_nameindex()] != ["lo"]:
        raise SystemExit("this part of a bench runs in a network namespace of its own: python -m bench.run services")
    for words in ("link set lo up", "link add eth0 type bridge", "addr add 192.168.1.10/16 dev eth0", "link set eth0 up"):
        subprocess.run(["ip", *words.split()], check=True)


def by_backend(backend: str) -> Settings:
    """The settings of an agent that reaches others by this backend."""
    return msgspec.structs.replace(SETTINGS, network=msgspec.structs.replace(SETTINGS.network, backend=backend))


@contextlib.contextmanager
def recorded_routes() -> Iterator[list[Sequence[netlink.Message]]]:
    """What agents send over rtnetlink meanwhile, each piece with one acknowledgement; `as_sent` makes the bytes, when no clock runs."""
    sent: list[Sequence[netlink.Message]] = []
    send = netlink.Socket._send

    def send_and_keep(self: netlink.Socket, part: Sequence[netlink.Message]) -> list[netlink.Refusal]:
        sent.append(part)
        return send(self, part)

    netlink.Socket._send = send_and_keep  # type: ignore[method-assign]  # for this process of a bench only
    try:
        yield sent
    finally:
        netlink.Socket._send = send  # type: ignore[method-assign]  # as it was


def as_sent(part: Sequence[netlink.Message]) -> bytes:
    """A piece as it is sent."""
    flags = [netlink.NLM_F_REQUEST] * (len(part) - 1) + [netlink.NLM_F_REQUEST | netlink.NLM_F_ACK]
    return b"".join(netlink.encode(m, n, flag) for n, (m, flag) in enumerate(zip(part, flags, strict=True), 1))


@contextlib.contextmanager
def recorded() -> Iterator[list[bytes]]:
    """The nf_tables transactions that agents send meanwhile, as bytes."""
    sent: list[bytes] = []
    send = netlink.Socket.transaction

    def send_and_keep(self: netlink.Socket, messages: Sequence[netlink.Message]) -> list[netlink.Refusal]:
        sent.append(b"".join(netlink.encode(m, n, m.flags | netlink.NLM_F_REQUEST) for n, m in enumerate(messages, 1)))
        return send(self, messages)

    netlink.Socket.transaction = send_and_keep  # type: ignore[method-assign]  # for this process of a bench only
    try:
        yield sent
    finally:
        netlink.Socket.transaction = send  # type: ignore[method-assign]  # as it was


async def cancelled(task: asyncio.Task[None]) -> None:
    """End a task that runs until it is cancelled; what it raised before goes on."""
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
