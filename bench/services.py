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
import subprocess
import sys
import time
from dataclasses import replace
from statistics import quantiles

from bench.agents import Cluster, OneAgent, make_uplink
from bench.common import Row
from bench.judging import ABSOLUTE, PYTHON
from podplane import pauses
from podplane.model.objects import Metadata
from podplane.model.service import SERVICE_NAME, Endpoint, EndpointPort, EndpointSlice, Service, ServicePort, ServiceSpec

SERVICES, ENDPOINTS, CHANGES = 10_000, 10, 1_000
FILLED, ONE, SLOWEST, MANY, RESTARTED, MEMORY = 1.3, 0.3, 5.0, 50.0, 3.0, 250.0
"""What must be: seconds, milliseconds (half of them, and 99 of 100), milliseconds, seconds, megabytes."""
FILLED_RATIO = 5.0
"""Filling beside the replay of the same transactions."""
FIRST_SERVICE, FIRST_POD = ipaddress.ip_address("10.96.0.1"), ipaddress.ip_address("10.128.0.0")
ELSEWHERE = 1 << 20


def run(short: bool) -> list[Row]:
    """Several runs, each in a process and a namespace of its own."""
    services, rounds = (500, 2) if short else (SERVICES, 5)
    runs, replays = [], []
    for _ in range(rounds):
        runs.append(measured("bench.services", services))
        replays.append(measured("bench.services_replay", services)["replayed"])

    def row(what: str, name: str, unit: str, must: float, work: str = PYTHON) -> Row:
        return Row(what, [found[name] for found in runs], unit, None if short else must, work=work)

    size = f"{services:,} Services × {ENDPOINTS} endpoints"
    filled = row(f"{size} into an empty kernel", "filled", "s", FILLED)
    return [
        replace(filled, floor=replays, floor_must=None if short else FILLED_RATIO),
        row(f"{size}: one endpoint comes or goes, planner to commit, p50", "half", "ms", ONE),
        row(f"{size}: one endpoint comes or goes, planner to commit, p99", "slowest", "ms", SLOWEST),
        row(f"{size}: {CHANGES:,} endpoints change at once", "many", "ms", MANY),
        row(f"{size}: an agent starts and finds nothing to write", "restarted", "s", RESTARTED),
        row(f"{size}: peak memory of the agent", "memory", "MB", MEMORY, ABSOLUTE),
    ]


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


async def fill(agent: OneAgent, count: int) -> tuple[list[Service], list[EndpointSlice], float]:
    """So many Services and their slices, and the seconds in which they came to an agent and from it to the kernel."""
    services, slices = [service(n) for n in range(count)], [endpoints(n) for n in range(count)]
    gc.collect()
    pauses.shorten()  # as in a lab
    began = time.perf_counter()
    for one in services:
        agent.service_changed(None, one)
    for slice_ in slices:
        agent.slice_changed(None, slice_)
    await agent.settle()
    return services, slices, time.perf_counter() - began


async def measure(count: int) -> dict[str, float]:
    """All of it, one after the other."""
    agent = OneAgent()
    await agent.start(Cluster())
    services, slices, seconds = await fill(agent, count)
    found = {"filled": seconds}
    times = [await _toggle(agent, slices, random.randrange(count)) for _ in range(400)]
    cuts = quantiles(times, n=100)
    found |= {"half": cuts[49], "slowest": cuts[98]}
    began = time.perf_counter()
    for number in range(min(count, CHANGES // ENDPOINTS)):
        agent.slice_changed(slices[number], new := endpoints(number, offset=ELSEWHERE))
        slices[number] = new
    await agent.settle()
    found["many"] = (time.perf_counter() - began) * 1000
    found["memory"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    found["restarted"] = await _restart(services, slices)
    return found


async def _toggle(agent: OneAgent, slices: list[EndpointSlice], number: int) -> float:
    """Milliseconds until a Service has one endpoint less, whichever, or all of them again."""
    old = slices[number]
    whole = len(old.endpoints or ()) == ENDPOINTS
    slices[number] = endpoints(number, without=random.randrange(ENDPOINTS) if whole else -1)
    began = time.perf_counter()
    agent.slice_changed(old, slices[number])
    await agent.settle()
    return (time.perf_counter() - began) * 1000


async def _restart(services: list[Service], slices: list[EndpointSlice]) -> float:
    """Seconds in which a new agent plans everything, reads the kernel, and finds it right."""
    agent = OneAgent()
    began = time.perf_counter()
    if await agent.start(Cluster(services=services, slices=slices)):
        raise RuntimeError("there was something to write")
    return time.perf_counter() - began


def main() -> None:
    """In the namespace: the figures as JSON."""
    make_uplink()
    print(json.dumps(asyncio.run(measure(int(sys.argv[1])))))


if __name__ == "__main__":
    main()
