"""Is traffic through a lab as fast as through the same path built by hand with `ip`, `sysctl` and `nft`?

Worlds stand beside each other: a lab of two nodes, and twice namespaces made here by commands, with the same bridges, veths,
addresses, routes, permanent neighbours, sysctls and tables. In a round each world is measured in short slices, in turns of random
order; a round's ratio is that of the sums. What counts is the median of the rounds' ratios. The second path by hand shows how
much of a ratio is noise.
"""

from __future__ import annotations

import contextlib
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

from bench.common import Lab, Row, lab, quiet
from bench.tool import KINDS

MUST_RATIO = 0.97
ROUNDS, SLICES, SLICE_SECONDS = 15, 5, 0.1
PORT = 5201
TOOL = str(Path(__file__).with_name("tool.py").resolve())
SERVERS = {4: "10.244.1.2", 6: "fd00:10:244:1::2"}
SAME, ACROSS = "on one node", "across nodes"
LAB_PODS = {SAME: "echo-node1-2", ACROSS: "echo-node2-1"}
HAND_PODS = {SAME: "pod12", ACROSS: "pod21"}
NEEDED = ("ip", "nft", "sysctl", "unshare", "nsenter")
Start = Callable[[str, list[str]], list[str]]
"""(path, command) → the command that runs it in the pod that is the client on that path."""


def run(short: bool) -> list[Row]:
    """Throughput, round trips and connections, on one node and across nodes."""
    missing = [tool for tool in NEEDED if not shutil.which(tool)]
    if missing:
        return [Row(f"traffic: {', '.join(missing)} missing", [0.0], note="not measured")]
    rounds = 3 if short else ROUNDS
    across = [(ACROSS, version, kind) for version in (4, 6) for kind in KINDS]
    return [
        *_by_backend("host-gw", [*((SAME, 4, kind) for kind in KINDS), *across], rounds),
        *_by_backend("vxlan", across, rounds),
    ]


def _by_backend(backend: str, cases: list[tuple[str, int, str]], rounds: int) -> list[Row]:
    """A lab whose nodes reach each other so, beside the same by hand."""
    with lab() as one:
        quiet()
        one("up", "--nodes", "2", "--pods-per-node", "2", "--backend", backend)
        rulesets = [_ruleset(one, node) for node in ("node1", "node2")]
        with _lab(one) as ours, _by_hand(rulesets, backend) as theirs, _by_hand(rulesets, backend) as again:
            return [_compare([ours, theirs, again], *case, rounds, backend) for case in cases]


