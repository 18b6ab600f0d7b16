"""What a node answers on its health port: to whom, and how much at once. An agent on the fake kernel, over real sockets of 127.0.0.1."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import json
import socket
import threading
from collections.abc import AsyncIterator

import msgspec
import pytest

from podplane.agent.health import NodeHealth
from podplane.agent.reports import Reports
from podplane.agent.status import NO_PEERS, Peers, Sources
from podplane.apiserver import identity
from podplane.kernel.namespace import Namespace
from podplane.kubeapi.authorization import Authorizer
from podplane.kubeapi.client import Client
from podplane.kubeapi.supervise import TaskReport
from podplane.model.config import AGENT_PORT, STATUS_PORT
from podplane.servers.http import Call
from podplane.servers.report_thread import LIMIT
from podplane.state.conntrack import Connection
from tests.unit.agent.rig import Rig, cluster, service_of, slice_of, until
from tests.unit.apiserver.test_server import Api

POD = identity.User("system:serviceaccount:default:default", groups=("system:serviceaccounts",))
HEALTH_PORT = 32000


class Node(Rig):
    """A node with its health port, which one can ask; `dumps` counts the dumps of connection tracking that have begun."""

    def __init__(self) -> None:
        super().__init__(("10.96.0.0/16",))
        self.api = Api()
        self.api.tokens.add("agent", identity.node("node1"))
        self.api.tokens.add("reader", identity.component("monitoring"))
        self.api.tokens.add("pod", POD)  # known, and with the right to nothing: RBAC would say the same
        self.gate = threading.Event()
        self.gate.set()
        self.dumps = 0
        self.tasks: dict[str, TaskReport] = {"agent": TaskReport(True, 0, "", 0.0)}

    machine_without: list[str] = []
    """What the machine keeps from the node."""
    peers: Peers = NO_PEERS

    async def serve(self) -> Reports:
        """Start, and make what answers."""
        await self.start(*cluster(1, 2), service_of("web", "10.96.0.1"), slice_of("web", "10.244.1.5"))
        self.kernel_of_agent.connections = self._connections  # type: ignore[method-assign]  # a slow kernel
        self.client = Client(self.api.server.call, "agent")
        contact, machine = lambda: self.client.contact, lambda: self.machine_without
        self.sources = Sources(self.agent, self.caches, lambda: self.tasks, contact, peers=self.peers, machine_without=machine)
        self.reports = Reports(self.sources, Authorizer(self.client, "node1"))
        return self.reports

    @property
    def kernel_of_agent(self):  # type: ignore[no-untyped-def]  # the door of the fake kernel
        return self.agent._kernel

    def _connections(self) -> list[Connection]:
        self.dumps += 1
        assert self.gate.wait(60)
        return []

    async def status(self, path: str, bearer: str = "reader") -> int:
        return (await self.reports.answer(Call(path, bearer))).status


@pytest.mark.parametrize("path", ["/traffic", "/services/default/web", "/nothing"])
async def test_no_login_no_right_and_a_right(path: str) -> None:
    node = Node()
    await node.serve()
    there = 404 if path == "/nothing" else 200
    assert [await node.status(path, token) for token in ("", "guess", "pod", "reader")] == [401, 401, 403, there]
    found = await node.reports.answer(Call(path))
    assert ("www-authenticate", "Bearer") in found.headers and b"token" in found.body
    assert node.reports.requests[path.split("/")[1] if there == 200 else "other", 401] == 3
    assert node.dumps == (1 if path == "/traffic" else 0)


async def test_many_who_ask_for_traffic_do_not_delay_an_add() -> None:
    """The shared pool of threads would be full of dumps, and an ADD that removes or reads something would wait for them."""
    node = Node()
    await node.serve()
    node.gate.clear()
    asked = [asyncio.ensure_future(node.reports.answer(Call("/traffic", "reader"))) for _ in range(40)]
    await until(lambda: node.dumps > 0)
    pods = [node.attachment(f"p{n}") for n in range(20)]
    for pod in pods:
        await node.agent.network.add(pod)
    for pod in pods:
        await node.agent.network.delete(pod)  # a removal of a link happens in the shared pool
    await node.settle()
    assert node.dumps == 1 and not node.gate.is_set()
    statuses = sorted([task.result().status for task in asked if task.done()])
    assert statuses == [429] * (40 - LIMIT)
    node.gate.set()
    assert sorted(reply.status for reply in await asyncio.gather(*asked)) == [200] * LIMIT + [429] * (40 - LIMIT)


async def test_a_service_is_shown_as_the_node_has_it() -> None:
    node = Node()
    await node.serve()
    found = json.loads((await node.reports.answer(Call("/services/default/web", "reader"))).body)
    assert [one["address"] for one in found["frontends"]] == ["10.96.0.1"]
    assert list(found["groups"].values()) == [[["10.244.1.5", 8080]]]
    assert json.loads((await node.reports.answer(Call("/services/default/none", "reader"))).body)["groups"] == {}


# The port.


class LocalNamespace:
    """The process's own namespace, in which all ports are opened on 127.0.0.1 with a number of the kernel's choice."""

    def __init__(self) -> None:
        self.ports: dict[int, int] = {}

    def run(self, function: object, port: int, versions: object, local: bool) -> list[socket.socket]:
        listener = socket.create_server(("127.0.0.1", 0))
        self.ports[port] = listener.getsockname()[1]
        return [listener]


@contextlib.asynccontextmanager
async def served(node: Node) -> AsyncIterator[LocalNamespace]:
    answering, namespace = await node.serve(), LocalNamespace()
    there: Namespace = namespace  # type: ignore[assignment]  # only `run` is used
    server = NodeHealth(node.agent, answering, there, lambda: datetime.datetime.now(datetime.UTC), node._record)
    spec = {"type": "LoadBalancer", "external_traffic_policy": "Local", "health_check_node_port": HEALTH_PORT}
    web = service_of("web", "10.96.0.1")
    server.service_changed(None, msgspec.structs.replace(web, spec=msgspec.structs.replace(web.spec, **spec)))
    task = asyncio.ensure_future(server.run())
    try:
        await until(lambda: namespace.ports.keys() == {AGENT_PORT, STATUS_PORT, HEALTH_PORT})
        yield namespace
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def asked(port: int, path: str, token: str = "") -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    login = f"authorization: Bearer {token}\r\n" if token else ""
    writer.write(f"GET {path} HTTP/1.1\r\nhost: x\r\n{login}\r\n".encode())
    found = await reader.read()
    writer.close()
    return found


@pytest.mark.parametrize(
    ("path", "token", "status"),
    [
        ("/healthz", "", 200),
        ("/livez", "guess", 200),
        ("/traffic", "", 401),
        ("/traffic", "guess", 401),
        ("/traffic", "pod", 403),
        ("/traffic", "reader", 200),
        ("/", "", 401),
    ],
)
async def test_health_is_for_everybody_and_the_rest_is_not(path: str, token: str, status: int) -> None:
    node = Node()
    async with served(node) as namespace:
        assert (await asked(namespace.ports[AGENT_PORT], path, token)).startswith(f"HTTP/1.1 {status} ".encode())
    assert node.reports.requests.total() == 1


async def test_the_health_port_of_a_service_needs_no_login() -> None:
    node = Node()
    async with served(node) as namespace:
        found = await asked(namespace.ports[HEALTH_PORT], "/")
    assert found.startswith(b"HTTP/1.1 503 ") and b'"localEndpoints":0' in found
