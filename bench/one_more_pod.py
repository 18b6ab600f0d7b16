"""On a full lab: how long from the POST of one more pod until it answers over IPv4 and IPv6?

A prober in a pod on another node asks the addresses that the pod is going to have, over and over, as the allocator hands out the
next ones; so the time has no polling of the API in it. It runs by itself and is heard once, at the end: questions that go through the
lab's process would take the processor from what is measured.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from bench import first_answer
from bench.common import Lab, Row, lab, quiet
from bench.judging import MIXED
from podplane.kubeapi import channels as ch
from podplane.kubeapi.exec import ExecSession
from podplane.kubeapi.requests import execute
from podplane.lab.manifests import pod

MUST_MILLISECONDS = 15.0
PODS = 20


def run(short: bool) -> list[Row]:
    """Pods one after the other on node2, asked from node1."""
    nodes, pods = (10, 10) if short else (100, 10)
    with lab() as one:
        quiet()
        one("up", "--nodes", str(nodes), "--pods-per-node", str(pods))
        samples = _measure(one, 5 if short else PODS, pods)
        what = f"one more pod on {nodes} nodes × {pods} pods: POST to its first IPv4 and IPv6 answer"
        return [Row(what, samples, "ms", None if short else MUST_MILLISECONDS, work=MIXED)]


def _measure(one: Lab, count: int, pods: int) -> list[float]:
    client = one.api
    program = Path(first_answer.__file__).read_text()
    asker = ExecSession(
        client.access,
        execute(client.token, "default", "echo-node1-1", [sys.executable, "-I", "-c", program], container="", stdin=True),
    )
    samples = []
    try:
        for number in range(count):
            ips = [f"10.244.2.{pods + 2 + number}", f"fd00:10:244:2::{pods + 2 + number:x}"]
            asker.send(json.dumps(ips).encode() + b"\n")
            time.sleep(0.2)
            began = time.monotonic()
            client.create("pods", "default", pod(f"more-{number}", node="node2"))
            samples.append((_answered(asker, ips) - began) * 1000)
    finally:
        asker.close()
    return samples


def _answered(asker: ExecSession, ips: list[str]) -> float:
    """When both addresses had answered on the echo server's port: of the monotonic clock, which pods share with the machine."""
    said = b""
    while not said.endswith(b"\n"):
        found = asker.receive()
        if not found:
            raise RuntimeError(f"the prober ended: {said.decode(errors='replace')}")
        said += b"".join(data for channel, data in found if channel in (ch.STDOUT, ch.STDERR))
    answered = float(said)
    if answered < 0:
        raise RuntimeError(f"no answer from {ips}")
    return answered
