"""How much of the machine's neighbour table do the pods of many nodes take, when each pod of a node talks to each other one?

The kernel has one neighbour table for each IP version and the whole machine (gc_thresh3, 1,024 by default), which other labs and the
machine's own network share. In namespaces of a process of its own, nodes with pods are built by podplane's own plans; each pod sends a
datagram to each other one of its node over IPv4 and IPv6. What does not arrive is lost. Then all entries of these namespaces are counted
that are not permanent, which alone count against the limit. How often the table was full is the whole machine's count: other programs
are part of it.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import resource
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from itertools import permutations
from pathlib import Path
from statistics import median

from bench.common import Row, quiet
from podplane.kernel.door import Kernel
from podplane.kernel.namespace import NetworkNamespace, Workers
from podplane.kernel.netlink import Socket, parse_attributes
from podplane.kernel.opener import KernelOpener
from podplane.kernel.rtnl import constants as c
from podplane.kernel.rtnl.decode import ip_from
from podplane.kernel.rtnl.present import LOOPBACK_INDEX
from podplane.model.config import NetworkConfig
from podplane.model.objects import Metadata, Node, NodeSpec
from podplane.model.view import Sandbox, View
from podplane.nodes import plan as nodes
from podplane.nodes.settings import NodeSettings
from podplane.pods import bridge
from podplane.pods import plan as pods
from podplane.state.operations import diff
from podplane.state.value import Fragment

NODES, PODS = 100, 50
NETLINK_ROUTE = 0
PORT, WAIT_SECONDS, SETTLE_SECONDS = 9000, 0.5, 2.0
TABLES = ("arp_cache", "ndisc_cache")
FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
CONFIG = NetworkConfig(cluster_cidrs=("10.0.0.0/8", "fd00:10::/32"), uplink="lo")  # these nodes have no other link
Result = dict[str, float]


def run(short: bool) -> list[Row]:
    """All pairs of each node."""
    count = (5, 10) if short else (NODES, PODS)
    quiet()
    before = full_tables()
    result = _world(*count)
    full = full_tables() - before
    size = f"{count[0]} nodes × {count[1]} pods, all pairs of a node, IPv4 and IPv6"
    note = f"multicast: {result['multicast']:.0f}; the machine's tables were full {full} times meanwhile"
    return [
        Row(f"{size}: packets lost", [result["lost"]], "packets", 0.0, note=f"of {result['sent']:,.0f}"),
        Row(f"{size}: unicast neighbours that count", [result["unicast"]], "entries", 0.0, note=note),
        Row("one more pod in the kernel, without its namespace", [result["milliseconds"]], "ms"),
    ]


def full_tables() -> int:
    """How often the machine's neighbour tables had no room (table_fulls, a count a CPU)."""
    total = 0
    for table in TABLES:
        header, *rows = (line.split() for line in Path("/proc/net/stat", table).read_text().splitlines())
        total += sum(int(row[header.index("table_fulls")], 16) for row in rows)
    return total


def _world(node_count: int, pod_count: int) -> Result:
    """Build it in a process of its own, and what that found."""
    command = ["unshare", "--user", "--map-root-user", "--net", "--mount", sys.executable, "-m", "bench.neighbours"]
    done = subprocess.run([*command, str(node_count), str(pod_count)], stdout=subprocess.PIPE, text=True, check=True)
    result: Result = json.loads(done.stdout)
    return result


