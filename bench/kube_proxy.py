"""kube-proxy beside podplane, where there is one on the PATH: nftables mode, against a lab's API, in a node of the lab.

Its own word counts: the seconds that its metrics say it took to bring the kernel up to date, the first time and after one endpoint changed.
"""

from __future__ import annotations

import re
import shutil
import time
from pathlib import Path
from statistics import median

from bench.common import Lab, Row, lab, quiet
from bench.services import ENDPOINTS, SERVICES, measured
from bench.services_traffic import fill, set_targets
from podplane.cli import tables
from podplane.cluster.errors import ApiError
from podplane.cluster.http import HttpClient

METRICS_PORT = 10249
WAIT_SECONDS, CHANGES = 300.0, 3
SUM = re.compile(rb"^kubeproxy_sync_proxy_rules_duration_seconds_sum(?:\{[^}]*\})? (\S+)$", re.MULTILINE)
COUNT = re.compile(rb"^kubeproxy_sync_proxy_rules_duration_seconds_count(?:\{[^}]*\})? (\S+)$", re.MULTILINE)


def run(short: bool) -> list[Row]:
    """How long it takes; nothing without one."""
    program = shutil.which("kube-proxy")
    if program is None:
        return []
    size = 300 if short else SERVICES
    with lab() as one:
        quiet()
        one("up", "--nodes", "1", "--cluster-cidr", "10.244.0.0/16")
        api = one.api
        fill(api, size)
        _start(one, api, program)
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


def _start(one: Lab, api: HttpClient, program: str) -> None:
    """As a pod in the node's network, with the right to do everything."""
    command = [program, "--proxy-mode=nftables", "--hostname-override=node1", "--cluster-cidr=10.244.0.0/16"]
    command += [
        "--kubeconfig=/config/kubeconfig",
        "--metrics-bind-address=0.0.0.0:10249",
        "--healthz-bind-address=127.0.0.1:10299",
    ]
    command += ["--conntrack-max-per-core=0", "--conntrack-min=0", "--nodeport-addresses=primary"]
    data = {"kubeconfig": _kubeconfig(one)}
    api.create("configmaps", "default", {"metadata": {"name": "kube-proxy"}, "data": data})
    mounts = [{"name": "config", "mountPath": "/config"}]
    container = {"name": "main", "image": "host/kube-proxy", "command": command, "volumeMounts": mounts}
    volumes = [{"name": "config", "configMap": {"name": "kube-proxy"}}]
    spec = {"nodeName": "node1", "hostNetwork": True, "containers": [container], "volumes": volumes}
    api.create("pods", "default", {"metadata": {"name": "kube-proxy"}, "spec": spec})


def _kubeconfig(one: Lab) -> str:
    """The lab's own, with the address at which its nodes reach the API."""
    return re.sub(r"https://127\.0\.0\.1:\d+", "https://192.168.1.1:6443", Path(one("kubeconfig").strip()).read_text())


def _seconds(api: HttpClient, more_than: float) -> float:
    """What all its synchronizations took, once that is more than this and it rests."""
    end, before = time.monotonic() + WAIT_SECONDS, -1.0
    while time.monotonic() < end:
        try:
            text = api.of_node_raw("node1", METRICS_PORT, "metrics")
        except ApiError:  # it is not there yet
            text = b""
            if why := tables.failure(api.get("pods", "default", "kube-proxy")):
                raise RuntimeError(f"kube-proxy does not run: {why}") from None
        now = sum(map(float, SUM.findall(text)))
        if now > more_than and now == before and sum(map(float, COUNT.findall(text))):
            return now
        before = now
        time.sleep(1.0)
    raise RuntimeError("kube-proxy did not bring its tables up to date")
