"""An agent whose machine or cluster is otherwise than at its start goes on with what is so now."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import AsyncMock

import msgspec
import pytest

from podplane.agent.ownership import ownership
from podplane.agent.settings import Settings
from podplane.kubeapi.errors import ApiError
from podplane.machine import configuration, surroundings
from podplane.machine.cidrs import FILE, Cidrs, KeptCidrs
from podplane.machine.cluster import Cluster, Waiting
from podplane.machine.former import Former
from podplane.machine.known import Whose
from podplane.machine.overlaps import Surrounding
from podplane.machine.preflight import Facts, Preflight
from podplane.machine.surroundings import Surroundings
from podplane.model.config import NetworkConfig
from podplane.model.objects import Node, NodeAddress
from podplane.routes.usable import usable
from podplane.state.network import Address, Link
from podplane.state.value import Value, address_of
from tests.plans import node
from tests.unit.agent.rig import caches_of
from tests.unit.machine.test_cidrs import AWAY, FORBIDDEN, KUBEADM, MISSING, FakeApi

V4 = (4,)
WHOSE = Whose("node1", "cluster", "boot", "models")


class FakeCluster(Cluster):
    """One that is known."""

    def __init__(self, *nodes: Node) -> None:
        self.node_name, self.caches = "node1", caches_of(*nodes)

    async def node(self) -> Node:
        return self.caches.nodes.objects["node1"]


class InPlace(Preflight):
    """Finds nothing in the way, and a link of podplane's there; the API is at 192.168.9.1."""

    def __init__(self) -> None:
        self._api = "192.168.9.1"

    one: Any = SimpleNamespace(problem=AsyncMock(return_value=""))

    async def look(self, network: NetworkConfig, pods: Any, node: Node, values: Any, allowed: Any) -> Facts:
        own = Link(name=network.bridge)
        return Facts(around=Surrounding(values=(own,), own=ownership(network)))


class Rig:
    """The surroundings of an agent on a machine with a link that has the Node's address."""

    def __init__(self, folder: Path, api: FakeApi, content: dict[str, Any] | None = None) -> None:
        self.links = {"eth0": ("192.168.1.10", 1500)}
        self.cluster = FakeCluster(node(1, V4), node(2, V4))
        self.filter = "0"
        self.bridges: list[str] = []
        self.told: list[str] = []
        self.waited: list[str] = []
        self.restarts: list[Settings] = []
        self.fails: Exception | None = None
        self.tried = 0
        waiting = Waiting(self.waited.append)
        self.tested = Surroundings(
            configuration.parsed(content or {}),
            self.values,
            api,
            self.cluster,
            waiting,
            KeptCidrs(folder, WHOSE),
            self.told.append,
            lambda names: dict.fromkeys(names, self.filter),
            Former((content or {}).get("migrate_from", "")),
        )

    def values(self) -> list[Value]:
        links = [Link(name=name, mtu=mtu) for name, (_, mtu) in self.links.items()]
        links += [Link(name=name, kind="bridge") for name in self.bridges]
        return [*links, *(Address(link=name, ip=address_of(ip), prefix_length=24) for name, (ip, _) in self.links.items())]

    async def restart(self, settings: Settings) -> None:
        self.tried += 1
        if self.fails is not None:
            raise self.fails
        self.restarts.append(settings)


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SETTLE_SECONDS", "RETRY_SECONDS", "BETWEEN_SECONDS"):
        monkeypatch.setattr(surroundings, name, 0.001)


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(60_000):
        if condition():
            return
        await asyncio.sleep(0.001)
    raise AssertionError("it did not happen within a minute")


def with_ip(ip: str) -> Node:
    own = node(1, V4)
    return msgspec.structs.replace(own, status=msgspec.structs.replace(own.status, addresses=(NodeAddress("InternalIP", ip),)))


