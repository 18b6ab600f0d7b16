"""The name server of a node beside CoreDNS and Unbound: answers a second on one core, and how long they take.

All servers are on the loopback of this machine, each on the same core, and dnsperf asks from another one; short runs take turns, and what
counts is the median of the rounds' ratios. podplane's is the process that a lab starts, fed by a lab's API, as is CoreDNS with its
kubernetes plugin. Peers that are not on the PATH are left out.
"""

from __future__ import annotations

import contextlib
import math
import tempfile
from pathlib import Path
from statistics import median

from bench import dns_forward, dns_lab, dns_life, dns_objects, dnsperf
from bench.common import Row, lab, quiet
from bench.dns_servers import Server, coredns, missing, ours, unbound
from podplane.kubeapi.access import Access
from podplane.lab.folder import Folder

SERVICES, SECONDS, ROUNDS = 10_000, 1.5, 7
CHANGES = 100
BESIDE_COREDNS, BESIDE_UNBOUND = 3.0, 0.95
"""What must be: ratios of answers a second."""
PERCENTILES = {"half": "p50", "slowest": "p99"}
OURS, COREDNS, CACHED, UNBOUND = "podplane", "CoreDNS", "CoreDNS with its cache", "Unbound"


def run(short: bool) -> list[Row]:
    """All of it; a row that says why when there is no dnsperf."""
    left_out = [Row(f"names: {one}", [math.nan], note="left out: not on the PATH") for one in missing()]
    if "dnsperf" in missing():
        return left_out
    services, rounds = (300, 2) if short else (SERVICES, ROUNDS)
    with lab() as one, tempfile.TemporaryDirectory() as folder:
        quiet()
        one("up", "--nodes", "1")
        access = Folder(one.name).access()
        dns_objects.fill(access, services)
        found = [
            *side_by_side(access, Path(folder), services, rounds, 0.3 if short else SECONDS),
            *dns_life.rows(access, Path(folder), services, 2 if short else 3, 5 if short else CHANGES),
            *dns_forward.rows(access, Path(folder), rounds, 0.3 if short else SECONDS),
        ]
    return [*found, *dns_lab.rows(short), *left_out]


def side_by_side(access: Access, folder: Path, services: int, rounds: int, seconds: float) -> list[Row]:
    """Servers beside each other, with the same names."""
    file = dnsperf.written(folder, "questions", dns_objects.questions(services))
    with contextlib.ExitStack() as stack:
        servers = {OURS: stack.enter_context(ours(access))}
        if "coredns" not in missing():
            servers[COREDNS] = stack.enter_context(coredns(access, folder))
            servers[CACHED] = stack.enter_context(coredns(access, folder, "cache"))
        if "unbound" not in missing():
            servers[UNBOUND] = stack.enter_context(unbound(folder, dns_objects.local_data(services)))
        for server in servers.values():
            dnsperf.once(server.port, file)
        found: dict[str, list[float]] = {name: [] for name in servers}
        for _ in range(rounds):
            for name, server in servers.items():
                found[name].append(dnsperf.rate(server.port, file, seconds))
        return [*_rates(found), *_latencies(servers, file, found, rounds, seconds)]


def _rates(found: dict[str, list[float]]) -> list[Row]:
    musts = {COREDNS: BESIDE_COREDNS, UNBOUND: BESIDE_UNBOUND}
    rows = [Row("names: answers a second on one core", found[OURS], "/s", note="A, AAAA, SRV, PTR, NXDOMAIN")]
    for name, theirs in found.items():
        if name != OURS:
            ratios = [a / b for a, b in zip(found[OURS], theirs, strict=True)]
            note = f"{median(found[OURS]):,.0f} beside {median(theirs):,.0f} a second"
            rows.append(Row(f"names: answers a second / {name}", ratios, "×", musts.get(name), True, note))
    return rows


def _latencies(servers: dict[str, Server], file: Path, rates: dict[str, list[float]], rounds: int, seconds: float) -> list[Row]:
    """At half of CoreDNS's rate, which both can do; without CoreDNS at half of the own."""
    at = median(rates.get(COREDNS, rates[OURS])) / 2
    compared = [name for name in (OURS, COREDNS) if name in servers]
    found: dict[str, list[dnsperf.Latency]] = {name: [] for name in compared}
    for _ in range(rounds):
        for name in compared:
            found[name].append(dnsperf.latency(servers[name].port, file, seconds, at))
    rows = []
    for what in ("half", "slowest"):
        here = [getattr(one, what) for one in found[OURS]]
        label = f"names: {PERCENTILES[what]} at {at:,.0f} questions a second"
        if COREDNS not in found:
            rows.append(Row(label, here, "ms"))
            continue
        theirs = [getattr(one, what) for one in found[COREDNS]]
        note = f"{median(here):.3f} beside {median(theirs):.3f} ms"
        rows.append(Row(f"{label} / CoreDNS", [a / b for a, b in zip(here, theirs, strict=True)], "×", 1.0, note=note))
    return rows
