"""An agent over the fake kernel, and Services for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import msgspec

from podplane.agent.agent import Agent
from podplane.agent.attachments import AttachedPod, Elsewhere, nowhere
from podplane.agent.caches import Caches
from podplane.agent.keys import Key
from podplane.agent.planner import NOT_APPLIED
from podplane.agent.record import NoRecord, Record
from podplane.cni.network import Attachment
from podplane.kernel.door import Kernel
from podplane.kernel.errors import KernelError
from podplane.kernel.fakes.world import FakeNamespace, FakeOpener
from podplane.kubeapi.cache import Cache
from podplane.model.cluster_policy import ClusterNetworkPolicy, Policy
from podplane.model.objects import Metadata, Node
from podplane.model.pod_info import NamespaceInfo, PodInfo
from podplane.model.policy import NetworkPolicy
from podplane.model.service import SERVICE_NAME, Endpoint, EndpointPort, EndpointSlice, Service, ServicePort, ServiceSpec
from podplane.state.nft import Element
from podplane.state.operations import Failure, Operation, Report
from tests.plans import agent_settings, node, uplink

DUAL = (4, 6)


Object = Node | Service | EndpointSlice | PodInfo | NamespaceInfo | Policy


def caches_of(*objects: Object) -> Caches:
    """Caches with these objects."""
    caches = Caches()
    for one in objects:
        cache_of(caches, one).set(one)
    return caches


def cache_of(caches: Caches, one: Object) -> Cache[Any]:
    """The cache for objects of this kind."""
    others: dict[Any, Cache[Any]] = {
        PodInfo: caches.pods,
        NamespaceInfo: caches.namespaces,
        NetworkPolicy: caches.policies,
        ClusterNetworkPolicy: caches.cluster_policies,
    }
    return {**dict(caches.by_kind()), **others}[type(one)]


class Rig:
    """An agent of node1 on a fake machine with an uplink, and the caches that it reads."""

    def __init__(self, service_cidrs: tuple[str, ...] = (), kernel: type[Kernel] = Kernel) -> None:
        self.settings = agent_settings(DUAL, service_cidrs=service_cidrs)
        self.opener = FakeOpener()
        self.host = self.opener.namespace()
        self.caches = Caches()
        self.now = 0.0
        self.events: list[tuple[str, str, str]] = []
        self.record: Record = NoRecord()
        """Of the next agent."""
        self.elsewhere: Elsewhere = nowhere
        """Of the next agent."""
        self.subscribed: Agent | None = None
        self.caches.subscribe(lambda kind, old, new: self.subscribed.changed(kind, old, new) if self.subscribed else None)
        self.kernel = kernel(self.host, self.opener)
        self.kernel.apply([Operation(None, value) for value in uplink(DUAL).values()])
        self.agent = self.new_agent(kernel)

    def new_agent(self, kernel: type[Kernel] = Kernel) -> Agent:
        """Another agent on the same machine, which changes are told from now on once it has started."""
        self.agent = Agent(
            "node1",
            self.settings,
            kernel(self.host, self.opener),
            self.caches,
            clock=lambda: self.now,
            record_event=self._record,
            record=self.record,
            elsewhere=self.elsewhere,
        )
        return self.agent

    def _record(self, key: Key, message: str, reason: str = NOT_APPLIED) -> None:
        self.events.append((str(key), reason, message))

    async def start(self, *objects: Object, attached: Iterable[AttachedPod] = (), advertised: Iterable[str] = ()) -> Agent:
        """Start the agent in a cluster with these objects (besides those that there are)."""
        self.subscribed = None
        self.put(*objects)
        await self.agent.start(attached, advertised)
        self.subscribed = self.agent
        return self.agent

    def put(self, *objects: Object) -> None:
        """These came, or changed."""
        for one in objects:
            cache_of(self.caches, one).set(one)

    def remove(self, *objects: Object) -> None:
        """These went."""
        for one in objects:
            cache_of(self.caches, one).remove(one.metadata.path)

    def attachment(
        self, uid: str, namespace: FakeNamespace | None = None, ips: tuple[str, ...] = (), **more: Any
    ) -> Attachment:
        """A pod; its sandbox has the id of the pod unless it is said."""
        fields = {"container_id": uid, "pod_uid": uid, "namespace": "default", "name": uid, "requested_ips": ips} | more
        return Attachment(netns=namespace or self.opener.namespace(), **fields)

    @property
    def written(self) -> int:
        """How many operations of the present agent took effect."""
        return self.agent.writer.operations_applied

    async def poll(self, at: float) -> None:
        """At this time, look at what others did, and send what is due."""
        self.now = at
        await self.agent.poll()

    async def settle(self) -> None:
        """Plan what is dirty, and wait until the kernel has it, links are removed and connections are judged."""
        await self.agent.reconcile()
        await self.agent.idle()


def cluster(*numbers: int) -> list[Node]:
    return [node(n, DUAL) for n in numbers]


def service_of(name: str, ip: str, affinity: str = "None") -> Service:
    spec = ServiceSpec(cluster_ip=ip, cluster_ips=(ip,), ports=(ServicePort(80),), session_affinity=affinity)
    return Service(metadata=Metadata(name=name, namespace="default"), spec=spec)


def slice_of(name: str, *ips: str) -> EndpointSlice:
    metadata = Metadata(name=f"{name}-a", namespace="default", labels={SERVICE_NAME: name})
    return EndpointSlice(
        metadata=metadata, endpoints=tuple(Endpoint(addresses=(ip,)) for ip in ips), ports=(EndpointPort(port=8080),)
    )


SPECS: dict[int, dict[str, Any]] = {
    1: {"external_ips": ("192.0.2.1",)},
    2: {"session_affinity": "ClientIP"},
    3: {"internal_traffic_policy": "Local", "external_traffic_policy": "Local", "external_ips": ("192.0.2.3",)},
    4: {"ports": (ServicePort(53, protocol="UDP", node_port=30053),), "type": "NodePort"},
    5: {"session_affinity": "ClientIP", "external_traffic_policy": "Local", "external_ips": ("192.0.2.5",)},
}


def served(number: int, numbers: Sequence[int]) -> tuple[Service, EndpointSlice]:
    """A Service of each kind, and its endpoints, of which every second is on node1."""
    one = service_of(f"s{number}", f"10.96.0.{number}")
    spec = msgspec.structs.replace(one.spec, **SPECS[number])
    port = EndpointPort("", spec.ports[0].protocol, 8080)
    endpoints = tuple(Endpoint((f"10.244.1.{n}",), node_name=f"node{1 + n % 2}") for n in numbers)
    slice_ = msgspec.structs.replace(slice_of(f"s{number}"), endpoints=endpoints, ports=(port,))
    return msgspec.structs.replace(one, spec=spec), slice_


def frontends(rig: Rig) -> dict[str, str]:
    """Which Service has which address and port."""
    elements = (v for v in rig.host.objects.nft.values() if isinstance(v, Element) and v.set == "frontends4")
    return {f"{v.key[0]} {v.key[2]}": v.comment for v in elements}


def wanting(name: str, ip: str, since: str, *external: str) -> Service:
    one = service_of(name, ip)
    metadata = msgspec.structs.replace(one.metadata, creation_timestamp=f"2026-01-0{since}T00:00:00Z")
    return Service(metadata, msgspec.structs.replace(one.spec, external_ips=external))


class Choosy(Kernel):
    """A kernel that refuses whatever has this text in it."""

    refused = ""

    def steps(self, operations: Sequence[Operation]) -> Iterator[Report]:
        bad = [o for o in operations if self.refused and self.refused in str(o.value)]
        yield from super().steps([o for o in operations if o not in bad])
        yield Report(failed=[Failure(o, KernelError("nft element", "Invalid argument")) for o in bad])


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that other threads or tasks bring about."""
    for _ in range(60_000):
        if condition():
            return
        await asyncio.sleep(0.001)
    raise AssertionError("it did not happen within a minute")
