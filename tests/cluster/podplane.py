"""podplane on the rig: how it is installed, and pods that ask each other."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from tests.cluster.families import V4
from tests.cluster.rig import Rig
from tests.cluster.state import state_of
from tests.engines import image
from tests.engines.machine import Machine
from tools import manifests

AGENTS, CONTROLLERS = "daemonset/podplane-agent", "deployment/podplane-controllers"
PORT = 8080
ROLL_OUT_SECONDS = 180.0


class Installed:
    """The rig, and podplane on it."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.kubectl = rig.kubectl
        self.before = {name: state_of(machine) for name, machine in rig.nodes.items()}
        """How the nodes were."""

    def add_node(self, name: str, number: int) -> None:
        """Boot a new node, and wait until its network is in place."""
        self.rig.add_node(name, number)
        self.before[name] = state_of(self.rig.nodes[name])
        self.rig.until(lambda: self.rig.is_ready(name))
        self.rolled_out()

    def remove_node(self, name: str) -> None:
        """Switch off a node for good."""
        self.rig.power_off(name)
        self.kubectl("delete", "node", name, "--wait")
        on_it = ("--all-namespaces", f"--field-selector=spec.nodeName={name}")
        self.kubectl("delete", "pods", *on_it, "--force", "--grace-period=0")

    def install(self, *, with_names: bool = False) -> None:
        """Install as docs/install.md says; all nodes are ready when this returns."""
        self.begin_install(with_names=with_names)
        self.rig.until(lambda: all(map(self.rig.is_ready, self.rig.nodes)))
        self.rolled_out()

    def begin_install(self, *, with_names: bool = False) -> None:
        """Bring agents to all nodes, and wait for nothing."""
        self.kubectl("apply", f"--filename={manifests.DEPLOY}")
        if with_names:
            self.kubectl("apply", "--filename=-", stdin="---\n".join(names_for([one.dns for one in self.rig.families])))
        api = (f"KUBERNETES_SERVICE_HOST={self.rig.control}", "KUBERNETES_SERVICE_PORT=6443")
        self.kubectl("--namespace=kube-system", "set", "env", AGENTS, CONTROLLERS, *api)

    def uninstall(self) -> str:
        """Uninstall by hand, as docs/install.md says; what was done on the nodes. No pod is left that needs the network."""
        self.kubectl("--namespace=kube-system", "delete", AGENTS, "--wait", "--cascade=foreground")
        self.kubectl("apply", f"--filename={manifests.UNINSTALL}")
        self.kubectl("--namespace=kube-system", "rollout", "status", "daemonset/podplane-uninstall", "--timeout=50s")
        chosen = ("--selector=app.kubernetes.io/component=uninstall", "--container=agent", "--prefix", "--tail=-1")
        said = self.kubectl("--namespace=kube-system", "logs", *chosen)
        self.kubectl("delete", "--ignore-not-found", "--wait", *(f"--filename={one}" for one in manifests.MADE))
        return said

    def rolled_out(self, what: str = AGENTS) -> None:
        """Wait until each node has the agent that it is to have, and that is ready; or the same of something else."""
        words = ("--namespace=kube-system", "rollout", "status", what, "--timeout=20s")
        self.rig.until(lambda: "successfully rolled out" in self.kubectl(*words, code=None), ROLL_OUT_SECONDS)

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
        found: str = self.rig.get("pod", pod)["status"].get("podIP", "")
        return found

    def ips(self, pod: str) -> list[str]:
        """Its addresses, one of each IP version that the cluster has, the primary one first."""
        return [one["ip"] for one in self.rig.get("pod", pod)["status"]["podIPs"]]

    def ask(self, pod: str, ip: str, port: int = PORT, seconds: int = 3) -> str:
        """What a server tells a pod: the address that it sees; "" when nothing comes for so long."""
        words = ("exec", pod, "--", f"/{image.PROGRAM}", "ask", ip, str(port), str(seconds))
        return self.kubectl(*words, code=None).strip()

    def in_pod(self, node: str, pod: str, *words: str) -> subprocess.Popen[str]:
        """A program of the host in the network of a pod, which goes on until its input is closed."""
        return self.in_network_of(node, self.ip(pod), *words)

    def in_network_of(self, node: str, ip: str, *words: str) -> subprocess.Popen[str]:
        """The same, by the address of the pod."""
        return self.rig.nodes[node].piped("nsenter", f"--net={self.namespace(node, ip)}", *words)

    def namespace(self, node: str, ip: str) -> str:
        """The network namespace of the pod with this address, as its node names it."""
        return next(path for path, addresses in self.namespaces(node).items() if ip in addresses)

    def namespaces(self, node: str) -> dict[str, list[str]]:
        """The network namespaces of pods on a node, and the addresses in each."""
        machine, found = self.rig.nodes[node], dict[str, list[str]]()
        for one in Path(machine.path("/run/netns")).iterdir():
            path = f"/run/netns/{one.name}"
            lines = machine("nsenter", f"--net={path}", "ip", "-oneline", "address", code=None).splitlines()
            found[path] = [line.split()[3].partition("/")[0] for line in lines]
        return found

    def agents(self) -> dict[str, str]:
        """The names of the agents' pods, by node."""
        found = self.rig.get("pods", "--namespace=kube-system", "--selector=app.kubernetes.io/component=agent")["items"]
        return {one["spec"]["nodeName"]: one["metadata"]["name"] for one in found}

    def process(self, node: str) -> Path:
        """The agent's process on a node, in that node's /proc."""
        found = self.process_of(self.rig.nodes[node])
        assert found is not None, f"no agent runs on {node}"
        return found

    @staticmethod
    def process_of(machine: Machine, command: bytes = b"agent") -> Path | None:
        """The agent's process on a machine, or that of another command, in that machine's /proc; None when it has none."""
        return next((Path(machine.path(f"/proc/{pid}")) for pid, words in processes(machine) if command in words), None)


def names_for(ips: Sequence[str]) -> Iterator[str]:
    """deploy/ with podplane's name servers, at these addresses of the cluster's DNS: one, or one of each IP version."""
    yield re.sub(f"( *- ){V4.dns}\n", lambda found: "".join(f"{found[1]}{ip}\n" for ip in ips), manifests.NAMES.read_text())
    service = yaml.safe_load(manifests.NAMES_SERVICE.read_text())
    policy = {"ipFamilyPolicy": "RequireDualStack"} if len(ips) == 2 else {}
    yield yaml.safe_dump({**service, "spec": {**service["spec"], "clusterIP": ips[0], "clusterIPs": list(ips), **policy}})


def processes(machine: Machine) -> list[tuple[int, list[bytes]]]:
    """Processes of containers that run podplane on a machine: each as that numbers it, with its words."""
    found = []
    for path in Path(f"/proc/{machine.pid}/root/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if b"/opt/podplane/bin/podplane" in words:
            found.append((int(path.parent.name), words))
    return found
