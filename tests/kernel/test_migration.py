"""A node is migrated from a network as Flannel makes it (bridge and host-local on each node, VXLAN between them), and back, under traffic.

    node1 (this namespace): cni0 ─ old     cbr0 ─ p0      eth0, flannel.1
    node2:                  cni0 ─ far                    eth0, flannel.1

node2 is not migrated; for the end of the migration it has the routes that an agent of ours would have there.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from podplane.kernel.namespace import CurrentNamespace
from podplane.machine import configuration, snapshot
from podplane.machine.former import FOLDER
from podplane.machine.uninstall import uninstall
from podplane.routes.behind import METRIC
from podplane.state.network import Proxy, Route
from tests import flow
from tests.kernel.lives import CONFIG, Machine, answer, until
from tests.kernel.test_foreign import run
from tests.unit.cni import programs
from tests.unit.cni.programs import words_of

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(
        shutil.which("nsenter") is None or shutil.which("ip") is None, reason="not installed: util-linux, iproute2"
    ),
]
OLD, FAR, NEW = (("10.244.1.2", "fd00:10:244:1::2"), ("10.244.2.2", "fd00:10:244:2::2"), ("10.244.1.3", "fd00:10:244:1::3"))

NODE2 = """
echo 0 > /proc/sys/net/ipv6/conf/default/addr_gen_mode
ip address add fe80::10/64 dev eth0 nodad
nsenter --net=/proc/{node2}/ns/net sh -ec '
    for one in all default; do echo 0 > /proc/sys/net/ipv4/conf/$one/rp_filter; echo 1 > /proc/sys/net/ipv6/conf/$one/forwarding; done
    echo 1 > /proc/sys/net/ipv4/ip_forward
    echo 0 > /proc/sys/net/ipv6/conf/default/accept_dad'
ip link add node2 type veth peer name eth0 netns {node2}
ip link set node2 master eth0 up
nsenter --net=/proc/{node2}/ns/net sh -ec '
    ip link set lo up
    ip link set eth0 up
    ip address add 192.168.1.11/24 dev eth0
    ip address add fd00:192:168:1::11/64 dev eth0 nodad'
for one in all default; do echo 0 > /proc/sys/net/ipv4/conf/$one/rp_filter; done
"""
"""As a node that has been up for longer than two seconds: nobody looks for duplicates of its link-local address any more. As long as that
lasts the kernel solicits no neighbour for what it forwards (ndisc_send_ns has no source), and packets wait, or are lost.
"""
FLANNEL = """
ip link add cni0 type bridge
ip link set cni0 up
ip address add 10.244.{own}.1/24 dev cni0
ip address add fd00:10:244:{own}::1/64 dev cni0 nodad
ip link add flannel.1 type vxlan id 1 dstport 8472 local 192.168.1.1{own_number} dev eth0 nolearning
ip link set flannel.1 address 02:00:00:00:00:0{own} mtu 1450 up
ip address add 10.244.{own}.0/32 dev flannel.1
ip address add fd00:10:244:{own}::/128 dev flannel.1 nodad
ip neigh add 10.244.{other}.0 lladdr 02:00:00:00:00:0{other} dev flannel.1 nud permanent
ip neigh add fd00:10:244:{other}:: lladdr 02:00:00:00:00:0{other} dev flannel.1 nud permanent
bridge fdb add 02:00:00:00:00:0{other} dev flannel.1 dst 192.168.1.1{other_number}
ip route add 10.244.{other}.0/24 via 10.244.{other}.0 dev flannel.1 onlink
ip -6 route add fd00:10:244:{other}::/64 via fd00:10:244:{other}:: dev flannel.1 onlink
"""
"""What flanneld makes of a node, and the plugin bridge; `own_number` is 0 for node1, 1 for node2."""
POD = """
ip link add vethold type veth peer name eth0 netns {pod}
ip link set vethold master cni0 up
nsenter --net=/proc/{pod}/ns/net sh -ec '
    echo 0 > /proc/sys/net/ipv6/conf/default/accept_dad
    ip link set lo up
    ip link set eth0 mtu 1450 up
    ip address add 10.244.{own}.2/24 dev eth0
    ip address add fd00:10:244:{own}::2/64 dev eth0 nodad
    ip route add default via 10.244.{own}.1
    ip -6 route add default via fd00:10:244:{own}::1'
