"""While the Node of an agent is deleted, the pods that are attached keep their network, to the last of them."""

from __future__ import annotations

import msgspec
import pytest

from podplane.cni.network import TryAgainError
from podplane.model.objects import Node
from podplane.state.network import Address, Link, Route
from podplane.state.value import Value
from tests.plans import node
from tests.unit.agent.rig import DUAL, Rig, caches_of, cluster, service_of, slice_of

OWN, PEER = cluster(1, 2)
BLOCKS = ("10.244.1.0/24", "fd00:10:244:1::/64")


def registered_again(blocks: tuple[str, ...] = BLOCKS) -> Node:
    """The same machine, as another object."""
    return msgspec.structs.replace(
        OWN,
        metadata=msgspec.structs.replace(OWN.metadata, uid="another"),
        spec=msgspec.structs.replace(OWN.spec, pod_cidrs=blocks),
    )


@pytest.fixture
async def rig() -> Rig:
    """An agent with two pods, a peer and a Service."""
    rig = Rig(("10.96.0.0/16", "fd00:10:96::/112"))
    await rig.start(OWN, PEER, service_of("web", "10.96.0.7"), slice_of("web", "10.244.1.2"))
    for uid in ("a", "b"):
        await rig.agent.network.add(rig.attachment(uid))
    await rig.settle()
    return rig


def others_events(rig: Rig, key: str) -> list[str]:
    return [message for about, _, message in rig.events if about == key]


async def test_a_node_that_is_deleted_and_registered_again_writes_nothing(rig: Rig) -> None:
    before = rig.written
    rig.remove(OWN)
    await rig.settle()
    assert rig.agent.view.registered is None and rig.agent.view.node is OWN
    rig.put(registered_again())
    await rig.settle()
    assert rig.written == before and rig.events == []
    assert rig.agent.view.former is None and rig.agent.view.node == registered_again()


async def test_what_changes_meanwhile_is_followed(rig: Rig) -> None:
    rig.remove(OWN)
    rig.put(node(3, DUAL))
    await rig.settle()
    routes = {str(one.destination) for one in rig.host.objects.network.values() if isinstance(one, Route)}
    assert {"10.244.3.0/24", "10.244.2.0/24", "10.244.1.2/32"} <= routes


async def test_no_pod_is_attached_meanwhile_and_attached_ones_can_go(rig: Rig) -> None:
    rig.remove(OWN)
    with pytest.raises(TryAgainError, match="there is no Node node1 now: pods are attached once it is registered"):
        await rig.agent.network.add(rig.attachment("c"))
    (first, _), (second, _) = rig.agent.network.attached
    await rig.agent.network.delete(first)
    await rig.settle()
    assert _has_bridge(rig)
    await rig.agent.network.delete(second)
    await rig.settle()
    assert not _has_bridge(rig), "the last pod has gone"
    assert rig.agent.view.node is None
    rig.put(registered_again())
    await rig.settle()
    assert _has_bridge(rig)
    assert (await rig.agent.network.add(rig.attachment("c"))).ips


async def test_a_node_without_pods_goes_at_once() -> None:
    rig = Rig()
    await rig.start(OWN, PEER)
    rig.remove(OWN)
    await rig.settle()
    assert not _has_bridge(rig)


async def test_another_node_with_its_block_is_told_of_and_nobody_fights(rig: Rig) -> None:
    rig.remove(OWN)
    await rig.settle()
    taker = msgspec.structs.replace(node(9, DUAL), spec=msgspec.structs.replace(OWN.spec, pod_cidrs=BLOCKS[:1]))
    odd = msgspec.structs.replace(node(8, DUAL), spec=msgspec.structs.replace(OWN.spec, pod_cidrs=("nonsense",)))
    rig.put(odd)
    await rig.settle()
    before = _own_values(rig)
    rig.put(taker)
    await rig.settle()
    rig.put(msgspec.structs.replace(taker, metadata=msgspec.structs.replace(taker.metadata, labels={"a": "b"})))
    told, *others = others_events(rig, "node/node9")
    assert all(one.endswith("already") for one in others), "it is told once"
    assert told == (
        "its block 10.244.1.0/24 is that of node1 too, which was deleted while pods were attached there (2 pods: default/a, default/b): "
        "node1 has no route to it until these are deleted"
    )
    assert _own_values(rig) == before
    written = rig.written
    await rig.poll(at=rig.now + 60)
    assert rig.written == written
    for request, _ in rig.agent.network.attached:
        await rig.agent.network.delete(request)
    await rig.settle()
    assert not _has_bridge(rig)


async def test_a_block_that_another_one_had_before_is_told_of_too(rig: Rig) -> None:
    taker = msgspec.structs.replace(node(9, DUAL), spec=msgspec.structs.replace(OWN.spec, pod_cidrs=("10.244.0.0/16",)))
    rig.put(taker)
    assert not others_events(rig, "node/node9")
    rig.remove(OWN)
    assert others_events(rig, "node/node9")[0].startswith("its block 10.244.0.0/16 is that of node1 too")


async def test_pods_whose_addresses_are_of_former_blocks_keep_them_and_are_told_of(rig: Rig) -> None:
    rig.remove(OWN)
    rig.put(registered_again(("10.244.7.0/24", "fd00:10:244:7::/64")))
    await rig.settle()
    (told,) = others_events(rig, "node/node1")
    assert told == (
        "2 pods: default/a, default/b: addresses of blocks that the node had before it was registered again: "
        "other nodes do not reach them: delete these pods"
    )
    kept = [value for value in rig.agent.ledger.desired.values() if isinstance(value, Address) and value.netns]
    assert {str(one.ip) for one in kept} >= {"10.244.1.2", "10.244.1.3"}
    attached = await rig.agent.network.add(rig.attachment("c"))
    assert attached.ips[0].startswith("10.244.7.") and attached.gateways[0] == "10.244.7.1"


async def test_an_agent_that_starts_meanwhile_goes_on_with_what_the_former_one_knew(rig: Rig) -> None:
    rig.remove(OWN)
    attached, former = rig.agent.network.attached, rig.agent.view.node
    await rig.agent.stop()
    rig.subscribed = None
    agent = rig.new_agent()
    await agent.start(attached, (), former)
    rig.subscribed = agent
    await rig.settle()
    assert rig.written == 0 and _has_bridge(rig)
    rig.put(registered_again())
    await rig.settle()
    assert rig.written == 0 and agent.view.former is None


async def test_caches_without_the_node_are_no_end_of_its_network_either(rig: Rig) -> None:
    before = rig.written
    rig.agent.read_from(caches_of(PEER, service_of("web", "10.96.0.7"), slice_of("web", "10.244.1.2")))
    await rig.settle()
    rig.agent.changed(Node, OWN, None)
    await rig.settle()
    assert rig.written == before and rig.agent.view.node is OWN


def _has_bridge(rig: Rig) -> bool:
    return Link(name="cbr0").identity in rig.host.objects.network


def _own_values(rig: Rig) -> list[Value]:
    return [one for one in rig.host.objects.network.values() if not isinstance(one, Link)]