class Client:
    """A client that is running in one of the worlds."""

    def __init__(self, command: list[str]) -> None:
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        self.total = 0.0

    def measure(self, question: str) -> None:
        """Ask for one slice, and add its answer."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(question)
        self._process.stdin.flush()
        self.total += float(self._process.stdout.readline())

    def close(self) -> None:
        """End it."""
        self._process.communicate()


def _round(worlds: list[Start], path: str, version: int, kind: str) -> list[float]:
    """What each world did a second."""
    command = [sys.executable, TOOL, "client", str(PORT)]
    clients = [Client(start(path, command)) for start in worlds]
    question = f"{SERVERS[version]} {kind} {SLICE_SECONDS}\n"
    for _ in range(SLICES):
        for client in random.sample(clients, len(clients)):
            client.measure(question)
    for client in clients:
        client.close()
    return [client.total / SLICES for client in clients]


def _compare(worlds: list[Start], path: str, version: int, kind: str, rounds: int, backend: str) -> Row:
    """The ratios of all rounds, what both did, and the ratio of two paths by hand: how much of it is noise."""
    mine, hand, again = zip(*(_round(worlds, path, version, kind) for _ in range(rounds)), strict=True)
    ratios = [a / b for a, b in zip(mine, hand, strict=True)]
    floor = median(a / b for a, b in zip(again, hand, strict=True))
    unit, scale = ("Gbit/s", 8e-9) if kind == "throughput" else ("a second", 1.0)
    note = f"{median(mine) * scale:,.1f} beside {median(hand) * scale:,.1f} {unit}; two paths by hand: {floor:.3f}"
    extra = {"lab": list(mine), "by hand": list(hand), "by hand again": list(again)}
    way = "" if backend == "host-gw" else f" by {backend}"
    what = f"TCP {kind} {path}{way}, IPv{version}, lab / by hand"
    return Row(what, ratios, "ratio", MUST_RATIO, at_least=True, note=note, extra=extra)


@contextlib.contextmanager
def _lab(one: Lab) -> Iterator[Start]:
    """Measure between pods of the lab."""

    def start(pod: str, command: list[str]) -> list[str]:
        return [sys.executable, "-m", "podplane", "exec", "-i", pod, "--", *command]

    server = subprocess.Popen(start("echo-node1-1", [sys.executable, TOOL, "server", str(PORT)]))
    time.sleep(1)
    try:
        yield lambda path, command: start(LAB_PODS[path], command)
    finally:
        server.kill()
        server.wait()


def _ruleset(one: Lab, node: str) -> str:
    """The tables of a node, as `nft` lists them, without what `nft` can't read: the look-up of raw bytes of an ICMP error's packet."""
    spec: dict[str, Any] = {"nodeName": node, "hostNetwork": True}
    spec["containers"] = [
        {"name": "main", "image": "host/sleep", "command": ["sleep", "infinity"], "securityContext": {"privileged": True}}
    ]
    one.api.create("pods", "default", {"metadata": {"name": f"at-{node}"}, "spec": spec})
    for _ in one.api.poll("pods", "default", lambda pods: all(p["status"]["phase"] == "Running" for p in pods), 10):
        pass
    listed = one("exec", f"at-{node}", "--", "nft", "list", "ruleset")
    for version, address in ((4, "ip"), (6, "ip6")):  # nft takes the number of an endpoint for an integer, and wants to read so
        wanted = f"typeof meta mark . numgen random mod 16384 : {address} daddr . tcp dport"
        listed = listed.replace(f"type mark . mark : ipv{version}_addr . inet_service", wanted)
    listed = listed.replace("@ll,48,48 .", "ether saddr .")  # a sender's MAC, where nft wants to see that frames have one
    return "".join(line for line in listed.splitlines(keepends=True) if "icmp" not in line or "@th," not in line)


def _commands(backend: str) -> list[str]:
    """The path by hand: a switch, two nodes, two pods on node1 and one on node2; with a tunnel between the nodes by vxlan."""
    lines = ["mount -t tmpfs tmpfs /run"]
    lines += [f"ip netns add {name}" for name in ("switch", "node1", "node2", "pod11", "pod12", "pod21")]
    lines += ["ip -n switch link add switch0 up address 0a:58:c0:a8:01:01 type bridge"]
    for n in (1, 2):
        lines += _node(n, 3 - n)
        for p in range(1, 4 - n):
            lines += _pod(n, p)
        if backend == "vxlan":
            lines += _tunnel(n, 3 - n)
    return lines


def _tunnel(n: int, other: int) -> list[str]:
    """A VXLAN device on node `n`, and routes through it to the pods of the other; all that pods send fits."""
    here, device, mac = f"ip -n node{n}", "podplane-vxlan4", f"0a:00:00:00:00:0{other}"
    lines = [
        f"{here} link add {device} mtu 1450 address 0a:00:00:00:00:0{n} type vxlan id 1 local 192.168.1.{9 + n} dev eth0"
        " dstport 4789 nolearning",
        f"{here} link set {device} up",
        f"{here} address add 10.244.{n}.1/32 dev {device}",
        f"{here} address add fd00:10:244:{n}::1/128 dev {device} nodad",
        f"{here} neigh replace 10.244.{other}.1 dev {device} lladdr {mac} nud permanent",
        f"{here} neigh replace fe80::{other} dev {device} lladdr {mac} nud permanent",
        f"ip netns exec node{n} bridge fdb replace {mac} dev {device} dst 192.168.1.{9 + other}",
        f"{here} route replace 10.244.{other}.0/24 via 10.244.{other}.1 dev {device} onlink",
        f"{here} route replace fd00:10:244:{other}::/64 via fe80::{other} dev {device}",
        f"{here} link set cbr0 mtu 1450",
    ]
    for p in range(1, 4 - n):
        lines += [f"{here} link set veth{p} mtu 1450", f"ip -n pod{n}{p} link set eth0 mtu 1450"]
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
        f"{here} address add 10.244.{n}.1/32 dev cbr0",
        f"{here} address add fd00:10:244:{n}::1/128 dev cbr0 nodad",
        f"{here} route add 10.244.{other}.0/24 via {far} dev eth0",
        f"{here} route add fd00:10:244:{other}::/64 via fd00:192:168:1::{9 + other:x} dev eth0",
        f"{here} neigh replace {far} dev eth0 lladdr {far_mac} nud permanent",
        f"{here} neigh replace fd00:192:168:1::{9 + other:x} dev eth0 lladdr {far_mac} nud permanent",
        f"ip netns exec node{n} nft -f $rulesets/node{n}.nft",
    ]


def _pod(n: int, p: int) -> list[str]:
    name, mac = f"pod{n}{p}", f"0a:58:0a:f4:0{n}:{p + 1:02x}"
    ip, ip6 = f"10.244.{n}.{p + 1}", f"fd00:10:244:{n}::{p + 1}"
    here = f"ip -n {name}"
    return [
        f"ip netns exec {name} sysctl -q -w {QUIET}",
        f"ip -n node{n} link add veth{p} up mtu 1500 master cbr0 type veth peer name eth0 netns {name} address {mac} mtu 1500",
        f"ip -n node{n} link set veth{p} type bridge_slave hairpin on learning off flood off",
        f"ip netns exec node{n} bridge fdb replace {mac} dev veth{p} master static",
        f"ip -n node{n} route add {ip} dev cbr0",
        f"ip -n node{n} route add {ip6} dev cbr0",
        f"ip -n node{n} neigh replace {ip} dev cbr0 lladdr {mac} nud permanent",
        f"ip -n node{n} neigh replace {ip6} dev cbr0 lladdr {mac} nud permanent",
        f"{here} link set lo up",
        f"{here} link set eth0 up",
        f"{here} address add {ip}/32 dev eth0",
        f"{here} address add {ip6}/128 dev eth0 nodad",
        f"{here} neigh replace 10.244.{n}.1 dev eth0 lladdr 0a:58:0a:f4:0{n}:01 nud permanent",
        f"{here} neigh replace fd00:10:244:{n}::1 dev eth0 lladdr 0a:58:0a:f4:0{n}:01 nud permanent",
        f"{here} route add default via 10.244.{n}.1 dev eth0 onlink",
        f"{here} route add default via fd00:10:244:{n}::1 dev eth0 onlink",
    ]


@contextlib.contextmanager
def _by_hand(rulesets: list[str], backend: str) -> Iterator[Start]:
    """Measure between namespaces that were built with commands; `rulesets` are those of node1 and node2."""
    with tempfile.TemporaryDirectory() as folder:
        for number, ruleset in enumerate(rulesets, 1):
            Path(folder, f"node{number}.nft").write_text(ruleset)
        with _world(folder, backend) as start:
            yield start


@contextlib.contextmanager
def _world(rulesets: str, backend: str) -> Iterator[Start]:
    """The same, with a folder of rulesets."""
    script = "\n".join([f"set -e; rulesets={rulesets}", *_commands(backend), "echo ready", "exec sleep 1000"])
    world = subprocess.Popen(
        ["unshare", "--user", "--map-root-user", "--net", "--mount", "--fork", "--kill-child", "sh", "-c", script],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert world.stdout and world.stderr
    try:
        if world.stdout.readline() != "ready\n":
            raise RuntimeError(f"the path by hand: {world.stderr.read()}")
        pid = Path(f"/proc/{world.pid}/task/{world.pid}/children").read_text().split()[0]
        enter = ["nsenter", "--target", pid, "--user", "--mount", "--net", "--preserve-credentials", "ip", "netns", "exec"]
        server = subprocess.Popen([*enter, "pod11", sys.executable, TOOL, "server", str(PORT)], start_new_session=True)
        time.sleep(1)

        try:
            yield lambda path, command: [*enter, HAND_PODS[path], *command]
        finally:
            server.kill()
            server.wait()
    finally:
        world.kill()
        world.wait()