"""
"""A pod as bridge and host-local set it up: the whole block is on its link."""
BEHIND = """
ip route add 10.244.1.0/24 via 192.168.1.10 metric 2048
ip -6 route add fd00:10:244:1::/64 via fd00:192:168:1::10 metric 2048
"""
FLUSH = """
ip route flush dev flannel.1
ip -6 route flush dev flannel.1
"""
TAKEN = """
mount -t tmpfs none /var/lib
mkdir -p /var/lib/cni/networks/cbr0 /var/lib/cni/results
printf 'c1\\r\\neth0' > /var/lib/cni/networks/cbr0/10.244.1.2
printf 'c1\\r\\neth0' > /var/lib/cni/networks/cbr0/fd00:10:244:1::2
"""


class Cluster:
    """Both nodes, as long as `close` is not called."""

    def __init__(self, folder: Path) -> None:
        run(TAKEN)
        self.machine = Machine(folder, words_of("c", folder), 4)
        self.machine.config = configuration.parsed(
            CONFIG | {"run_dir": str(folder / "run"), "migrate_from": "cni0", "sysctl_dir": "/proc/sys/net"}
        )
        self._holders: list[subprocess.Popen[bytes]] = []
        self._servers: list[subprocess.Popen[str]] = []
        self.old, self.node2, self.far = (self._held() for _ in range(3))
        run(NODE2.format(node2=self.node2))
        run(FLANNEL.format(own=1, other=2, own_number=0, other_number=1) + POD.format(pod=self.old, own=1))
        self.on_node2(FLANNEL.format(own=2, other=1, own_number=1, other_number=0) + POD.format(pod=self.far, own=2))
        result = {"result": {"interfaces": [{"name": "eth0", "sandbox": f"/proc/{self.old}/ns/net"}]}}
        (FOLDER / "results/cbr0-c1-eth0").write_text(json.dumps(result))

    def _held(self) -> int:
        holder = subprocess.Popen(["unshare", "-n", "sleep", "600"])
        self._holders.append(holder)
        own = Path("/proc/self/ns/net").stat().st_ino
        until(lambda: Path(f"/proc/{holder.pid}/ns/net").stat().st_ino != own, "a network namespace")
        return holder.pid

    def on_node2(self, script: str) -> None:
        """Run commands there: pods are named by the numbers of their processes, which are the same everywhere."""
        words = ["nsenter", f"--net=/proc/{self.node2}/ns/net", "sh", "-e"]
        subprocess.run(words, input=script, text=True, check=True)

    def _flow(self, pod: int, *words: str) -> subprocess.Popen[str]:
        entered = ["nsenter", f"--net=/proc/{pod}/ns/net", sys.executable, "-I", str(flow.__file__), *words]
        return flow.begun(subprocess.Popen(entered, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))

    def serve(self, *pods: int) -> None:
        """They answer what they are sent, to the end."""
        self._servers += [self._flow(pod, "serve") for pod in pods]

    def ask(self, pod: int, *ips: str) -> subprocess.Popen[str]:
        """Traffic from a pod, which goes on."""
        return self._flow(pod, "ask", *ips)

    def attach(self, name: str) -> tuple[str, ...]:
        """The addresses of a pod."""
        status, said = answer(self.machine.call("ADD", name))
        assert status == 0, said
        return tuple(one["address"].partition("/")[0] for one in said["ips"])

    def new(self, name: str) -> int:
        """The process that holds a pod of ours."""
        return self.machine.holders[name].pid

    def end(self, pod: int) -> None:
        """A pod that we did not attach."""
        holder = next(one for one in self._holders if one.pid == pod)
        self._holders.remove(holder)
        holder.kill()
        holder.wait()

    def close(self) -> None:
        self.machine.close()
        for one in (*self._servers, *self._holders):
            one.kill()
            one.communicate()
        programs.clean()


@contextlib.contextmanager
def cluster(folder: Path) -> Iterator[Cluster]:
    made = Cluster(folder)
    try:
        yield made
    finally:
        made.close()


def nothing_lost(found: Sequence[flow.Lost], least: int) -> None:
    for one in found:
        for sent, lost in one.values():
            assert sent >= least and not lost, found


def test_a_node_is_migrated_and_back_and_no_packet_is_lost(tmp_path: Path) -> None:
    with cluster(tmp_path) as made:
        machine = made.machine
        before = snapshot.take(CurrentNamespace())
        made.serve(made.old, made.far)
        theirs = [made.ask(made.old, *FAR), made.ask(made.far, *OLD)]
        machine.start()
        assert made.attach("p0") == NEW, "what host-local gave to a container is not given out"
        made.serve(made.new("p0"))
        ours = [made.ask(made.new("p0"), *OLD, *FAR), *(made.ask(pod, *NEW) for pod in (made.old, made.far))]
        time.sleep(1)
        nothing_lost(flow.ended(*ours), 50)
        assert answer(machine.call("DEL", "p0")) == (0, None)
        machine.end(signal.SIGTERM)
        done = uninstall(tmp_path / "run", machine.config.network(), (), detach=False)
        assert done.is_clean, done.lines
        nothing_lost(flow.ended(*theirs), 100)
        assert list(before.differences(snapshot.take(CurrentNamespace()))) == []


def test_the_former_network_is_removed_and_no_packet_is_lost(tmp_path: Path) -> None:
    with cluster(tmp_path) as made:
        machine = made.machine
        machine.start()
        assert made.attach("p0") == NEW
        made.on_node2(BEHIND)
        made.serve(made.far, made.new("p0"))
        flows = [made.ask(made.new("p0"), *FAR), made.ask(made.far, *NEW)]
        made.end(made.old)
        for script in (FLUSH, "ip link delete flannel.1\n"):
            run(script)
            made.on_node2(script)
        run("ip link delete cni0")
        until(lambda: not any(isinstance(one, Proxy) for one in machine.kernel().values()), "it is not migrated any more")
        time.sleep(0.5)
        nothing_lost(flow.ended(*flows), 50)
        routes = [one for one in machine.kernel().values() if isinstance(one, Route) and one.metric == METRIC]
        assert sorted(str(one.destination) for one in routes) == sorted(
            f"{one}" for number in (1, 2) for one in (f"10.244.{number}.0/24", f"fd00:10:244:{number}::/64")
        )