async def test_an_uplink_that_moves_is_followed_and_one_that_is_gone_is_told_of_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rig = Rig(
        tmp_path, FakeApi({"data": {"ClusterConfiguration": KUBEADM}}, []), {"network": {"cluster_cidrs": ["10.0.0.0/8"]}}
    )
    first = await rig.tested.settings()
    assert "does not name: 10.96.0.0/12 for Services (by the ConfigMap kubeadm-config)" in caplog.text
    assert first.network.uplink == "eth0"
    following = asyncio.create_task(rig.tested.follow(rig.restart))
    rig.links = {"bond0": ("192.168.1.10", 9000)}
    rig.tested.changed()
    await until(lambda: bool(rig.restarts))
    assert rig.restarts[0].network.uplink == "bond0"
    rig.links = {"bond0": ("192.0.2.1", 9000)}
    for _ in range(2):
        rig.tested.changed()
        await until(lambda: bool(rig.told))
        await asyncio.sleep(0.01)
    assert rig.told == [
        "the agent goes on with uplink bond0: no link of this machine has an address of its Node (192.168.1.10): "
        "give the Node's name, or the link as `network.uplink`"
    ]
    rig.links |= {"eth9": ("192.168.1.77", 1500)}
    rig.cluster.caches.nodes.set(with_ip("192.168.1.77"))
    await until(lambda: len(rig.restarts) == 2)
    assert rig.restarts[1].network.uplink == "eth9"
    following.cancel()


async def test_what_does_not_fit_the_machine_or_its_node_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    named = {"network": {"cluster_cidrs": ["10.244.0.0/16"], "service_cidrs": [], "mtu": 9000}}
    rig = Rig(tmp_path, FakeApi(AWAY, AWAY), named)
    assert (await rig.tested.settings()).network.mtu == 9000
    mtu = "network.mtu is 9000, and the uplink eth0 carries no more than 1500: 1500 is taken"
    assert rig.told == [mtu]
    following = asyncio.create_task(rig.tested.follow(rig.restart))
    own = node(1, V4)
    rig.cluster.caches.nodes.set(
        msgspec.structs.replace(own, spec=msgspec.structs.replace(own.spec, pod_cidrs=("10.9.0.0/24",)))
    )
    await until(lambda: len(rig.told) == 2)
    outside = "the block 10.9.0.0/24 of this node is not within network.cluster_cidrs (10.244.0.0/16): correct these"
    rig.tested.changed()
    await asyncio.sleep(0.01)
    assert rig.told == [mtu, outside] and not rig.restarts
    assert mtu in caplog.text and outside in caplog.text
    assert rig.tested.without == [outside], "it is not ready"
    following.cancel()


@pytest.mark.parametrize("preflight", [None, InPlace()], ids=["a lab's", "a network in place"])
async def test_networks_without_the_nodes_block_keep_the_agent_from_beginning(tmp_path: Path, preflight: Any) -> None:
    """Else one wrong value would reach the node's pods, and after this node the next one."""
    rig = Rig(tmp_path, FakeApi(AWAY, AWAY), {"network": {"cluster_cidrs": ["10.99.0.0/16"], "service_cidrs": []}})
    rig.tested._preflight = preflight
    beginning = asyncio.create_task(rig.tested.settings())
    await until(lambda: bool(rig.waited))
    assert (
        rig.waited[0]
        == "the block 10.244.1.0/24 of this node is not within network.cluster_cidrs (10.99.0.0/16): correct these"
    )
    own = node(1, V4)
    fits = msgspec.structs.replace(own.spec, pod_cidrs=("10.99.1.0/24",))
    rig.cluster.caches.nodes.set(msgspec.structs.replace(own, spec=fits))
    assert (await beginning).network.cluster_cidrs == ("10.99.0.0/16",)


async def test_nothing_is_started_anew_while_nothing_differs(tmp_path: Path) -> None:
    rig = Rig(tmp_path, FakeApi({"data": {"ClusterConfiguration": KUBEADM}}, []))
    await rig.tested.settings()
    following = asyncio.create_task(rig.tested.follow(rig.restart))
    for _ in range(3):
        rig.tested.changed()
        await asyncio.sleep(0.01)
    rig.cluster.caches.nodes.remove("node1")
    await asyncio.sleep(0.01)
    rig.cluster.caches.nodes.set(node(1, V4))
    await asyncio.sleep(0.01)
    assert not rig.restarts and not rig.told
    following.cancel()


