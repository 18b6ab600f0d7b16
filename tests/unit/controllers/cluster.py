"""A cluster in memory whose control plane gives no blocks and no addresses: controllers do that, over watches as on a real one."""

from __future__ import annotations

import asyncio
import datetime
from typing import Any

from podplane.controllers import load_balancer, node_block
from podplane.controllers.decision import Cluster, ControllerOf
from podplane.controllers.manager import Manager
from podplane.controllers.node_blocks import BlockRange, NodeBlocks
from podplane.controllers.watched import Watched
from podplane.kubeapi.client import Client
from podplane.kubeapi.events import Recorder
from podplane.services import pools
from podplane.state.value import network_of
from tests.unit.apiserver.test_server import Api, Object

NODES, SERVICES = "/api/v1/nodes", "/api/v1/namespaces/default/services"
EVENTS = "/api/v1/namespaces/default/events"
POOLS, RANGES = "/apis/podplane.dev/v1/loadbalancerpools", "/apis/networking.k8s.io/v1/servicecidrs"
CONTROLLERS: tuple[ControllerOf[Cluster], ...] = (
    node_block.CONTROLLER,
    load_balancer.CONTROLLER,
    load_balancer.POOL_CONTROLLER,
)


def now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


class Watching:
    """Controllers of an API, which follow it from `begin` on."""

    def __init__(self, api: Api, *ranges: tuple[str, int], refusal: str = "") -> None:
        self.api = api
        client = Client(api.server.handle, "secret")
        self.time = 1000.0
        found = tuple(BlockRange(network_of(text), length) for text, length in ranges)
        self.watched = Watched(NodeBlocks(found, refusal, clock=lambda: self.time), clock=lambda: self.time)
        self.informers = list(self.watched.informers(client))
        clients = {one.name: (client, Recorder(client, "test", now, one_of_many=True)) for one in CONTROLLERS}
        self.manager = Manager(CONTROLLERS, self.watched, clients, written=self.watched.written)

    async def begin(self) -> Watching:
        for one in self.informers:
            await one.sync()
        self.watched.observer = self.manager.observe
        self.manager.begin()
        return self

    async def settle(self, seconds: float = 3.0) -> None:
        """See what there is, decide, and again once some time has passed."""
        for passes in (0.0, seconds):
            self.time += passes
            for one in self.informers:
                await one.sync()
            for task in list(self.manager._due):
                self.manager._queue[task] = None
            await self.manager.drain()
        await asyncio.sleep(0)


async def api_of(*service_cidrs: str) -> Api:
    """An API whose server gives no blocks, with pools, and ServiceCIDRs."""
    api = Api(cidrs=())
    await api("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", pools.definition())
    for number, cidr in enumerate(service_cidrs):
        await api("POST", RANGES, {"metadata": {"name": f"range{number}"}, "spec": {"cidrs": [cidr]}})
    return api


async def add_node(api: Api, name: str, ip: str = "", *blocks: str) -> None:
    addresses = [{"type": "InternalIP", "address": ip}] if ip else []
    spec = {"podCIDRs": list(blocks), "podCIDR": blocks[0]} if blocks else {}
    await api("POST", NODES, {"metadata": {"name": name}, "spec": spec, "status": {"addresses": addresses}})


async def blocks_of(api: Api) -> dict[str, list[str]]:
    items = (await api("GET", NODES))["items"]
    assert all(one["spec"].get("podCIDR") == next(iter(one["spec"].get("podCIDRs", ())), None) for one in items)
    return {one["metadata"]["name"]: one["spec"].get("podCIDRs", []) for one in items}


async def balance(api: Api, name: str) -> None:
    spec = {"type": "LoadBalancer", "ports": [{"port": 80}]}
    await api("POST", SERVICES, {"metadata": {"name": name}, "spec": spec})


async def addresses_of(api: Api, name: str) -> list[str]:
    ingress = (await api("GET", f"{SERVICES}/{name}"))["status"]["loadBalancer"].get("ingress", [])
    return [one["ip"] for one in ingress]


async def said(api: Api, name: str) -> list[tuple[str, str]]:
    """(reason, message) of the warnings about an object."""
    found: list[Any] = (await api("GET", EVENTS))["items"]
    return [
        (one["reason"], one["message"]) for one in found if one["involvedObject"]["name"] == name and one["type"] == "Warning"
    ]


def service(name: str, version: int, *ips: str, uid: str = "u") -> Object:
    """As a watch has it."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "default", "uid": uid, "resourceVersion": str(version)},
        "spec": {"type": "LoadBalancer", "ipFamilies": ["IPv4"]},
        "status": {"loadBalancer": {"ingress": [{"ip": ip} for ip in ips]}},
    }
