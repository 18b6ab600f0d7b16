"""How fast is the API: durable creates over HTTPS, long lists, changes to many watchers, idle watches, decoding of events?

The server is that of a real lab; the clients are a process of their own, on the same two cores.
"""

from __future__ import annotations

import asyncio
import gc
import json
import multiprocessing
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

import msgspec

from bench.common import Lab, Row, lab
from bench.judging import PYTHON
from podplane import pauses
from podplane.kubeapi.access import Access
from podplane.kubeapi.client import Client
from podplane.kubeapi.http import HttpClient
from podplane.kubeapi.informer import Informer
from podplane.lab.folder import Folder
from podplane.model.pod import Pod

CLIENTS, SECONDS = 8, 4.0
PODS, WATCHERS, IDLE = 10_000, 200, 1_000
EVENTS, EVENT_BYTES, CHUNK_LINES = 20_000, 2_000, 50
GHOST = "ghost"
"""A node that no machine stands behind: its pods are objects only."""
FEW, OTHERS, OPENED = 100, 70_000, 1_000
"""ConfigMaps that a request is not about, and watches of one name each."""
CREATES, LISTED, CHANGED, HELD, DECODED = 1_000, 0.3, 40.0, 400.0, 50_000
"""What must be: creates a second, seconds, milliseconds, kilobytes, events a second."""
RATIO = 1.5
"""So much longer a request may take beside `OTHERS` objects than beside `FEW`; what differs is noise."""


def run(short: bool) -> list[Row]:
    """All of it on one lab, and the decoder alone."""
    rounds = 2 if short else 5
    with lab() as one:
        one("up", "--nodes", "1")
        access = Folder(one.name).access()
        rows = [
            creates(access, rounds, 1.0 if short else SECONDS),
            listed(one, access, 500 if short else PODS, rounds),
            changed(access, 20 if short else WATCHERS, 5 if short else 30),
            *beside_others(access, 1_000 if short else OTHERS, rounds),
            held(one, access, 50 if short else IDLE),
        ]
    return [*rows, decoded(rounds)]


def _child(function: Callable[..., Any], *arguments: Any) -> Any:
    """The result of a function in a process of its own."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


# Creates.


def creates(access: Access, rounds: int, seconds: float) -> Row:
    """ConfigMaps of some 300 bytes, from clients that each wait for the answer."""
    samples = [_child(create_for, access, CLIENTS, seconds) for _ in range(rounds)]
    return Row(
        f"creates a second over HTTPS, {CLIENTS} clients",
        samples,
        "/s",
        CREATES,
        True,
        "each on disk before its answer",
        work=PYTHON,
    )


def create_for(access: Access, clients: int, seconds: float) -> float:
    """Objects a second that so many clients create."""
    counts = [0] * clients
    end = time.monotonic() + seconds

    def client(number: int) -> None:
        api, own = HttpClient(access), uuid.uuid4().hex[:8]
        while time.monotonic() < end:
            body = {"metadata": {"name": f"c-{own}-{counts[number]}"}, "data": {"key": "x" * 200}}
            api.create("configmaps", "default", body)
            counts[number] += 1
        api.close()

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / (time.monotonic() - began)


# A long list.


def listed(one: Lab, access: Access, pods: int, rounds: int) -> Row:
    """All pods as JSON, to the last byte."""
    api = HttpClient(access)
    api.create("nodes", "", {"metadata": {"name": GHOST}})
    for number in range(pods):
        api.create("pods", "default", pod(number))
    samples, size = [], 0
    for _ in range(rounds):
        began = time.monotonic()
        size = len(api.raw("pods"))
        samples.append(time.monotonic() - began)
    return Row(f"list of {pods} pods as JSON, one client", samples, must=LISTED, note=f"{size / 1e6:.1f} MB", work=PYTHON)


def pod(number: int) -> dict[str, Any]:
    """A pod of a node that isn't there."""
    container = {
        "name": "main",
        "image": "podplane/echo",
        "ports": [{"containerPort": 8080}],
        "env": [{"name": "A", "value": "b"}],
    }
    return {
        "metadata": {"name": f"pod-{number}", "labels": {"app": "bench"}},
        "spec": {"nodeName": GHOST, "containers": [container]},
    }


