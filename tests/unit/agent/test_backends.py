"""A node takes over the cluster's backend, tells its peers, and lets go of the former one when nobody sends by it any more."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from podplane.agent import backends
from podplane.agent.backends import NodeBackends
from podplane.agent.keys import Key
from podplane.kernel.fakes.world import FakeNamespace
from podplane.kubeapi.client import Client
from podplane.model.config import BACKENDS, UNDERLAY_MAC, UNDERLAY_MTU, NetworkConfig
from podplane.model.config_map import ConfigMap
from podplane.model.objects import Metadata, Node
from podplane.routes.cluster_settings import NAME, NAMESPACE
from podplane.state.network import Link
from tests.plans import config, node
from tests.unit.agent.rig import DUAL, caches_of, cluster
from tests.unit.agent.test_node import Rig as NodeRig
from tests.unit.agent.test_node import nothing_to_serve, until


class Patches(Client):
    """An API that takes patches of node1, which its watch shows when `shown` is called."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.mtus: list[str] = []
        self.macs: list[str | None] = []

    async def patch(
        self, resource: str, namespace: str, name: str, body: object, *, uid: str, subresource: str = ""
    ) -> dict[str, object]:
        assert (resource, name) == ("nodes", "node1")
        said: dict[str, str] = body["metadata"]["annotations"]  # type: ignore[index]
        self.texts.append(said[BACKENDS])
        self.mtus.append(said[UNDERLAY_MTU])
        self.macs.append(said.get(UNDERLAY_MAC))
        return {}


class Rig:
    """Two nodes that say by which backends they are reached, and the backends of the first one."""

    def __init__(self, said: str = "host-gw") -> None:
        self.caches = caches_of(*cluster(1, 2))
        self.mtu, self.mac = 1500, ""
        self.says(1, said)
        self.says(2, "host-gw")
        self.client = Patches()
        self.events: list[str] = []
        self.configured: list[tuple[str, tuple[str, ...]]] = []
        self.refused: set[str] = set()
        """Backends whose links the kernel refuses."""
        self.start()

    def start(self) -> None:
        self.backends = NodeBackends(
            "node1",
            lambda: self.caches,
            config(DUAL),
            self.client,
            self._record,
            self._configure,
            self._has,
            lambda: self.mtu,
            lambda: self.mac,
        )

    def _has(self, name: str) -> bool:
        return name not in self.refused

    def _record(self, key: Key, message: str, reason: str = "") -> None:
        self.events.append(message)

    async def _configure(self, settings: NetworkConfig) -> None:
        self.configured.append((settings.backend, settings.former_backends))

    def says(self, number: int, text: str) -> None:
        known: Node = self.caches.nodes.objects.get(f"node{number}") or node(number, DUAL)
        said = {BACKENDS: text, UNDERLAY_MTU: str(self.mtu)}
        metadata = msgspec.structs.replace(known.metadata, annotations={**known.metadata.annotations, **said})
        self.caches.nodes.set(msgspec.structs.replace(known, metadata=metadata))

    def wants(self, **data: str) -> None:
        named = {key.replace("_", "-"): value for key, value in data.items()}
        self.caches.network_settings.set(ConfigMap(Metadata(name=NAME, namespace=NAMESPACE), named))

    async def step(self, now: float = 0.0) -> float | None:
        """One step; what was told is shown by the watch after it."""
        self.client.texts.clear()
        rest = await self.backends._step(now)
        for text in self.client.texts:
            self.says(1, text)
        return rest


async def test_nothing_is_done_while_nothing_changes() -> None:
    rig = Rig()
    assert await rig.step() is None
    assert rig.configured == [] and rig.client.texts == []


async def test_a_node_puts_its_mac_back() -> None:
    rig = Rig()
    rig.mac = rig.caches.nodes.objects["node1"].metadata.annotations[UNDERLAY_MAC]
    await rig.step()
    assert rig.client.macs == []
    known = rig.caches.nodes.objects["node1"]
    said = {**known.metadata.annotations, UNDERLAY_MAC: "ff:ff:ff:ff:ff:ff"}
    rig.caches.nodes.set(msgspec.structs.replace(known, metadata=msgspec.structs.replace(known.metadata, annotations=said)))
    await rig.step()
    assert rig.client.macs == [rig.mac]


