"""Host ports that no pod can have: an ADD says the same whether it comes by a call or over the agent's socket."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from podplane.cni.client import PluginNetwork
from podplane.cni.network import Attachment, NetworkError
from podplane.model.view import HostPort
from tests.unit.agent.rig import Rig, cluster


@pytest.mark.parametrize(
    ("ports", "why"),
    [
        ((HostPort(8080, 80, "UDP", "localhost"),), "hostIP 'localhost' is no IP address"),
        ((HostPort(53, 53), HostPort(53, 54)), "host port 53/tcp is to lead to two ports of the container"),
    ],
)
async def test_it_is_refused_in_the_same_words(ports: tuple[HostPort, ...], why: str, tmp_path: Path) -> None:
    rig = Rig()
    await rig.start(*cluster(1))
    request: Attachment = rig.attachment("a", host_ports=ports)
    said = []
    for network in (rig.agent.network, PluginNetwork(tmp_path / "none", patience=0)):
        with pytest.raises(NetworkError) as refused:
            await network.add(request)
        said.append(str(refused.value))
    assert said[0] == said[1] and said[0].startswith(f"pod default/a: {why}")
    assert not rig.agent.network.addresses.owners


async def test_what_only_some_nodes_have_is_no_reason() -> None:
    rig = Rig()
    await rig.start(*cluster(1))
    ports = (HostPort(53, 53), HostPort(53, 53, "UDP"), HostPort(53, 54, "TCP", "127.0.0.1"), HostPort(1, 1, "TCP", "::1"))
    assert (await rig.agent.network.add(rig.attachment("a", host_ports=ports))).ips


def container(rig: Rig, name: str, *ports: HostPort) -> Attachment:
    """One that is no pod, as podman asks for it: nobody would read events of it."""
    return dataclasses.replace(rig.attachment(name, pod_uid="", host_ports=ports), namespace="")


@pytest.mark.parametrize(
    ("port", "why"),
    [
        (HostPort(8081, 80), "host port 8081/tcp of all IPv6 addresses belongs to pod/default/a: choose another one"),
        (HostPort(10256, 80), "host port 10256/tcp is not served: the node's agent listens on it"),
    ],
)
async def test_a_container_that_is_no_pod_is_refused_where_a_pod_is_told(port: HostPort, why: str) -> None:
    rig = Rig()
    await rig.start(*cluster(1))
    await rig.agent.network.add(rig.attachment("a", host_ports=(HostPort(8081, 80),)))
    before = dict(rig.host.objects.nft)
    with pytest.raises(NetworkError, match=f"container c: {why}"):
        await rig.agent.network.add(container(rig, "c", HostPort(8082, 80), port))
    await rig.settle()
    assert dict(rig.host.objects.nft) == before and len(rig.agent.network.addresses.owners) == 1
    rig.events.clear()
    await rig.agent.network.add(rig.attachment("b", host_ports=(port,)))
    assert ("pod/default/b", "NotApplied", why) in rig.events and len(rig.agent.network.attached) == 2


async def test_a_container_gets_ports_that_may_lead_to_it_and_those_that_are_free_again() -> None:
    rig = Rig()
    await rig.start(*cluster(1))
    await rig.agent.network.add(container(rig, "c", HostPort(8081, 80), HostPort(8080, 80, "TCP", "1.2.3.4")))
    with pytest.raises(NetworkError, match="belongs to container/c"):
        await rig.agent.network.add(container(rig, "d", HostPort(8081, 80)))
    await rig.agent.network.delete(container(rig, "c"))
    await rig.agent.network.add(container(rig, "d", HostPort(8081, 80)))
