"""An agent's process that has CAP_NET_ADMIN and CAP_NET_RAW, and nothing else: the plugin, which has all, opens what it needs in pods."""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from bench.agent_alone import OneProcess
from bench.agents import make_uplink
from bench.simulated_api import SimulatedApi, credentials
from podplane.apiserver.asgi import serve
from podplane.cni import wire
from podplane.kernel import rights, syscalls
from podplane.kernel.namespace import CurrentNamespace, Namespace, NetworkNamespace, Workers
from tests.kernel import cluster, test_announce, test_monitor, test_packet_log, test_services, test_traffic_control
from tests.kernel.test_cni_plugin import ip
from tests.unit.agent.rig import until
from tests.unit.cni import programs
from tests.unit.cni.fakes import configuration
from tests.unit.cni.programs import Ended, words_of
from tests.unit.cni.test_server import exchange

pytestmark = pytest.mark.kernel
KEPT = ("NET_ADMIN", "NET_RAW")
DROPPED = tuple(number for number, name in enumerate(rights.NAMES) if name not in KEPT)
ASKED = {
    "portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}],
    "bandwidth": {"ingressRate": 10**9, "ingressBurst": 10**8, "egressRate": 10**9, "egressBurst": 10**8},
}
MS_REMOUNT = 0x20
HARMLESS = syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC


def confine(sysctl_dir: Path) -> None:
    """Have a process that is started next what a container has: /proc/sys read-only, another mount of the network's, and no capabilities
    but those (root has what is left in its bounding set: capabilities(7))."""
    syscalls.unshare(syscalls.CLONE_NEWNS)
    bind = syscalls.MS_BIND | syscalls.MS_REC
    syscalls.mount("/proc/sys/net", str(sysctl_dir), None, bind)
    syscalls.mount("/proc/sys", "/proc/sys", None, bind)
    syscalls.mount("none", "/proc/sys", None, syscalls.MS_BIND | MS_REMOUNT | syscalls.MS_RDONLY | HARMLESS)
    for number in DROPPED:
        syscalls.drop_from_bounding_set(number)


