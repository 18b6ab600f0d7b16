"""An agent in a process of its own, in a large cluster: how soon is it ready, what does it take, how soon is a change in the kernel, and
does a restart lose packets?

    simulated API ── HTTPS ──► `podplane agent` ──► the real kernel of a network namespace of its own
    CNI calls over its socket: 250 pods; two of them send each other datagrams while it is started again
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import quantiles

from bench.agent_start import PEERS
from bench.agents import NAME, SETTINGS, make_uplink
from bench.common import Row
from bench.judging import ABSOLUTE, PYTHON
from bench.services import ENDPOINTS, SERVICES, measured
from bench.simulated_api import OWN_PODS, SimulatedApi, credentials, slice_of
from podplane.apiserver.asgi import serve
from podplane.cni.client import PluginNetwork
from podplane.cni.network import Attachment
from podplane.dns import resolv_conf
from podplane.kernel import netlink
from podplane.kernel.conntrack import NETLINK_NETFILTER
from podplane.kernel.namespace import NetworkNamespace, Workers
from podplane.kernel.nft.reading import generation
from podplane.machine.preflight import RESOLV_CONF

PODS, EVENTS, AT_ONCE = 100_000, 400, 16
MEMORY, BARE_MEMORY, READY, IDLE, EVENT, LOST = 350.0, 150.0, 10.0, 1.0, 10.0, 0.0
"""What must be: megabytes, and with nodes alone; seconds, percent of a core, milliseconds (99 of 100), packets."""
READY_SECONDS, IDLE_SECONDS, EVENT_SECONDS = 120.0, 10.0, 5.0
TICKS = os.sysconf("SC_CLK_TCK")


def run(short: bool) -> list[Row]:
    """Several runs, each in a namespace of its own."""
    services, pods, rounds = (200, 2_000, 1) if short else (SERVICES, PODS, 3)
    runs = [measured("bench.agent_alone", services, pods) for _ in range(rounds)]
    bare = [measured("bench.agent_alone", 0, 0) for _ in range(rounds)]
    size = f"an agent's process, {PEERS:,} nodes, {pods:,} pods, {services:,} Services, {OWN_PODS} pods of its own"

    def row(what: str, name: str, unit: str, must: float, work: str = PYTHON) -> Row:
        return Row(f"{size}: {what}", [found[name] for found in runs], unit, None if short else must, work=work)

    return [
        row("ready", "ready", "s", READY),
        row("memory", "memory", "MB", MEMORY, ABSOLUTE),
        row("CPU while nothing happens", "idle", "% of a core", IDLE),
        row("an endpoint comes or goes, event to kernel, p50", "half", "ms", EVENT),
        row("an endpoint comes or goes, event to kernel, p99", "slowest", "ms", EVENT),
        row("restart, ready", "restart", "s", READY),
        row("restart, memory", "memory again", "MB", MEMORY, ABSOLUTE),
        row("restart, objects written", "written", "", 0, ABSOLUTE),
        row("restart, datagrams lost of 1,000 a second", "lost", "packets", LOST, ABSOLUTE),
        Row(
            f"an agent's process, {PEERS:,} nodes, no Services, {OWN_PODS} pods of its own: memory",
            [found["memory"] for found in bare],
            "MB",
            None if short else BARE_MEMORY,
        ),
    ]


# In the namespace.


def name_servers() -> list[str]:
    """Those of the machine that this runs on, which nobody asks here: they may have addresses of the cluster's networks."""
    return [ip for ip in resolv_conf.read(RESOLV_CONF.read_text()).nameservers if "%" not in ip]


class OneProcess:
    """The agent, started by `start`."""

    def __init__(self, folder: Path, kubeconfig: Path) -> None:
        self._folder, self._kubeconfig = folder, kubeconfig
        self._notifications = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._notifications.bind(str(folder / "notify"))
        network = {name: getattr(SETTINGS.network, name) for name in ("cluster_cidrs", "service_cidrs")}
        (folder / "config").write_text(json.dumps({"network": network, "allow_overlaps": name_servers()}))
        self.process: subprocess.Popen[bytes]

    def spawn(self) -> None:
        """Start a process."""
        words = ["agent", "--kubeconfig", str(self._kubeconfig), "--config", str(self._folder / "config")]
        words += ["--node-name", NAME, "--run-dir", str(self._folder)]
        environment = os.environ | {"NOTIFY_SOCKET": str(self._folder / "notify")}
        self.process = subprocess.Popen([sys.executable, "-m", "podplane", *words], env=environment)

    async def start(self) -> tuple[float, int]:
        """The seconds until it is ready, and how many objects it wrote."""
        began = time.perf_counter()
        self.spawn()
        async with asyncio.timeout(READY_SECONDS):
            while True:
                message = await asyncio.get_running_loop().sock_recv(self._notifications, 1 << 16)
                lines = dict(line.partition("=")[::2] for line in message.decode().split("\n"))
                if lines.get("READY"):
                    return time.perf_counter() - began, json.loads(lines["X_PODPLANE_STARTED"])["changes"]

    def stop(self) -> None:
        """As a service manager does."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(10)

    @property
    def megabytes(self) -> float:
        """The most that it ever had in memory."""
        return int(Path(f"/proc/{self.process.pid}/status").read_text().split("VmHWM:")[1].split()[0]) / 1024

    @property
    def cpu_seconds(self) -> float:
        """What it has used."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS


