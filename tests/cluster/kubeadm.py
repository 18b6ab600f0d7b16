"""A cluster that kubeadm makes on machines of namespaces: `kubeadm init` on cp, `kubeadm join` on the others, static pods and all.

    hub: br0 ─┬─ cp: containerd, kubelet; in static pods etcd, kube-apiserver, kube-controller-manager, kube-scheduler   192.168.100.10
              ├─ w1: containerd, kubelet                                                                               192.168.100.11
              └─ …

Images have the names that kubeadm wants, and the programs of the PATH in them (`tests.cluster.kubeadm_images`). There is no systemd:
`SYSTEMCTL` and `UNIT` are what of it kubeadm and the kubelet need. `LACKING` are the checks of kubeadm's that a namespace can't pass.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.cluster import kubeadm_images as images
from tests.cluster import rig
from tests.cluster.rig import PODS, SOCKET, path

NEEDED = {
    **{name: source for name, source in rig.NEEDED.items() if name != "etcd"},
    "etcd": "3.6 or later, built from its source, go.etcd.io/etcd/server/v3",
    "kubeadm": "built from Kubernetes' source, cmd/kubeadm",
    "kube-proxy": "built from Kubernetes' source, cmd/kube-proxy",
    "coredns": "built from its source, github.com/coredns/coredns",
    "nft": "Debian's nftables",
}
"""Programs, and where they come from."""
LACKING = ("SystemVerification", "Mem", "NumCPU")
"""Checks of kubeadm's that are left out: the kernel's configuration and control groups of version 2, memory, processors."""
PREPARED = """
echo nameserver {server} > /etc/resolv.conf
grep -qw {name} /etc/hosts || echo {ip} {name} >> /etc/hosts
echo 1 > /proc/sys/net/ipv4/ip_forward
"""
"""What kubeadm wants of a machine before."""
PLUGINS = "/var/lib/kubelet/volumeplugins"
TOKEN = "abcdef.0123456789abcdef"
SECONDS = 600.0
WAITS = {"controlPlaneComponentHealthCheck": "8m", "kubeletHealthCheck": "8m", "kubernetesAPICall": "4m", "tlsBootstrap": "8m"}
"""kubeadm's, for a machine that has others to do things for."""
WANTED, RUNNING = "/run/kubelet.wanted", "/run/kubelet.pid"
SYSTEMCTL = f"""#!/bin/sh
case "$1" in
    is-active) [ ! -e {WANTED} ] || echo active ;;
    start) touch {WANTED} ;;
    restart) touch {WANTED}; [ ! -e {RUNNING} ] || kill "$(cat {RUNNING})" ;;
    stop) rm -f {WANTED}; [ ! -e {RUNNING} ] || kill "$(cat {RUNNING})"; while [ -e {RUNNING} ]; do sleep 0.1; done ;;
esac
"""
UNIT = f"""
[ ! -e /var/lib/kubelet/config.yaml ] || touch {WANTED}
while :; do
    if [ -e {WANTED} ]; then
        KUBELET_KUBEADM_ARGS=; [ ! -e /var/lib/kubelet/kubeadm-flags.env ] || . /var/lib/kubelet/kubeadm-flags.env
        kubelet --bootstrap-kubeconfig=/etc/kubernetes/bootstrap-kubelet.conf --kubeconfig=/etc/kubernetes/kubelet.conf \\
            --config=/var/lib/kubelet/config.yaml $KUBELET_KUBEADM_ARGS &
        echo $! > {RUNNING}; wait $!; rm -f {RUNNING}
    fi
    sleep 0.5
done
"""
"""Restart=always, and the command of 10-kubeadm.conf in the kubelet's package."""
KUBEADM, KUBELET, PROXY = "kubeadm.k8s.io/v1beta4", "kubelet.config.k8s.io/v1beta1", "kubeproxy.config.k8s.io/v1alpha1"


def missing() -> list[str]:
    """What is not on the PATH, and where it comes from."""
    found = [f"{name} ({source})" for name, source in NEEDED.items() if shutil.which(name) is None]
    return found or ([] if images.has_new_etcd() else [f"etcd ({NEEDED['etcd']})"])


