"""On a full lab: how long from the POST of one more pod until it answers over IPv4 and IPv6?

A prober in a pod on another node asks the address that the pod is going to have, over and over, as the allocator hands out the
next one; so the time has no polling of the API in it.
"""

from __future__ import annotations

import json
import time

from bench.common import Lab, Row, lab, quiet
from bench.judging import MIXED
from podplane.cli.check.parties import Member
from podplane.cli.check.sessions import Prober
from podplane.lab.manifests import pod

MUST_MILLISECONDS = 15.0
PODS = 20
TRIES = 400


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
    prober = Prober(client, Member("bench", "pod", "default", "echo-node1-1", "", "node1", ()))
    samples = []
    try:
        for number in range(count):
            ips = [f"10.244.2.{pods + 2 + number}", f"fd00:10:244:2::{pods + 2 + number:x}"]
            began = time.monotonic()
            client.create("pods", "default", pod(f"more-{number}", node="node2"))
            _answered(prober, ips)
            samples.append((time.monotonic() - began) * 1000)
            time.sleep(0.2)
    finally:
        prober.session.close()
    return samples


def _answered(prober: Prober, ips: list[str]) -> None:
    """Ask until both addresses answer on the echo server's port."""
    left = list(ips)
    for _ in range(TRIES):
        probes = [{"protocol": "http", "ip": ip, "port": 8080} for ip in left]
        prober.ask({"do": "probe", "probes": probes, "seconds": 0.005})
        answers: list[dict[str, bool]] = []
        while not answers:
            answers = [dict(answer) for answer in prober.receive()]
        replies = json.loads(json.dumps(answers[0]))["answers"]
        left = [ip for ip, reply in zip(left, replies, strict=True) if not reply["ok"]]
        if not left:
            return
    raise RuntimeError(f"no answer from {left}")
