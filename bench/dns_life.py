"""The name server's process with thousands of Services: how long until it is ready, what it holds, how soon a change is answered, and what
it does while nobody asks."""

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

CHANGED, READY, MEMORY, IDLE = 20.0, 2.0, 150.0, 0.1
"""What must be: milliseconds (99 of 100), seconds, MB, percent of a core."""
ELSEWHERE = 1 << 20
WAIT_SECONDS = 10.0


def rows(access: Access, folder: Path, services: int, rounds: int, changes: int, idle_seconds: float) -> list[Row]:
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
        idle = _idle(server, idle_seconds)
    size = f"{services:,} Services × {dns_objects.ENDPOINTS} endpoints"
    cuts = quantiles(times, n=100)
    note = "from the write that is sent to the API until the answer differs"
    return [
        Row(f"names: a change, {size}, p50", [cuts[49]], "ms", note=note),
        Row(f"names: a change, {size}, p99", [cuts[98]], "ms", CHANGED, note=note, work=PYTHON),
        Row(f"names: start to ready, {size}", starts, "s", READY, work=PYTHON),
        Row(f"names: memory after every name was asked for, {size}", held, "MB", MEMORY),
        Row("names: CPU while nobody asks", [idle], "%", IDLE),
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
    """Milliseconds from a change until this name's answer is another one."""
    question = dns.message.make_query(name, "A").to_wire()

    def answer() -> bytes:
        asking.send(question)
        return asking.recv(4096)

    before, began = answer(), time.monotonic()
    change()
    while answer() == before:
        if time.monotonic() - began > WAIT_SECONDS:
            raise RuntimeError(f"{name} is answered as before")
    return (time.monotonic() - began) * 1000


def _idle(server: Server, seconds: float) -> float:
    """Percent of a core that the process takes."""
    before = _on_cpu(server.pid)
    time.sleep(seconds)
    return (_on_cpu(server.pid) - before) / seconds * 100


def _on_cpu(pid: int) -> float:
    """Seconds that its threads have run (proc(5): nanoseconds in `schedstat`)."""
    return sum(int(path.read_text().split()[0]) for path in Path(f"/proc/{pid}/task").glob("*/schedstat")) / 1e9
