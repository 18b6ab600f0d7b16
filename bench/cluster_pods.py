"""Pods on a real cluster, from the creation of a Deployment until all are ready, with podplane and with Debian's bridge and host-local.

    python -m bench.cluster_pods [--pods 50] [--rounds 3]      # by hand, as root, with the programs of tests/cluster on the PATH

Each network gets a cluster of two nodes of its own in turns (`tests.cluster.rig`). Of each round: seconds until all pods are ready, what
containerd's own metric has of ADD and DEL (milliseconds, `loopback` included), and the processor time of podplane's agents.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

from tests.cluster import rig
from tests.cluster.podplane import Installed
from tests.cluster.rig import CONTAINERD_METRICS, Rig
from tests.engines import image
from tools.image import __main__ as podplane_image
from tools.image import packages

PLUGINS = "/usr/lib/cni"
METRIC = re.compile(r'network_plugin_operations_duration_seconds\S*_(sum|count)\{[^}]*operation_type="(\w+)"\} (\S+)')
NAMES = {"set_up_pod": "ADD", "tear_down_pod": "DEL"}
READ = "import sys, urllib.request as u; sys.stdout.write(u.urlopen(sys.argv[1]).read().decode())"
PATIENCE_SECONDS, IDLE_SECONDS = 600.0, 10.0
TICKS = os.sysconf("SC_CLK_TCK")


def with_podplane(cluster: Rig) -> None:
    """As docs/install.md says."""
    Installed(cluster).install()


def with_bridge(cluster: Rig) -> None:
    """Debian's containernetworking-plugins, and routes between the nodes by hand."""
    blocks = {}
    for name in cluster.nodes:
        cluster.until(lambda name=name: "podCIDR" in cluster.get("node", name)["spec"])  # type: ignore[misc]
        blocks[name] = cluster.get("node", name)["spec"]["podCIDR"]
    for name, machine in cluster.nodes.items():
        machine("sh", "-c", f"cp -a {PLUGINS}/. /opt/cni/bin/ && echo 1 > /proc/sys/net/ipv4/ip_forward")
        for other, block in blocks.items():
            if other != name:
                via = cluster.get("node", other)["status"]["addresses"][0]["address"]
                machine("ip", "route", "replace", block, "via", via)
        ipam = {"type": "host-local", "ranges": [[{"subnet": blocks[name]}]], "routes": [{"dst": "0.0.0.0/0"}]}
        bridge = {"type": "bridge", "bridge": "cni0", "isGateway": True, "hairpinMode": True, "ipam": ipam}
        conflist = {"cniVersion": "1.0.0", "name": "bridge", "plugins": [bridge]}
        made = Path(machine.path("/etc/cni/net.d/.10-bridge"))
        made.write_text(json.dumps(conflist))
        made.rename(made.with_name("10-bridge.conflist"))
    cluster.until(lambda: all(map(cluster.is_ready, cluster.nodes)))


NETWORKS: dict[str, Callable[[Rig], None]] = {"podplane": with_podplane, "bridge": with_bridge}


@contextlib.contextmanager
def archives(folder: Path) -> Iterator[tuple[Path, list[Path]]]:
    """The program of pods, and the images of both."""
    program = image.compiled(folder)
    if problem := packages.build_plugin():
        raise SystemExit(problem)
    own = folder / "podplane.tar"
    podplane_image.write(own, podplane_image.NAME, level=1)
    yield program, [own, image.archive(program, platform.machine())]


def operations(cluster: Rig) -> dict[str, tuple[float, float]]:
    """What containerd counted of ADD and DEL on all nodes: seconds and how many."""
    found = dict.fromkeys(NAMES.values(), (0.0, 0.0))
    for machine in cluster.nodes.values():
        text = machine(sys.executable, "-c", READ, f"http://{CONTAINERD_METRICS}/v1/metrics")
        for kind, operation, value in METRIC.findall(text):
            if name := NAMES.get(operation):
                seconds, count = found[name]
                found[name] = (seconds + float(value), count) if kind == "sum" else (seconds, count + float(value))
    return found


