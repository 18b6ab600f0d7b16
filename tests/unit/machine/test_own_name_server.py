"""The node's own name server: where names are answered by it, and what is done where they are not."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest

from podplane.dns.settings import DnsSettings
from podplane.kernel.interpreter import Interpreter
from podplane.kubeapi.access import Access
from podplane.kubeapi.supervise import Supervisor
from podplane.machine import own_name_server as module
from podplane.machine.own_name_server import OwnNameServer
from podplane.model.service import Service
from podplane.nameserver import bound as sockets
from podplane.nameserver import control, keeper
from tests.plans import agent_settings, node
from tests.unit.agent.rig import caches_of
from tests.unit.nameserver import ports

IPS = ("127.0.0.1",)


def service(**spec: object) -> Service:
    return msgspec.convert(
        {"metadata": {"namespace": "kube-system", "name": "kube-dns"}, "spec": {"clusterIPs": IPS, **spec}}, Service
    )


class FakeAgent:
    """In the place of a `NodeAgent`: what it was told."""

    name = "node1"

    def __init__(self) -> None:
        self.told: list[str] = []
        self.is_name_server_offered = self.is_name_server_in_use = False

    def name_server_changed(self, *, answers: bool, ends: bool = False) -> None:
        word = "ends" if ends else f"answers {answers}"
        if word not in self.told[-1:]:
            self.told.append(word)

    def names_changed(self, *, may_answer: bool) -> None:
        word = f"may answer {may_answer}"
        if word not in self.told[-1:]:
            self.told.append(word)


class Here:
    """A namespace that is the present one."""

    fd = 0

    def run(self, function: Callable[..., object], *arguments: object) -> object:
        return function(*arguments)


class NoProcess(Interpreter):
    """One that nobody can signal."""

    def kill(self) -> None:
        if not self.exited.done():
            self.exited.set_result(0)

    @property
    def is_stopped(self) -> bool:
        return False


class Rig:
    """An own name server whose process is this test: it reads the orders and answers."""

    def __init__(self, **dns: Any) -> None:
        self.caches = caches_of(node(1, (4,)))
        self.agent, self.said = FakeAgent(), list[str]()
        self.orders: list[control.Order] = []
        self.ends: list[socket.socket] = []
        self.supervisor = Supervisor()
        self.settings = msgspec.structs.replace(agent_settings((4,)), dns=DnsSettings(ips=IPS, **dns))
        access = Access("192.0.2.1", 6443, token_file="/token")
        self.server = OwnNameServer(
            self.agent,
            self.settings,
            access,
            self.caches,
            Here(),
            self._start,
            self.said.append,  # type: ignore[arg-type]  # what is used of them
        )

    def _start(self) -> Interpreter:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.ends.append(theirs)
        theirs.setblocking(False)
        return NoProcess(0, ours, asyncio.get_running_loop().create_future())

    def heard(self, kind: type[control.Order]) -> list[Any]:
        """The orders of this kind so far."""
        if self.ends:
            while True:
                try:
                    order, fds = control.receive(self.ends[-1])
                except BlockingIOError:
                    break
                for fd in fds:
                    os.close(fd)
                if order is None:
                    break
                self.orders.append(order)
        return [one for one in self.orders if isinstance(one, kind)]

    async def until(self, condition: Callable[[], object]) -> None:
        for _ in range(4000):
            if condition():
                return
            await asyncio.sleep(0.005)
        raise AssertionError((self.agent.told, self.said, self.orders))

    async def end(self) -> None:
        await self.supervisor.close()
        for one in self.ends:
            one.close()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    ports.free(monkeypatch)
    monkeypatch.setattr(module, "gateway_of", lambda block: "127.0.0.2")
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.01)
    monkeypatch.setattr(keeper, "LINGER_SECONDS", 0.0)
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.001)
    monkeypatch.setattr(module, "ANSWERED_SECONDS", 0.0)
    monkeypatch.setattr(module, "TOLD_LOOKS", 100_000)
    yield


@pytest.fixture(autouse=True)
def nodes_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """The addresses of the node are ones that this machine has."""
    monkeypatch.setattr("podplane.model.objects.Node.internal_ips", property(lambda one: ("127.0.0.3",)))


async def serving(rig: Rig) -> None:
    await rig.server.begin(rig.supervisor)
    await rig.until(lambda: rig.heard(control.Open))
    control.send(rig.ends[-1], control.Ready())
    await rig.server.settled()


async def test_pods_are_led_to_it_once_it_answers_and_it_ends_after_they_are_led_elsewhere() -> None:
    rig = Rig()
    rig.caches.services.set(service())
    await serving(rig)
    assert rig.agent.told == ["answers False", "may answer True", "answers True"] and not rig.server.problems
    (begin,) = rig.heard(control.Begin)
    assert (begin.access.token_file, begin.ips, begin.domain) == ("/token", IPS, "cluster.local")
    assert {*IPS, *rig.settings.network.cluster_cidrs} <= {*begin.networks}
    assert rig.heard(control.Hosts) == [control.Hosts(come=("127.0.0.3",))]
    (opened,) = rig.heard(control.Open)
    assert opened.protocols == ("http", "udp", "tcp", "udp", "tcp"), "the node's address; that of the DNS, and the bridge's"
    rig.agent.is_name_server_offered = rig.agent.is_name_server_in_use = True
    stopping = asyncio.ensure_future(rig.server.stop())
    await rig.until(lambda: rig.agent.told[3:] == ["ends"])
    await asyncio.sleep(0.02)
    assert not rig.heard(control.Close), "other nodes still ask it"
    rig.agent.is_name_server_offered = False
    await rig.until(lambda: rig.agent.told[3:] == ["ends", "answers False"])
    await asyncio.sleep(0.02)
    assert not rig.heard(control.Close), "clients may go on that asked it before"
    rig.agent.is_name_server_in_use = False
    await stopping
    await rig.until(lambda: rig.heard(control.Close))
    rig.caches.services.set(service(selector={"k8s-app": "kube-dns"}))
    await asyncio.sleep(0.02)
    assert len(rig.agent.told) == 5, "it is ending"
    await rig.end()


async def test_a_dns_of_others_is_left_alone_until_it_goes() -> None:
    rig = Rig()
    rig.caches.services.set(service(selector={"k8s-app": "kube-dns"}))
    await rig.server.begin(rig.supervisor)
    await rig.server.settled()
    assert rig.agent.told == ["answers False", "may answer False"]
    assert len(rig.said) == 1 and "dns.takeOver" in rig.said[0] and rig.server.problems == rig.said
    assert not rig.heard(control.Open)
    rig.caches.services.set(service())
    await rig.until(lambda: rig.heard(control.Open))
    assert "may answer True" in rig.agent.told and not rig.server.problems
    rig.caches.services.set(service(selector={"k8s-app": "kube-dns"}))
    await rig.until(lambda: rig.heard(control.Close))
    assert rig.agent.told[-2:] == ["ends", "answers False"]
    assert len(rig.said) == 2
    await rig.end()


async def test_one_that_was_told_to_takes_over() -> None:
    rig = Rig(take_over=True)
    rig.caches.services.set(service(selector={"k8s-app": "kube-dns"}))
    await serving(rig)
    assert rig.agent.told[-1] == "answers True" and not rig.said
    await rig.end()


async def test_a_port_that_is_taken_is_said_once_and_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig()
    taken = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    taken.bind((IPS[0], 0))
    monkeypatch.setattr(sockets, "PORT", taken.getsockname()[1])
    await rig.server.begin(rig.supervisor)
    await asyncio.sleep(0.03)
    assert len(rig.said) == 1 and "another program" in rig.said[0] and rig.agent.told[-1] == "may answer False"
    taken.close()
    await rig.until(lambda: rig.heard(control.Open))
    assert rig.agent.told[-1] == "may answer True" and not rig.server.problems
    await rig.end()


def test_a_right_that_is_missing_is_named() -> None:
    assert "CAP_NET_BIND_SERVICE" in module._refused(OSError(errno.EACCES, "Permission denied"))


async def test_other_networks_are_told_to_a_new_process() -> None:
    rig = Rig()
    await serving(rig)
    rig.heard(control.Begin)
    rig.server.follow(rig.settings)
    wider = msgspec.structs.replace(rig.settings.network, cluster_cidrs=("10.0.0.0/8",))
    rig.server.follow(msgspec.structs.replace(rig.settings, network=wider))
    await rig.until(lambda: len(rig.heard(control.Begin)) == 2)
    assert "10.0.0.0/8" in rig.heard(control.Begin)[1].networks and len(rig.ends) == 2
    await rig.end()


async def test_hosts_of_nodes_that_come_and_go_later_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    ips = {"node1": ("127.0.0.3",), "node2": ("192.0.2.2", "2001:DB8::2"), "node3": ("192.0.2.2",)}
    monkeypatch.setattr("podplane.model.objects.Node.internal_ips", property(lambda one: ips[one.metadata.name]))
    rig = Rig()
    await serving(rig)
    rig.heard(control.Hosts)
    rig.orders.clear()
    for number in (2, 3):
        rig.caches.nodes.set(node(number, (4,)))
    rig.caches.nodes.set(msgspec.structs.replace(node(3, (4,)), spec=node(4, (4,)).spec))
    rig.caches.nodes.remove("node2")
    told = [({*one.come}, {*one.gone}) for one in rig.heard(control.Hosts)]
    both = {"192.0.2.2", "2001:db8::2"}
    assert told == [(both, set()), ({"192.0.2.2"}, set()), ({"192.0.2.2"}, set()), (set(), {"2001:db8::2"})]
    await rig.end()


async def test_one_of_a_cluster_of_5000_nodes_is_told_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    ips = [f"{prefix}{number:x}" for prefix in ("2001:db8:1234:5678::1:", "2001:db8:1234:5679::1:") for number in range(5000)]
    monkeypatch.setattr("podplane.model.objects.Node.internal_ips", property(lambda one: ("127.0.0.3", *ips)))
    rig = Rig()
    monkeypatch.setattr(rig.server, "_open", lambda: rig.server._keeper.add("node1", Here(), IPS, IPS) or "")  # type: ignore[func-returns-value,arg-type]
    await serving(rig)
    assert {ip for one in rig.heard(control.Hosts) for ip in one.come} == {"127.0.0.3", *ips}
    assert len(rig.heard(control.Begin)) == 1
    await rig.end()
