"""A Kubernetes cluster on this machine: a control plane and nodes with containerd and kubelet, from programs on the PATH.

    hub: br0 192.168.100.1 ─┬─ cp: etcd, kube-apiserver, kube-controller-manager, kube-scheduler   192.168.100.10
                            ├─ w1: containerd, kubelet                                            192.168.100.11
                            └─ w2: …

Each is a machine of namespaces (`tests.engines.machine`): nothing reaches the host's network, and all of it ends with this process. No node
has a network for pods until somebody brings one. Addresses are these with IPv4; with IPv6, or both, those of `families`.
"""

from __future__ import annotations

import contextlib
import json
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.cluster.authority import Authority
from tests.cluster.families import V4, Family, url
from tests.engines import image
from tests.engines.machine import Disk, Machine, Program, hierarchies

NEEDED = {
    "etcd": "Debian's etcd-server",
    "containerd": "Debian's containerd",
    "ctr": "Debian's containerd",
    "runc": "Debian's runc",
    "kubectl": "built from Kubernetes' source, cmd/kubectl",
    "kube-apiserver": "built from Kubernetes' source, cmd/kube-apiserver",
    "kube-controller-manager": "built from Kubernetes' source, cmd/kube-controller-manager",
    "kube-scheduler": "built from Kubernetes' source, cmd/kube-scheduler",
    "kubelet": "built from Kubernetes' source, cmd/kubelet",
}
"""Programs, and where they come from."""
HUB, CONTROL, PODS, KUBERNETES, DNS = V4.hub, V4.control, V4.pods, V4.kubernetes, V4.dns
ETCD = "/var/lib/etcd"
SOCKET = "/run/containerd/containerd.sock"
CONTAINERD_METRICS = "127.0.0.1:1338"
READY_SECONDS = 120.0
BRIDGE = """
ip link set lo up
ip link add br0 type bridge
ip link set br0 up
"""
KERNEL = {
    "vm/overcommit_memory": 1,
    "kernel/panic": 10,
    "kernel/panic_on_oops": 1,
    "kernel/keys/root_maxbytes": 25000000,
    "kernel/keys/root_maxkeys": 1000000,
}
"""A kubelet sets these, which are of the whole machine: it is shown files that have them already."""
NODE = """
mkdir -p /run/groups /run/shown /etc/cni/net.d /etc/kubernetes/manifests /opt/cni/bin /var/lib/kubelet /var/log/pods
[ -e /var/lib/installed ] || rm -rf /etc/cni/net.d/* /opt/cni/bin/*
mount --rbind /sys/fs/cgroup /run/groups
mount -t sysfs sysfs /sys
mount --rbind /run/groups /sys/fs/cgroup
umount -l /run/groups
cat /proc/sys/kernel/random/uuid > /run/shown/boot_id
mount --bind /run/shown/boot_id /proc/sys/kernel/random/boot_id
[ -e /var/lib/installed ] || tr -d - < /proc/sys/kernel/random/uuid > /etc/machine-id
touch /var/lib/installed
""" + "".join(
    f"echo {value} > /run/shown/{name.replace('/', '_')} && mount --bind /run/shown/{name.replace('/', '_')} /proc/sys/{name}\n"
    for name, value in KERNEL.items()
)
CONTAINERD = f"""
version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
[grpc]
  address = "{SOCKET}"
[metrics]
  address = "{CONTAINERD_METRICS}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{image.NAME}"
  restrict_oom_score_adj = true
  disable_apparmor = true
"""
"""Profiles of AppArmor, and chances to be killed, are of the whole machine."""
Object = dict[str, Any]


def missing() -> list[str]:
    """What is not on the PATH, and where it comes from."""
    return [f"{name} ({source})" for name, source in NEEDED.items() if shutil.which(name) is None]