# Watches.


async def _watch(access: Access, context: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A watch of all ConfigMaps, after its answer began."""
    reader, writer = await asyncio.open_connection(access.host, access.port, ssl=context)
    path = "/api/v1/configmaps?watch=true&resourceVersion=&fieldSelector=metadata.name%3Dwatched"
    writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {access.bearer()}\r\n\r\n".encode())
    head = await reader.readuntil(b"\r\n\r\n")
    assert b" 200 " in head.split(b"\r\n")[0], head
    return reader, writer


def changed(access: Access, watchers: int, rounds: int) -> Row:
    """From the moment that the change is sent until the last watcher has read it."""
    api = HttpClient(access)
    api.create("configmaps", "default", {"metadata": {"name": "watched"}, "data": {}})
    samples = _child(change_for, access, watchers, rounds)
    return Row(f"one change to {watchers} watchers, until the last has it", samples, "ms", CHANGED, work=PYTHON)


def change_for(access: Access, watchers: int, rounds: int) -> list[float]:
    """Milliseconds of each round."""

    async def main() -> list[float]:
        context = access.context()
        streams = [await _watch(access, context) for _ in range(watchers)]
        await asyncio.gather(*(reader.readuntil(b"\n") for reader, _ in streams))  # as it is at first
        api, samples = HttpClient(access), []
        for number in range(rounds):
            mark = f'"mark":"{number}"'.encode()
            began = time.monotonic()
            change = asyncio.to_thread(api.patch, "configmaps", "default", "watched", {"data": {"mark": str(number)}})
            await asyncio.gather(change, *(reader.readuntil(mark) for reader, _ in streams))
            samples.append((time.monotonic() - began) * 1000)
        return samples

    return asyncio.run(main())


# Beside many other objects.


REQUESTS: dict[str, Callable[[HttpClient, int], Any]] = {
    "create": lambda api, number: api.create("configmaps", "beside", {"metadata": {"name": f"c-{uuid.uuid4().hex}"}}),
    "patch": lambda api, number: api.patch("configmaps", "beside", "one", {"data": {"mark": str(number)}}),
    "list of a namespace": lambda api, number: api.raw("configmaps", "aside"),
    "list of a name": lambda api, number: api.raw("configmaps", fieldSelector="metadata.name=one"),
}


def beside_others(access: Access, others: int, rounds: int) -> list[Row]:
    """Requests about one object or a small namespace, and watches of one name each, with few and with many other ConfigMaps there."""
    api = HttpClient(access)
    for namespace in ("beside", "aside"):
        api.create("namespaces", "", {"metadata": {"name": namespace}})
        api.create("configmaps", namespace, {"metadata": {"name": "one"}, "data": {}})
    _child(fill, access, FEW)
    few = [_child(ask, access, rounds * 20) for _ in range(rounds)]
    opened_few = [_child(open_watches, access, OPENED) for _ in range(rounds)]
    _child(fill, access, others - FEW)
    many = [_child(ask, access, rounds * 20) for _ in range(rounds)]
    opened_many = [_child(open_watches, access, OPENED) for _ in range(rounds)]
    api.close()
    words = f"beside {others} other ConfigMaps, ratio to {FEW}"
    rows = [
        Row(f"{name} {words}", [b[name] / a[name] for a, b in zip(few, many, strict=True)], "×", RATIO) for name in REQUESTS
    ]
    opened = [b / a for a, b in zip(opened_few, opened_many, strict=True)]
    note = f"{median(opened_many):.2f} s"
    return [*rows, Row(f"{OPENED} watches of one name each opened, {words}", opened, "×", RATIO, note=note)]


def fill(access: Access, count: int) -> None:
    """Create so many ConfigMaps, from some clients at once."""

    def client(own: int) -> None:
        api = HttpClient(access)
        for _ in range(own):
            api.create("configmaps", "default", {"metadata": {"name": f"o-{uuid.uuid4().hex}"}, "data": {"key": "x" * 200}})
        api.close()

    threads = [threading.Thread(target=client, args=(count // CLIENTS + (n < count % CLIENTS),)) for n in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def ask(access: Access, times: int) -> dict[str, float]:
    """The median seconds of each request."""
    api, found = HttpClient(access), {}
    for name, request in REQUESTS.items():
        samples = []
        for number in range(times):
            began = time.monotonic()
            request(api, number)
            samples.append(time.monotonic() - began)
        found[name] = median(samples)
    api.close()
    return found


def open_watches(access: Access, count: int) -> float:
    """Seconds until so many watches of one name each have begun, and sent what is there."""

    async def main() -> float:
        context, waiting = access.context(), asyncio.Semaphore(CLIENTS)

        async def one() -> asyncio.StreamWriter:
            async with waiting:
                reader, writer = await _watch(access, context)
                await reader.readuntil(b"\n")
                return writer

        began = time.monotonic()
        writers = await asyncio.gather(*(one() for _ in range(count)))
        took = time.monotonic() - began
        for writer in writers:
            writer.transport.abort()
        return took

    return asyncio.run(main())


def held(one: Lab, access: Access, watches: int) -> Row:
    """The lab's memory with so many idle watches, above what it was without, for each of them."""
    pid = Folder(one.name).holder()
    before = _memory(pid)
    samples = _child(hold, access, watches, pid)
    return Row(f"{watches} idle watches, each", [(after - before) / watches for after in samples], "KB", HELD)


def hold(access: Access, watches: int, pid: int) -> list[float]:
    """The memory of a process in KB, while watches are open."""

    async def main() -> list[float]:
        context = access.context()
        streams = [await _watch(access, context) for _ in range(watches)]
        samples = []
        for _ in range(3):
            await asyncio.sleep(1)
            samples.append(_memory(pid))
        assert len(streams) == watches
        return samples

    return asyncio.run(main())


def _memory(pid: int | None) -> float:
    """Resident memory in KB."""
    text = Path(f"/proc/{pid}/status").read_text()
    return float(text.split("VmRSS:")[1].split()[0])


# Decoding.


def decoded(rounds: int) -> Row:
    """Events of a watch, from bytes in memory to models in the cache: objects that are new, and then objects that changed."""
    lines = list(_events())
    samples = []
    former, switch = gc.get_threshold(), sys.getswitchinterval()
    gc.collect()
    pauses.shorten()  # as in a lab
    for _ in range(rounds):
        informer = Informer(Client(_nobody, ""), "pods", Pod)
        began = time.monotonic()
        for at in range(0, len(lines), CHUNK_LINES):
            informer.take(lines[at : at + CHUNK_LINES])
        samples.append(len(lines) / (time.monotonic() - began))
    gc.set_threshold(*former)
    sys.setswitchinterval(switch)
    gc.unfreeze()
    return Row(f"watch events of {len(lines[0])} bytes decoded and cached", samples, "/s", DECODED, True, work=PYTHON)


async def _nobody(_: Any) -> Any:
    raise AssertionError("nothing is asked here")


def _events() -> Iterator[bytes]:
    for kind, phase in (("ADDED", "Pending"), ("MODIFIED", "Running")):
        for number in range(EVENTS // 2):
            object_ = pod(number)
            object_["metadata"] |= {
                "uid": str(uuid.UUID(int=number)),
                "namespace": "default",
                "resourceVersion": str(number + 1),
            }
            conditions = [{"type": f"c{i}", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"} for i in range(5)]
            object_["status"] = {"phase": phase, "podIPs": [{"ip": "10.244.1.2"}, {"ip": "fd00::2"}], "conditions": conditions}
            room = EVENT_BYTES - len(json.dumps({"type": kind, "object": object_}, separators=(",", ":")))
            object_["metadata"]["annotations"] = {"filler": "x" * max(0, room - 30)}
            yield msgspec.json.encode({"type": kind, "object": object_})
