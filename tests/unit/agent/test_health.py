"""What a node says of itself: to load balancers, and to who asks how its network is."""

from __future__ import annotations

import datetime
import errno
from collections import Counter
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec
import pytest

from podplane.agent.health import DELETION_TAINT, MAX_BEHIND_SECONDS, NodeHealth, _about_proxy, health_port
from podplane.agent.keys import NodeKey, ServiceKey
from podplane.agent.reports import Reports
from podplane.model.config import AGENT_PORT as PORT
from podplane.model.config import STATUS_PORT, NetworkConfig
from podplane.model.objects import Node, NodeSpec
from podplane.model.service import Endpoint, Service
from podplane.routes import ways
from podplane.servers.http import Call, Reply
from tests.plans import node
from tests.unit.agent.rig import DUAL, Rig, cluster, service_of, slice_of

T = TypeVar("T")
NOW = datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC)


def local(name: str, port: int) -> Service:
    """A load balancer that only nodes with endpoints answer for."""
    one = service_of(name, "10.96.0.1")
    spec = msgspec.structs.replace(one.spec, type="LoadBalancer", external_traffic_policy="Local", health_check_node_port=port)
    return msgspec.structs.replace(one, spec=spec)


class Machine:
    """A namespace in which some ports are taken."""

    def __init__(self) -> None:
        self.taken: set[int] = set()
        self.asked: list[int] = []

    @property
    def fd(self) -> int:
        raise AssertionError("nobody needs it")

    def run(self, function: Callable[..., T], *arguments: Any) -> T:
        port = arguments[0]
        self.asked.append(port)
        if port in self.taken:
            raise OSError(errno.EADDRINUSE, "Address already in use")
        return []  # type: ignore[return-value]  # no sockets

    def close(self) -> None:
        """Nothing."""


class NoReports(Reports):
    """Permits nobody."""

    def __init__(self) -> None:
        self.requests = Counter()

    async def answer(self, call: Call) -> Reply:
        return Reply(401, b"")


class Health:
    """The servers of node1."""

    def __init__(self) -> None:
        self.rig = Rig(("10.96.0.0/16",))
        self.machine, self.reports = Machine(), NoReports()
        self.events: list[tuple[object, str]] = []
        self.health = NodeHealth(self.rig.agent, self.reports, self.machine, lambda: NOW, self._record)

    def _record(self, key: object, message: str, reason: str = "") -> None:
        self.events.append((key, message))

    async def ask(self, path: str, port: int = PORT) -> Reply:
        if port == PORT:
            return await self.health._about_node(Call(path))
        return await self.health._about_service(port, Call(path))


@pytest.fixture
async def health() -> Health:
    made = Health()
    await made.rig.start(*cluster(1))
    return made


def body(reply: Reply) -> Any:
    return msgspec.json.decode(reply.body)


async def test_a_node_is_healthy_while_no_change_waits_for_long(health: Health) -> None:
    assert (await health.ask("/healthz")).status == (await health.ask("/livez")).status == 200
    assert body(await health.ask("/healthz"))["nodeEligible"] is True
    health.rig.put(node(2, DUAL))
    assert health.rig.agent.is_behind and (await health.ask("/livez")).status == 200
    health.rig.now += MAX_BEHIND_SECONDS
    assert (await health.ask("/livez")).status == (await health.ask("/healthz")).status == 503
    updated = datetime.datetime.fromisoformat(body(await health.ask("/livez"))["lastUpdated"])
    assert updated == NOW - datetime.timedelta(seconds=MAX_BEHIND_SECONDS)


async def test_a_node_is_ready_while_pods_can_be_attached(health: Health) -> None:
    reply = await health.ask("/readyz")
    assert (reply.status, reply.body) == (200, b"ok\n")
    health.rig.put(node(2, DUAL))
    health.rig.now += MAX_BEHIND_SECONDS
    assert (await health.ask("/readyz")).body == b"changes wait to be planned\n"
    health.rig.remove(node(1, DUAL))
    reply = await health.ask("/readyz")
    assert (reply.status, reply.body) == (503, b"there is no Node node1 now: pods are attached once it is registered\n")


async def test_a_node_whose_machine_is_not_fit_is_not_ready_and_lives(health: Health) -> None:
    health.health.machine_unready = lambda: "two machines are the Node node1"
    reply = await health.ask("/readyz")
    assert (reply.status, reply.body) == (503, b"two machines are the Node node1\n")
    assert (await health.ask("/livez")).status == 200, "its network goes on"
    health.health.machine_unready = str
    assert (await health.ask("/readyz")).status == 200


