"""A node offers its name server by slices of its own: written when they change, put right when somebody changes them, and never others'."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from podplane.agent import node as node_module
from podplane.agent.keys import Key
from podplane.agent.name_server import SLICES, ForeignSlice, NameServerEndpoints
from podplane.agent.node import NodeAgent
from podplane.agent.peer_plans import PeerPlans
from podplane.apiserver.server import utc_now
from podplane.dns.endpoints import MANAGED_BY, NAMESPACE, PODPLANE
from podplane.dns.node import SERVICE, TABLE
from podplane.dns.settings import DnsSettings
from podplane.kubeapi.client import Client
from podplane.kubeapi.errors import ApiError, NotFound
from podplane.kubeapi.informer import Informer
from podplane.kubeapi.messages import Answer, Request, Response
from podplane.model.objects import Node
from podplane.model.service import SERVICE_NAME, EndpointSlice
from podplane.model.view import View
from tests.plans import agent_settings, node
from tests.unit.agent.rig import DUAL, caches_of, cluster
from tests.unit.agent.test_node import FakeHost, nothing_to_serve, until
from tests.unit.apiserver.test_server import Api

NAMES = ["kube-dns-node1-ipv4", "kube-dns-node1-ipv6"]


def registered(uid: str, versions: tuple[int, ...] = DUAL) -> Node:
    """node1 with a uid, as the API gives one."""
    one = node(1, versions)
    return msgspec.structs.replace(one, metadata=msgspec.structs.replace(one.metadata, uid=uid))


class Rig:
    """The slices of node1 over a real API; its cache is read from it by `look`, so that it may lag."""

    def __init__(self) -> None:
        self.api = Api()
        self.writes: list[str] = []
        self.events: list[tuple[str, str]] = []
        self.is_away = False
        self.stored: dict[str, EndpointSlice] = {}
        self.client = Client(self._handle, "secret")
        self.uid = self._register()
        view = View("node1", {"node1": registered(self.uid)}, slices={SERVICE: self.stored})
        self.endpoints = NameServerEndpoints(view, self.client, self._record, True, True)

    def _register(self) -> str:
        """The node is in the API: what has an owner that is not there is collected."""
        self.api.server.ensure("/api/v1/nodes", {"metadata": {"name": "node1"}})
        return str(self.api.store.all("nodes")[0].object["metadata"]["uid"])

    async def _handle(self, request: Request) -> Answer:
        if self.is_away:
            raise ApiError(503, "ServiceUnavailable", "the API can't be reached")
        answer = await self.api.server.handle(request)
        is_written = request.method != "GET" and isinstance(answer, Response) and answer.status < 300
        if is_written and "/endpointslices" in request.path:
            self.writes.append(f"{request.method} {request.path.rpartition('/')[2]}")
        return answer

    def _record(self, key: Key, message: str, reason: str = "") -> None:
        self.events.append((key.path, message))

    async def look(self) -> None:
        """The watch has shown everything."""
        informer = Informer(self.client, SLICES, EndpointSlice)
        await informer.sync()
        self.stored.clear()
        self.stored.update({path: one for path, one in informer.objects.items() if one.service == SERVICE})

    async def turn(self) -> list[str]:
        """What is written now."""
        self.writes.clear()
        await self.endpoints.reconcile()
        return self.writes

    async def get(self, name: str) -> dict[str, Any]:
        return await self.client.get(SLICES, NAMESPACE, name)


@pytest.fixture
def rig() -> Rig:
    return Rig()


async def test_one_slice_for_each_family_is_written_once(rig: Rig) -> None:
    assert await rig.turn() == ["POST endpointslices", "POST endpointslices"]
    assert await rig.turn() == [], "the cache lags: the API is asked, and nothing is written"
    await rig.look()
    assert await rig.turn() == []
    stored = await rig.get(NAMES[1])
    assert stored["endpoints"] == [
        {
            "addresses": ["fd00:10:244:1::1"],
            "conditions": {"ready": True, "serving": True, "terminating": False},
            "hints": {"forNodes": [{"name": "node1"}]},
            "nodeName": "node1",
        }
    ]
    assert [(port["name"], port["protocol"], port["port"]) for port in stored["ports"]] == [
        ("dns", "UDP", 53),
        ("dns-tcp", "TCP", 53),
    ]
    assert [(one["kind"], one["name"]) for one in stored["metadata"]["ownerReferences"]] == [("Node", "node1")]


async def test_a_change_is_one_write_of_each_slice(rig: Rig) -> None:
    await rig.turn()
    await rig.look()
    rig.endpoints.answers = False
    assert await rig.turn() == [f"PATCH {name}" for name in NAMES]
    assert (await rig.get(NAMES[0]))["endpoints"][0]["conditions"] == {"ready": False, "serving": False, "terminating": False}
    rig.endpoints.answers = True
    assert await rig.turn() == [], "the cache still has what was before: it tells when it knows better"
    await rig.look()
    assert await rig.turn() == [f"PATCH {name}" for name in NAMES]


async def test_one_that_ends_serves_what_is_asked_yet(rig: Rig) -> None:
    await rig.turn()
    await rig.look()
    assert rig.endpoints.is_offered
    rig.endpoints.answers, rig.endpoints.ends = False, True
    assert await rig.turn() == [f"PATCH {name}" for name in NAMES]
    conditions = (await rig.get(NAMES[0]))["endpoints"][0]["conditions"]
    assert conditions == {"ready": False, "serving": True, "terminating": True}
    await rig.look()
    assert not rig.endpoints.is_offered and rig.endpoints.is_in_use
    rig.endpoints.ends = False
    await rig.turn()
    await rig.look()
    assert not rig.endpoints.is_in_use


async def test_nothing_is_written_before_it_is_known_whether_it_answers(rig: Rig) -> None:
    rig.endpoints.answers = None
    assert await rig.turn() == []


async def test_what_others_change_or_delete_is_put_right(rig: Rig) -> None:
    await rig.turn()
    stored = await rig.get(NAMES[0])
    await rig.client.patch(SLICES, NAMESPACE, NAMES[0], {"endpoints": []}, uid=stored["metadata"]["uid"])
    await rig.client.delete(SLICES, NAMESPACE, NAMES[1])
    await rig.look()
    assert await rig.turn() == [f"PATCH {NAMES[0]}", "POST endpointslices"]
    assert (await rig.get(NAMES[0]))["endpoints"][0]["addresses"] == ["10.244.1.1"]


async def test_what_somebody_adds_to_the_labels_stays(rig: Rig) -> None:
    await rig.turn()
    stored = await rig.get(NAMES[0])
    uid = stored["metadata"]["uid"]
    await rig.client.patch(SLICES, NAMESPACE, NAMES[0], {"metadata": {"labels": {"team": "red"}}}, uid=uid)
    await rig.look()
    assert await rig.turn() == []


async def test_a_slice_that_was_replaced_meanwhile_is_written_anew(rig: Rig) -> None:
    await rig.turn()
    await rig.look()
    await rig.client.delete(SLICES, NAMESPACE, NAMES[0])
    rig.endpoints.answers = False
    assert await rig.turn() == ["POST endpointslices", f"PATCH {NAMES[1]}"]


@pytest.mark.parametrize("labels", [{}, {SERVICE_NAME: "kube-dns"}, {SERVICE_NAME: "kube-dns", MANAGED_BY: "somebody"}])
async def test_a_foreign_slice_of_the_name_stays_and_is_told(rig: Rig, labels: dict[str, str]) -> None:
    manifest = {"metadata": {"name": NAMES[0], "labels": labels}, "addressType": "IPv4", "endpoints": []}
    theirs = await rig.client.create(SLICES, NAMESPACE, manifest)
    await rig.look()
    rig.writes.clear()
    with pytest.raises(ForeignSlice, match=NAMES[0]):
        await rig.endpoints.reconcile()
    assert rig.writes == ["POST endpointslices"], "the other family's"
    assert await rig.get(NAMES[0]) == theirs
    running = asyncio.create_task(rig.endpoints.run())
    await until(lambda: bool(rig.events))
    running.cancel()
    assert rig.events == [("node1", rig.events[0][1])] and f"delete endpointslice {NAMES[0]}" in rig.events[0][1]
    await rig.client.delete(SLICES, NAMESPACE, NAMES[0])
    await rig.look()
    assert await rig.turn() == ["POST endpointslices"]


async def test_a_node_without_a_name_server_takes_its_own_slices_away_and_no_others(rig: Rig) -> None:
    await rig.turn()
    await rig.client.delete(SLICES, NAMESPACE, NAMES[0])
    foreign = {"metadata": {"name": NAMES[0], "labels": {SERVICE_NAME: "kube-dns"}}, "addressType": "IPv4", "endpoints": []}
    await rig.client.create(SLICES, NAMESPACE, foreign)
    await rig.look()
    rig.endpoints.is_served = False
    assert await rig.turn() == [f"DELETE {NAMES[1]}"]
    assert await rig.turn() == [], "the cache lags"
    await rig.get(NAMES[0])
    with pytest.raises(NotFound):
        await rig.get(NAMES[1])


async def test_a_node_that_was_told_to_have_no_name_server_any_more_does_not_wait_to_hear_of_it(rig: Rig) -> None:
    await rig.turn()
    await rig.look()
    rig.endpoints.answers, rig.endpoints.is_served = None, False
    assert await rig.turn() == [f"DELETE {name}" for name in NAMES]


async def test_a_family_that_the_node_has_not_any_more_loses_its_slice(rig: Rig) -> None:
    await rig.turn()
    await rig.look()
    rig.endpoints.view.nodes = {"node1": registered(rig.uid, (6,))}
    assert await rig.turn() == [f"DELETE {NAMES[0]}"]


async def test_an_api_that_is_away_is_asked_again(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("podplane.kubeapi.retry.Backoff.delay", lambda self, now: 0.001)
    rig.is_away = True
    running = asyncio.create_task(rig.endpoints.run())
    await asyncio.sleep(0.01)
    assert not rig.writes and not running.done()
    rig.is_away = False
    await until(lambda: len(rig.writes) == 2)
    running.cancel()


def test_slices_are_told_apart_by_name_and_namespace(rig: Rig) -> None:
    def of(namespace: str, name: str) -> EndpointSlice:
        return msgspec.convert({"metadata": {"name": name, "namespace": namespace}}, EndpointSlice)

    about: Callable[[EndpointSlice], bool] = rig.endpoints.is_about
    assert about(of("kube-system", NAMES[0])) and about(of("kube-system", NAMES[1]))
    assert not about(of("default", NAMES[0])) and not about(of("kube-system", "kube-dns-node10-ipv4"))


class OfNode:
    """A node's parts on a fake machine, with a name server; and a peer whose server answers."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("podplane.agent.health.NodeHealth._serve_all", nothing_to_serve)
        self.rig, self.host = Rig(), FakeHost()
        settings = msgspec.structs.replace(agent_settings(DUAL), dns=DnsSettings(ips=("10.96.0.10",)))
        self.caches = caches_of(registered(self.rig.uid), *cluster(2))
        self.peer(ready=True)
        self.node = NodeAgent("node1", self.host, settings, self.rig.client, self.caches, PeerPlans(), lambda *_: None, utc_now)
        self.caches.subscribe(lambda kind, old, new: self.node.changed(kind, old, new))
        self.host.remembers = lambda: self.node.agent.network.attached if self.node.has_agent else ()

    def peer(self, *, ready: bool) -> None:
        manifest = {
            "metadata": {
                "name": "kube-dns-node2-ipv4",
                "namespace": NAMESPACE,
                "labels": {SERVICE_NAME: "kube-dns", MANAGED_BY: PODPLANE},
            },
            "endpoints": [{"addresses": ["10.244.2.1"], "nodeName": "node2", "conditions": {"ready": ready}}],
        }
        self.caches.slices.set(msgspec.convert(manifest, EndpointSlice))

    @property
    def has_address(self) -> bool:
        dump = self.host.machine.objects.dump()
        assert TABLE[1] in dump, "the rules stay: they ask whether the address is there"
        return "10.96.0.10/32" in dump


