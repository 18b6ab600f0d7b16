"""The name server's process with thousands of Services: how long until it is ready, what it holds, and how soon a change is answered."""

from __future__ import annotations

import functools
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import quantiles

import dns.message

from bench import dns_objects, dnsperf
from bench.common import Row
from bench.dns_objects import Named
from bench.dns_servers import LOCALHOST, Server, memory, ours
from bench.judging import PYTHON
from podplane.kubeapi.access import Access
from podplane.kubeapi.http import HttpClient

CHANGED, READY, MEMORY = 20.0, 2.0, 150.0
"""What must be: milliseconds (99 of 100), seconds, MB."""
ELSEWHERE = 1 << 20
WAIT_SECONDS = 10.0


def rows(access: Access, folder: Path, services: int, rounds: int, changes: int) -> list[Row]:
    """All of it over the objects that the API has."""
    file = dnsperf.written(folder, "all", dns_objects.questions(services))
    starts, held = [], []
    for _ in range(rounds):
        with ours(access) as server:
            starts.append(server.seconds)
            dnsperf.once(server.port, file)
            held.append(memory(server.pid))
    with ours(access) as server:
        times = list(_changes(access, server, services, changes))
    size = f"{services:,} Services × {dns_objects.ENDPOINTS} endpoints"
    cuts = quantiles(times, n=100)
    note = "from the write that is sent to the API until the answer differs"
    return [
        Row(f"names: a change, {size}, p50", [cuts[49]], "ms", note=note),
        Row(f"names: a change, {size}, p99", [cuts[98]], "ms", CHANGED, note=note, work=PYTHON),
        Row(f"names: start to ready, {size}", starts, "s", READY, work=PYTHON),
        Row(f"names: memory after every name was asked for, {size}", held, "MB", MEMORY),
    ]


def _changes(access: Access, server: Server, services: int, count: int) -> Iterator[float]:
    """Milliseconds of each change: endpoints of a headless Service, or a Service that comes, in turns."""
    api = HttpClient(access)
    headless = range(0, services, dns_objects.HEADLESS)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.connect((LOCALHOST, server.port))
        asking.settimeout(1.0)
        for number in range(count):
            one, new = Named(headless[number % len(headless)]), Named(services + dns_objects.HEADLESS * number + 1)
            yield _timed(asking, one.name, functools.partial(dns_objects.change, api, one, ELSEWHERE))
            dns_objects.change(api, one, 0)
            yield _timed(asking, new.name, functools.partial(api.create, "services", new.namespace, new.service()))
            api.delete("services", new.namespace, new.label)
    api.close()


def _timed(asking: socket.socket, name: str, change: Callable[[], object]) -> float:
    """Milliseconds from a change until this name's answer has other records; their order does not matter."""
    question = dns.message.make_query(name, "A").to_wire()

    def answer() -> set[str]:
        asking.send(question)
        return {str(record) for rrset in dns.message.from_wire(asking.recv(4096)).answer for record in rrset}

    before, began = answer(), time.monotonic()
    change()
    while answer() == before:
        if time.monotonic() - began > WAIT_SECONDS:
            raise RuntimeError(f"{name} is answered as before")
    return (time.monotonic() - began) * 1000
