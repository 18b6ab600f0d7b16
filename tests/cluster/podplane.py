"""podplane on the rig: how it is installed, and pods that ask each other."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.cluster import rig
from tests.cluster.rig import Rig
from tests.cluster.state import state_of
from tests.engines import image
from tests.engines.machine import Machine
from tools import manifests

AGENTS = "daemonset/podplane-agent"
PORT = 8080


class Installed:
    """The rig, and podplane on it."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.kubectl = rig.kubectl
        self.before = {name: state_of(machine) for name, machine in rig.nodes.items()}
        """How the nodes were."""

    def install(self) -> None:
        """Install as docs/install.md says; all nodes are ready when this returns."""
        self.kubectl("apply", f"--filename={manifests.DEPLOY}")
        api = (f"KUBERNETES_SERVICE_HOST={rig.CONTROL}", "KUBERNETES_SERVICE_PORT=6443")
        self.kubectl("--namespace=kube-system", "set", "env", AGENTS, *api)
        self.rig.until(lambda: all(map(self.rig.is_ready, self.rig.nodes)))
        self.rolled_out()

    def uninstall(self) -> str:
        """Uninstall as docs/install.md says; what was done on the nodes. No pod is left that needs the network."""
        self.kubectl("--namespace=kube-system", "delete", AGENTS, "--wait", "--cascade=foreground")
        self.kubectl("apply", f"--filename={manifests.UNINSTALL}")
        self.kubectl("--namespace=kube-system", "rollout", "status", "daemonset/podplane-uninstall", "--timeout=50s")
        chosen = ("--selector=app.kubernetes.io/component=uninstall", "--container=agent", "--prefix", "--tail=-1")
        said = self.kubectl("--namespace=kube-system", "logs", *chosen)
        self.kubectl("delete", "--ignore-not-found", "--wait", *(f"--filename={one}" for one in manifests.MADE))
        return said

    def rolled_out(self) -> None:
        """Wait until each node has the agent that it is to have, and that is ready."""
        self.kubectl("--namespace=kube-system", "rollout", "status", AGENTS, "--timeout=50s")

    def run(self, name: str, node: str, *words: str, labels: Mapping[str, str] | None = None) -> None:
        """Create a pod whose container runs our program with these words."""
        container = {"name": "main", "image": image.NAME, "args": list(words), "imagePullPolicy": "Never"}
        spec = {"nodeName": node, "containers": [container], "terminationGracePeriodSeconds": 0}
        metadata = {"name": name, "labels": {"app": name, **(labels or {})}}
        self.apply({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})

    def apply(self, *objects: Mapping[str, Any]) -> None:
        """Create objects, or change them."""
        for one in objects:
            self.kubectl("apply", "--filename=-", stdin=json.dumps(one))

    def ready(self, *pods: str) -> None:
        """Wait until these pods are ready."""
        self.kubectl("wait", "--for=condition=Ready", "--timeout=50s", *(f"pod/{one}" for one in pods))

    def ip(self, pod: str) -> str:
        """The address of a pod."""
        found: str = self.rig.get("pod", pod)["status"]["podIP"]
        return found

    def ask(self, pod: str, ip: str, port: int = PORT, seconds: int = 3) -> str:
        """What a server tells a pod: the address that it sees; "" when nothing comes for so long."""
        words = ("exec", pod, "--", f"/{image.PROGRAM}", "ask", ip, str(port), str(seconds))
        return self.kubectl(*words, code=None).strip()

    def in_pod(self, node: str, pod: str, *words: str) -> subprocess.Popen[str]:
        """A program of the host in the network of a pod, which goes on until its input is closed."""
        machine, ip = self.rig.nodes[node], self.ip(pod)
        for path in Path(machine.path("/run/netns")).iterdir():
            inside = ("nsenter", f"--net=/run/netns/{path.name}")
            if f" {ip}/" in machine(*inside, "ip", "-oneline", "address"):
                return machine.piped(*inside, *words)
        raise AssertionError(f"{node} has no network namespace with {ip}")

    def agents(self) -> dict[str, str]:
        """The names of the agents' pods, by node."""
        found = self.rig.get("pods", "--namespace=kube-system", "--selector=app.kubernetes.io/component=agent")["items"]
        return {one["spec"]["nodeName"]: one["metadata"]["name"] for one in found}

    def process(self, node: str) -> Path:
        """The agent's process on a node, in its /proc."""
        return next(Path("/proc", str(pid)) for pid, words in processes(self.rig.nodes[node]) if b"agent" in words)


def processes(machine: Machine) -> list[tuple[int, list[bytes]]]:
    """Processes of containers that run podplane on a machine: each as the host numbers it, with its words."""
    found = []
    for path in Path(f"/proc/{machine.pid}/root/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if b"/opt/podplane/bin/podplane" in words:
            found.append((int(path.parent.name), words))
    return found