async def test_the_address_is_there_from_the_start_and_goes_while_only_others_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    one = OfNode(monkeypatch)
    await one.node.start()
    one.node.run()
    assert one.has_address and not one.rig.writes
    one.node.name_server_changed(answers=True)
    await until(lambda: len(one.rig.writes) == 2)
    one.node.name_server_changed(answers=False)
    await until(lambda: not one.has_address)
    one.peer(ready=False)
    await until(lambda: one.has_address)
    one.peer(ready=True)
    await until(lambda: not one.has_address)
    one.node.name_server_changed(answers=True)
    await until(lambda: one.has_address)
    await one.node.close()


async def test_where_the_dns_is_others_nothing_of_it_is_on_the_node_nor_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    one = OfNode(monkeypatch)
    one.node.names_changed(may_answer=False)
    await one.node.start()
    one.node.run()
    one.node.name_server_changed(answers=True)
    await asyncio.sleep(0.01)
    assert TABLE[1] not in one.host.machine.objects.dump() and not one.rig.writes
    one.node.names_changed(may_answer=True)
    await until(lambda: len(one.rig.writes) == 2 and TABLE[1] in one.host.machine.objects.dump())
    assert one.has_address
    await one.rig.look()
    one.caches.slices.set(one.rig.stored[f"{NAMESPACE}/{NAMES[0]}"])
    one.node.names_changed(may_answer=False)
    await until(lambda: f"DELETE {NAMES[0]}" in one.rig.writes and TABLE[1] not in one.host.machine.objects.dump())
    await one.node.close()


