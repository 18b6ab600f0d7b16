"""What a Service costs a packet: beside its endpoint's own address, and whatever number of other Services there is.

Beside the pod: in one lab, one client sends to a ClusterIP and another to the pod's own address, in turns of short slices, over the same
bridge with the same sysctls. The number of Services: three labs stand beside each other, with 1, 1,000 and 10,000 Services, and the
client of each connects again and again through one of them. A round's ratio is that of the sums; what counts is the median of the rounds.
A second client to the pod's own address shows how much of a ratio is noise.
"""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from statistics import median
from typing import Any

from bench.common import Lab, Row, lab, quiet
from bench.traffic import PORT, SLICE_SECONDS, SLICES, TOOL, Client
from podplane.kubeapi.http import HttpClient
from podplane.lab.folder import Folder

MUST = 0.95
SIZES, ROUNDS, PAIR_ROUNDS = (1, 1_000, 10_000), 15, 21
POD, CLIENTS = "10.244.1.2", {"on one node": "echo-node1-2", "across nodes": "echo-node2-1"}
MEASURED, ENDPOINT_SLICES = "measured", "endpointslices.discovery.k8s.io"
ENDPOINTS = 10
Way = tuple[list[str], str]
"""A command that runs a client, and the address that it measures."""


def run(short: bool) -> list[Row]:
    """Round trips and throughput through a ClusterIP beside the pod; then connections by the number of Services."""
    return [*_beside_the_pod(3 if short else PAIR_ROUNDS), *_by_number((1, 200) if short else SIZES, 3 if short else ROUNDS)]


def _beside_the_pod(rounds: int) -> Iterator[Row]:
    with lab() as one:
        quiet()
        one("up", "--nodes", "2", "--pods-per-node", "2")
        with _served(one, "bench"):
            vip = fill(HttpClient(Folder("bench").access()), 1)
            for path, pod in CLIENTS.items():
                command = _exec("bench", pod)
                for kind in ("throughput", "round-trips"):
                    found = [_round([(command, vip), (command, POD), (command, POD)], kind) for _ in range(rounds)]
                    through, direct, again = zip(*found, strict=True)
                    unit, scale = ("Gbit/s", 8e-9) if kind == "throughput" else ("a second", 1.0)
                    floor = median(b / a for a, b in zip(direct, again, strict=True))
                    note = f"{median(through) * scale:,.1f} beside {median(direct) * scale:,.1f} {unit}; the pod twice: {floor:.3f}"
                    extra = {"service": list(through), "pod": list(direct), "pod again": list(again)}
                    what = f"TCP {kind} {path}, through a ClusterIP / to the pod"
                    ratios = [a / b for a, b in zip(through, direct, strict=True)]
                    yield Row(what, ratios, "ratio", MUST, at_least=True, note=note, extra=extra)


def _by_number(sizes: Sequence[int], rounds: int) -> Iterator[Row]:
    with lab() as one, contextlib.ExitStack() as stack:
        ways: list[Way] = []
        for size in sizes:
            name = f"bench{size}"
            one("up", "--name", name, "--nodes", "1", "--pods-per-node", "2")
            stack.enter_context(_served(one, name))
            vip = fill(HttpClient(Folder(name).access()), size)
            ways.append((_exec(name, CLIENTS["on one node"]), vip))
        quiet()
        found = [_round(ways, "connections") for _ in range(rounds)]
        for number, size in enumerate(sizes[1:], 1):
            note = f"{median(row[number] for row in found):,.0f} beside {median(row[0] for row in found):,.0f} a second"
            what = f"new TCP connections through a Service, {size:,} Services / 1 Service"
            yield Row(what, [row[number] / row[0] for row in found], "ratio", MUST, at_least=True, note=note)


def _round(ways: Sequence[Way], kind: str) -> list[float]:
    """What each way did a second."""
    clients = [Client(command) for command, _ in ways]
    try:
        for _ in range(SLICES):
            for number in random.sample(range(len(ways)), len(ways)):
                clients[number].measure(f"{ways[number][1]} {kind} {SLICE_SECONDS}\n")
        return [client.total / SLICES for client in clients]
    finally:
        for client in clients:
            client.close()


def _exec(name: str, pod: str, role: str = "client") -> list[str]:
    """The tool, in a pod."""
    return [sys.executable, "-m", "podplane", "exec", "--name", name, "-i", pod, "--", sys.executable, TOOL, role, str(PORT)]


@contextlib.contextmanager
def _served(one: Lab, name: str) -> Iterator[None]:
    """A server in the pod that is the endpoint."""
    server = subprocess.Popen(_exec(name, "echo-node1-1", "server"), env=dict(os.environ), stdin=subprocess.DEVNULL)
    time.sleep(1)
    try:
        yield
    finally:
        server.kill()
        server.wait()


def fill(api: HttpClient, size: int) -> str:
    """So many Services, each of ten endpoints but the last one, which leads to the server; that one's cluster IP, when it is there."""
    for number in range(size - 1):
        first = 2 + number * ENDPOINTS
        targets = [f"10.{128 + (n >> 16)}.{n >> 8 & 255}.{n & 255}" for n in range(first, first + ENDPOINTS)]
        _service(api, f"other-{number}", targets)
    ip: str = _service(api, MEASURED, [POD])["spec"]["clusterIP"]
    for _ in range(600):
        if api.of_node("node1", 10256, f"services/default/{MEASURED}")["groups"]:
            return ip
        time.sleep(0.1)
    raise RuntimeError("the node never had all Services")


def _service(api: HttpClient, name: str, targets: Sequence[str]) -> dict[str, Any]:
    port = {"name": "p", "port": PORT, "protocol": "TCP"}
    made = api.create("services", "default", {"metadata": {"name": name}, "spec": {"ports": [port]}})
    metadata = {"name": f"{name}-a", "labels": {"kubernetes.io/service-name": name}}
    slice_ = {"metadata": metadata, "addressType": "IPv4", "endpoints": _endpoints(targets), "ports": [port]}
    api.create(ENDPOINT_SLICES, "default", slice_)
    return made


def set_targets(api: HttpClient, name: str, targets: Sequence[str]) -> None:
    """Give a Service other endpoints."""
    api.patch(ENDPOINT_SLICES, "default", f"{name}-a", {"endpoints": _endpoints(targets)})


def _endpoints(targets: Sequence[str]) -> list[dict[str, Any]]:
    return [{"addresses": [ip], "conditions": {"ready": True}} for ip in targets]
