"""kube-proxy beside podplane, where there is one on the PATH: nftables mode, against a lab's API, in the network of a node of the lab.

It must be root outside of the lab's user namespace: its transactions are larger than what the kernel takes from anybody else. Its own word
counts: the seconds that its metrics say it took to bring the kernel up to date, the first time and after one endpoint changed.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from statistics import median

from bench import in_node
from bench.common import Row, lab, quiet
from bench.services import ENDPOINTS, SERVICES, measured
from bench.services_traffic import fill, set_targets
from podplane.kubeapi.errors import ApiError
from podplane.kubeapi.http import HttpClient

METRICS_PORT = 10249
WAIT_SECONDS, CHANGES = 600.0, 3
SECONDS = re.compile(rb'^kubeproxy_sync_proxy_rules_duration_seconds_sum\{ip_family="IPv4"\} (\S+)$', re.MULTILINE)
FAILURES = re.compile(rb"^kubeproxy_sync_proxy_rules_nftables_sync_failures_total\S* ([1-9]\S*)$", re.MULTILINE)


def run(short: bool) -> list[Row]:
    """How long it takes; nothing without one, or without root."""
    program = shutil.which("kube-proxy")
    if program is None or os.getuid() != 0:
        return []
    size = 300 if short else SERVICES
    with lab() as one:
        quiet()
        one("up", "--nodes", "1", "--cluster-cidr", "10.244.0.0/16")
        api = one.api
        fill(api, size)
        with in_node.running(one, _command(program)):
            filled = _seconds(api, 0.0)
            changes = []
            for number in range(CHANGES):
                before = _seconds(api, 0.0)
                set_targets(api, f"other-{number}", [f"10.200.0.{k}" for k in range(1, ENDPOINTS)])
                changes.append((_seconds(api, before) - before) * 1000)
    ours = measured("bench.services", size)
    what = f"kube-proxy (nftables), {size:,} Services × {ENDPOINTS} endpoints"
    once, change = filled / ours["filled"], median(changes) / ours["half"]
    return [
        Row(f"{what} into an empty kernel", [filled], note=f"{once:,.0f} times as long as podplane"),
        Row(f"{what}: one endpoint changes", changes, "ms", note=f"{change:,.0f} times as long as podplane"),
    ]


def _command(program: str) -> list[str]:
    command = [program, "--proxy-mode=nftables", "--hostname-override=node1", f"--kubeconfig={in_node.KUBECONFIG}"]
    command += ["--cluster-cidr=10.244.0.0/16", "--nodeport-addresses=primary"]
    command += [f"--metrics-bind-address=0.0.0.0:{METRICS_PORT}", "--healthz-bind-address=127.0.0.1:10299"]
    return [*command, "--conntrack-max-per-core=0", "--conntrack-min=0"]


def _seconds(api: HttpClient, more_than: float) -> float:
    """What all its synchronizations took, once that is more than this and it rests."""
    end, before = time.monotonic() + WAIT_SECONDS, -1.0
    while time.monotonic() < end:
        try:
            text = api.of_node_raw("node1", METRICS_PORT, "metrics")
        except ApiError:  # it is not there yet
            text = b""
        if FAILURES.search(text):
            raise RuntimeError("kube-proxy could not bring its tables up to date")
        now = sum(map(float, SECONDS.findall(text)))
        if now > more_than and now == before:
            return now
        before = now
        time.sleep(1.0)
    raise RuntimeError("kube-proxy did not bring its tables up to date")