async def test_peers_are_told_of_a_server_that_is_away_before_its_pods_are_led_to_them(monkeypatch: pytest.MonkeyPatch) -> None:
    assert node_module.WITHDRAWAL_SECONDS < 0.1, "pods wait no longer than that"
    one = OfNode(monkeypatch)
    await one.node.start()
    one.node.run()
    monkeypatch.setattr(node_module, "WITHDRAWAL_SECONDS", 3600.0)
    one.node.name_server_changed(answers=False)
    await until(lambda: len(one.rig.writes) == 2)
    assert [(await one.rig.get(name))["endpoints"][0]["conditions"]["ready"] for name in NAMES] == [False, False]
    assert one.has_address
    monkeypatch.setattr(node_module, "WITHDRAWAL_SECONDS", 0.0)
    one.node.name_server_changed(answers=False)
    await until(lambda: not one.has_address)
    await one.node.close()


async def test_pods_are_led_elsewhere_once_the_service_does_not_lead_back_to_the_node(monkeypatch: pytest.MonkeyPatch) -> None:
    one = OfNode(monkeypatch)
    await one.node.start()
    one.node.run()
    one.node.name_server_changed(answers=True)
    await until(lambda: len(one.rig.writes) == 2)
    await one.rig.look()
    for slice_ in one.rig.stored.values():
        one.caches.slices.set(slice_)
    monkeypatch.setattr(node_module, "WITHDRAWAL_SECONDS", 0.001)
    monkeypatch.setattr(node_module, "WITHDRAWAL_MAX_SECONDS", 3600.0)
    one.node.name_server_changed(answers=False)
    await until(lambda: len(one.rig.writes) == 4)
    await asyncio.sleep(0.02)
    assert one.has_address, "of what was written nothing was seen yet"
    await one.rig.look()
    for slice_ in one.rig.stored.values():
        one.caches.slices.set(slice_)
    await until(lambda: not one.has_address)
    await one.node.close()


async def test_a_server_that_is_back_at_once_withdraws_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    one = OfNode(monkeypatch)
    await one.node.start()
    monkeypatch.setattr(node_module, "WITHDRAWAL_SECONDS", 0.0)
    one.node.name_server_changed(answers=False)
    one.node.name_server_changed(answers=True)
    await asyncio.sleep(0.01)
    assert one.node.agent.view.has_name_server
    await one.node.close()


async def test_an_agent_that_restarts_knows_whether_the_server_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    one = OfNode(monkeypatch)
    await one.node.start()
    one.node.run()
    one.node.name_server_changed(answers=False)
    await until(lambda: not one.has_address)
    started = await one.node.restart()
    assert started.changes == 0 and not one.has_address and one.node.endpoints.answers is False
    await one.node.close()
