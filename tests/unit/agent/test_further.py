"""Further interfaces of pods: each network has a bridge and addresses of its own, and a pod gets all that it asks for, or nothing."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest

from podplane.agent.additional import FurtherInterfaces, further_of
from podplane.cni.additional import Selection
from podplane.cni.network import Attached, Attachment, FurtherNetworkError, NetworkError, TryAgainError
from podplane.kernel.fakes.world import FakeNamespace
from podplane.kubeapi.client import Client
from podplane.kubeapi.errors import ApiError, NotFound
from podplane.machine.journal import Journal
from podplane.model.view import BridgeNetwork
from podplane.pods.additional import bridge_name
from podplane.pods.plan import veth_name
from podplane.state.network import Address, Route
from podplane.state.nft import Element
from tests.unit.agent.rig import Rig, cluster

BLUE, GREEN = (
    BridgeNetwork("default/blue", ("10.20.0.0/24", "fd00:20::/64")),
    BridgeNetwork("default/green", ("10.20.0.0/24",), 1400),
)
IPS = ("192.168.1.10", "fd00:192:168:1::10")
CONFIG = '{"type": "podplane", "subnets": ["10.20.0.0/24"]}'


async def started() -> Rig:
    rig = Rig()
    await rig.start(*cluster(1))
    return rig


async def attach(rig: Rig, name: str, pod: FakeNamespace, **ifnames: BridgeNetwork) -> list[Attached]:
    """A pod with its own interface and further ones."""
    requests = [rig.attachment(name, pod), *(rig.attachment(name, pod, ifname=i, further=n) for i, n in ifnames.items())]
    return [await rig.agent.network.add(one) for one in requests]


async def test_a_further_interface_is_on_the_bridge_of_its_network_alone() -> None:
    rig = await started()
    before = rig.host.objects.dump()
    pod = rig.opener.namespace()
    _, further = await attach(rig, "a", pod, net1=BLUE)
    await rig.settle()
    assert further.ips == ("10.20.0.2", "fd00:20::2") and not further.gateways and not further.has_default_routes
    links = {link.name: link for link in rig.host.objects.links()}
    bridge = links[bridge_name(BLUE)]
    assert links[veth_name("a", "net1")].master == bridge.name and bridge.alias == "podplane network/default/blue"
    assert not any(isinstance(v, Address) and v.link == bridge.name for v in rig.host.objects.network.values())
    inside = pod.objects.network.values()
    assert {(v.link, v.prefix_length) for v in inside if isinstance(v, Address)} >= {("net1", 24), ("net1", 64), ("eth0", 32)}
    assert {v.link for v in inside if isinstance(v, Route)} == {"eth0"}
    policed = [v for v in rig.host.objects.nft.values() if isinstance(v, Element) and "10.20.0.2" in str(v.key)]
    assert not policed, "policies are about the pods' own network"
    for request in (rig.attachment("a", pod), rig.attachment("a", pod, ifname="net1")):
        await rig.agent.network.check(request)
        await rig.agent.network.delete(request)
    await rig.settle()
    assert rig.host.objects.dump() == before and not rig.agent.network._further and not rig.agent.network._macs


async def test_networks_have_addresses_and_macs_of_their_own() -> None:
    rig = await started()
    first, second = rig.opener.namespace(), rig.opener.namespace()
    (_, blue, green), (_, other) = (
        await attach(rig, "a", first, net1=BLUE, net2=GREEN),
        await attach(rig, "b", second, net1=BLUE),
    )
    assert blue.ips[0] == green.ips[0] == "10.20.0.2" and blue.mac == green.mac and other.ips[0] == "10.20.0.3"
    assert (blue.mtu, green.mtu) == (1500, 1400)
    with pytest.raises(NetworkError, match=r"address 10\.20\.0\.2 is asked for, but pod default/a has it"):
        await rig.agent.network.add(rig.attachment("c", ifname="net1", further=BLUE, asked_ips=("10.20.0.2",)))
    with pytest.raises(NetworkError, match="interface net1 is attached to another network"):
        await rig.agent.network.add(rig.attachment("b", second, ifname="net1", further=GREEN))


async def test_a_restart_keeps_them_and_writes_nothing() -> None:
    rig = await started()
    pod = rig.opener.namespace()
    await attach(rig, "a", pod, net1=BLUE)
    await rig.settle()
    attached = rig.agent.network.attached
    rig.new_agent()
    await rig.start(attached=attached)
    await rig.settle()
    assert rig.written == 0
    _, other = await attach(rig, "b", rig.opener.namespace(), net1=BLUE)
    assert other.ips[0] == "10.20.0.3"


async def test_an_interface_whose_name_is_less_takes_no_default_route() -> None:
    rig = await started()
    pod = rig.opener.namespace()
    await attach(rig, "a", pod, abc=BLUE)
    await rig.settle()
    assert {v.link for v in pod.objects.network.values() if isinstance(v, Route)} == {"eth0"}


async def test_a_subnet_of_the_cluster_and_a_full_one_are_refused() -> None:
    rig = await started()
    small = BridgeNetwork("default/small", ("10.20.0.0/29",))
    for number in range(5):
        await attach(rig, f"p{number}", rig.opener.namespace(), net1=small)
    full = "subnet 10.20.0.0/29 of network default/small has 5 pod addresses, all in use (5 pods of namespace default): delete pods"
    for asked, words in (
        ((), full),
        (("10.20.0.9",), "it is in no subnet of network default/small (10.20.0.0/29)"),
        (("10.20.0.1",), "it is one of the first two or the last one of subnet 10.20.0.0/29 of network default/small"),
        (("10.20.0.2", "10.20.0.3"), "an interface gets one of subnet 10.20.0.0/29 of network default/small"),
    ):
        with pytest.raises(NetworkError, match=re.escape(words)) as refused:
            await rig.agent.network.add(rig.attachment("x", ifname="net1", further=small, asked_ips=asked))
        assert "block" not in str(refused.value)


class FakeApi:
    """Definitions by name; what is patched is kept."""

    def __init__(self, **configs: Any) -> None:
        self.configs, self.patched = configs, list[Any]()

    async def get(self, resource: str, namespace: str, name: str) -> dict[str, Any]:
        if name not in self.configs:
            raise NotFound(404, "NotFound", name)
        if isinstance(self.configs[name], Exception):
            raise self.configs[name]
        return {"spec": self.configs[name]}

    async def patch(self, resource: str, namespace: str, name: str, body: Any, *, uid: str) -> None:
        self.patched.append((namespace, name, uid, body))


def interfaces(rig: Rig, text: str, **configs: Any) -> tuple[FurtherInterfaces, FakeApi]:
    api = FakeApi(**configs)
    client: Client = api  # type: ignore[assignment]  # as far as it is used
    return FurtherInterfaces(client, rig.settings.network, lambda path: text if path == "default/a" else "", lambda: IPS), api


async def test_a_pod_gets_what_it_asks_for_and_is_told() -> None:
    rig = await started()
    further, api = interfaces(rig, "blue,blue@x", blue={"config": CONFIG})
    request = rig.attachment("a")
    wanted = await further.networks(request)
    own = await rig.agent.network.add(request)
    await further.add(rig.agent.network, request, own, wanted)
    ((namespace, name, uid, body),) = api.patched
    status = json.loads(body["metadata"]["annotations"]["k8s.v1.cni.cncf.io/network-status"])
    assert (namespace, name, uid) == ("default", "a", "a")
    assert [(one["name"], one["interface"], one["ips"][0]) for one in status] == [
        ("podplane", "eth0", "10.244.1.2"),
        ("default/blue", "net1", "10.20.0.2"),
        ("default/blue", "x", "10.20.0.3"),
    ]
    with pytest.raises(
        FurtherNetworkError, match=r"pod default/a: address 10\.20\.0\.2 is asked for, but pod default/a has it"
    ):
        wish = Selection("default", "blue", "y", ("10.20.0.2",))
        await further.add(rig.agent.network, request, own, [(wish, wanted[0][1])])
    found = further_of(rig.agent.network, request)
    assert [one.ifname for one in found] == ["net1", "x"] and all(not further_of(rig.agent.network, one) for one in found)
    assert await further.networks(rig.attachment("b")) == [] and await further.networks(found[0]) == []
    assert await further.networks(dataclasses.replace(request, namespace="")) == []


@pytest.mark.parametrize(
    ("text", "spec", "words"),
    [
        ("green", {}, "pod default/a: there is no NetworkAttachmentDefinition default/green: create it, and the pod starts"),
        ("blue@eth0", {"config": CONFIG}, "'eth0' is no name of a further interface"),
        ("blue", {"config": 7}, "NetworkAttachmentDefinition default/blue: it has no spec.config"),
        ("blue", None, "it has no spec.config"),
        ("blue", {"config": CONFIG.replace("10.20", "10.244")}, "its subnet 10.244.0.0/24 overlaps with 10.244.0.0/16"),
        (
            "blue",
            {"config": CONFIG.replace("10.20.0", "192.168.1")},
            "its subnet 192.168.1.0/24 has the node's address 192.168.1.10: ",
        ),
    ],
)
async def test_what_can_not_be_had_is_an_error_before_anything_is_attached(text: str, spec: Any, words: str) -> None:
    rig = await started()
    further, _ = interfaces(rig, text, blue=spec)
    with pytest.raises(NetworkError) as caught:
        await further.networks(rig.attachment("a"))
    assert words in str(caught.value)


async def test_an_api_that_does_not_answer_is_asked_again_later() -> None:
    rig = await started()
    further, _ = interfaces(rig, "blue", blue=ApiError(503, "ServiceUnavailable", "not now"))
    with pytest.raises(TryAgainError, match="NetworkAttachmentDefinition default/blue can't be read: not now"):
        await further.networks(rig.attachment("a"))


def test_a_journal_keeps_the_network_of_an_attachment(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    journal.attach(Attachment("c", "u", "default", "a", FakeNamespace(), further=BLUE), ("10.20.0.2",), 0)
    (kept,) = Journal(tmp_path / "journal").attachments.values()
    assert kept.attach.further == BLUE