async def attach(network: PluginNetwork, pods: int, workers: Workers) -> list[tuple[Attachment, str]]:
    """Attach the node's pods, some at a time, each with its address; `pods` of others come before them."""

    async def add(number: int) -> tuple[Attachment, str]:
        name = f"own-{pods + number}"
        request = Attachment(f"c{number}", name, "default", name, NetworkNamespace.create(workers))
        return request, (await network.add(request)).ips[0]

    found = []
    for start in range(0, OWN_PODS, AT_ONCE):
        found += await asyncio.gather(*map(add, range(start, min(start + AT_ONCE, OWN_PODS))))
    return found


async def events(api: SimulatedApi, services: int) -> list[float]:
    """Milliseconds from an event until the kernel has its consequence, of endpoints that go and come."""
    tables = netlink.Socket(NETLINK_NETFILTER)
    whole: dict[int, bool] = {}
    times = []
    for _ in range(EVENTS):
        number = random.randrange(services)
        whole[number] = not whole.get(number, True)
        one = slice_of(number, PEERS, -1 if whole[number] else random.randrange(ENDPOINTS))
        before = generation(tables)
        began = time.perf_counter()
        api.changed("endpointslices", one)
        while generation(tables) == before:
            if time.perf_counter() - began > EVENT_SECONDS:
                raise RuntimeError(f"nothing came of {one['metadata']['name']}")
            await asyncio.sleep(0.0002)
        times.append((time.perf_counter() - began) * 1000)
        await asyncio.sleep(0.02)  # what nothing leads to any more is removed in a transaction of its own
    return times


@contextlib.contextmanager
def traffic(one: Attachment, other: Attachment, ip: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that sends datagrams from one pod to another until its standard input ends, and then says how many were lost."""
    server = other.netns.run(socket.socket, socket.AF_INET, socket.SOCK_DGRAM)
    client = one.netns.run(socket.socket, socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("0.0.0.0", 9))
    client.connect((ip, 9))
    fds = (client.fileno(), server.fileno())
    words = [sys.executable, "-m", "bench.datagrams", *map(str, fds)]
    with subprocess.Popen(words, pass_fds=fds, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        yield process


async def measure(folder: Path, services: int, pods: int) -> dict[str, float]:
    """All of it, one after the other."""
    api, workers = SimulatedApi(services, pods), Workers()
    listener = socket.create_server(("127.0.0.1", 0))
    certificates, kubeconfig = credentials(folder, *listener.getsockname())
    served = asyncio.create_task(serve(api.handle, [listener], certificates.certificate, certificates.key))
    agent = OneProcess(folder, kubeconfig)
    found: dict[str, float] = {}
    try:
        found["ready"], _ = await agent.start()
        attached = await attach(PluginNetwork(folder / "cni.sock"), pods, workers)
        await asyncio.sleep(1)
        before = agent.cpu_seconds
        await asyncio.sleep(IDLE_SECONDS)
        found["idle"] = 100 * (agent.cpu_seconds - before) / IDLE_SECONDS
        if not services:
            return found | {"memory": agent.megabytes}
        cuts = quantiles(await events(api, services), n=100)
        found |= {"half": cuts[49], "slowest": cuts[98], "memory": agent.megabytes}
        with traffic(attached[0][0], attached[1][0], attached[1][1]) as sent:
            await asyncio.sleep(1)
            await asyncio.to_thread(agent.stop)
            found["restart"], found["written"] = await agent.start()
            await asyncio.sleep(1)
            answer, _ = await asyncio.to_thread(sent.communicate)
            found |= json.loads(answer) | {"memory again": agent.megabytes}
        return found
    finally:
        agent.process.kill()
        agent.process.wait()
        served.cancel()
        await asyncio.wait([served])


def main() -> None:
    """In the namespace: the figures as JSON."""
    make_uplink()
    logging.disable()  # of watches that end with the bench
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(asyncio.run(measure(Path(folder), *map(int, sys.argv[1:3])))))


if __name__ == "__main__":
    main()
