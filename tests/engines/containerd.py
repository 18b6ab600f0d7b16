"""containerd on the machine, asked as a kubelet asks it."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.engines import cri, image
from tests.engines.conftest import Site
from tests.engines.cri import IMAGES, Cri
from tests.engines.machine import Program

SOCKET = "/run/containerd/containerd.sock"
NEEDED = {"containerd": "containerd", "ctr": "containerd", "runc": "runc"}
"""Programs, and Debian's packages of them."""
UNUSED = ("aufs", "btrfs", "devmapper", "native", "zfs")
CONFIG = f"""
version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
disabled_plugins = [{", ".join(f'"io.containerd.snapshotter.v1.{one}"' for one in UNUSED)}]
[grpc]
  address = "{SOCKET}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{image.NAME}"
  restrict_oom_score_adj = true
  disable_apparmor = true
"""
"""Folders of networks and plugins are those that it has by default: `podplane cni install` writes there. A test may not be allowed to lower
a process' chance to be killed for want of memory, so containers' is not lowered either.
A profile of AppArmor would be loaded for the host."""
Annotations = Mapping[str, str]


class Containerd:
    """One containerd; `start` comes first."""

    def __init__(self, site: Site) -> None:
        self._site, self._machine = site, site.machine
        self._cri = Cri(self._machine.path(SOCKET))
        self._configs = dict[str, cri.Fields]()
        self._program: Program
        (self._machine.logs / "containerd.toml").write_text(CONFIG)

    def start(self) -> None:
        """Start it, and wait until it says that it and the network are ready."""
        self._program = self._machine.start("containerd", "--config", str(self._machine.logs / "containerd.toml"))
        self._cri.until("Status", {}, lambda answer: set(conditions(answer).values()) == {True})

    def load(self) -> None:
        """Have the image, and know it."""
        self._machine("ctr", "--namespace", "k8s.io", "images", "import", str(self._site.archive))
        self._cri.until("ImageStatus", {1: {1: image.NAME}}, lambda answer: 1 in answer, IMAGES)

    def kill(self) -> None:
        """SIGKILL."""
        self._program.end(signal.SIGKILL)

    def conditions(self) -> dict[str, bool]:
        """Of engine and network, as it tells a kubelet."""
        return conditions(self._cri.call("Status", {}))

    def run(
        self, name: str, uid: str, ports: tuple[tuple[int, int, int], ...] = (), annotations: Annotations | None = None
    ) -> str:
        """RunPodSandbox, for a pod of the namespace `default`; the sandbox' id. Ports: (protocol, of the container, of the machine)."""
        labels = {"io.kubernetes.pod.name": name, "io.kubernetes.pod.namespace": "default", "io.kubernetes.pod.uid": uid}
        config: cri.Fields = {
            1: {1: name, 2: uid, 3: "default"},
            2: name,
            5: [{1: protocol, 2: port, 3: host_port} for protocol, port, host_port in ports],
            6: cri.pairs(labels),
            7: cri.pairs(annotations or {}),
            8: {1: self._machine.group},
        }
        id_ = self._cri.call("RunPodSandbox", {1: config})[1][0].decode()
        self._configs[id_] = config
        return str(id_)

    def begin(self, sandbox: str, *words: str) -> str:
        """A container of a sandbox that runs our program with these words; its id."""
        config: cri.Fields = {1: {1: words[0]}, 2: {1: image.NAME}, 4: words}
        container = self._cri.call("CreateContainer", {1: sandbox, 2: config, 3: self._configs[sandbox]})[1][0].decode()
        self._cri.call("StartContainer", {1: container})
        return str(container)

    def ask(self, container: str, ip: str, port: int = 8080, seconds: int = 5) -> str:
        """What a server tells the container; "" when it does not answer for so long."""
        words = [f"/{image.PROGRAM}", "ask", ip, str(port), str(seconds)]
        answer = self._cri.call("ExecSync", {1: container, 2: words, 3: 30})
        return b"".join(answer.get(1, [])).decode().strip()

    def ips(self, sandbox: str) -> list[str]:
        """Its addresses, as a kubelet is told."""
        network = cri.decode(self._status(sandbox)[5][0])
        return [network[1][0].decode(), *(cri.decode(one)[1][0].decode() for one in network.get(2, ()))]

    def is_ready(self, sandbox: str) -> bool:
        """Is it in the state SANDBOX_READY, which is 0?"""
        return self._status(sandbox).get(3, [0]) == [0]

    def _status(self, sandbox: str) -> cri.Received:
        return cri.decode(self._cri.call("PodSandboxStatus", {1: sandbox})[1][0])

    def of_pod(self, name: str) -> list[str]:
        """The ids of the sandboxes of a pod, whole or half made."""
        found = map(cri.decode, self._cri.call("ListPodSandbox", {}).get(1, ()))
        return [one[1][0].decode() for one in found if cri.decode(one[2][0])[1][0].decode() == name]

    def stop(self, sandbox: str) -> None:
        """StopPodSandbox."""
        self._cri.call("StopPodSandbox", {1: sandbox})

    def remove(self, sandbox: str) -> None:
        """RemovePodSandbox."""
        self._cri.call("RemovePodSandbox", {1: sandbox})

    def netns(self) -> set[str]:
        """Network namespaces that it has made."""
        return {path.name for path in Path(self._machine.path("/run/netns")).glob("cni-*")}


def conditions(answer: cri.Received) -> dict[str, bool]:
    """RuntimeStatus of StatusResponse: conditions by type."""
    found: list[Any] = [cri.decode(one) for one in cri.decode(answer[1][0])[1]]
    return {one[1][0].decode(): bool(one.get(2, [0])[0]) for one in found}
