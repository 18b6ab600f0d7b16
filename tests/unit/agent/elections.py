"""Nodes that elect the advertiser of a load balancer, in virtual time, with an API and watches that fail on request."""

from __future__ import annotations

import asyncio
import copy
import datetime
from collections import Counter
from collections.abc import Callable
from typing import Any

import msgspec
from hypothesis import strategies as st

from podplane.agent.candidacy import MAX_CANDIDATE_DELAY_SECONDS
from podplane.agent.election import Election
from podplane.agent.leases import DURATION_SECONDS, LEASES, NODE_NAMESPACE
from podplane.apiserver import identity
from podplane.kubeapi.client import Client
from podplane.kubeapi.errors import ApiError
from podplane.kubeapi.events import Recorder
from podplane.kubeapi.messages import Answer, Request
from podplane.model.config import NetworkConfig
from podplane.model.lease import Lease
from podplane.model.objects import Metadata, Node, NodeSpec
from podplane.model.service import (
    EndpointSlice,
    Ingress,
    LoadBalancerStatus,
    Service,
    ServiceSpec,
    ServiceStatus,
)
from podplane.model.view import View
from podplane.services.announce import EXCLUDED
from tests.unit.apiserver.test_server import Api

PATH, OTHER = "default/web", "default/other"


NAMES = ("node1", "node2", "node3")


FAULTS = ("refused", "lost", "unanswered", "late")


"""What becomes of a request: the API can't be reached; it never arrives; its answer doesn't; it arrives seconds later."""


LATE_SECONDS, WATCH_SECONDS, WITHDRAW_SECONDS = 4.0, 0.02, 0.1


TAKE_OVER_SECONDS = DURATION_SECONDS + MAX_CANDIDATE_DELAY_SECONDS + 0.5


SKEW = {"node1": 0, "node2": 3600, "node3": -3600}


"""How wrong the clocks of the nodes are, in seconds, at first: they may jump."""


class Advertiser:
    """An agent that only remembers what it advertises, and takes a moment to withdraw it."""

    def __init__(self, cluster: Cluster, view: View) -> None:
        self.cluster = cluster
        self.view = view
        self.config = NetworkConfig(cluster_cidrs=())
        self.advertised: dict[str, str] = {}
        self.announced: Counter[str] = Counter()
        self.answers_until = 0.0

    async def advertise(self, path: str) -> None:
        if service := self.view.services.get(path):
            self.advertised[path] = service.metadata.uid
        self.announced[path] += 1
        self.cluster.check_one_advertiser()

    @property
    def answered(self) -> dict[str, str]:
        """What its kernel answers for, whether there is an agent or not."""
        return self.advertised if self.cluster.loop.time() < self.answers_until else {}

    def answer_for(self, seconds: float) -> None:
        """Its kernel answers for so long, whatever becomes of the agent."""
        self.answers_until = self.cluster.loop.time() + seconds

    async def withdraw(self, path: str) -> None:
        await asyncio.sleep(WITHDRAW_SECONDS)
        self.advertised.pop(path, None)