async def test_a_start_that_fails_is_tried_again_with_the_task(tmp_path: Path) -> None:
    rig = Rig(tmp_path, FakeApi({"data": {"ClusterConfiguration": KUBEADM}}, []))
    await rig.tested.settings()
    rig.links = {"bond0": ("192.168.1.10", 9000)}
    rig.fails = OSError("the kernel refuses")
    rig.tested.changed()
    with pytest.raises(OSError, match="the kernel refuses"):
        await rig.tested.follow(rig.restart)
    rig.fails = None
    following = asyncio.create_task(rig.tested.follow(rig.restart))  # as a supervisor does
    await until(lambda: bool(rig.restarts))
    assert rig.tried == 2
    following.cancel()


async def test_networks_made_of_blocks_grow_when_a_node_is_outside(tmp_path: Path) -> None:
    rig = Rig(tmp_path, FakeApi(MISSING, MISSING))
    first = await rig.tested.settings()
    assert (first.network.cluster_cidrs, first.network.service_cidrs) == (("10.244.0.0/22",), ())
    following = asyncio.create_task(rig.tested.follow(rig.restart))
    rig.cluster.caches.nodes.set(node(3, V4))
    await asyncio.sleep(0.01)
    assert not rig.restarts, "its block is in there"
    rig.cluster.caches.nodes.set(node(4, V4))
    await until(lambda: bool(rig.restarts))
    assert rig.restarts[0].network.cluster_cidrs == ("10.244.0.0/21",)
    for number in (4, 3, 2):
        rig.cluster.caches.nodes.remove(f"node{number}")
    rig.tested.changed()
    await asyncio.sleep(0.01)
    assert len(rig.restarts) == 1, "it does not shrink"
    following.cancel()


def stray(block: str = "172.20.5.0/24") -> Node:
    one = node(9, V4)
    return msgspec.structs.replace(one, spec=msgspec.structs.replace(one.spec, pod_cidrs=(block,)))


async def test_one_node_with_a_block_from_elsewhere_is_left_out_and_holds_up_nobody(tmp_path: Path) -> None:
    rig = Rig(tmp_path, FakeApi(MISSING, MISSING))
    rig.cluster.caches.nodes.set(stray())
    first = (await rig.tested.settings()).network
    assert first.cluster_cidrs == ("10.244.0.0/22",) and not rig.waited
    why = "the block 172.20.5.0/24 has no network of /8 in common with those of pods (10.244.0.0/22)"
    assert first.left_out == (("172.20.5.0/24", why),)
    assert usable(stray(), first).sentence == f"node9: {why}: left out"
    assert usable(node(2, V4), first).node.spec.pod_cidrs == ("10.244.2.0/24",)


async def test_a_node_with_a_block_from_elsewhere_that_comes_later_changes_no_network(tmp_path: Path) -> None:
    rig = Rig(tmp_path, FakeApi(MISSING, MISSING))
    await rig.tested.settings()
    following = asyncio.create_task(rig.tested.follow(rig.restart))
    rig.cluster.caches.nodes.set(stray())
    await until(lambda: bool(rig.restarts))
    assert rig.restarts[0].network.cluster_cidrs == ("10.244.0.0/22",)
    assert [block for block, _ in rig.restarts[0].network.left_out] == ["172.20.5.0/24"]
    assert (kept := KeptCidrs(tmp_path, WHOSE).load()) is not None and kept.cluster == ("10.244.0.0/22",)
    following.cancel()


