"""Services in the thousands: from nothing, one change, many at once, and the restart of an agent that finds everything as it should be.

The agent runs over the real kernel in a network namespace of its own; objects are decoded before the clock starts.
"""

from __future__ import annotations

import asyncio
import gc
import ipaddress
import json
import random
import resource
import socket
import subprocess
import sys
import time
from statistics import quantiles
from typing import Any

from bench.common import Row
from podplane.agent.agent import Agent
from podplane.kernel.door import Kernel, KernelOpener
from podplane.kernel.namespace import CurrentNamespace
from podplane.model.config import NetworkConfig
from podplane.model.objects import Metadata, Node, NodeAddress, NodeSpec, NodeStatus
from podplane.model.service import SERVICE_NAME, Endpoint, EndpointPort, EndpointSlice, Service, ServicePort, ServiceSpec

SERVICES, ENDPOINTS, CHANGES = 10_000, 10, 1_000
FILLED, ONE, SLOWEST, MANY, RESTARTED, MEMORY = 2.0, 0.3, 5.0, 50.0, 3.0, 250.0
"""What must be: seconds, milliseconds (half of them, and 99 of 100), milliseconds, seconds, megabytes."""
FIRST_SERVICE, FIRST_POD = ipaddress.ip_address("10.96.0.1"), ipaddress.ip_address("10.128.0.0")
ELSEWHERE = 1 << 20
CONFIG = NetworkConfig(cluster_cidrs=("10.128.0.0/9",), service_cidrs=("10.96.0.0/12",))
NODE = Node(
    metadata=Metadata(name="node1"),
    spec=NodeSpec(pod_cidrs=("10.128.0.0/24",)),
    status=NodeStatus(addresses=(NodeAddress("InternalIP", "192.168.1.10"),)),
)


def run(short: bool) -> list[Row]:
    """Several runs, each in a process and a namespace of its own."""
    services, rounds = (500, 2) if short else (SERVICES, 5)
    runs = [_measured(services) for _ in range(rounds)]

    def row(what: str, name: str, unit: str, must: float) -> Row:
        return Row(what, [found[name] for found in runs], unit, None if short else must)

    size = f"{services:,} Services × {ENDPOINTS} endpoints"
    return [
        row(f"{size} into an empty kernel", "filled", "s", FILLED),
        row(f"{size}: one endpoint comes or goes, planner to commit, p50", "half", "ms", ONE),
        row(f"{size}: one endpoint comes or goes, planner to commit, p99", "slowest", "ms", SLOWEST),
        row(f"{size}: {CHANGES:,} endpoints change at once", "many", "ms", MANY),
        row(f"{size}: an agent starts and finds nothing to write", "restarted", "s", RESTARTED),
        row(f"{size}: peak memory of the agent", "memory", "MB", MEMORY),
    ]


def _measured(services: int) -> dict[str, float]:
    return measured("bench.services", services)


def measured(module: str, *arguments: int) -> dict[str, float]:
    """One run's figures by name, of a module that runs in a network namespace of its own."""
    command = ["unshare", "--user", "--map-root-user", "--net", sys.executable, "-m", module, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    if done.returncode:
        raise RuntimeError(done.stderr)
    found: dict[str, float] = json.loads(done.stdout)
    return found


# In the namespace.


def service(number: int) -> Service:
    """A Service with one port."""
    ip = str(FIRST_SERVICE + number)
    spec = ServiceSpec(cluster_ip=ip, cluster_ips=(ip,), ports=(ServicePort(80, "http"),))
    return Service(metadata=Metadata(name=f"s{number}", namespace="default"), spec=spec)


def endpoints(number: int, offset: int = 0, without: int = -1) -> EndpointSlice:
    """Its slice, with or without one of its endpoints."""
    first = FIRST_POD + number * ENDPOINTS + offset
    labels = {SERVICE_NAME: f"s{number}"}
    return EndpointSlice(
        metadata=Metadata(name=f"s{number}-a", namespace="default", labels=labels),
        endpoints=tuple(Endpoint(addresses=(str(first + k),), node_name="node1") for k in range(ENDPOINTS) if k != without),
        ports=(EndpointPort("http", "TCP", 8080),),
    )


async def measure(count: int) -> dict[str, float]:
    """All of it, one after the other."""
    agent = Agent("node1", CONFIG, Kernel(CurrentNamespace(), KernelOpener()))
    agent.start({"node1": NODE})
    services, slices = [service(n) for n in range(count)], [endpoints(n) for n in range(count)]
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)  # as in a lab
    began = time.perf_counter()
    for one in services:
        agent.service_changed(None, one)
    for slice_ in slices:
        agent.slice_changed(None, slice_)
    await _reconcile(agent)
    found: dict[str, float] = {"filled": time.perf_counter() - began}
    times = [await _toggle(agent, slices, random.randrange(count)) for _ in range(400)]
    cuts = quantiles(times, n=100)
    found |= {"half": cuts[49], "slowest": cuts[98]}
    began = time.perf_counter()
    for number in range(min(count, CHANGES // ENDPOINTS)):
        agent.slice_changed(slices[number], new := endpoints(number, offset=ELSEWHERE))
        slices[number] = new
    await _reconcile(agent)
    found["many"] = (time.perf_counter() - began) * 1000
    found["memory"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    found["restarted"] = _restart(services, slices)
    return found


async def _reconcile(agent: Agent) -> None:
    report = await agent.reconcile()
    if report.failed:
        raise RuntimeError(str(report.failed[0]))


async def _toggle(agent: Agent, slices: list[EndpointSlice], number: int) -> float:
    """Milliseconds until a Service has one endpoint less, whichever, or all of them again."""
    old = slices[number]
    whole = len(old.endpoints or ()) == ENDPOINTS
    slices[number] = endpoints(number, without=random.randrange(ENDPOINTS) if whole else -1)
    began = time.perf_counter()
    agent.slice_changed(old, slices[number])
    await _reconcile(agent)
    return (time.perf_counter() - began) * 1000


def _restart(services: list[Service], slices: list[EndpointSlice]) -> float:
    """Seconds in which a new agent plans everything, reads the kernel, and finds it right."""
    agent = Agent("node1", CONFIG, Kernel(CurrentNamespace(), KernelOpener()))
    began = time.perf_counter()
    report = agent.start({"node1": NODE}, (), services, slices)
    if report.failed or any(operation.old != operation.new for operation in report.applied):
        raise RuntimeError(f"there was something to write: {(report.applied or report.failed)[0]}")
    return time.perf_counter() - began


def uplink() -> None:
    """In the namespace: the node's. Nothing is touched where there are links already: that is no namespace of a bench's."""
    if [name for _, name in socket.if_nameindex()] != ["lo"]:
        raise SystemExit("this part of a bench runs in a network namespace of its own: python -m bench.run services")
    for words in ("link set lo up", "link add eth0 type bridge", "addr add 192.168.1.10/24 dev eth0", "link set eth0 up"):
        subprocess.run(["ip", *words.split()], check=True)


def main() -> None:
    """In the namespace: the figures as JSON."""
    uplink()
    figures: dict[str, Any] = asyncio.run(measure(int(sys.argv[1])))
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