class Machine:
    """A node: its connection to the API, what its watch delivered, and the agent's election that runs on it."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        self.cluster, self.name = cluster, name
        self.fault = ""
        self.skew = float(SKEW[name])
        self.watch_is_cut = False
        self.requests: list[Request] = []
        self.leases: dict[str, Lease] = {}
        self.undelivered: list[Callable[[], None]] = []
        self.node = Node(Metadata(name=name, uid=name), NodeSpec(pod_cidrs=("10.244.0.0/24",)))
        self.view = View(name, {name: self.node}, {}, {})
        self.advertiser = Advertiser(cluster, self.view)
        self.late: set[asyncio.Task[Answer]] = set()

    def registered(self, uid: str) -> None:
        """The node is one of the API's: its Lease belongs to it."""
        self.node = msgspec.structs.replace(self.node, metadata=msgspec.structs.replace(self.node.metadata, uid=uid))
        self.view.nodes = {self.name: self.node}

    def start(self) -> None:
        """The agent starts, or starts again."""
        cluster = self.cluster
        recorder = Recorder(Client(self._handle, self.name), "podplane", self.now, self.name)
        client = Client(self._handle, self.name)
        self.election = Election(self.advertiser, client, recorder, self.now, cluster.loop.time, boot=self.name)
        resumed = self.election.resume(self.leases.values())
        self.advertiser.advertised = {path: uid for path, uid in self.advertiser.advertised.items() if path in resumed}
        for path, service in self.view.services.items():
            self.election.changed(path, service)
        self.task = asyncio.create_task(self.election.run())

    async def stop(self) -> None:
        """The agent ends; the kernel goes on with what it was told."""
        for task in [self.task, *self.late]:
            task.cancel()
        await asyncio.gather(self.task, *self.late, return_exceptions=True)

    async def restart(self) -> None:
        await self.stop()
        self.start()

    def now(self) -> datetime.datetime:
        return datetime.datetime.fromtimestamp(self.cluster.loop.time() + self.skew, datetime.UTC)

    def deliver_later(self, change: Callable[[], None]) -> None:
        """Something changed in the cluster."""
        self.undelivered.append(change)
        self.cluster.loop.call_later(WATCH_SECONDS, self.deliver)

    def deliver(self) -> None:
        """Deliver what the watch has, if the API is reached."""
        while self.undelivered and not self.fault and not self.watch_is_cut:
            self.undelivered.pop(0)()

    def lease_changed(self, old: Lease | None, new: Lease | None) -> None:
        lease = new or old
        assert lease is not None
        if new is None:
            self.leases.pop(lease.metadata.path, None)
        else:
            self.leases[lease.metadata.path] = new
        self.election.lease_changed(old, new)

    def service_changed(self, path: str, service: Service | None) -> None:
        kept = {known: one for known, one in self.view.services.items() if known != path}
        self.view.services = kept if service is None else {**kept, path: service}
        self.election.changed(path, service)

    def slices_changed(self, path: str, *slices: EndpointSlice) -> None:
        self.view.slices = {**self.view.slices, path: {str(n): one for n, one in enumerate(slices)}}
        self.election.changed(path, None)

    def exclude(self, *, is_excluded: bool = True) -> None:
        """The node is not eligible, or is again."""
        labels = {EXCLUDED: ""} if is_excluded else {}
        old, metadata = self.node, msgspec.structs.replace(self.node.metadata, labels=labels)
        self.node = msgspec.structs.replace(old, metadata=metadata)
        self.view.nodes = {self.name: self.node}
        self.election.node_changed(old, self.node)

    async def _handle(self, request: Request) -> Answer:
        match self.fault:
            case "refused":
                raise ApiError(503, "ServiceUnavailable", "the API can't be reached")
            case "only heartbeats" if NODE_NAMESPACE not in request.path:
                await asyncio.Event().wait()
            case "lost":
                await asyncio.Event().wait()
            case "unanswered":
                await self.cluster.carry_out(self, request)
                await asyncio.Event().wait()
            case "late":
                self.late.add(asyncio.create_task(self._late(request)))
                await asyncio.Event().wait()
        return await self.cluster.carry_out(self, request)

    async def _late(self, request: Request) -> Answer:
        await asyncio.sleep(LATE_SECONDS)
        return await self.cluster.carry_out(self, request)


