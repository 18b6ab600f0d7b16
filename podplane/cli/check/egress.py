"""What is promised of ways out of the network of pods, which probes prove it, and what their answers mean. Pure.

Every cluster has one end outside of that network that surely answers: the API server, at its own addresses and by the Service `kubernetes`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from podplane.cli.check.promises import Party, Probe, Verdict, judge, same_family
from podplane.cli.check.services import Address
from podplane.cli.check.users import OPEN

API = "api-server"
PROMISES: Mapping[str, str] = {API: "pods reach the API server, at its own addresses and by its Service"}
Object = Mapping[str, Any]


def addresses(slice_: Object | None, service: Object | None) -> list[tuple[str, Address]]:
    """The addresses and TCP ports of the API server, each with a word for it."""
    found: list[tuple[str, Address]] = []
    for port in (slice_ or {}).get("ports") or ():
        ips = [ip for one in (slice_ or {}).get("endpoints") or () for ip in one.get("addresses", ())]
        found += [("API server", (ip, port["port"])) for ip in ips if port.get("port")]
    spec = (service or {}).get("spec", {})
    for port in spec.get("ports", ()):
        found += [("Service kubernetes", (ip, port["port"])) for ip in spec.get("clusterIPs", ()) if ip != "None"]
    return found


def plan(pods: Sequence[Party], targets: Iterable[tuple[str, Address]]) -> list[Probe]:
    """From each pod to each address of its families."""
    return [
        Probe(API, pod.name, name, OPEN, ip, port) for name, (ip, port) in targets for pod in pods if same_family(pod.ips, ip)
    ]


def verdict(probes: Iterable[Probe], answers: Mapping[Probe, Object]) -> Verdict:
    """The promise, by what became of the probes."""
    found = Verdict(API)
    for probe in probes:
        failure = judge(probe, answers.get(probe))
        if failure:
            found.failures.append(failure)
        else:
            found.proved += 1
    return found