class Rig:
    """The cluster; what its programs say, and its certificates, are in `folder`."""

    def __init__(
        self,
        folder: Path,
        program: Path,
        archives: Sequence[Path],
        machines: contextlib.ExitStack,
        families: Sequence[Family] = (V4,),
    ) -> None:
        """`program` is that of `tests.engines.image`; images in `archives` are loaded on each node."""
        self.folder, self.program, self.archives, self._machines = folder, program, archives, machines
        self.families, self.control = families, families[0].control
        self.nodes: dict[str, Machine] = {}
        self.control_plane: dict[str, Program] = {}
        """Its programs, by name."""
        self.kubelets: dict[str, Program] = {}
        self._words: dict[str, tuple[str, ...]] = {}
        self._disks: dict[str, tuple[Disk, list[str]]] = {}
        """Disks of nodes, and their addresses."""
        addresses = [f"ip addr add {one.hub}/{one.length} dev br0 {nodad(one)}\n" for one in families]
        self.hub = self._boot("hub", BRIDGE + "".join(addresses))
        self._begin()

    def _begin(self) -> None:
        self._control = self._boot("cp", "")
        self._cable(self._control, [one.control for one in self.families])
        self._authority = Authority(self.folder, url(self.control, 6443))
        self._admin = self._authority.kubeconfig("admin", "admin", ["system:masters"])
        self._start_control_plane()

    def _boot(self, name: str, more: str, disk: Disk | None = None) -> Machine:
        logs = self.folder / name
        logs.mkdir(exist_ok=True)
        machine = Machine(name, self.program, logs, more, disk)
        self._machines.callback(machine.close)
        return machine

    def _cable(self, machine: Machine, ips: Sequence[str]) -> None:
        """Join the hub's bridge, as a machine with these addresses, one of each family."""
        words = ("ip", "link", "add", machine.name, "type", "veth", "peer", "name", "eth0", "netns", str(machine.pid))
        _in_network(self.hub, *words)
        _in_network(self.hub, "ip", "link", "set", machine.name, "master", "br0", "up")
        machine("ip", "link", "set", "lo", "up")
        machine("ip", "link", "set", "eth0", "up")
        for ip, family in zip(ips, self.families, strict=True):
            machine("ip", "addr", "add", f"{ip}/{family.length}", "dev", "eth0", *nodad(family).split())
            machine("ip", "route", "add", "default", "via", family.hub)

    def kubectl(self, *words: str, stdin: str | None = None, code: int | None = 0) -> str:
        """What kubectl prints, as the cluster's administrator."""
        return self._control(path("kubectl"), f"--kubeconfig={self._admin}", *words, stdin=stdin, code=code)

    def get(self, *words: str) -> Any:
        """An object, or a list of them."""
        return json.loads(self.kubectl("get", *words, "--output=json"))

    def helm(self, *words: str) -> str:
        """What helm prints, as the cluster's administrator."""
        return self._control(path("helm"), f"--kubeconfig={self._admin}", "--namespace=kube-system", *words)

    def user(self, name: str) -> str:
        """The kubeconfig of a user with this name, who has no right of its own."""
        return str(self._authority.kubeconfig(name, name))

    def podplane(self, *words: str, kubeconfig: str = "", code: int | None = 0) -> str:
        """What a command of podplane says, on both its outputs, with a kubeconfig: the administrator's, if no other is given."""
        line = self._podplane(words, kubeconfig)
        return self._control("sh", "-c", f"{shlex.join(line)} 2>&1", code=code)

    def podplane_started(self, *words: str, kubeconfig: str = "") -> subprocess.Popen[str]:
        """The same command while it runs, in a process of its own; what it says on its first output comes as text."""
        return self._control.piped(*self._podplane(words, kubeconfig))

    def _podplane(self, words: Sequence[str], kubeconfig: str) -> list[str]:
        return [sys.executable, "-m", "podplane", *words, "--kubeconfig", kubeconfig or str(self._admin)]

    def _start_control_plane(self) -> None:
        issue = self._authority.issue
        ips = [address for one in self.families for address in (one.control, one.kubernetes)]
        issue("apiserver", "kube-apiserver", ips=(*ips, "127.0.0.1"), names=("kubernetes.default.svc", "localhost"))
        networks = {kind: ",".join(getattr(one, kind) for one in self.families) for kind in ("pods", "services")}
        issue("kubelet-client", "kube-apiserver-kubelet-client", ["system:masters"])
        tokens, files = self._authority.key("tokens"), self.folder
        ca = self._authority.certificate
        etcd = "http://127.0.0.1:2379"
        self._serve(
            "etcd",
            f"--data-dir={ETCD}",
            f"--listen-client-urls={etcd}",
            f"--advertise-client-urls={etcd}",
            "--unsafe-no-fsync",
        )
        self._serve(
            "kube-apiserver",
            f"--etcd-servers={etcd}",
            f"--advertise-address={self.control}",
            f"--bind-address={self.families[0].any_address}",
            f"--tls-cert-file={files}/apiserver.crt",
            f"--tls-private-key-file={files}/apiserver.key",
            f"--client-ca-file={ca}",
            f"--kubelet-client-certificate={files}/kubelet-client.crt",
            f"--kubelet-client-key={files}/kubelet-client.key",
            f"--kubelet-certificate-authority={ca}",
            "--kubelet-preferred-address-types=InternalIP",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={tokens}",
            f"--service-account-signing-key-file={tokens}",
            f"--service-cluster-ip-range={networks['services']}",
            "--allow-privileged=false",
        )
        for name in ("kube-controller-manager", "kube-scheduler"):
            self._authority.kubeconfig(name, f"system:{name}")
        self.until_api()  # before, the others may do nothing, and one gives up
        own = ("--leader-elect=false", "--bind-address=127.0.0.1")
        self._serve(
            "kube-controller-manager",
            f"--kubeconfig={files}/kube-controller-manager.kubeconfig",
            "--allocate-node-cidrs=true",
            f"--cluster-cidr={networks['pods']}",
            f"--service-cluster-ip-range={networks['services']}",
            f"--root-ca-file={ca}",
            f"--service-account-private-key-file={tokens}",
            "--use-service-account-credentials=true",
            *own,
        )
        self._serve("kube-scheduler", f"--kubeconfig={files}/kube-scheduler.kubeconfig", *own)

    def _serve(self, name: str, *words: str) -> None:
        self._words[name] = words
        self.start(name)

    def start(self, name: str) -> None:
        """Start a program of the control plane that was ended."""
        self.control_plane[name] = self._control.start(path(name), *self._words[name])

    def restart(self, name: str, *more: str) -> None:
        """Start a program of the control plane anew, with more options, which count before those that it has otherwise."""
        self.end(name, signal.SIGKILL)
        self.control_plane[name] = self._control.start(path(name), *self._words[name], *more)

    def end(self, name: str, number: signal.Signals = signal.SIGTERM) -> None:
        """End a program of the control plane."""
        self.control_plane.pop(name).end(number)

    def until_api(self) -> None:
        """Wait until the API answers."""
        self.until(lambda: self.kubectl("get", "--raw=/readyz", code=None) == "ok")

    def backup(self) -> Path:
        """A backup of etcd, which is stopped for that."""
        self.end("etcd")
        copied = self.folder / "etcd"
        shutil.copytree(self._control.path(ETCD), copied, dirs_exist_ok=True)
        self.start("etcd")
        self.until_api()
        return copied

    def restore(self, backup: Path) -> None:
        """Have the control plane begin with a backup of etcd, as one does it: all programs of it are started anew."""
        for name in reversed(tuple(self._words)):
            self.end(name, signal.SIGKILL)
        shutil.rmtree(self._control.path(ETCD))
        shutil.copytree(backup, self._control.path(ETCD))
        for name in self._words:
            self.start(name)
        self.until_api()

    def ask(self, ip: str, port: int, seconds: int = 3) -> str:
        """What a server tells who asks from the hub, which is no node: the address that it sees; "" when nothing comes for so long."""
        return self.hub(str(self.program), "ask", ip, str(port), str(seconds), code=None).strip()

    def add_node(self, name: str, number: int) -> None:
        """Boot a new node, whose addresses end with 1`number`. It is registered when this returns."""
        self._boot_new(name, [one.machine(10 + number) for one in self.families])
        self.until(lambda: f"node/{name}" in self.kubectl("get", "nodes", "--output=name"))

    def _boot_new(self, name: str, ips: list[str]) -> None:
        disk = Disk()
        self._machines.callback(disk.close)
        self._disks[name] = disk, ips
        self.boot(name, is_new=True)

    def boot(self, name: str, *, is_new: bool = False) -> None:
        """Switch on a node that has a disk."""
        disk, ips = self._disks[name]
        machine = self.nodes[name] = self._boot(name, NODE, disk)
        self._cable(machine, ips)
        for hierarchy in hierarchies():
            for kind in ("cpuset.cpus", "cpuset.mems"):
                if (hierarchy / kind).exists():
                    (hierarchy / machine.group[1:] / kind).write_text((hierarchy / kind).read_text())
        self._start_engine(machine, self.archives if is_new else ())
        self.start_kubelet(name)

    def power_off(self, name: str) -> None:
        """At once, as when the cable is pulled; the disk stays."""
        self.nodes.pop(name).close()

    def rename(self, old: str, new: str) -> None:
        """A node that is off is another one when it is switched on."""
        self._disks[new] = self._disks.pop(old)

    def load(self, node: str, archive: Path) -> None:
        """Have the images of an archive on a node."""
        self.nodes[node](path("ctr"), "--namespace=k8s.io", "images", "import", str(archive))

    def _start_engine(self, machine: Machine, archives: Sequence[Path]) -> None:
        config = machine.logs / "containerd.toml"
        config.write_text(CONTAINERD)
        machine.start(path("containerd"), f"--config={config}")
        self.until(lambda: "REF" in machine(path("ctr"), "images", "list", code=None))
        for archive in archives:
            self.load(machine.name, archive)

    def start_kubelet(self, name: str) -> None:
        """Start the kubelet of a node."""
        machine, (_, ips) = self.nodes[name], self._disks[name]
        kubeconfig = self._authority.kubeconfig(name, f"system:node:{name}", ["system:nodes"], ips)
        resolv_conf = machine.logs / "resolv.conf"
        resolv_conf.write_text("".join(f"nameserver {one.hub}\n" for one in self.families))
        settings = {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "failCgroupV1": False,
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": machine.group,
            "containerRuntimeEndpoint": f"unix://{SOCKET}",
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": str(self._authority.certificate)},
            },
            "authorization": {"mode": "Webhook"},
            "tlsCertFile": str(self.folder / f"{name}.crt"),
            "tlsPrivateKeyFile": str(self.folder / f"{name}.key"),
            "address": self.families[0].any_address,
            "clusterDNS": [one.dns for one in self.families],
            "clusterDomain": "cluster.local",
            "resolvConf": str(resolv_conf),
            "failSwapOn": False,
            "volumePluginDir": "/var/lib/kubelet/volumeplugins",
            "oomScoreAdj": 0,
            "makeIPTablesUtilChains": False,
            "imageGCHighThresholdPercent": 100,
            "evictionHard": {"memory.available": "1Mi"},
        }
        config = machine.logs / "kubelet.json"
        config.write_text(json.dumps(settings))
        self.kubelets[name] = machine.start(
            path("kubelet"),
            f"--config={config}",
            f"--kubeconfig={kubeconfig}",
            f"--hostname-override={name}",
            f"--node-ip={','.join(ips)}",
            "--v=2",
        )

    def start_proxy(self, node: str) -> Program:
        """A kube-proxy of the mode nftables on a node. It is no part of a cluster by default."""
        machine, user = self.nodes[node], "kube-proxy"
        settings = {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "mode": "nftables",
            "hostnameOverride": node,
            "clientConnection": {"kubeconfig": str(self._authority.kubeconfig(user, f"system:{user}"))},
            "clusterCIDR": ",".join(one.pods for one in self.families),
            "oomScoreAdj": 0,
            "conntrack": {"maxPerCore": 0, "min": 0},
        }
        config = machine.logs / "kube-proxy.json"
        config.write_text(json.dumps(settings))
        return machine.start(path(user), f"--config={config}")

    def until(self, is_so: Callable[[], object], seconds: float = READY_SECONDS) -> None:
        """Wait for something."""
        end = time.monotonic() + seconds
        while not is_so():
            assert time.monotonic() < end, f"not within {seconds:g} s: see the logs in {self.folder}"
            time.sleep(0.1)

    def is_ready(self, node: str) -> bool:
        """Does a Node say so?"""
        conditions = self.get("node", node)["status"].get("conditions", ())
        return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def nodad(family: Family) -> str:
    """The word for ip(8) that lets an address be used at once: duplicates are looked for with IPv6 alone (RFC 4862)."""
    return "nodad" if family.is_6 else ""


def _in_network(machine: Machine, *words: str) -> None:
    """Run a program of the host in the network of a machine: process ids are those of the host."""
    subprocess.run(["nsenter", f"--net=/proc/{machine.pid}/ns/net", *words], check=True)


def path(program: str) -> str:
    """Where a program of the PATH is."""
    found = shutil.which(program)
    assert found is not None, program
    return found


@contextlib.contextmanager
def up(folder: Path, program: Path, archives: Sequence[Path], nodes: int, families: Sequence[Family] = (V4,)) -> Iterator[Rig]:
    """A cluster of so many nodes, as long as this is entered."""
    with contextlib.ExitStack() as machines:
        rig = Rig(folder, program, archives, machines, families)
        for number in range(1, nodes + 1):
            rig.add_node(f"w{number}", number)
        yield rig