class NodeWorld:
    """A node in a namespace of its own, with its pods."""

    def __init__(self, number: int, pod_count: int, workers: Workers) -> None:
        blocks = (f"10.{number >> 8}.{number & 255}.0/24", f"fd00:10:0:{number:x}::/64")
        self._node = Node(metadata=Metadata(name=f"node{number}"), spec=NodeSpec(pod_cidrs=blocks))
        self._namespace = NetworkNamespace.create(workers)
        self._kernel = Kernel(self._namespace, KernelOpener())
        self._apply({**nodes.plan(self._node, CONFIG, NodeSettings()), **bridge.plan(self._node, CONFIG)})
        self._pods: list[tuple[NetworkNamespace, tuple[str, ...]]] = []
        self.seconds: list[float] = []
        for index in range(pod_count):
            ips = tuple(str(ipaddress.ip_network(block)[index + 2]) for block in blocks)
            self._add(index, NetworkNamespace.create(workers), ips)

    def _add(self, index: int, namespace: NetworkNamespace, ips: tuple[str, ...]) -> None:
        began, name = time.monotonic(), f"pod/{index}"
        self._kernel.attach(name, namespace)
        view = View(self._node.metadata.name, {self._node.metadata.name: self._node})
        self._apply(pods.plan(Sandbox("default", f"pod{index}", f"{ips[0]}", f"{ips[0]}", name, ips), view, CONFIG))
        self.seconds.append(time.monotonic() - began)
        self._pods.append((namespace, ips))

    def _apply(self, fragment: Fragment) -> None:
        report = self._kernel.apply(diff({}, fragment))
        if report.failed:
            raise RuntimeError(str(report.failed[0]))

    def neighbours(self) -> Counter[str]:
        """The entries of the node's and its pods' namespaces that are not permanent, by what they are; loopback has none that count."""
        found: Counter[str] = Counter()
        for namespace in (self._namespace, *(namespace for namespace, _ in self._pods)):
            with contextlib.closing(namespace.run(Socket, NETLINK_ROUTE)) as own:
                for family in (c.AF_INET, c.AF_INET6):
                    for _, payload in own.dump(c.RTM_GETNEIGH, c.NEIGHBOUR.pack(family, 0, 0, 0, 0)):
                        _, index, state, _, _ = c.NEIGHBOUR.unpack_from(payload)
                        if not state & c.NUD_PERMANENT and index != LOOPBACK_INDEX:
                            ip = ip_from(parse_attributes(payload, c.NEIGHBOUR.size)[c.NDA_DST])
                            found["multicast" if ip.is_multicast else "unicast"] += 1
        return found

    def exchange(self) -> tuple[int, int]:
        """Each pod sends to each other one: (sent, lost)."""
        sent = lost = 0
        for position, version in enumerate((4, 6)):
            with contextlib.ExitStack() as stack:
                sockets = []
                for namespace, ips in self._pods:
                    own = stack.enter_context(namespace.run(socket.socket, FAMILIES[version], socket.SOCK_DGRAM))
                    own.bind((ips[position], PORT))
                    own.settimeout(WAIT_SECONDS)
                    sockets.append((own, ips[position]))
                for (source, _), (_, target) in permutations(sockets, 2):
                    source.sendto(b"x", (target, PORT))
                sent += len(sockets) * (len(sockets) - 1)
                lost += sum(_missing(own, len(sockets) - 1) for own, _ in sockets)
        return sent, lost


def _missing(own: socket.socket, expected: int) -> int:
    """How many of the expected datagrams don't come."""
    for received in range(expected):
        try:
            own.recv(16)
        except TimeoutError:
            return expected - received
    return 0


def main(words: Sequence[str]) -> None:
    """Build, exchange, and print what was found."""
    node_count, pod_count = map(int, words)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    workers = Workers(1)
    world = [NodeWorld(number, pod_count, workers) for number in range(1, node_count + 1)]
    time.sleep(SETTLE_SECONDS)  # the kernel activates links a moment after their carrier came
    sent, lost = map(sum, zip(*(node.exchange() for node in world), strict=True))
    found = sum((node.neighbours() for node in world), Counter[str]())
    milliseconds = 1000 * median(second for node in world for second in node.seconds)
    entries = {"unicast": found["unicast"], "multicast": found["multicast"]}
    print(json.dumps({"sent": sent, "lost": lost, "milliseconds": milliseconds, **entries}))


if __name__ == "__main__":
    main(sys.argv[1:])