@pytest.mark.parametrize("named", [{}, {"cluster_cidrs": ["10.0.0.0/8", "192.168.0.0/16"], "service_cidrs": []}])
@pytest.mark.parametrize(
    ("block", "what"),
    [
        ("192.168.1.128/25", "192.168.1.0/24, the node's own network (eth0)"),
        ("192.168.9.0/24", "192.168.9.1/32, the address of the API"),
    ],
)
async def test_a_block_that_overlaps_the_network_between_nodes_is_left_out(
    tmp_path: Path, named: dict[str, Any], block: str, what: str
) -> None:
    rig = Rig(tmp_path, FakeApi(MISSING, MISSING), {"network": named})
    rig.tested._preflight = InPlace()
    first = (await rig.tested.settings()).network
    following = asyncio.create_task(rig.tested.follow(rig.restart))
    rig.cluster.caches.nodes.set(stray(block))
    await until(lambda: bool(rig.restarts))
    assert (block, f"the block {block} overlaps {what}") in rig.restarts[0].network.left_out
    assert rig.restarts[0].network.cluster_cidrs == first.cluster_cidrs
    following.cancel()


async def test_a_block_within_the_network_between_nodes_makes_that_of_pods_no_wider(tmp_path: Path) -> None:
    rig = Rig(tmp_path, FakeApi(MISSING, MISSING))
    rig.links["eth0"] = ("10.9.0.10", 1500)
    rig.cluster.caches.nodes.set(with_ip("10.9.0.10"))
    rig.cluster.caches.nodes.set(stray("10.9.0.0/26"))
    rig.tested._preflight = InPlace()
    made = (await rig.tested.settings()).network
    assert made.cluster_cidrs == ("10.244.0.0/22",) and dict(made.left_out).keys() == {"10.9.0.0/26"}


@pytest.mark.parametrize("allowed", [["192.168.0.0/16"], ["192.168.1.0/24"]])
async def test_a_block_that_overlaps_what_may_be_overlapped_is_not_left_out(tmp_path: Path, allowed: list[str]) -> None:
    names = {"network": {"cluster_cidrs": ["10.0.0.0/8", "192.168.1.0/24"], "service_cidrs": []}, "allow_overlaps": allowed}
    rig = Rig(tmp_path, FakeApi(MISSING, MISSING), names)
    rig.cluster.caches.nodes.set(stray("192.168.1.128/25"))
    rig.tested._preflight = InPlace()
    assert "192.168.1.128/25" not in dict((await rig.tested.settings()).network.left_out)


async def test_the_own_block_is_never_left_out(tmp_path: Path) -> None:
    rig = Rig(tmp_path, FakeApi(MISSING, MISSING))
    own = node(1, V4)
    within = msgspec.structs.replace(own.spec, pod_cidrs=("192.168.1.128/25",))
    rig.cluster.caches.nodes.set(msgspec.structs.replace(own, spec=within))
    rig.tested._preflight = InPlace()
    made = await rig.tested.settings()
    assert "192.168.1.128/25" not in dict(made.network.left_out)
    assert "192.168.1.128/25" in rig.tested._pods(made)


async def test_a_node_without_a_block_takes_what_was_found_before_else_it_waits(tmp_path: Path) -> None:
    rig = Rig(tmp_path, FakeApi(MISSING, MISSING))
    own = rig.cluster.caches.nodes.objects["node1"]
    rig.cluster.caches.nodes.set(msgspec.structs.replace(own, spec=msgspec.structs.replace(own.spec, pod_cidrs=())))
    rig.cluster.caches.nodes.set(stray())
    beginning = asyncio.create_task(rig.tested.settings())
    await until(lambda: bool(rig.waited))
    assert rig.waited[0].endswith(
        "the blocks of Nodes (spec.podCIDRs) are of several, or wider than /8 (IPv6: /32), and tell none for this Node"
    )
    assert KeptCidrs(tmp_path, WHOSE).load() is None, "nothing was found"
    KeptCidrs(tmp_path, WHOSE).save(Cidrs(("10.244.0.0/16",)))
    assert (await beginning).network.cluster_cidrs == ("10.244.0.0/16",)


