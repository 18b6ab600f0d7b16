"""How long does a lab take from command to prompt, everything reachable; and to stop? Beside Mininet with as many hosts."""

from __future__ import annotations

import math
import os
import shutil
import subprocess
from dataclasses import dataclass

from bench import floors
from bench.common import Row, lab, quiet
from bench.judging import MIXED

MININET = """
import time
from mininet.net import Mininet
from mininet.node import OVSBridge
from mininet.nodelib import LinuxBridge
from mininet.topo import Topo

class Switches(Topo):
    def build(self, nodes, pods):
        core = self.addSwitch("s0")
        for n in range(1, nodes + 1):
            switch = self.addSwitch(f"s{n}")
            self.addLink(switch, core)
            for p in range(pods):
                self.addLink(self.addHost(f"h{n}x{p}"), switch)

began = time.monotonic()
net = Mininet(topo=Switches(NODES, PODS), switch=LinuxBridge, controller=None, waitConnected=False)
net.start()
up = time.monotonic() - began
began = time.monotonic()
net.stop()
print("SECONDS", up, time.monotonic() - began)
"""


@dataclass(frozen=True)
class Size:
    """Nodes, pods on each, and what is promised for up and down (seconds) and memory (MB)."""

    nodes: int
    pods: int
    up: float | None = None
    down: float | None = None
    sandbox_up: float | None = None


FULL = (Size(3, 2, 0.4, 0.3), Size(3, 10), Size(10, 10), Size(100, 10, 5.0, 1.0, 4.0))
QUICK = (Size(3, 2, 0.4, 0.3), Size(3, 10))
MEMORY_MEGABYTES = 200.0


def run(short: bool) -> list[Row]:
    """All sizes."""
    rows: list[Row] = []
    for size in QUICK if short else FULL:
        rounds = 5 if size.nodes <= 10 else 3
        rows += _podplane(size, rounds, sandbox_only=False)
        rows += _podplane(size, rounds, sandbox_only=True)
        rows += _mininet(size, 3 if size.nodes <= 10 else 1)
    return rows


def _podplane(size: Size, rounds: int, *, sandbox_only: bool) -> list[Row]:
    ups: list[float] = []
    downs: list[float] = []
    memory: list[float] = []
    floor: list[float] = []
    words = ["up", "--nodes", str(size.nodes), "--pods-per-node", str(size.pods)]
    words += ["--sandbox-only"] if sandbox_only else []
    for _ in range(rounds):
        with lab() as one:
            quiet()
            ups.append(one.timed(*words))
            memory.append(one.peak_megabytes)
            downs.append(one.timed("down"))
        quiet()
        floor.append(floors.lab_seconds(size.nodes, size.pods))
    kind = "sandboxes only" if sandbox_only else "with processes"
    what = f"{size.nodes} nodes × {size.pods} pods, {kind}"
    wanted = size.sandbox_up if sandbox_only else size.up
    return [
        Row(f"up: {what}", ups, must=wanted, work=MIXED, floor=floor),
        Row(f"down: {what}", downs, must=size.down, work=MIXED),
        Row(f"memory of the lab process: {what}", memory, "MB", MEMORY_MEGABYTES if size.nodes == 100 else None),
    ]


def _mininet(size: Size, rounds: int) -> list[Row]:
    """Mininet with a Linux bridge for each node and one host for each pod, in namespaces of its own."""
    if os.getuid() != 0 or not shutil.which("mn"):
        return [Row("Mininet", [math.nan], note="not measured: it wants root and the package mininet")]
    program = MININET.replace("NODES", str(size.nodes)).replace("PODS", str(size.pods))
    ups: list[float] = []
    downs: list[float] = []
    for _ in range(rounds):
        quiet()
        command = [
            "unshare",
            "--net",
            "--mount",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
            "/usr/bin/python3",
            "-c",
            program,
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600)
        found = [line.split() for line in done.stdout.splitlines() if line.startswith("SECONDS")]
        if not found:
            why = done.stderr.strip().rpartition("\n")[2]
            return [Row(f"Mininet, {size.nodes * size.pods} hosts", [math.nan], note=f"not measured: {why}")]
        ups.append(float(found[0][1]))
        downs.append(float(found[0][2]))
    what = f"Mininet, {size.nodes} bridges × {size.pods} hosts (inside Python, without its start)"
    return [Row(f"up: {what}", ups), Row(f"down: {what}", downs)]
