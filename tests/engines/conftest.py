"""A lab with agents as processes, and a machine more, which is a node of the same cluster: its engines are those of the tests."""

from __future__ import annotations

import json
import platform
import signal
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from podplane.cni.install import BIN_DIR, CONF_DIR
from podplane.cni.networks import CONFLIST
from podplane.cni.plugin import build
from podplane.kubeapi.http import HttpClient
from podplane.lab import spec
from podplane.lab.folder import Folder
from tests.e2e.conftest import Kubectl, Podplane, running, until
from tests.engines import image
from tests.engines.machine import Machine, Program, booted, why_not

NODE = "engines"
PODPLANE = (sys.executable, "-m", "podplane")
"""The command, on the machine."""
LEAST = ("setpriv", "--bounding-set=-all,+net_admin,+net_raw")
"""Root has what is left in its bounding set (capabilities(7))."""
JOURNAL = "/run/podplane/attachments.journal"


class Site:
    """The lab, the machine and its agent. What the agent needs was made as docs/agent.md and docs/cni.md say."""

    def __init__(self, lab: Podplane, kubectl: Kubectl, machine: Machine, ips: tuple[str, ...], archive: Path) -> None:
        self.lab, self.kubectl, self.machine, self.ips, self.archive = lab, kubectl, machine, ips, archive
        self.agent: Program
        self._folder = machine.logs

    @property
    def api(self) -> HttpClient:
        """A client of the lab's API: a new one, as the server ends connections that are not used for a while."""
        return self.lab.api

    def register(self) -> None:
        """Be a node of the cluster, with plugin and agent; it is ready when this returns."""
        self._create_node()
        self.kubectl("apply", "-f", "-", stdin=self.machine(*PODPLANE, "agent", "rbac"))
        token = self.kubectl("create", "token", "podplane-agent", "-n", "kube-system").strip()
        (self._folder / "kubeconfig").write_text(json.dumps(_kubeconfig(self.lab.folder, token)))
        settings = _spec(self.lab.folder)
        network = {"cluster_cidrs": settings.cluster_cidr.split(","), "service_cidrs": settings.service_cidr.split(",")}
        (self._folder / "config").write_text(json.dumps({"network": network}))
        _build_plugin()
        self.machine(*PODPLANE, "cni", "install")
        self.start_agent()

    def _create_node(self) -> None:
        addresses = [{"type": "InternalIP", "address": ip} for ip in self.ips]
        ready = {"type": "Ready", "status": "True", "reason": "EngineIsReady"}
        body = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}}
        self.api.create("nodes", "", body | {"status": {"addresses": addresses, "conditions": [ready]}})

    def start_agent(self) -> None:
        """Start the agent with the capabilities that it needs, and wait until it can attach pods."""
        files = [f"--{name}={self._folder / name}" for name in ("kubeconfig", "config")]
        self.agent = self.machine.start(*LEAST, *PODPLANE, "agent", *files, "--node-name", NODE)
        until(lambda: self.status() == "")

    def kill_agent(self) -> None:
        """SIGKILL."""
        self.agent.end(signal.SIGKILL)

    def status(self) -> str:
        """What the plugin answers to STATUS: nothing when pods can be attached."""
        network = json.loads(Path(self.machine.path(f"{CONF_DIR}/{CONFLIST}")).read_text())
        stdin = json.dumps(network["plugins"][0] | {"cniVersion": "1.1.0", "name": network["name"]})
        return self.machine("env", "CNI_COMMAND=STATUS", f"{BIN_DIR}/podplane-cni", stdin=stdin, code=None)

    def attached(self) -> set[str]:
        """The ids of the containers that the agent knows, by its journal."""
        found = dict[str, None]()
        for record in map(json.loads, Path(self.machine.path(JOURNAL)).read_text().splitlines()):
            if "attach" in record:
                found[record["attach"]["container_id"]] = None
            elif "detach" in record:
                found.pop(record["detach"][0], None)
        return set(found)

    def create_pod(self, name: str, annotations: Mapping[str, str] | None = None, **labels: str) -> str:
        """The Pod object of a pod of this node; its uid."""
        spec_ = {"nodeName": NODE, "containers": [{"name": "main", "image": image.NAME}]}
        metadata = {"name": name, "labels": labels, "annotations": annotations or {}}
        body = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec_}
        uid: str = self.api.create("pods", "default", body)["metadata"]["uid"]
        return uid

    def report_pod(self, name: str, ips: list[str]) -> None:
        """It runs, as the kubelet says."""
        conditions = [{"type": "Ready", "status": "True"}]
        status = {"phase": "Running", "podIP": ips[0], "podIPs": [{"ip": ip} for ip in ips], "conditions": conditions}
        self.api.patch("pods", "default", name, {"status": status}, "status")

    def pod_ips(self, name: str) -> list[str]:
        """Addresses of a pod of the lab."""
        return [one["ip"] for one in self.api.get("pods", "default", name)["status"]["podIPs"]]

    def from_lab(self, pod: str, *urls: str, seconds: int = 5) -> list[str]:
        """What servers tell a pod of the lab, a line each; nothing of those that don't answer for so long."""
        words = ["sh", "-c", 'curl "$@" || true', "sh", "--globoff", "--silent", "--max-time", str(seconds), *urls]
        return self.kubectl("exec", pod, "--", *words).splitlines()


def _build_plugin() -> None:
    """Build the plugin where its sources are newer, as another installation of the package would."""
    program = build.FOLDER / build.NAME
    if not program.exists() or any(one.stat().st_mtime > program.stat().st_mtime for one in build.FOLDER.glob("*.[ch]")):
        assert build.build(program) == ""


def url(ip: str, port: int = 8080) -> str:
    return f"http://[{ip}]:{port}/" if ":" in ip else f"http://{ip}:{port}/"


def _spec(folder: Folder) -> spec.LabSpec:
    found = spec.load(folder.spec)
    assert found is not None
    return found


def _kubeconfig(folder: Folder, token: str) -> dict[str, Any]:
    """The lab's own, with another address and other credentials."""
    found: dict[str, Any] = json.loads(folder.kubeconfig.read_text())
    gateway = _spec(folder).plan().underlay_gateways()[0]
    found["clusters"] = [
        {**one, "cluster": {**one["cluster"], "server": f"https://{gateway}:6443"}} for one in found["clusters"]
    ]
    found["users"] = [{"name": one["name"], "user": {"token": token}} for one in found["users"]]
    return found


@pytest.fixture(scope="package")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The lab and the machine, for all tests of this folder."""
    if why := why_not():
        pytest.skip(why)
    folder = tmp_path_factory.mktemp("machine")
    program = image.compiled(folder)
    with (
        running(tmp_path_factory, "--agents", "processes", "--nodes", "1", "--pods-per-node", "2") as lab,
        booted(NODE, program, folder) as machine,
    ):
        ips = machine.cable(lab.folder, _spec(lab.folder).plan())
        site = Site(lab, Kubectl(lab, folder), machine, ips, image.archive(program, platform.machine()))
        site.register()
        yield site
