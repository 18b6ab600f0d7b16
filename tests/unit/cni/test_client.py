"""A runtime's side of the socket: calls as a plugin makes them, and an agent that is away."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from podplane.cni import client, wire
from podplane.cni.client import PluginNetwork
from podplane.cni.network import Attachment, NetworkError, TryAgainError
from podplane.kernel.namespace import NetworkNamespace, Workers
from podplane.model.view import Bandwidth, HostPort
from tests.unit.cni.fakes import FakeNetwork, refused, serving


class Place:
    """A network namespace that nothing runs in."""

    def __init__(self) -> None:
        self.workers = Workers(1)
        try:
            self.namespace = NetworkNamespace.create(self.workers)
        except OSError:
            pytest.skip("making a network namespace needs root")

    def attachment(self, **more: object) -> Attachment:
        fields = {"container_id": "c5", "pod_uid": "u", "namespace": "default", "name": "web", "netns": self.namespace} | more
        return Attachment(**fields)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def place() -> Place:
    return Place()


async def test_a_pod_is_attached_checked_and_detached(tmp_path: Path, place: Place) -> None:
    network, path = FakeNetwork(), tmp_path / "cni.sock"
    plugin = PluginNetwork(path)
    ports = (HostPort(8080, 80), HostPort(53, 53, "UDP", "192.0.2.1"))
    asks = {"asked_ips": ("10.244.1.8",), "mac": "0a:58:00:00:00:01", "bandwidth": Bandwidth(1000, 2000, 1000, 4_294_967_295)}
    wanted = place.attachment(host_ports=ports, requested_ips=("10.244.1.7",), **asks)
    async with serving(path, network):
        attached = await plugin.add(wanted)
        assert attached == network.find(wanted.id)
        asked = network.asked[0][1]
        assert (asked.host_ports, asked.requested_ips, asked.network) == (ports, ("10.244.1.7",), "podplane")
        assert {name: getattr(asked, name) for name in asks} == asks
        assert asked.netns_path == f"/proc/{os.getpid()}/fd/{place.namespace.fd}"
        assert await plugin.add(wanted) == attached, "what is attached already is attached once more"
        await plugin.check(wanted)
        await plugin.gc([wanted])
        assert network.attached
        await plugin.gc([])
        assert not network.attached
        await plugin.delete(wanted)


async def test_why_the_agent_refuses_is_told(tmp_path: Path, place: Place) -> None:
    network, path = FakeNetwork(), tmp_path / "cni.sock"
    async with serving(path, network):
        network.error = refused()
        with pytest.raises(NetworkError, match="the kernel refused it"):
            await PluginNetwork(path).add(place.attachment())
        network.error = TryAgainError("soon")
        with pytest.raises(TryAgainError, match="soon"):
            await PluginNetwork(path).add(place.attachment())
        with pytest.raises(NetworkError, match="pod default/web: hostIP 'x'"):
            await PluginNetwork(path).add(place.attachment(host_ports=(HostPort(80, 80, "TCP", "x"),)))
        with pytest.raises(NetworkError, match="CNI_IFNAME"):
            await PluginNetwork(path).add(place.attachment(ifname="a/b"))


async def test_an_add_waits_for_the_agent_but_not_for_ever(tmp_path: Path, place: Place) -> None:
    network, path = FakeNetwork(), tmp_path / "cni.sock"
    with pytest.raises(TryAgainError, match="No such file"):
        await PluginNetwork(path, patience=0.05).add(place.attachment())
    adding = asyncio.create_task(PluginNetwork(path).add(place.attachment()))
    await asyncio.sleep(0.03)
    async with serving(path, network):
        assert (await adding).interface == "eth0"


async def test_a_delete_waits_for_the_agent(tmp_path: Path, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "PATIENCE_SECONDS", 0.01)
    network, path = FakeNetwork(), tmp_path / "cni.sock"
    deleting = asyncio.create_task(PluginNetwork(path, patience=0.01).delete(place.attachment()))
    await asyncio.sleep(0.05)
    async with serving(path, network):
        await deleting
    assert network.asked == [("delete", ("c5", "eth0"))]


@pytest.mark.parametrize("answer", [b"\0{}", b"\0[", b"\1", b"\1nonsense", b'\0{"ips":[{"address":"x"}]}'])
async def test_an_answer_that_makes_no_sense_is_an_error(tmp_path: Path, place: Place, answer: bytes) -> None:
    path = tmp_path / "cni.sock"

    async def answering(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(wire.length_of(await reader.readexactly(4)))
        writer.write(answer)
        writer.close()

    async with await asyncio.start_unix_server(answering, path):
        with pytest.raises(NetworkError):
            await PluginNetwork(path).add(place.attachment())
