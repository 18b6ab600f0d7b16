"""A cluster in memory: the real API server and the real controllers, a kubelet that does as the test says, and a clock that it moves."""

from __future__ import annotations

import datetime
from typing import Any

import msgspec

from podplane.apiserver.controllers.kubernetes_service import Published
from podplane.apiserver.controllers.stored import StoredView
from podplane.apiserver.controllers.table import controllers
from podplane.apiserver.identity import controller
from podplane.apiserver.server import utc_now
from podplane.controllers.manager import Manager
from podplane.kubeapi.client import Client
from podplane.kubeapi.events import Recorder
from podplane.model.config import NODE_GRACE_SECONDS
from podplane.model.objects import Node
from podplane.runtime.heartbeat import Heartbeat
from tests.unit.apiserver.test_server import PODS, Api, Object

ALLOCATABLE = {"cpu": "4", "memory": "8Gi", "pods": "110"}
READY = [{"type": "Ready", "status": "True"}]
APPS = "/apis/apps/v1/namespaces/default"


class Cluster(Api):
    """An API server whose controllers run when the test says so."""

    def __init__(self, nodes: int = 3, published: Published | None = None, node_grace: float = NODE_GRACE_SECONDS) -> None:
        super().__init__()
        self.nodes = nodes
        self.began, self.ahead = utc_now(), datetime.timedelta()
        self.asleep = 0.0
        self.silent: set[str] = set()
        self.hearts: dict[str, Heartbeat] = {}
        self.server._writer._now = self.server._deleter._now = self.now
        view = StoredView(self.store, self.now, lambda: self.now().timestamp() - self.asleep, node_grace)
        self.view = view
        table = controllers("AUTHORITY", published=published)
        clients = {}
        for one in table:
            self.tokens.add(one.name, controller(one.name))
            client = Client(self.server.call, one.name)
            clients[one.name] = (client, Recorder(client, one.name, self.now))
        self.manager = Manager(table, view, clients, self.server.transaction)
        self.server.observe(view.observe)
        self.server.observe(self.manager.observe)
        self.manager.begin()

    def now(self) -> datetime.datetime:
        """Only tests make it go on: a slow machine changes nothing."""
        return self.began + self.ahead

    async def begin(self) -> Cluster:
        """With its nodes."""
        for number in range(1, self.nodes + 1):
            await self.add_node(f"node{number}")
        await self.settle()
        return self

    async def add_node(self, name: str, labels: dict[str, str] | None = None, **spec: Any) -> None:
        labels = {"kubernetes.io/hostname": name, **(labels or {})}
        status = {"conditions": READY, "allocatable": ALLOCATABLE}
        manifest = {"metadata": {"name": name, "labels": labels}, "spec": spec, "status": status}
        node = await self("POST", "/api/v1/nodes", manifest)
        self.tokens.add(name, controller(name))
        self.hearts[name] = Heartbeat(Client(self.server.call, name), msgspec.convert(node, Node), self.now)

    async def settle(self, seconds: float = 0) -> None:
        """Let time pass, and everything be decided, whatever rests. Nodes are heard of, but for the silent ones."""
        self.ahead += datetime.timedelta(seconds=seconds)
        if seconds:
            for name in self.hearts.keys() - self.silent:
                await self.beat(name)
            for task in list(self.manager._due):
                self.manager._queue[task] = None
        await self.manager.drain()
        self.manager._queue |= dict.fromkeys(self.manager._resting.keys() & self.manager._due.keys())
        await self.manager.drain()

    # A kubelet.

    async def beat(self, name: str) -> None:
        """A node tells that it lives."""
        node = self.view.get("nodes", ("", name))
        if node is not None:
            self.hearts[name].node_changed(msgspec.convert(node, Node))
            await self.hearts[name].beat()

    async def pods(self, **labels: str) -> list[Object]:
        """The pods that are there, by name."""
        found = (await self("GET", PODS))["items"]
        return [pod for pod in found if labels.items() <= pod["metadata"].get("labels", {}).items()]

    async def set_status(self, pod: Object, phase: str, ready: bool) -> None:
        name, now = pod["metadata"]["name"], self.now().strftime("%Y-%m-%dT%H:%M:%SZ")
        number = sum(name.encode()) % 250
        condition = {"type": "Ready", "status": "True" if ready else "False", "lastTransitionTime": now}
        kept = [c for c in pod["status"].get("conditions", ()) if c["type"] != "Ready"]
        status: Object = {"phase": phase, "conditions": [*kept, condition], "podIP": f"10.244.0.{number}"}
        status["podIPs"] = [{"ip": status["podIP"]}]
        await self("PATCH", f"{PODS}/{name}/status", {"status": status})

    async def kubelet(self) -> None:
        """Pods that have a node become ready, those that are deleted go; until nothing changes any more."""
        for _ in range(200):
            await self.settle()
            changed = False
            for pod in await self.pods():
                if "deletionTimestamp" in pod["metadata"] and pod["metadata"].get("deletionGracePeriodSeconds"):
                    await self("DELETE", f"{PODS}/{pod['metadata']['name']}", {"gracePeriodSeconds": 0})
                    changed = True
                elif pod["spec"].get("nodeName") and pod["status"]["phase"] == "Pending":
                    await self.set_status(pod, "Running", True)
                    changed = True
            if not changed:
                return
        raise AssertionError("it never settles")

    async def end(self, name: str, phase: str) -> None:
        """A pod ends by itself."""
        await self.set_status(await self("GET", f"{PODS}/{name}"), phase, False)
        await self.settle()

    async def events(self, reason: str) -> list[str]:
        found = (await self("GET", "/api/v1/namespaces/default/events"))["items"]
        return [event["message"] for event in found if event["reason"] == reason]


def workload(name: str, replicas: int = 1, **more: Any) -> Object:
    """A Deployment, ReplicaSet, DaemonSet or StatefulSet."""
    labels = {"app": name}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "main", "image": "podplane/echo"}]}}
    spec = {"selector": {"matchLabels": labels}, "template": template, "replicas": replicas, **more}
    return {"metadata": {"name": name}, "spec": spec}


def image(text: str) -> Object:
    """A patch that changes the template."""
    return {"spec": {"template": {"spec": {"containers": [{"name": "main", "image": text}]}}}}
