"""Is traffic through a lab as fast as through the same path built by hand with `ip`, `sysctl` and `nft`?

Two worlds stand beside each other: a lab of two nodes, and namespaces made here by commands, with the same bridges, veths,
addresses, routes,
permanent neighbours, sysctls and tables. In each round both are measured, one right after the other; what counts is the median of the
rounds' ratios.
"""

from __future__ import annotations

import contextlib
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

from bench.common import Lab, Row, lab, quiet
from bench.tool import KINDS

MUST_RATIO = 0.97
ROUNDS, SECONDS = 15, 0.4
PORT = 5201
TOOL = str(Path(__file__).with_name("tool.py").resolve())
SERVERS = {4: "10.244.1.2", 6: "fd00:10:244:1::2"}
SAME, ACROSS = "on one node", "across nodes"
LAB_PODS = {SAME: "echo-node1-2", ACROSS: "echo-node2-1"}
HAND_PODS = {SAME: "pod12", ACROSS: "pod21"}
NEEDED = ("ip", "nft", "sysctl", "unshare", "nsenter")
Client = Callable[[str, str, str], float]
"""(path, the server's address, kind) → how much a second."""


def run(short: bool) -> list[Row]:
    """Throughput, round trips and connections, on one node and across nodes."""
    missing = [tool for tool in NEEDED if not shutil.which(tool)]
    if missing:
        return [Row(f"traffic: {', '.join(missing)} missing", [0.0], note="not measured")]
    rounds = 3 if short else ROUNDS
    with lab() as one:
        quiet()
        one("up", "--nodes", "2", "--pods-per-node", "2")
        ruleset = _ruleset(one)
        with _lab_client(one) as ours, _by_hand(ruleset) as theirs, _by_hand(ruleset) as noise:
            cases = [(path, 4, kind) for path in LAB_PODS for kind in KINDS] + [(ACROSS, 6, kind) for kind in KINDS]
            return [_compare(ours, theirs, noise, *case, rounds) for case in cases]


def _compare(ours: Client, theirs: Client, noise: Client, path: str, version: int, kind: str, rounds: int) -> Row:
    """The ratios of all rounds, what both did, and the ratio of two paths by hand: how much of it is noise."""
    worlds: list[tuple[Client, list[float]]] = [(ours, []), (theirs, []), (noise, [])]
    for _ in range(rounds):
        for client, samples in random.sample(worlds, len(worlds)):
            samples.append(client(path, SERVERS[version], kind))
    mine, hand, other = (samples for _, samples in worlds)
    ratios = [a / b for a, b in zip(mine, hand, strict=True)]
    floor = median(a / b for a, b in zip(other, hand, strict=True))
    unit, scale = ("Gbit/s", 8e-9) if kind == "throughput" else ("a second", 1.0)
    note = f"{median(mine) * scale:,.1f} beside {median(hand) * scale:,.1f} {unit}; two paths by hand: {floor:.3f}"
    extra = {"lab": mine, "by hand": hand, "by hand again": other}
    what = f"TCP {kind} {path}, IPv{version}, lab / by hand"
    return Row(what, ratios, "ratio", MUST_RATIO, at_least=True, note=note, extra=extra)


@contextlib.contextmanager
def _lab_client(one: Lab) -> Iterator[Client]:
    """Measure between pods of the lab."""
    words = [sys.executable, "-m", "podplane", "exec", "echo-node1-1", "--", sys.executable, TOOL, "server", str(PORT)]
    server = subprocess.Popen(words)
    time.sleep(1)

    def client(path: str, ip: str, kind: str) -> float:
        out = one("exec", LAB_PODS[path], "--", sys.executable, TOOL, "client", ip, str(PORT), kind, str(SECONDS))
        return float(out)

    try:
        yield client
    finally:
        server.kill()
        server.wait()


def _ruleset(one: Lab) -> str:
    """The tables of node1, as `nft` lists them."""
    spec: dict[str, Any] = {"nodeName": "node1", "hostNetwork": True}
    spec["containers"] = [{"name": "main", "image": "host/sleep", "command": ["sleep", "infinity"]}]
    one.api.create("pods", "default", {"metadata": {"name": "at-node1"}, "spec": spec})
    for _ in one.api.poll("pods", "default", lambda pods: all(p["status"]["phase"] == "Running" for p in pods), 10):
        pass
    return one("exec", "at-node1", "--", "nft", "list", "ruleset")


def _commands() -> list[str]:
    """The path by hand: a switch, two nodes, two pods on node1 and one on node2."""
    lines = ["mount -t tmpfs tmpfs /run"]
    lines += [f"ip netns add {name}" for name in ("switch", "node1", "node2", "pod11", "pod12", "pod21")]
    lines += ["ip -n switch link add switch0 up address 0a:58:c0:a8:01:01 type bridge"]
    for n in (1, 2):
        lines += _node(n, 3 - n)
        for p in range(1, 4 - n):
            lines += _pod(n, p)
    return lines


