"""A policy forbids a flow among many: how long until the kernel was told to judge its connections again?

The table of connections is filled by netlink, in a network namespace of this process. A walk goes through the machine's whole hash table,
so the floor is that of the kernel: one question about nothing.
"""

from __future__ import annotations

import ipaddress
import json
import struct
import sys
import time
from collections.abc import Callable, Iterable
from statistics import median

from bench.common import Row
from bench.judging import MIXED
from bench.services import measured
from podplane.kernel import conntrack as c
from podplane.kernel.conntrack import Conntrack
from podplane.kernel.netlink import NLM_F_CREATE, Message, Socket, attribute, nested
from podplane.state.conntrack import Frontend

CONNECTIONS, CUT_MILLISECONDS = 100_000, 150.0
ROUNDS, FLOWS = 7, 10
TIMEOUT, SECONDS, REMOTE = 7, 3600, ipaddress.ip_address("10.200.0.1")
"""CTA_TIMEOUT, and how long an entry stays."""
FIRST = int(ipaddress.ip_address("10.128.0.0"))
UDP = 17


def run(short: bool) -> list[Row]:
    """One flow, those of several pods, and those of a Service."""
    count = 2_000 if short else CONNECTIONS
    found = measured("bench.policy_cuts", count)
    must = None if short else CUT_MILLISECONDS
    what = f"{count:,} tracked connections"
    return [
        Row(f"a flow is cut, {what}", [found["one"]], "ms", must, work=MIXED),
        Row(f"the flows of {FLOWS} pods are cut, {what}", [found["several"]], "ms", work=MIXED),
        Row(f"the flows of 1,000 pods are cut, {what}", [found["many"]], "ms", work=MIXED),
        Row(f"connections of a Service's port are flushed, {what}", [found["flush"]], "ms", work=MIXED),
    ]


def fill(socket: Socket, count: int) -> None:
    """Track so many connections of pods, ten of each, to one address outside."""
    for start in range(0, count, 1000):
        refused = socket.request([_new(FIRST + n // 10, 1024 + n % 10) for n in range(start, min(start + 1000, count))])
        if refused:
            raise RuntimeError(str(refused[0]))


def _new(client: int, port: int) -> Message:
    there, back = client.to_bytes(4, "big"), REMOTE.packed
    original = _tuple(there, back, port, 53)
    reply = _tuple(back, there, 53, port)
    body = c.GENERIC.pack(c.AF_INET, 0, 0) + nested(c.ORIGINAL, *original) + nested(c.REPLY, *reply)
    return Message(c.SET, NLM_F_CREATE, body + attribute(TIMEOUT, struct.pack(">I", SECONDS)), "track a connection")


def _tuple(source: bytes, destination: bytes, source_port: int, port: int) -> tuple[bytes, bytes]:
    ips = nested(c.TUPLE_IP, attribute(c.V4_SOURCE, source), attribute(c.V4_DESTINATION, destination))
    numbers = (
        attribute(c.PROTO_NUMBER, bytes((UDP,))),
        attribute(c.PROTO_SOURCE_PORT, struct.pack(">H", source_port)),
        attribute(c.PROTO_DESTINATION_PORT, struct.pack(">H", port)),
    )
    return ips, nested(c.TUPLE_PROTO, *numbers)


def milliseconds(work: Callable[[], object]) -> float:
    """The middle one of several times."""
    samples = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        work()
        samples.append((time.perf_counter() - began) * 1000)
    return median(samples)


def pods(numbers: Iterable[int]) -> set[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    """The addresses of some pods."""
    return {ipaddress.ip_address(FIRST + number) for number in numbers}


def main() -> None:
    """In the namespace: the figures as JSON."""
    count = int(sys.argv[1])
    socket = Socket(c.NETLINK_NETFILTER)
    fill(socket, count)
    table = Conntrack(socket)
    several = pods(range(0, count // 10, max(1, count // 10 // FLOWS)))
    many = pods(range(min(1000, count // 10)))
    if table.judge_again(pods([7])) != 10:
        raise SystemExit("the connections of a pod are not found")
    gone = Frontend("udp", ipaddress.ip_address("10.96.0.10"), 53)
    found = {
        "one": milliseconds(lambda: table.judge_again(pods([7]))),
        "several": milliseconds(lambda: table.judge_again(several)),
        "many": milliseconds(lambda: table.judge_again(many)),
        "flush": milliseconds(lambda: table.flush({gone: frozenset()})),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