async def test_what_is_left_out_of_other_nodes_is_not_in_the_way_and_the_own_block_is(tmp_path: Path) -> None:
    rig = Rig(tmp_path, FakeApi(MISSING, [{"spec": {"cidrs": ["10.96.0.0/16"]}}]))
    rig.cluster.caches.nodes.set(stray("10.96.0.0/24"))
    made = await rig.tested.settings()
    assert list(rig.tested._pods(made)) == ["10.244.1.0/24", "10.244.2.0/24"]
    own = node(1, V4)
    within = msgspec.structs.replace(own.spec, pod_cidrs=("10.96.1.0/24",))
    rig.cluster.caches.nodes.set(msgspec.structs.replace(own, spec=within))
    assert list(rig.tested._pods(made)) == ["10.96.1.0/24", "10.244.2.0/24"]


async def test_named_networks_are_not_asked_for(tmp_path: Path) -> None:
    named = {"network": {"cluster_cidrs": ["10.0.0.0/8"], "service_cidrs": []}}
    rig = Rig(tmp_path, FakeApi(AWAY, AWAY), named)
    assert (await rig.tested.settings()).network.cluster_cidrs == ("10.0.0.0/8",)
    assert not rig.waited


@pytest.mark.parametrize(
    ("error", "why"),
    [(ApiError(503, "", "the API does not answer"), "waiting for the API"), (MISSING, "waiting for the networks of pods")],
)
async def test_what_is_not_known_yet_is_waited_for(tmp_path: Path, error: ApiError, why: str) -> None:
    api = FakeApi(error, [])
    rig = Rig(tmp_path, api)
    for number in (1, 2):
        own = rig.cluster.caches.nodes.objects[f"node{number}"]
        rig.cluster.caches.nodes.set(msgspec.structs.replace(own, spec=msgspec.structs.replace(own.spec, pod_cidrs=())))
    finding = asyncio.create_task(rig.tested.settings())
    await until(lambda: bool(rig.waited))
    assert rig.waited[0].startswith(why)
    api._config_map = {"data": {"ClusterConfiguration": KUBEADM}}
    assert (await finding).network.cluster_cidrs[0] == "10.244.0.0/16"


async def test_while_the_api_is_away_what_was_found_last_counts(tmp_path: Path) -> None:
    api = FakeApi({"data": {"ClusterConfiguration": KUBEADM}}, [])
    first = await Rig(tmp_path, api).tested.settings()
    away = FakeApi(AWAY, AWAY)
    rig = Rig(tmp_path, away)
    assert await rig.tested.settings() == first and not rig.waited
    following = asyncio.create_task(rig.tested.follow(rig.restart))
    away._config_map, away._ranges = {}, MISSING
    rig.tested.changed()
    await until(lambda: bool(rig.restarts))
    assert rig.restarts[0].network.cluster_cidrs == ("10.244.0.0/22",), "it is back, and says something else"
    following.cancel()


async def test_an_api_that_has_answered_nothing_at_all_is_not_waited_for(tmp_path: Path) -> None:
    api = FakeApi({"data": {"ClusterConfiguration": KUBEADM}}, [])
    first = await Rig(tmp_path, api).tested.settings()
    api.contact = None
    assert await Rig(tmp_path, api).tested.settings() == first and api.asked == 1
    (tmp_path / FILE).unlink()
    assert await Rig(tmp_path, api).tested.settings() == first and api.asked == 2, "nothing else is at hand"


async def test_networks_of_services_that_a_cluster_gets_later_count_and_none_is_lost_when_they_can_not_be_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(surroundings, "LOOK_SECONDS", 0.001)
    api = FakeApi({"data": {"ClusterConfiguration": KUBEADM}}, [{"spec": {"cidrs": ["10.96.0.0/12"]}}])
    rig = Rig(tmp_path, api)
    await rig.tested.settings()
    following = asyncio.create_task(rig.tested.follow(rig.restart))
    api._ranges = [{"spec": {"cidrs": ["10.96.0.0/12"]}}, {"spec": {"cidrs": ["10.112.0.0/16"]}}]
    await until(lambda: bool(rig.restarts))
    assert rig.restarts[0].network.service_cidrs == ("10.96.0.0/12", "10.112.0.0/16")
    assert (kept := KeptCidrs(tmp_path, WHOSE).load()) is not None and kept.service == rig.restarts[0].network.service_cidrs
    for hidden in (FORBIDDEN, MISSING, AWAY, []):
        asked, api._ranges = api.asked, hidden
        await until(lambda asked=asked: api.asked > asked + 2)  # type: ignore[misc]  # bound now
    assert len(rig.restarts) == 1
    following.cancel()