class Cluster:
    """Nodes, load balancers, an API."""

    def __init__(self, **spec: Any) -> None:
        self.loop = asyncio.get_running_loop()
        self.api = Api()
        self.api.server.observe(self._observe)
        self.spec = {"type": "LoadBalancer", **spec}
        self.machines = {name: Machine(self, name) for name in NAMES}
        self.services: dict[str, Service] = {}
        self.conflicts: list[str] = []
        self.answer_seconds = 0.0
        self._busy = asyncio.Lock()

    async def begin(self, *paths: str) -> Cluster:
        for name in NAMES:
            self.api.tokens.add(name, identity.node(name))
            self.machines[name].registered((await self.api.node(name))["metadata"]["uid"])
            self.machines[name].start()
        for path in paths:
            await self.add(path)
        return self

    async def end(self) -> None:
        for machine in self.machines.values():
            await machine.stop()
        assert not self.conflicts, self.conflicts

    async def add(self, path: str, ip: str = "192.0.2.1") -> None:
        """A load balancer comes."""
        manifest = {"metadata": {"name": path.partition("/")[2]}, "spec": {"type": "LoadBalancer", "ports": [{"port": 80}]}}
        made = await self.api("POST", "/api/v1/namespaces/default/services", manifest)
        metadata = Metadata(name=made["metadata"]["name"], namespace="default", uid=made["metadata"]["uid"])
        status = ServiceStatus(LoadBalancerStatus((Ingress(ip=ip),)))
        self._publish_service(path, Service(metadata, ServiceSpec(**self.spec), status))

    async def remove(self, path: str) -> None:
        """It goes, and its Lease with it."""
        await self.api("DELETE", f"/api/v1/namespaces/default/services/{path.partition('/')[2]}")
        self._publish_service(path, None)

    def change(self, path: str, ip: str) -> None:
        """It gets another address."""
        status = ServiceStatus(LoadBalancerStatus((Ingress(ip=ip),)))
        self._publish_service(path, msgspec.structs.replace(self.services[path], status=status))

    def _publish_service(self, path: str, service: Service | None) -> None:
        if service is None:
            self.services.pop(path, None)
        else:
            self.services[path] = service
        for machine in self.machines.values():
            machine.deliver_later(lambda machine=machine: machine.service_changed(path, service))  # type: ignore[misc]

    def _observe(self, resource: Any, old: Any, new: Any) -> None:
        """The watch of Leases."""
        if resource.id == LEASES:
            before, after = (msgspec.convert(copy.deepcopy(one), Lease) if one else None for one in (old, new))
            for machine in self.machines.values():
                machine.deliver_later(lambda machine=machine: machine.lease_changed(before, after))  # type: ignore[misc]

    async def carry_out(self, machine: Machine, request: Request) -> Answer:
        """One request after the other, as a slow API does it."""
        async with self._busy:
            await asyncio.sleep(self.answer_seconds)
            machine.requests.append(request)
            return await self.api.server.call(request)

    def check_one_advertiser(self) -> None:
        """Note when two nodes answer for one Service."""
        counts = Counter(uid for machine in self.machines.values() for uid in machine.advertiser.answered.values())
        self.conflicts += [f"{uid} at {self.loop.time():.2f}" for uid, count in counts.items() if count > 1]

    def heal(self) -> None:
        for machine in self.machines.values():
            machine.fault, machine.watch_is_cut = "", False
            machine.deliver()

    def advertisers(self, path: str = PATH) -> list[str]:
        return [name for name, machine in self.machines.items() if path in machine.advertiser.advertised]

    async def leases(self) -> dict[str, Lease]:
        found = msgspec.json.decode(await Client(self.api.server.call, "secret").list(LEASES))["items"]
        return {lease.metadata.path: lease for lease in (msgspec.convert(one, Lease) for one in found)}

    async def holder(self, path: str = PATH) -> str:
        found = (await self.leases()).get(path.replace("/", "/load-balancer-"))
        return found.holder if found else ""

    def clear_requests(self) -> None:
        for machine in self.machines.values():
            machine.requests.clear()

    @property
    def writes(self) -> list[Request]:
        """What was written, Events aside."""
        requests = (request for machine in self.machines.values() for request in machine.requests)
        return [r for r in requests if r.method != "GET" and not r.path.endswith("/events")]

    @property
    def held(self) -> dict[str, str]:
        return {path: name for name, machine in self.machines.items() for path in machine.advertiser.advertised}


async def settled(*paths: str, **spec: Any) -> tuple[Cluster, Machine]:
    """A cluster, and the machine that advertises the first load balancer."""
    cluster = await Cluster(**spec).begin(*paths or (PATH,))
    await asyncio.sleep(1)
    (first,) = cluster.advertisers()
    return cluster, cluster.machines[first]


moves = st.tuples(
    st.sampled_from(NAMES),
    st.sampled_from(
        (
            *FAULTS,
            "cut watch",
            "heal",
            "heal",
            "restart",
            "clock back",
            "clock on",
            "exclude",
            "include",
            "come",
            "go",
            "delete heartbeat",
            "wait",
            "wait",
        )
    ),
    st.sampled_from((0.0, 0.05, 0.3, 1.0, 2.6, 3.1)),
)