def spent(cluster: Rig) -> dict[str, float]:
    """Processor seconds of all podplane agents, and of programs that containerd ran: plugins, and the starts of its shims. Megabytes of an
    agent."""
    found = {"agents' CPU": 0.0, "programs' CPU": 0.0, "agent's RSS": 0.0}
    for machine in cluster.nodes.values():
        if (process := Installed.process_of(machine)) is not None:
            words = _stat(process)
            found["agents' CPU"] += (int(words[11]) + int(words[12])) / TICKS
            found["agent's RSS"] += int(words[21]) * os.sysconf("SC_PAGE_SIZE") / 1e6 / len(cluster.nodes)
        engine = machine("pgrep", "--exact", "containerd").split()[0]
        words = _stat(Path(machine.path(f"/proc/{engine}")))
        found["programs' CPU"] += (int(words[13]) + int(words[14])) / TICKS
    return found


def _stat(process: Path) -> list[str]:
    """Its fields from the third on (proc(5))."""
    return (process / "stat").read_text().rpartition(")")[2].split()


def measure(cluster: Rig, pods: int) -> dict[str, Any]:
    """One Deployment, from its creation to its end."""
    idle = spent(cluster)["agents' CPU"]
    time.sleep(IDLE_SECONDS)
    before, at_first = operations(cluster), spent(cluster)
    idle = at_first["agents' CPU"] - idle
    began = time.monotonic()
    cluster.kubectl("create", "deployment", "many", f"--image={image.NAME}", f"--replicas={pods}")
    roll = ("rollout", "status", "deployment/many", "--timeout=50s")
    cluster.until(lambda: "successfully" in cluster.kubectl(*roll, code=None), PATIENCE_SECONDS)
    ready = time.monotonic() - began
    made = operations(cluster)
    at_last = spent(cluster)
    cluster.kubectl("delete", "deployment", "many", "--wait=false")
    gone = ("wait", "--for=delete", "pods", "--selector=app=many", "--timeout=50s")
    cluster.until(lambda: (cluster.kubectl(*gone, code=None), cluster.get("pods")["items"])[1] == [], PATIENCE_SECONDS)
    after = operations(cluster)
    found = {"ready": ready, "gone": time.monotonic() - began - ready, "agents' CPU while idle": idle / IDLE_SECONDS}
    found |= {key: value - at_first[key] * key.endswith("CPU") for key, value in at_last.items()}
    for name, (end, start) in {"ADD": (made, before), "DEL": (after, made)}.items():
        seconds, count = (new - old for new, old in zip(end[name], start[name], strict=True))
        found |= {f"{name} ms": 1000 * seconds / count if count else 0.0, f"{name}s": count}
    return found


def main() -> None:
    """Measure, in turns."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pods", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--times", type=int, default=2, help="on one cluster")
    options = parser.parse_args()
    samples: dict[str, list[dict[str, Any]]] = {name: [] for name in NETWORKS}
    with tempfile.TemporaryDirectory() as top, archives(Path(top)) as (program, images):
        for number in range(options.rounds):
            for name, install in NETWORKS.items():
                folder = Path(top, f"{name}-{number}")
                folder.mkdir()
                with rig.up(folder, program, images, nodes=2) as cluster:
                    install(cluster)
                    measure(cluster, 4)
                    for _ in range(options.times):
                        samples[name].append(measure(cluster, options.pods))
                        print(name, json.dumps({key: round(value, 2) for key, value in samples[name][-1].items()}), flush=True)
    for key in samples["podplane"][0]:
        both = {name: median(one[key] for one in found) for name, found in samples.items()}
        times = f"  × {both['podplane'] / both['bridge']:.2f}" if both["bridge"] else ""
        print(f"{key:24} podplane {both['podplane']:8.2f}   bridge {both['bridge']:8.2f}{times}")


if __name__ == "__main__":
    main()