class Limited(OneProcess):
    """`podplane agent` without capabilities that it does not need."""

    def __init__(self, folder: Path, kubeconfig: Path) -> None:
        super().__init__(folder, kubeconfig)
        self._sysctl_dir = folder / "sysctls"
        self._sysctl_dir.mkdir()
        config = folder / "config"
        config.write_text(json.dumps(json.loads(config.read_text()) | {"sysctl_dir": str(self._sysctl_dir)}))

    def confine(self) -> None:
        confine(self._sysctl_dir)

    def words(self, *more: str) -> list[str]:
        own = ["--kubeconfig", str(self._kubeconfig), "--config", str(self._folder / "config"), "--node-name", "node1"]
        return [sys.executable, "-m", "podplane", "agent", *own, "--run-dir", str(self._folder / "run"), *more]

    def spawn(self) -> None:
        environment = os.environ | {"NOTIFY_SOCKET": str(self._folder / "notify")}
        with (self._folder / "log").open("ab") as log:
            self.process = subprocess.Popen(self.words(), env=environment, preexec_fn=self.confine, stderr=log)

    def uninstall(self) -> str:
        done = subprocess.run(self.words("uninstall"), preexec_fn=self.confine, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done
        return done.stdout

    def without_sysctls(self) -> str:
        """What it says where sysctls can't be set."""
        words = [one for one in self.words("uninstall") if one not in ("--config", str(self._folder / "config"))]
        done = subprocess.run(words, preexec_fn=self.confine, capture_output=True, text=True, check=False)
        assert done.returncode == 2
        return done.stderr

    @property
    def log(self) -> str:
        return (self._folder / "log").read_text()

    @property
    def capabilities(self) -> set[str]:
        found = re.search(r"CapPrm:\t(\w+)", Path(f"/proc/{self.process.pid}/status").read_text())
        assert found is not None
        return {name for number, name in enumerate(rights.NAMES) if int(found[1], 16) >> number & 1}


class Engine:
    """A container engine with all rights: namespaces that are files, and calls of a plugin."""

    def __init__(self, folder: Path, workers: Workers) -> None:
        self._folder, self._workers = folder, workers
        self._words = words_of("c", folder)

    def new_namespace(self, name: str) -> NetworkNamespace:
        made = NetworkNamespace.create(self._workers)
        path = self.path_of(name)
        path.touch()
        syscalls.mount(f"/proc/self/fd/{made.fd}", str(path), None, syscalls.MS_BIND)
        return made

    def path_of(self, name: str) -> Path:
        return self._folder / f"netns-{name}"

    def close(self) -> None:
        for path in self._folder.glob("netns-*"):
            syscalls.unmount(str(path))

    def environment(self, verb: str, name: str) -> dict[str, str]:
        arguments = f"IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME={name};K8S_POD_UID={name}"
        return {
            "CNI_COMMAND": verb,
            "CNI_CONTAINERID": name,
            "CNI_IFNAME": "eth0",
            "CNI_NETNS": str(self.path_of(name)),
            "CNI_ARGS": arguments,
        }

    async def call(self, verb: str, name: str, **fields: Any) -> Ended:
        where = {"PODPLANE_CNI_SOCKET": str(self._folder / "run" / "cni.sock")}
        return await programs.run(self._words, configuration(**fields), **self.environment(verb, name), **where)


@asynccontextmanager
async def api_at(folder: Path, pods: int) -> AsyncIterator[Path]:
    """An API that knows a node and its pods; the kubeconfig that leads there."""
    api = SimulatedApi(0, 0, peers=0, own_pods=pods)
    listener = socket.create_server(("127.0.0.1", 0))
    certificates, kubeconfig = credentials(folder, *listener.getsockname())
    served = asyncio.create_task(serve(api.handle, [listener], certificates.certificate, certificates.key))
    try:
        yield kubeconfig
    finally:
        served.cancel()
        await asyncio.wait([served])


def greeting(server: Namespace, client: Namespace, to: tuple[str, int], port: int) -> bytes:
    """What a client reads from a server over TCP."""
    with server.run(socket.create_server, ("0.0.0.0", port)) as listener, client.run(socket.create_connection, to, 5) as asked:
        answered, _ = listener.accept()
        with answered:
            answered.send(b"hello")
        return bytes(asked.recv(5))


def sysctl(name: str) -> str:
    return Path("/proc/sys/net", name).read_text().strip()


async def attached_by_an_agent_that_may_enter_nothing(folder: Path) -> None:
    workers = Workers(1)
    engine = Engine(folder, workers)
    async with api_at(folder, 3) as kubeconfig:
        agent = Limited(folder, kubeconfig)
        await agent.start()
        try:
            assert agent.capabilities == set(KEPT)
            assert "/proc/sys/net is read-only, and the agent sets sysctls" in await asyncio.to_thread(agent.without_sysctls)
            pods = {name: engine.new_namespace(name) for name in ("own-0", "own-1", "own-2")}
            await whole_life(engine, agent, pods)
            agent.stop()
            assert "is as it was before the first start" in await asyncio.to_thread(agent.uninstall)
        finally:
            if agent.process.poll() is None:
                agent.process.kill()
                agent.process.wait()
            engine.close()
    workers.close()


async def whole_life(engine: Engine, agent: Limited, pods: dict[str, NetworkNamespace]) -> None:
    added = [await engine.call("ADD", name, runtimeConfig=ASKED if name == "own-0" else {}) for name in ("own-0", "own-1")]
    assert [one.status for one in added] == [0, 0], (added, agent.log)
    first, second = pods["own-0"], pods["own-1"]
    address = added[0].output["ips"][0]["address"].partition("/")[0]
    assert first.run(sysctl, "ipv6/conf/default/accept_ra") == "0", "sysctls of a pod are set over the folder that was passed"
    assert greeting(first, second, (address, 80), 80) == b"hello"
    assert await asyncio.to_thread(greeting, first, CurrentNamespace(), ("192.168.1.10", 8080), 80) == b"hello"
    await faults_are_named_and_repaired(engine, first, added[0].output)
    old = wire.request(engine.environment("ADD", "own-2") | {wire.FDS: wire.NETNS}, configuration())
    refused = await exchange(agent._folder / "run" / "cni.sock", old, (pods["own-2"].fd,))
    assert b"podplane-cni is older than the agent, and the agent has no CAP_SYS_ADMIN" in refused

    agent.stop()
    _, changes = await agent.start()
    assert changes == 0, agent.log
    assert "2 interfaces of an agent before this one: pods are looked into, and repaired inside, from" in agent.log
    assert greeting(first, second, (address, 80), 80) == b"hello"
    await faults_are_named_and_repaired(engine, first, added[0].output)
    assert (await engine.call("ADD", "own-2")).status == 0
    for name in pods:
        assert await engine.call("DEL", name) == Ended(0, b"", b"")
    assert "eth0" not in ip(first, "link")


async def faults_are_named_and_repaired(engine: Engine, pod: Namespace, result: Any) -> None:
    assert await engine.call("CHECK", "own-0", prevResult=result) == Ended(0, b"", b"")
    ip(pod, "route", "del", "default")
    faulty = await engine.call("CHECK", "own-0", prevResult=result)
    assert (faulty.status, faulty.output["code"]) == (1, 102) and "0.0.0.0/0" in faulty.output["msg"]
    ip(pod, "link", "set", "eth0", "down")  # the node's end loses its carrier: the agent looks into the pod, and repairs it
    await until(lambda: "default via" in ip(pod, "route"))


def test_an_agent_with_two_capabilities_does_all_of_it(tmp_path: Path) -> None:
    make_uplink()
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(attached_by_an_agent_that_may_enter_nothing(Path(folder)))
    programs.clean()


@pytest.mark.parametrize(
    "test",
    [
        test_announce.test_a_node_whose_agent_is_dead_answers_for_a_time_and_then_no_longer,
        test_monitor.test_an_overflow_is_said_once_and_the_monitor_goes_on,
        test_packet_log.test_what_is_logged_is_read_as_it_was_sent,
        test_services.test_endpoints_come_and_go,
        test_traffic_control.test_what_is_applied_is_read_back_and_goes_without_a_trace,
    ],
)
def test_each_part_of_the_nodes_kernel_needs_no_more(test: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Announcements, notifications, NFLOG, nf_tables and connection tracking, shapers: all in the namespace of the node itself."""
    others = Workers(1)  # of the test: they make the namespaces of other nodes
    for module in (cluster, test_announce):
        monkeypatch.setattr(module, "Workers", lambda *_: others)
    rights.apply(rights.Rights(without=DROPPED))
    assert rights.effective() == set(KEPT)
    test()
