"""From the API to the kernel among Services in the thousands: an EndpointSlice is written, and the tables have it. And an idle agent.

The API server, its watch, the caches and the agent are those of a lab, in one process over the real kernel. The clock starts when the
write is acknowledged, and ends when the kernel has acknowledged its transaction.
"""

from __future__ import annotations

import asyncio
import gc
import ipaddress
import json
import random
import sys
import time
from statistics import quantiles

import msgspec

from bench.agents import SETTINGS, Cluster, OneAgent, WatchedKernel, cancelled, make_uplink
from bench.common import Row
from bench.judging import PYTHON
from bench.services import ENDPOINTS, SERVICES, endpoints, measured, service
from podplane import pauses
from podplane.apiserver import identity
from podplane.apiserver.admission import Admission
from podplane.apiserver.identity import Tokens
from podplane.apiserver.server import ApiServer
from podplane.apiserver.store import Store
from podplane.kernel.namespace import CurrentNamespace
from podplane.kernel.opener import KernelOpener
from podplane.kubeapi.client import Client
from podplane.kubeapi.informer import Informer
from podplane.model.service import EndpointSlice, Service

SLICES, TOKEN = "endpointslices.discovery.k8s.io", "bench"
SLOWEST_MILLISECONDS, IDLE_PERCENT = 4.0, 0.5
EVENTS, IDLE_SECONDS = 400, 65
"""More than the minute between two audits."""


def run(short: bool) -> list[Row]:
    """Several runs."""
    size, events, idle, rounds = (300, 50, 2, 1) if short else (SERVICES, EVENTS, IDLE_SECONDS, 3)
    runs = [measured("bench.services_events", size, events, idle) for _ in range(rounds)]
    what = f"{size:,} Services × {ENDPOINTS} endpoints"

    def row(text: str, name: str, unit: str, must: float | None) -> Row:
        return Row(f"{what}: {text}", [found[name] for found in runs], unit, None if short else must, work=PYTHON)

    return [
        row("an endpoint changes, from the API's acknowledgement to the kernel's, p50", "half", "ms", None),
        row("an endpoint changes, from the API's acknowledgement to the kernel's, p99", "slowest", "ms", SLOWEST_MILLISECONDS),
        row("CPU of an idle agent", "idle", "% of a core", IDLE_PERCENT),
    ]


def _raw(model: Service | EndpointSlice) -> dict[str, object]:
    found: dict[str, object] = msgspec.json.decode(msgspec.json.encode(model))
    return found if isinstance(model, Service) else {"addressType": "IPv4", **found}


async def measure(size: int, events: int, idle: int) -> dict[str, float]:
    """All of it, one after the other."""
    store = Store(":memory:")
    tokens = Tokens({TOKEN: identity.admin()}, b"k" * 32, store)
    cluster = [ipaddress.ip_network(cidr) for cidr in SETTINGS.network.cluster_cidrs]
    api = ApiServer(store, Admission(store, cluster), tokens)
    api.bootstrap()
    client = Client(api.call, TOKEN)
    for number in range(size):
        with api.transaction():
            await client.create("services", "default", _raw(service(number)))
            await client.create(SLICES, "default", _raw(endpoints(number)))
    services, slices = Informer(client, "services", Service), Informer(client, SLICES, EndpointSlice)
    await services.sync()
    await slices.sync()
    kernel = WatchedKernel(CurrentNamespace(), KernelOpener())
    agent = OneAgent(kernel)
    await agent.start(Cluster(services=services.objects.values(), slices=slices.objects.values()))
    services.subscribe(agent.service_changed)
    slices.subscribe(agent.slice_changed)
    tasks = [asyncio.create_task(work) for work in (services.run(), slices.run(), agent.run())]
    gc.collect()
    pauses.shorten()  # as in a lab
    await asyncio.sleep(0.5)
    times = [await _event(client, slices, kernel, random.randrange(size)) for _ in range(events)]
    cuts = quantiles(times, n=100)
    began, used = time.monotonic(), time.process_time()
    await asyncio.sleep(idle)
    percent = (time.process_time() - used) / (time.monotonic() - began) * 100
    for task in tasks:
        await cancelled(task)
    return {"half": cuts[49], "slowest": cuts[98], "idle": percent}


async def _event(client: Client, slices: Informer[EndpointSlice], kernel: WatchedKernel, number: int) -> float:
    """Milliseconds from the write of one slice to its transaction, at no fixed distance to the one before."""
    await asyncio.sleep(random.random() * 0.03)
    now = slices.objects[f"default/s{number}-a"]
    whole = len(now.endpoints or ()) == ENDPOINTS
    changed = _raw(endpoints(number, without=random.randrange(ENDPOINTS) if whole else -1))
    kernel.done.clear()
    await client.patch(SLICES, "default", f"s{number}-a", {"endpoints": changed["endpoints"]}, uid=now.metadata.uid)
    began = time.perf_counter()
    await kernel.done.wait()
    return (kernel.done_at - began) * 1000


def main() -> None:
    """In the namespace: the figures as JSON."""
    make_uplink()
    print(json.dumps(asyncio.run(measure(*map(int, sys.argv[1:4])))))


if __name__ == "__main__":
    main()
