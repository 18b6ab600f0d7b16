"""A cluster moves from a network as Flannel makes it to podplane node by node, as docs/migrate.md says, and a node back, under traffic."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests import flow
from tests.cluster import former, rig
from tests.cluster.podplane import PORT, Installed
from tools import manifests

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("cluster")]
LABEL = "podplane.dev/network"
OPTIONS = (
    f"--set=api.host={rig.CONTROL}",
    "--set=migrateFrom=cni0",
    "--set=cni.replace=true",
    "--set=network.backend=vxlan",
    r"--set-string=nodeSelector.podplane\.dev/network=yes",
)
BACK = r"--set-string=uninstallNodeSelector.podplane\.dev/network=remove"
LEAST = 100
"""So many datagrams are sent at least by each to each."""


class Migration:
    """The cluster with Flannel's network, and podplane on the nodes that have the label."""

    def __init__(self, cluster: Installed) -> None:
        self.cluster, self.rig = cluster, cluster.rig
        self.flannel = former.Flannel(cluster.rig)
        self._servers: list[subprocess.Popen[str]] = []
        self.rig.until(lambda: all(map(self.rig.is_ready, self.rig.nodes)))

    def install(self, *more: str) -> None:
        """What helm makes of the chart, with what docs/migrate.md gives it."""
        self.cluster.kubectl("apply", "--filename=-", stdin=manifests.rendered(*OPTIONS, *more))

    def label(self, node: str, value: str) -> None:
        self.cluster.kubectl("label", "node", node, f"{LABEL}={value}", "--overwrite")

    def migrate(self, node: str) -> None:
        """One node; pods that start there from now on are podplane's."""
        self.label(node, "yes")
        self.rig.until(lambda: node in self.cluster.agents())
        self.cluster.rolled_out()
        self.rig.until(lambda: not Path(self.rig.nodes[node].path(former.FILE)).exists())
        time.sleep(1)  # the engine takes podplane's

    def go_back(self, node: str) -> None:
        """A node has no pod of podplane's any more, and loses the rest."""
        self.install(BACK)
        self.label(node, "remove")
        kube_system = ("--namespace=kube-system", "rollout", "status", "daemonset/podplane-uninstall", "--timeout=50s")
        self.rig.until(lambda: node not in self.cluster.agents())
        self.cluster.kubectl(*kube_system)
        assert Path(self.rig.nodes[node].path(former.FILE)).exists()
        time.sleep(1)

    def run(self, name: str, node: str) -> str:
        """A pod that answers datagrams, too; its address."""
        role = "client" if name == "old-w1" else "server"  # one that is sent to itself has no answer: docs/migrate.md
        self.cluster.run(name, node, "serve", str(PORT), labels={"role": role})
        self.cluster.ready(name)
        self._servers.append(self._flow(name, "serve"))
        return self.cluster.ip(name)

    def links(self, node: str) -> str:
        return self.rig.nodes[node]("ip", "-o", "link", "show", "type", "veth")

    def _flow(self, pod: str, *words: str) -> subprocess.Popen[str]:
        node = pod.rpartition("-")[2]
        return flow.begun(self.cluster.in_pod(node, pod, sys.executable, "-I", str(flow.__file__), *words))

    def ask(self, pod: str, *ips: str) -> subprocess.Popen[str]:
        """Traffic from a pod, whose name ends with that of its node."""
        return self._flow(pod, "ask", *ips)

    def end(self) -> None:
        """Leave the cluster as it was found, with podplane."""
        flow.ended(*self._servers)  # they hold network namespaces
        self.cluster.kubectl("delete", "pods", "--all", "--wait", "--now")
        for node in self.rig.nodes:
            if node in self.cluster.agents():
                self.go_back(node)
        self.cluster.kubectl("delete", "--wait", "--filename=-", stdin=manifests.rendered(*OPTIONS, BACK))
        self.flannel.remove()
        self.cluster.kubectl("label", "nodes", "--all", f"{LABEL}-")
        self.cluster.install()


@pytest.fixture
def migration(cluster: Installed) -> Iterator[Migration]:
    if missing := [*former.missing(), *(["helm"] if shutil.which("helm") is None else [])]:
        pytest.skip(f"not there: {', '.join(missing)}")
    cluster.uninstall()
    found = Migration(cluster)
    yield found
    found.end()


def nothing_lost(found: Sequence[flow.Lost]) -> None:
    assert all(sent >= LEAST and not lost for one in found for sent, lost in one.values()), found


def test_nodes_are_migrated_one_after_the_other_and_one_back_and_no_packet_is_lost(migration: Migration) -> None:
    cluster = migration.cluster
    old = {name: migration.run(f"old-{name}", name) for name in ("w1", "w2")}
    whole = [migration.ask("old-w1", old["w2"]), migration.ask("old-w2", old["w1"])]
    migration.install()
    migration.migrate("w1")
    new = {"w1": migration.run("new-w1", "w1")}
    assert "pp" in migration.links("w1") and new["w1"] not in old.values()
    assert "on cni0 still: 1 pod (default/old-w1)" in cluster.rig.podplane("status", "--node", "w1")
    flows = [migration.ask("new-w1", *old.values()), *(migration.ask(f"old-{name}", new["w1"]) for name in old)]
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "both"}}
    cluster.apply({**service, "spec": {"selector": {"role": "server"}, "ports": [{"port": 80, "targetPort": PORT}]}})
    ip = cluster.rig.get("service", "both")["spec"]["clusterIP"]
    gateway = f"{new['w1'].rpartition('.')[0]}.1"  # who is sent to itself
    for pod, own in (("new-w1", new["w1"]), ("old-w1", old["w1"])):
        cluster.rig.until(lambda pod=pod: cluster.ask(pod, ip, 80))  # type: ignore[misc]
        seen = {cluster.ask(pod, ip, 80) for _ in range(6)}
        assert seen <= {own, *([gateway] if pod == "new-w1" else [])}, (pod, seen)
    cluster.kubectl("delete", "service", "both")
    migration.migrate("w2")
    new["w2"] = migration.run("new-w2", "w2")
    flows += [migration.ask("new-w2", new["w1"], *old.values())]
    flows += [migration.ask(pod, new["w2"]) for pod in ("new-w1", "old-w1", "old-w2")]
    time.sleep(1.5)
    nothing_lost(flow.ended(*flows))
    cluster.kubectl("delete", "pod", "new-w1", "--wait", "--now")
    migration.go_back("w1")
    back = migration.run("back-w1", "w1")
    assert "pp" not in migration.links("w1") and back not in (*old.values(), new["w2"])
    flows = [migration.ask("back-w1", *old.values()), *(migration.ask(f"old-{name}", back) for name in old)]
    time.sleep(1.5)
    nothing_lost(flow.ended(*flows))
    nothing_lost(flow.ended(*whole))
