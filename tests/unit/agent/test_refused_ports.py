"""Host ports that no pod can have: an ADD says the same whether it comes by a call or over the agent's socket."""

from __future__ import annotations

from pathlib import Path

import pytest

from podplane.cni.client import PluginNetwork
from podplane.cni.network import Attachment, NetworkError
from podplane.model.view import HostPort
from tests.unit.agent.rig import Rig, cluster


@pytest.mark.parametrize(
    ("ports", "why"),
    [
        ((HostPort(8080, 80, "TCP", "::1"),), "hostIP ::1 can't lead to a pod: the kernel has no route_localnet for IPv6"),
        ((HostPort(8080, 80, "TCP", "0:0:0:0:0:0:0:1"),), "hostIP ::1 can't lead to a pod"),
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
    ports = (HostPort(53, 53), HostPort(53, 53, "UDP"), HostPort(53, 54, "TCP", "127.0.0.1"), HostPort(1, 1, "TCP", "::"))
    await rig.agent.network.add(rig.attachment("a", host_ports=ports))