async def test_the_new_backend_comes_beside_the_former_one_which_goes_when_all_peers_have_it() -> None:
    rig = Rig()
    rig.wants(backend="vxlan")
    assert await rig.step() is None
    assert rig.configured == [("vxlan", ("host-gw",))] and rig.client.texts == ["host-gw,vxlan"]
    assert await rig.step(100.0) is None, "the peer has not got it"
    rig.says(2, "host-gw,vxlan")
    assert await rig.step(200.0) == backends.GRACE_SECONDS
    assert await rig.step(201.0) == backends.GRACE_SECONDS - 1
    assert await rig.step(200.0 + backends.GRACE_SECONDS) is None
    assert rig.configured[1:] == [("vxlan", ())] and rig.client.texts == ["vxlan"]


async def test_a_peer_that_goes_back_meanwhile_is_waited_for_anew() -> None:
    rig = Rig()
    rig.wants(backend="vxlan")
    rig.says(2, "host-gw,vxlan")
    await rig.step()
    assert await rig.step(1.0) == backends.GRACE_SECONDS
    rig.says(2, "host-gw")
    assert await rig.step(2.0) is None
    rig.says(2, "host-gw,vxlan")
    assert await rig.step(50.0) == backends.GRACE_SECONDS


async def test_a_change_back_in_the_middle_keeps_both_until_the_end() -> None:
    rig = Rig()
    rig.wants(backend="vxlan")
    await rig.step()
    rig.wants(backend="host-gw")
    await rig.step(1.0)
    assert rig.configured == [("vxlan", ("host-gw",)), ("host-gw", ("vxlan",))]
    await rig.step(1.0 + backends.GRACE_SECONDS)
    assert rig.configured[2:] == [("host-gw", ())]


async def test_while_the_kernel_refuses_its_links_a_backend_is_not_told_and_the_former_one_goes_on() -> None:
    rig = Rig()
    rig.refused = {"vxlan"}
    rig.wants(backend="vxlan")
    assert await rig.step() == backends.AGAIN_SECONDS
    assert rig.configured == [("host-gw", ("vxlan",))] and rig.client.texts == []
    assert await rig.step() == backends.AGAIN_SECONDS and len(rig.configured) == 1
    rig.refused.clear()
    assert await rig.step() is None
    assert rig.configured[1:] == [("vxlan", ("host-gw",))] and rig.client.texts == ["host-gw,vxlan"]


async def test_a_change_that_is_taken_back_while_the_kernel_refuses_it_leaves_nothing() -> None:
    rig = Rig()
    rig.refused = {"vxlan"}
    rig.wants(backend="vxlan")
    await rig.step()
    rig.wants(backend="host-gw")
    assert await rig.step() == backends.GRACE_SECONDS
    await rig.step(backends.GRACE_SECONDS)
    assert rig.configured == [("host-gw", ("vxlan",)), ("host-gw", ())] and rig.client.texts == []


async def test_an_agent_that_starts_goes_on_with_what_the_node_said_until_it_has_the_other() -> None:
    rig = Rig()
    rig.wants(backend="vxlan")
    rig.start()
    assert (rig.backends.current.backend, rig.backends.current.former_backends) == ("host-gw", ())
    await rig.step()
    assert rig.configured == [("vxlan", ("host-gw",))]


async def test_an_agent_that_starts_in_the_middle_of_a_change_goes_on_with_it() -> None:
    rig = Rig("host-gw,vxlan")
    rig.wants(backend="vxlan")
    rig.start()
    assert (rig.backends.current.backend, rig.backends.current.former_backends) == ("vxlan", ("host-gw",))
    assert await rig.step() is None and rig.configured == [], "it began so"


async def test_backends_that_this_version_does_not_know_are_none_of_its_former_ones() -> None:
    rig = Rig("carrier-pigeon,host-gw")
    assert rig.backends.current.former_backends == ()
    await rig.step()
    assert rig.client.texts == ["host-gw"]


