"""podplane-cni as a container engine runs it, and an agent that answers: what is in the kernel afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from podplane.agent.agent import Agent
from podplane.agent.attachments import Attachments
from podplane.cni.network import Unready
from podplane.cni.server import Server
from podplane.kernel.door import Kernel
from podplane.kernel.namespace import CurrentNamespace, Namespace, NetworkNamespace, Workers
from podplane.kernel.opener import KernelOpener
from tests.plans import agent_settings, node
from tests.unit.agent.rig import caches_of
from tests.unit.cni import programs
from tests.unit.cni.fakes import configuration
from tests.unit.cni.programs import PROGRAMS, Ended, words_of

pytestmark = pytest.mark.kernel


class Ready:
    """`NodeNetwork` of an agent that has started."""

    def __init__(self, attachments: Attachments) -> None:
        self.add, self.delete, self.check, self.gc = attachments.add, attachments.delete, attachments.check, attachments.gc
        self.find, self.attachments = attachments.find, attachments.attachments

    async def begun(self) -> None:
        """It has."""

    def unready(self) -> Unready | None:
        return None


class Engine:
    """A container engine: namespaces by path, and calls of a plugin."""

    def __init__(self, words: list[str], path: Path, workers: Workers) -> None:
        self._words, self._path, self._workers = words, path, workers

    def new_namespace(self) -> NetworkNamespace:
        return NetworkNamespace.create(self._workers)

    async def call(
        self, verb: str, container: str, netns: Namespace | None, version: str = "1.1.0", arguments: str = "", **fields: Any
    ) -> Ended:
        place = {"CNI_ARGS": arguments} | ({} if netns is None else {"CNI_NETNS": path_of(netns)})
        env = {"CNI_COMMAND": verb, "CNI_CONTAINERID": container, "CNI_IFNAME": "eth0", "PODPLANE_CNI_SOCKET": str(self._path)}
        return await programs.run(self._words, configuration(version, **fields), **env, **place)


def path_of(netns: Namespace) -> str:
    return f"/proc/{os.getpid()}/fd/{netns.fd}"


def ip(netns: Namespace, *words: str) -> str:
    """What `ip` of a namespace prints."""
    command = ["nsenter", f"--net={path_of(netns)}", "ip", *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@contextlib.asynccontextmanager
async def node1(path: Path, workers: Workers) -> AsyncIterator[Agent]:
    """An agent of this namespace that listens at this path."""
    here = CurrentNamespace()
    for words in ("link set lo up", "link add eth0 type bridge", "addr add 192.168.1.10/24 dev eth0", "link set eth0 up"):
        ip(here, *words.split())
    agent = Agent("node1", agent_settings((4, 6)), Kernel(here, KernelOpener()), caches_of(node(1, (4, 6))))
    await agent.start()
    server = Server(Ready(agent.network), here, workers)
    server.start(path)
    try:
        yield agent
    finally:
        await server.close()


async def life_of_a_pod(words: list[str], folder: Path) -> None:
    workers = Workers(1)
    engine = Engine(words, folder / "cni.sock", workers)
    async with node1(folder / "cni.sock", workers):
        pod = engine.new_namespace()
        added = await engine.call("ADD", "c1", pod, "1.0.0", runtimeConfig={"ips": ["10.244.1.9"], "mac": "0a:58:00:00:00:09"})
        result = added.output
        assert added.status == 0 and [one["address"] for one in result["ips"]] == ["10.244.1.9/32", "fd00:10:244:1::2/128"]
        assert result["interfaces"][1] == {"name": "eth0", "mac": "0a:58:00:00:00:09", "sandbox": path_of(pod)}
        assert "inet 10.244.1.9/32" in ip(pod, "addr", "show", "eth0") and "0a:58:00:00:00:09" in ip(pod, "link")
        assert "default via 10.244.1.1" in ip(pod, "route")
        assert result["interfaces"][0]["name"] in ip(CurrentNamespace(), "link")
        again = await engine.call("ADD", "c1", pod, "1.0.0")
        assert again.status == 1, again
        assert again.output["code"] == 101
        assert await engine.call("CHECK", "c1", pod, "1.0.0", prevResult=result) == Ended(0, b"", b"")
        for words_of_fault, named in (
            ("-6 route del default", "::/0"),
            ("link set eth0 mtu 1400", "eth0"),
            ("link set eth0 down", "eth0"),
            ("addr del 10.244.1.9/32 dev eth0", "10.244.1.9"),
        ):
            ip(pod, *words_of_fault.split())
            faulty = await engine.call("CHECK", "c1", pod, "1.0.0", prevResult=result)
            assert (faulty.status, faulty.output["code"], named in faulty.output["msg"]) == (1, 102, True), faulty
        for _ in range(3):
            assert await engine.call("DEL", "c1", None, "1.0.0") == Ended(0, b"", b"")
        assert (await engine.call("CHECK", "c1", pod, "1.0.0", prevResult=result)).output["code"] == 3
        assert "eth0" not in ip(pod, "link")
    workers.close()


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_pod_is_attached_checked_and_detached(program: str, tmp_path: Path) -> None:
    asyncio.run(life_of_a_pod(words_of(program, tmp_path), tmp_path))
    programs.clean()


async def gone(links: Callable[[], str]) -> None:
    """Wait until eth0 is not among these: a link goes after the DEL has returned (docs/cni.md)."""
    async with asyncio.timeout(10):
        while "eth0" in links():  # noqa: ASYNC110  # the kernel does not say
            await asyncio.sleep(0.01)


async def odd_namespaces(words: list[str], folder: Path) -> None:
    workers = Workers(1)
    engine = Engine(words, folder / "cni.sock", workers)
    async with node1(folder / "cni.sock", workers) as agent:
        pod = engine.new_namespace()
        assert (await engine.call("ADD", "c1", pod)).status == 0
        pod.close()  # the container has ended: its namespace, held by the agent alone, goes with the DEL
        assert (await engine.call("DEL", "c1", None)).status == 0
        own = CurrentNamespace()
        refused = await engine.call("ADD", "c2", own)
        assert (refused.status, refused.output["code"]) == (1, 4) and "the node's own" in refused.output["msg"]
        taken = engine.new_namespace()
        ip(taken, *["link", "add", "eth0", "type", "bridge"])
        before = ip(taken, "addr")
        refused = await engine.call("ADD", "c3", taken)
        assert refused.status == 1 and "eth0" in refused.output["msg"]
        assert ip(taken, "addr") == before, "what another one has made stays as it is"
        used = engine.new_namespace()
        for container in ("c4", "c5"):  # one after the other
            assert (await engine.call("ADD", container, used)).status == 0
            assert (await engine.call("DEL", container, None)).status == 0
        left, later = engine.new_namespace(), engine.new_namespace()
        assert (await engine.call("ADD", "c6", left)).status == 0
        assert (await engine.call("ADD", "c6", left)).output["code"] == 101
        assert (await engine.call("ADD", "c6", later)).status == 0, "its engine left the other one without a DEL"
        assert "eth0" not in ip(left, "link") and "eth0" in ip(later, "link")
        assert (await engine.call("DEL", "c6", None)).status == 0
        assert not agent.network.attachments()
        await gone(lambda: ip(later, "link"))
    workers.close()


def test_namespaces_that_are_not_as_they_should_be(tmp_path: Path) -> None:
    asyncio.run(odd_namespaces(words_of("c", tmp_path), tmp_path))
    programs.clean()


async def many_callers(words: list[str], folder: Path, count: int) -> None:
    workers = Workers(1)
    engine = Engine(words, folder / "cni.sock", workers)
    async with node1(folder / "cni.sock", workers) as agent:
        pods = [engine.new_namespace() for _ in range(count)]
        added = await asyncio.gather(*(engine.call("ADD", f"c{n}", pod) for n, pod in enumerate(pods)))
        addresses = {one.output["ips"][0]["address"] for one in added}
        assert [one.status for one in added] == [0] * count and len(addresses) == count
        valid = [{"containerID": f"c{n}", "ifname": "eth0"} for n in range(0, count, 2)]
        assert await engine.call("GC", "", None, **{"cni.dev/valid-attachments": valid}) == Ended(0, b"", b"")
        assert {one.container_id for one in agent.network.attachments()} == {f"c{n}" for n in range(0, count, 2)}
    workers.close()


def test_many_callers_at_once_and_what_gc_leaves(tmp_path: Path) -> None:
    asyncio.run(many_callers(words_of("c", tmp_path), tmp_path, 32))
    programs.clean()


async def loopbacks(words: list[str]) -> None:
    workers = Workers(1)
    pod = NetworkNamespace.create(workers)
    env = {"CNI_NETNS": path_of(pod), "CNI_CONTAINERID": "c1", "CNI_IFNAME": "lo"}
    added = await programs.run(words, configuration("0.3.1"), CNI_COMMAND="ADD", **env)
    assert (added.status, added.output["interfaces"][0]["sandbox"]) == (0, path_of(pod))
    assert added.output["ips"][0] == {"address": "127.0.0.1/8", "interface": 0, "version": "4"}
    assert "LOOPBACK,UP" in ip(pod, "link", "show", "lo")
    assert await programs.run(words, configuration(), CNI_COMMAND="CHECK", **env) == Ended(0, b"", b"")
    assert await programs.run(words, configuration(), CNI_COMMAND="DEL", **env) == Ended(0, b"", b"")
    assert (await programs.run(words, configuration(), CNI_COMMAND="CHECK", **env)).output["code"] == 102
    workers.close()


@pytest.mark.parametrize("program", PROGRAMS)
def test_loopback_sets_lo_up_and_down(program: str, tmp_path: Path) -> None:
    asyncio.run(loopbacks(words_of(program, tmp_path, "loopback")))
    programs.clean()