async def test_a_node_without_a_route_to_any_other_is_not_ready(health: Health, monkeypatch: pytest.MonkeyPatch) -> None:
    odd, real = {"node2", "node3"}, ways.why_not

    def fails(peer: Node, own: Node, config: NetworkConfig) -> str:
        if peer.metadata.name in odd:
            raise ValueError("MTU of 7")
        return real(peer, own, config)

    monkeypatch.setattr(ways, "why_not", fails)
    for number in (2, 3):
        health.rig.put(node(number, DUAL))
    await health.rig.settle()
    reply = await health.ask("/readyz")
    why = b"no route to another node can be planned: it can't be planned: MTU of 7\n"
    assert (reply.status, reply.body) == (503, why)
    odd.remove("node3")
    health.rig.put(node(3, DUAL), node(4, DUAL))
    await health.rig.settle()
    assert (await health.ask("/readyz")).body == b"ok\n", "one that is odd alone changes nothing"


@pytest.mark.parametrize("how", ["deleted", "leaving", "gone"])
async def test_a_node_that_goes_gets_no_new_connections_but_lives(health: Health, how: str) -> None:
    own = node(1, DUAL)
    if how == "gone":
        health.rig.remove(own)
    elif how == "deleted":
        metadata = msgspec.structs.replace(own.metadata, deletion_timestamp="2026-01-01T00:00:00Z")
        health.rig.put(msgspec.structs.replace(own, metadata=metadata))
    else:
        health.rig.put(tainted(own))
    assert (await health.ask("/healthz")).status == 503
    assert (await health.ask("/livez")).status == 200


def tainted(own: Node) -> Node:
    taint = {"key": DELETION_TAINT, "effect": "NoSchedule"}
    spec = msgspec.convert({**msgspec.to_builtins(own.spec), "taints": [taint]}, NodeSpec)
    return msgspec.structs.replace(own, spec=spec)


async def test_a_service_is_answered_for_where_it_has_ready_endpoints(health: Health) -> None:
    one = local("web", 31000)
    health.health.service_changed(None, one)
    slice_ = slice_of("web", "10.244.1.2")
    here = msgspec.structs.replace(slice_, endpoints=(Endpoint(("10.244.1.2",), node_name="node1"),))
    health.rig.put(one, here)
    await health.rig.settle()
    reply = await health.ask("/", 31000)
    assert reply.status == 200 and ("x-load-balancing-endpoint-weight", "1") in reply.headers
    assert body(reply) == {
        "service": {"namespace": "default", "name": "web"},
        "localEndpoints": 1,
        "serviceProxyHealthy": True,
    }
    elsewhere = msgspec.structs.replace(slice_, endpoints=(Endpoint(("10.244.2.2",), node_name="node2"),))
    health.rig.put(elsewhere)
    await health.rig.settle()
    assert (await health.ask("/", 31000)).status == 503


async def test_all_but_its_health_is_asked_of_the_reports_and_counted_with_them(health: Health) -> None:
    assert (await health.ask("/traffic")).status == 401
    await health.ask("/livez")
    assert dict(health.reports.requests) == {("livez", 200): 1}


async def test_ports_come_and_go_with_services_and_a_taken_one_is_told_of(health: Health) -> None:
    one = local("web", 31000)
    health.health.service_changed(None, one)
    health.machine.taken = {31000, PORT}
    assert not await health.health._serve_all()
    assert [key for key, _ in health.events] == [NodeKey("node1"), ServiceKey("default/web")]
    assert all("Address already in use" in message for _, message in health.events)
    health.machine.taken = set()
    assert await health.health._serve_all()
    assert health.health._servers.keys() == {PORT, STATUS_PORT, 31000}
    moved = local("web", 31001)
    health.health.service_changed(one, moved)
    assert await health.health._serve_all()
    assert health.health._servers.keys() == {PORT, STATUS_PORT, 31001}
    health.machine.asked.clear()
    health.health.service_changed(moved, None)
    assert await health.health._serve_all()
    assert health.health._servers.keys() == {PORT, STATUS_PORT} and health.machine.asked == []
    for server in health.health._servers.values():
        server.close()


@pytest.mark.parametrize(
    ("path", "expected"),
    [("/proxyMode", (200, b"nftables")), ("/healthz", (200, b"ok")), ("/x", (404, b"404 page not found\n"))],
)
async def test_who_looks_for_kube_proxys_status_finds_how_services_are_served(path: str, expected: tuple[int, bytes]) -> None:
    reply = await _about_proxy(Call(path))
    assert (reply.status, reply.body) == expected


def test_only_local_load_balancers_have_a_port() -> None:
    assert health_port(local("web", 31000)) == 31000
    assert health_port(service_of("web", "10.96.0.1")) == 0
    theirs = msgspec.structs.replace(local("web", 31000).metadata, labels={"service.kubernetes.io/service-proxy-name": "x"})
    assert health_port(msgspec.structs.replace(local("web", 31000), metadata=theirs)) == 0