async def test_settings_that_make_no_sense_are_told_once_and_the_last_ones_go_on() -> None:
    rig = Rig()
    rig.wants(backend="vxlan")
    await rig.step()
    rig.wants(backend="vxlam")
    for _ in range(2):
        await rig.step()
    (event,) = rig.events
    assert "kube-system/podplane-network" in event and "vxlam" in event
    assert rig.backends.current.backend == "vxlan" and len(rig.configured) == 1
    rig.wants(backend="vxlan")
    await rig.step()
    rig.wants(backend="vxlam")
    await rig.step()
    assert len(rig.events) == 2, "it was right in between"


async def test_a_change_of_the_port_is_taken_over() -> None:
    rig = Rig("vxlan")
    rig.wants(backend="vxlan", vxlan_port="8472")
    rig.start()
    assert rig.backends.current.vxlan_port == 8472
    rig.wants(backend="vxlan", vxlan_port="4789")
    await rig.step()
    assert rig.backends.current.vxlan_port == 4789 and rig.configured == [("vxlan", ())]


async def test_a_nodes_kernel_follows_and_pods_get_the_mtu_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("podplane.agent.health.NodeHealth._serve_all", nothing_to_serve)
    rig = NodeRig()
    await rig.node.start()
    rig.node.run()
    request = rig.attachment("a")
    await rig.node.add(request)
    assert isinstance(request.netns, FakeNamespace)
    objects, pod = rig.host.machine.objects, request.netns.objects
    before = [line for line in pod.dump().splitlines() if "eth0" in line and "mtu 1500" in line]
    assert len(before) == 1 and "podplane-vxlan4" not in objects.dump()
    rig.caches.network_settings.set(ConfigMap(Metadata(name=NAME, namespace=NAMESPACE), {"backend": "vxlan"}))
    await until(lambda: "10.244.2.0/24 via 10.244.2.1 dev podplane-vxlan4" in objects.dump())
    await until(lambda: before[0].replace("mtu 1500", "mtu 1450") in pod.dump())
    rig.caches.network_settings.remove(f"{NAMESPACE}/{NAME}")
    await until(lambda: "10.244.2.0/24 via 192.168.1.11 dev eth0" in objects.dump())
    await rig.node.close()


async def test_a_node_says_which_packets_it_takes_when_that_is_another_size() -> None:
    rig = Rig()
    rig.mtu = 1400
    await rig.step()
    assert (rig.client.texts, rig.client.mtus) == (["host-gw"], ["1400"])
    await rig.step()
    assert rig.client.mtus == ["1400"], "once"


async def test_an_uplink_that_comes_to_carry_less_or_more_is_followed_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("podplane.agent.health.NodeHealth._serve_all", nothing_to_serve)
    rig = NodeRig()
    rig.caches.network_settings.set(ConfigMap(Metadata(name=NAME, namespace=NAMESPACE), {"backend": "vxlan"}))
    await rig.node.start()
    rig.node.run()
    request = rig.attachment("a")
    await rig.node.add(request)
    assert isinstance(request.netns, FakeNamespace)
    objects, pod = rig.host.machine.objects, request.netns.objects
    await until(lambda: objects.dump().count("mtu 1450") == 3 and "mtu 1450" in pod.dump())
    uplink = objects.network[Link(name="eth0").identity]
    for mtu in (1400, 9000, 1500):
        rig.host.machine.put(msgspec.structs.replace(uplink, mtu=mtu))
        expected = f"mtu {min(mtu, 1500) - 50} "
        await until(lambda: objects.dump().count(expected) == 3 and expected in pod.dump())  # noqa: B023
        assert f"mtu {min(mtu, 1500) - 70} " in objects.dump(), "the tunnel over IPv6"
    rig.host.machine.delete(uplink)
    await asyncio.sleep(0.2)
    assert rig.node.agent.config.mtu == 1500, "as it was, while there is none"
    await rig.node.close()


async def test_the_cluster_may_say_a_smaller_mtu_than_uplinks_have() -> None:
    rig = Rig()
    rig.wants(mtu="1400")
    await rig.step()
    assert rig.backends.current.mtu == 1400


async def test_nodes_of_others_matter_only_while_there_is_a_former_backend() -> None:
    rig = Rig()
    own, other = node(1, DUAL), node(2, DUAL)
    assert rig.backends.is_about(own) and not rig.backends.is_about(other)
    rig.wants(backend="vxlan")
    await rig.step()
    assert rig.backends.is_about(other)
