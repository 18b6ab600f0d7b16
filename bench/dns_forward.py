"""Names of others: questions that are passed on to a server beside, kept and not, next to CoreDNS with its forward and cache plugins.

The server that they are passed on to is Unbound, on the core of who asks. Names that it gives a TTL of 0 are kept by nobody.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from bench import dnsperf
from bench.common import Row
from bench.dns_servers import CLIENT_CPU, LOCALHOST, Server, coredns, ours, pin, unbound
from podplane.dns import config
from podplane.kubeapi.access import Access
from podplane.kubeapi.http import HttpClient

NAMES = 5000
KEPT, NOT_KEPT = "kept.example", "fleeting.example"
MUST = {KEPT: 1.0, NOT_KEPT: 0.7}
"""Ratios of answers a second to CoreDNS's."""
LABELS = {KEPT: "names of others, kept", NOT_KEPT: "names of others, not kept"}
TTL = {KEPT: 300, NOT_KEPT: 0}


def rows(access: Access, folder: Path, rounds: int, seconds: float) -> list[Row]:
    """All of it; nothing without Unbound."""
    if not shutil.which("unbound"):
        return []
    zones = [f'local-zone: "{zone}." redirect\nlocal-data: "{zone}. {ttl} A 192.0.2.1"' for zone, ttl in TTL.items()]
    with unbound(folder, zones) as upstream:
        pin(upstream.pid, CLIENT_CPU)
        _configure(access, upstream.port)
        return [row for zone in TTL for row in _side_by_side(access, folder, zone, upstream, rounds, seconds)]


def _side_by_side(access: Access, folder: Path, zone: str, upstream: Server, rounds: int, seconds: float) -> Iterator[Row]:
    file = dnsperf.written(folder, zone, [f"name-{i}.{zone} A" for i in range(NAMES)])
    plugins = [f"forward . {LOCALHOST}:{upstream.port}", *(["cache"] if TTL[zone] else [])]
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(ours(access))]
        if shutil.which("coredns"):
            servers.append(stack.enter_context(coredns(access, folder, *plugins)))
        for server in servers:
            dnsperf.once(server.port, file)
        found = [[dnsperf.rate(server.port, file, seconds) for server in servers] for _ in range(rounds)]
    yield Row(f"{LABELS[zone]}: answers a second", [one[0] for one in found], "/s")
    if len(servers) > 1:
        note = f"{median(one[0] for one in found):,.0f} beside {median(one[1] for one in found):,.0f} a second"
        yield Row(
            f"{LABELS[zone]}: answers a second / CoreDNS", [one[0] / one[1] for one in found], "×", MUST[zone], True, note
        )


def _configure(access: Access, port: int) -> None:
    """Have questions passed on to this port."""
    text = json.dumps({"upstreams": [f"{LOCALHOST}:{port}"]})
    api = HttpClient(access)
    api.patch("configmaps", config.NAMESPACE, config.NAME, {"data": {config.KEY: text}})
    api.close()