class Kubeadm(rig.Rig):
    """The cluster; workers are added to it by `add_node`."""

    def __init__(
        self, folder: Path, program: Path, archives: Sequence[Path], machines: contextlib.ExitStack, skip: Sequence[str] = ()
    ) -> None:
        """`skip` are phases of `kubeadm init` that are left out; images in `archives` are loaded on each node."""
        self._own, self._skip = images.written(folder, program), skip
        (tools := folder / "tools").mkdir()
        (tools / "systemctl").write_text(SYSTEMCTL)
        (tools / "systemctl").chmod(0o755)
        self._path = f"{tools}:{os.environ['PATH']}"
        super().__init__(folder, program, [*archives, *self._own.of_all], machines)

    def _begin(self) -> None:
        self._boot_new("cp", [self.control])
        self._control, self._admin = self.nodes["cp"], Path("/etc/kubernetes/admin.conf")
        for archive in self._own.of_control_plane:
            self.load("cp", archive)
        skipped = [f"--skip-phases={','.join(self._skip)}"] if self._skip else []
        self.run("cp", "init", f"--config={self._written('cp', *self._init())}", *skipped)

    def run(self, node: str, *words: str) -> None:
        """Have kubeadm do something there; what it says is in its log."""
        line = f"{path('kubeadm')} {' '.join(words)} >> {self.folder}/{node}/kubeadm.log 2>&1"
        self.nodes[node]("env", f"PATH={self._path}", "sh", "-c", line, seconds=SECONDS)

    def start_kubelet(self, name: str) -> None:
        """As its unit does, from the boot on; a machine that is no node yet joins."""
        machine = self.nodes[name]
        machine("sh", "-euc", PREPARED.format(server=rig.HUB, ip=self._disks[name][1][0], name=name))
        machine.start("env", f"PATH={self._path}", "sh", "-c", UNIT)
        if name != "cp" and not Path(machine.path("/var/lib/kubelet/config.yaml")).exists():
            self.join(name)

    def join(self, name: str) -> None:
        """`kubeadm join`, and wait until it is registered."""
        discovery = {
            "bootstrapToken": {"apiServerEndpoint": f"{self.control}:6443", "token": TOKEN, "unsafeSkipCAVerification": True}
        }
        joined = {"apiVersion": KUBEADM, "kind": "JoinConfiguration", "discovery": discovery, "timeouts": WAITS}
        self.run(name, "join", f"--config={self._written(name, joined | self._registration(name))}")
        self.until(lambda: f"node/{name}" in self.kubectl("get", "nodes", "--output=name"))

    def _init(self) -> Iterator[Mapping[str, Any]]:
        own = {"bootstrapTokens": [{"token": TOKEN}], "localAPIEndpoint": {"advertiseAddress": self.control}}
        yield {"apiVersion": KUBEADM, "kind": "InitConfiguration", **own, "timeouts": WAITS, **self._registration("cp")}
        yield {
            "apiVersion": KUBEADM,
            "kind": "ClusterConfiguration",
            "kubernetesVersion": images.version(),
            "networking": {"podSubnet": PODS},
            "etcd": {"local": {"extraArgs": [{"name": "unsafe-no-fsync", "value": "true"}]}},
            "controllerManager": {"extraArgs": [{"name": "flex-volume-plugin-dir", "value": PLUGINS}]},
        }
        yield {
            "apiVersion": KUBELET,
            "kind": "KubeletConfiguration",
            "failCgroupV1": False,
            "cgroupDriver": "cgroupfs",
            "failSwapOn": False,
            "volumePluginDir": PLUGINS,
            "oomScoreAdj": 0,
            "imageGCHighThresholdPercent": 100,
            "evictionHard": {"memory.available": "1Mi"},
        }
        conntrack = {"maxPerCore": 0, "min": 0}
        yield {
            "apiVersion": PROXY,
            "kind": "KubeProxyConfiguration",
            "mode": "nftables",
            "oomScoreAdj": 0,
            "conntrack": conntrack,
        }

    def _registration(self, name: str) -> Mapping[str, Any]:
        """A control group of its own, as all machines share the hierarchies."""
        group = [{"name": "cgroup-root", "value": self.nodes[name].group}]
        own = {"name": name, "criSocket": f"unix://{SOCKET}", "kubeletExtraArgs": group, "ignorePreflightErrors": list(LACKING)}
        return {"nodeRegistration": own}

    def _written(self, name: str, *documents: Mapping[str, Any]) -> Path:
        target = self.folder / name / "kubeadm.yaml"
        target.write_text("\n---\n".join(map(json.dumps, documents)))
        return target


@contextlib.contextmanager
def up(folder: Path, program: Path, archives: Sequence[Path], workers: int, skip: Sequence[str] = ()) -> Iterator[Kubeadm]:
    """A cluster of a control plane and so many workers, as long as this is entered."""
    with contextlib.ExitStack() as machines:
        cluster = Kubeadm(folder, program, archives, machines, skip)
        for number in range(1, workers + 1):
            cluster.add_node(f"w{number}", number)
        yield cluster
