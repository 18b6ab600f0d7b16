"""Addresses and MACs that a caller asks for (capabilities `ips` and `mac`): the pod has them, or the error says why it can't."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Container
from typing import Any

import msgspec
import pytest

from podplane.cni.network import Attachment, NetworkError
from podplane.model.objects import NodeSpec
from podplane.model.pod_info import PodInfo, SlimMetadata
from podplane.state.mac import link_local_of
from podplane.state.network import Fdb, Neighbour
from podplane.state.nft import Element
from tests.plans import node
from tests.unit.agent.rig import DUAL, Rig, cluster

OWN = "02:00:00:00:00:01"


async def started() -> Rig:
    rig = Rig()
    await rig.start(*cluster(1))
    return rig


async def with_block(block: str) -> Rig:
    """One whose node has few IPv4 addresses."""
    rig = Rig()
    await rig.start(msgspec.structs.replace(node(1, DUAL), spec=NodeSpec(pod_cidrs=(block, "fd00:10:244:1::/64"))))
    return rig


def asking(rig: Rig, name: str, *ips: str, **more: Any) -> Attachment:
    return rig.attachment(name, asked_ips=ips, **more)


async def test_addresses_that_are_asked_for_are_had_and_the_other_family_gets_the_next_one() -> None:
    rig = await started()
    network = rig.agent.network
    assert (await network.add(asking(rig, "a", "10.244.1.9"))).ips == ("10.244.1.9", "fd00:10:244:1::2")
    assert (await network.add(asking(rig, "b", "fd00:10:244:1::99", "10.244.1.99"))).ips == ("10.244.1.99", "fd00:10:244:1::99")
    again = asking(rig, "b", "10.244.1.99")
    assert (await network.add(again)).ips == ("10.244.1.99", "fd00:10:244:1::99")
    rig.agent.network.reserve("c", ("10.244.1.50", "fd00:10:244:1::50"))
    assert (await network.add(asking(rig, "c", "10.244.1.51"))).ips == ("10.244.1.51", "fd00:10:244:1::50")
    assert (await network.add(asking(rig, "d", "10.244.1.50"))).ips[0] == "10.244.1.50", "what c did not take is free"


@pytest.mark.parametrize(
    ("ips", "words"),
    [
        (("10.244.1.9",), "address 10.244.1.9 is asked for, but pod default/a has it"),
        (("fd00:10:244:1::50",), "it is kept for the pod with uid old, which had it before this node started"),
        (("10.244.1.1",), "it is the node's own in block 10.244.1.0/24"),
        (("10.244.1.255",), "it is one of the first two or the last one of block 10.244.1.0/24"),
        (("10.244.1.0",), "it is one of the first two or the last one of block 10.244.1.0/24"),
        (("10.244.2.3",), r"it is in no block of this node \(10.244.1.0/24, fd00:10:244:1::/64\)"),
        (("10.244.1.3", "10.244.1.4"), "10.244.1.3 and 10.244.1.4 are asked for: an interface gets one of block 10.244.1.0/24"),
        (("10.244.1.3", "10.244.1.300"), "10.244.1.300"),
    ],
)
async def test_an_address_that_can_not_be_had_is_an_error_that_says_why(ips: tuple[str, ...], words: str) -> None:
    rig = await started()
    rig.agent.network.reserve("old", ("10.244.1.50", "fd00:10:244:1::50"))
    await rig.agent.network.add(asking(rig, "a", "10.244.1.9"))
    before, owners = rig.host.objects.dump(), rig.agent.network.addresses.owners
    with pytest.raises(NetworkError, match=f"pod default/b: .*{words}"):
        await rig.agent.network.add(asking(rig, "b", *ips))
    assert rig.host.objects.dump() == before and rig.agent.network.addresses.owners == owners
    assert rig.agent.network.addresses.reservations == {"old": ("10.244.1.50", "fd00:10:244:1::50")}
    assert (await rig.agent.network.add(asking(rig, "c", "10.244.1.3"))).ips[0] == "10.244.1.3", "nothing of b was kept"


async def test_an_interface_that_is_attached_does_not_get_another_address() -> None:
    rig = await started()
    await rig.agent.network.add(asking(rig, "a", "10.244.1.9"))
    with pytest.raises(NetworkError, match=r"attached with 10\.244\.1\.9, fd00:10:244:1::2: detach it first"):
        await rig.agent.network.add(asking(rig, "a", "10.244.1.10"))


async def test_a_failed_wish_keeps_what_is_reserved_for_the_pod() -> None:
    rig = await started()
    rig.agent.network.reserve("b", ("10.244.1.50", "fd00:10:244:1::50"))
    await rig.agent.network.add(asking(rig, "a", "10.244.1.9"))
    with pytest.raises(NetworkError, match="pod default/a has it"):
        await rig.agent.network.add(asking(rig, "b", "10.244.1.9"))
    assert (await rig.agent.network.add(rig.attachment("b"))).ips == ("10.244.1.50", "fd00:10:244:1::50")


async def test_a_mac_that_is_asked_for_is_had_and_everything_that_knows_the_pods_mac_knows_it() -> None:
    rig = await started()
    pod = rig.opener.namespace()
    got = await rig.agent.network.add(rig.attachment("a", pod, mac="02-00-00-00-00-01"))
    assert got.mac == OWN
    await rig.settle()
    there = rig.host.objects.network.values()
    assert [one.mac for one in there if isinstance(one, Fdb)] == [OWN]
    of_pod = {one.ip: one.mac for one in there if isinstance(one, Neighbour) and one.link == "cbr0"}
    assert set(of_pod.values()) == {OWN} and link_local_of(OWN) in of_pod and len(of_pod) == 3
    elements = [value for value in rig.host.objects.nft.values() if isinstance(value, Element)]
    assert sum(OWN in str((one.key, one.data)) for one in elements) > 3
    assert "0a:58:0a:f4:01:02" not in rig.host.objects.dump()
    assert next(link for link in pod.objects.links() if link.name == "eth0").mac == OWN
    await rig.agent.network.check(rig.attachment("a", pod, mac=OWN))


@pytest.mark.parametrize(
    ("mac", "words"),
    [
        (OWN, f"MAC {OWN} can't be its own: pod default/a has it"),
        ("0a:58:0a:f4:01:01", "the pods' bridge has it"),
        ("01:00:5e:00:00:01", "one of a group"),
        ("ff:ff:ff:ff:ff:ff", "one of a group"),
        ("00:00:00:00:00:00", "none that an interface can have"),
        ("02:00:00:00:00", "not of six bytes"),
        ("02:00:00-00:00:01", "not of six bytes"),
        ("x", "not of six bytes"),
    ],
)
async def test_a_mac_that_can_not_be_had_is_an_error_that_says_why(mac: str, words: str) -> None:
    rig = await started()
    first = rig.attachment("a", mac=OWN)
    await rig.agent.network.add(first)
    with pytest.raises(NetworkError, match=words):
        await rig.agent.network.add(rig.attachment("b", mac=mac))
    assert rig.agent.network.addresses.owners == {first.id}


async def test_a_mac_that_is_made_of_an_address_may_be_another_pods_already_and_is_free_when_that_goes() -> None:
    rig = await started()
    first, second = rig.attachment("a", mac="0a:58:0a:f4:01:03"), rig.attachment("b")
    await rig.agent.network.add(first)
    with pytest.raises(NetworkError, match=r"MAC 0a:58:0a:f4:01:03 can't be its own: pod default/a has it"):
        await rig.agent.network.add(second)
    await rig.agent.network.delete(first)
    assert (await rig.agent.network.add(rig.attachment("c", mac="0a:58:0a:f4:01:03"))).mac == "0a:58:0a:f4:01:03"
    await rig.settle()
    await rig.agent.network.check(rig.attachment("c"))


async def test_an_interface_that_is_attached_does_not_get_another_mac() -> None:
    rig = await started()
    await rig.agent.network.add(rig.attachment("a", mac=OWN))
    with pytest.raises(NetworkError, match=f"MAC 02:00:00:00:00:02 is asked for, but this interface is attached with {OWN}"):
        await rig.agent.network.add(rig.attachment("a", mac="02:00:00:00:00:02"))
    assert (await rig.agent.network.add(rig.attachment("a"))).mac == OWN, "who asks for none does not mind"


async def test_a_full_block_is_named_with_its_size_and_who_has_its_addresses() -> None:
    rig = await started()
    for i in range(250):
        rig.agent.network.reserve(f"p{i}", (f"10.244.1.{i + 5}", f"fd00:10:244:1::{i + 5:x}"))
    for name in ("a", "b", "c"):
        await rig.agent.network.add(dataclasses.replace(rig.attachment(name), namespace="shop" if name == "c" else "default"))
    words = "has 253 pod addresses, all in use (2 pods of namespace default, 1 pod of namespace shop, 250 kept for pods that had them"
    with pytest.raises(
        NetworkError, match=re.escape(f"node block 10.244.1.0/24 {words} before the node started): delete pods of")
    ):
        await rig.agent.network.add(rig.attachment("x"))


def of_api(name: str, phase: str = "Running", **more: Any) -> PodInfo:
    return PodInfo(
        metadata=SlimMetadata(name, "default", f"uid-{name}"), node="node1", ips=("10.244.1.2",), phase=phase, **more
    )


@pytest.mark.parametrize(
    ("known", "first"),
    [
        (of_api("hangs"), "10.244.1.3"),
        (of_api("hangs", is_terminating=True), "10.244.1.3"),
        (of_api("ended", "Succeeded"), "10.244.1.2"),
        (of_api("host", host_network=True), "10.244.1.2"),
        (of_api("new"), "10.244.1.2"),
    ],
)
async def test_an_address_that_the_api_has_for_another_pod_is_not_given_out(known: PodInfo, first: str) -> None:
    rig = await with_block("10.244.1.0/28")
    rig.put(known)
    assert (await rig.agent.network.add(rig.attachment("new", pod_uid="uid-new"))).ips[0] == first
    rig.put(msgspec.structs.replace(known, phase="Failed"))
    everything = [(await rig.agent.network.add(rig.attachment(f"p{number}"))).ips[0] for number in range(12)]
    assert sorted({first, *everything}) == sorted(f"10.244.1.{number}" for number in range(2, 15)), "none is lost"


async def test_a_block_whose_last_addresses_pods_have_left_without_an_end_says_so() -> None:
    rig = await with_block("10.244.1.0/30")
    rig.put(of_api("hangs", is_terminating=True))
    words = "10.244.1.0/30 has 1 pod address, all in use (1 of pods that have left, and not ended in the API): delete pods"
    with pytest.raises(NetworkError, match=re.escape(words)):
        await rig.agent.network.add(rig.attachment("new"))
    rig.remove(of_api("hangs"))
    assert (await rig.agent.network.add(rig.attachment("new"))).ips[0] == "10.244.1.2"


async def test_an_address_that_another_network_has_given_out_is_not_and_is_counted_when_the_block_is_full() -> None:
    rig = Rig()
    theirs = {"10.244.1.2", "10.244.1.4", "10.244.1.5"}

    async def elsewhere() -> Container[str]:
        return frozenset(theirs)

    rig.elsewhere = elsewhere
    rig.new_agent()
    await rig.start(msgspec.structs.replace(node(1, DUAL), spec=NodeSpec(pod_cidrs=("10.244.1.0/29", "fd00:10:244:1::/64"))))
    network = rig.agent.network
    assert [(await network.add(rig.attachment(name))).ips[0] for name in ("a", "b")] == ["10.244.1.3", "10.244.1.6"]
    words = "all in use (2 pods of namespace default, 3 that the network before podplane has given out): delete pods"
    with pytest.raises(NetworkError, match=re.escape(words)):
        await network.add(rig.attachment("c"))
    theirs.remove("10.244.1.4")
    assert (await network.add(rig.attachment("c"))).ips[0] == "10.244.1.4"