QUIET = "net.ipv6.conf.default.accept_dad=0 net.ipv6.conf.default.accept_ra=0"


def _node(n: int, other: int) -> list[str]:
    ip, mac = f"192.168.1.{9 + n}", f"0a:58:c0:a8:01:{9 + n:02x}"
    far, far_mac = f"192.168.1.{9 + other}", f"0a:58:c0:a8:01:{9 + other:02x}"
    here = f"ip -n node{n}"
    forwarding = "net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1"
    bridge = "net.bridge.bridge-nf-call-iptables=1 net.bridge.bridge-nf-call-ip6tables=1"
    return [
        f"ip netns exec node{n} sysctl -q -w {QUIET} {forwarding} {bridge}",
        f"ip -n switch link add port{n} up master switch0 type veth peer name eth0 netns node{n} address {mac}",
        f"{here} link set lo up",
        f"{here} link set eth0 up",
        f"{here} address add {ip}/24 dev eth0",
        f"{here} address add fd00:192:168:1::{9 + n:x}/64 dev eth0 nodad",
        f"{here} link add cbr0 up mtu 1500 address 0a:58:0a:f4:0{n}:01 type bridge",
        f"{here} address add 10.244.{n}.1/24 dev cbr0",
        f"{here} address add fd00:10:244:{n}::1/64 dev cbr0 nodad",
        f"{here} route add 10.244.{other}.0/24 via {far} dev eth0",
        f"{here} route add fd00:10:244:{other}::/64 via fd00:192:168:1::{9 + other:x} dev eth0",
        f"{here} neigh replace {far} dev eth0 lladdr {far_mac} nud permanent",
        f"{here} neigh replace fd00:192:168:1::{9 + other:x} dev eth0 lladdr {far_mac} nud permanent",
        f"ip netns exec node{n} nft -f /run/ruleset.nft",
    ]


def _pod(n: int, p: int) -> list[str]:
    name, mac = f"pod{n}{p}", f"0a:58:0a:f4:0{n}:{p + 1:02x}"
    ip, ip6 = f"10.244.{n}.{p + 1}", f"fd00:10:244:{n}::{p + 1}"
    here = f"ip -n {name}"
    return [
        f"ip netns exec {name} sysctl -q -w {QUIET}",
        f"ip -n node{n} link add veth{p} up mtu 1500 master cbr0 type veth peer name eth0 netns {name} address {mac} mtu 1500",
        f"ip -n node{n} link set veth{p} type bridge_slave hairpin on",
        f"ip -n node{n} neigh replace {ip} dev cbr0 lladdr {mac} nud permanent",
        f"ip -n node{n} neigh replace {ip6} dev cbr0 lladdr {mac} nud permanent",
        f"{here} link set lo up",
        f"{here} link set eth0 up",
        f"{here} address add {ip}/24 dev eth0",
        f"{here} address add {ip6}/64 dev eth0 nodad",
        f"{here} neigh replace 10.244.{n}.1 dev eth0 lladdr 0a:58:0a:f4:0{n}:01 nud permanent",
        f"{here} neigh replace fd00:10:244:{n}::1 dev eth0 lladdr 0a:58:0a:f4:0{n}:01 nud permanent",
        f"{here} route add default via 10.244.{n}.1",
        f"{here} route add default via fd00:10:244:{n}::1",
    ]


@contextlib.contextmanager
def _by_hand(ruleset: str) -> Iterator[Client]:
    """Measure between namespaces that were built with commands."""
    first, *rest = _commands()
    script = "\n".join(["set -e", first, "cat >/run/ruleset.nft", *rest, "echo ready", "exec sleep 1000"])
    world = subprocess.Popen(
        ["unshare", "--user", "--map-root-user", "--net", "--mount", "--fork", "--kill-child", "sh", "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert world.stdin and world.stdout and world.stderr
    world.stdin.write(ruleset)
    world.stdin.close()
    try:
        if world.stdout.readline() != "ready\n":
            raise RuntimeError(f"the path by hand: {world.stderr.read()}")
        pid = Path(f"/proc/{world.pid}/task/{world.pid}/children").read_text().split()[0]
        enter = ["nsenter", "--target", pid, "--user", "--mount", "--net", "--preserve-credentials", "ip", "netns", "exec"]
        server = subprocess.Popen([*enter, "pod11", sys.executable, TOOL, "server", str(PORT)], start_new_session=True)
        time.sleep(1)

        def client(path: str, ip: str, kind: str) -> float:
            words = [*enter, HAND_PODS[path], sys.executable, TOOL, "client", ip, str(PORT), kind, str(SECONDS)]
            done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=60, start_new_session=True)
            return float(done.stdout)

        try:
            yield client
        finally:
            server.kill()
            server.wait()
    finally:
        world.kill()
        world.wait()