async def test_networks_of_services_are_asked_for_once_in_a_while_only(tmp_path: Path) -> None:
    api = FakeApi({"data": {"ClusterConfiguration": KUBEADM}}, [])
    rig = Rig(tmp_path, api)
    await rig.tested.settings()
    following = asyncio.create_task(rig.tested.follow(rig.restart))
    for number in range(3):
        rig.links = {f"eth{number + 1}": ("192.168.1.10", 1500)}
        rig.tested.changed()
        await until(lambda number=number: len(rig.restarts) > number)  # type: ignore[misc]  # bound now
    assert api.asked == 1
    following.cancel()


@pytest.mark.parametrize("content", [b"", b"{}", b"[" * 100_000])
async def test_a_file_that_makes_no_sense_says_nothing(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE).write_bytes(content)
    assert KeptCidrs(tmp_path, WHOSE).load() is None


async def test_what_was_found_in_another_cluster_says_nothing(tmp_path: Path) -> None:
    found = Cidrs(("10.0.0.0/8",))
    KeptCidrs(tmp_path, WHOSE).save(found)
    assert KeptCidrs(tmp_path, WHOSE).load() == found
    assert KeptCidrs(tmp_path, msgspec.structs.replace(WHOSE, cluster="another")).load() is None
    KeptCidrs(tmp_path / "none", WHOSE).save(found)


async def test_a_link_that_comes_and_goes_starts_the_agent_anew_now_and_then_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(surroundings, "BETWEEN_SECONDS", 3600.0)
    rig = Rig(tmp_path, FakeApi({"data": {"ClusterConfiguration": KUBEADM}}, []))
    await rig.tested.settings()
    following = asyncio.create_task(rig.tested.follow(rig.restart))
    for name in ("eth1", "eth0", "eth1", "eth0"):
        rig.links = {name: ("192.168.1.10", 1500)}
        rig.tested.changed()
        await until(lambda: bool(rig.restarts))
        await asyncio.sleep(0.01)
    assert [one.network.uplink for one in rig.restarts] == ["eth1"]
    following.cancel()


async def test_nodes_whose_packets_the_machines_filter_drops_are_named_until_it_does_not(tmp_path: Path) -> None:
    rig = Rig(tmp_path, FakeApi({}, []), {"network": {"cluster_cidrs": ["10.0.0.0/8"], "service_cidrs": []}})
    rig.links |= {"eth1": ("192.168.9.1", 1500)}
    far = msgspec.structs.replace(with_ip("192.168.9.7"), metadata=node(3, V4).metadata)
    rig.cluster.caches.nodes.set(far)
    rig.filter = "1"
    await rig.tested.settings()
    assert [one.partition(":")[0] for one in rig.tested.without] == [
        "rp_filter is 1 on eth0, so the kernel drops what node3 (192.168.9.7) sends there"
    ]
    following = asyncio.create_task(rig.tested.follow(rig.restart))
    rig.filter = "2"
    rig.tested.changed()
    await until(lambda: not rig.tested.without)
    following.cancel()


async def test_the_bridge_of_a_former_network_that_comes_or_goes_is_followed(tmp_path: Path) -> None:
    content = {"migrate_from": "cni0", "network": {"cluster_cidrs": ["10.244.0.0/16"], "service_cidrs": []}}
    rig = Rig(tmp_path, FakeApi(AWAY, AWAY), content)
    assert (await rig.tested.settings()).network.former_bridge == ""
    following = asyncio.create_task(rig.tested.follow(rig.restart))
    for bridges, name in ((["docker0", "cni0"], "cni0"), (["docker0"], "")):
        count, rig.bridges = len(rig.restarts), bridges
        rig.tested.changed()
        await until(lambda count=count: len(rig.restarts) > count)  # type: ignore[misc]
        assert rig.restarts[-1].network.former_bridge == name
    following.cancel()
