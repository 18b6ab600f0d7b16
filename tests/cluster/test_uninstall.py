"""podplane goes from a real cluster without a trace, does not come to machines that are not fit for it, and comes when they are."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from podplane.cni.networks import CONFLIST
from podplane.machine import uninstall
from podplane.machine.program import JOURNAL, LOCK, SOCKET
from podplane.machine.removal import ANNOTATIONS
from podplane.model.config import NOT_READY
from tests.cluster import former
from tests.cluster.podplane import AGENTS, PORT, Installed
from tests.cluster.rig import CONTROL
from tests.cluster.state import differences, state_of
from tools import manifests

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("cluster")]
KINDS = "daemonsets,deployments,configmaps,serviceaccounts,roles,rolebindings,clusterroles,clusterrolebindings,leases,secrets"
OTHERS = "/etc/cni/net.d/05-others.conflist"


def test_nodes_are_afterwards_as_they_were_before(cluster: Installed) -> None:
    machines = cluster.rig.nodes
    for node, machine in machines.items():
        assert {Path(machine.path(f"/run/podplane/{one}")).exists() for one in (JOURNAL, LOCK, SOCKET)} == {True}, node
        assert differences(cluster.before[node], machine), "what is compared shows that podplane is there"
    cluster.run("kept", "w1", "serve", str(PORT))
    cluster.ready("kept")
    said = cluster.rig.podplane("cluster", "uninstall", code=2)
    assert "1 pod would lose the network: default/kept: delete these" in said and len(cluster.agents()) == len(machines)
    cluster.kubectl("delete", "pod", "kept", "--wait")
    said = cluster.rig.podplane("cluster", "uninstall", "--prove")
    changed = {node: differences(cluster.before[node], machine) for node, machine in machines.items()}
    assert not any(changed.values()), changed
    assert said.count(uninstall.SAME) == len(machines) and f"{len(machines)} of {len(machines)} nodes as before" in said
    for node in cluster.rig.get("nodes")["items"]:
        assert not set(ANNOTATIONS) & node["metadata"]["annotations"].keys()
    assert "podplane" not in cluster.kubectl("get", KINDS, "--all-namespaces", "--output=name")
    assert "nothing, there was nothing" in cluster.rig.podplane("cluster", "uninstall"), "twice is fine"


@pytest.mark.skipif(bool(former.missing()), reason=f"not there: {', '.join(former.missing())}")
def test_another_network_works_where_podplane_was(cluster: Installed) -> None:
    """Nothing of podplane's is there (the test before this one)."""
    other = former.Flannel(cluster.rig)
    cluster.rig.until(lambda: all(map(cluster.rig.is_ready, cluster.rig.nodes)))
    cluster.run("server", "w1", "serve", str(PORT))
    cluster.run("client", "w1", "pause")
    cluster.ready("server", "client")
    assert cluster.ask("client", cluster.ip("server")) == cluster.ip("client")
    cluster.kubectl("delete", "pods", "--all", "--wait")
    cluster.rig.until(
        lambda: "veth" not in cluster.rig.nodes["w1"]("ip", "-brief", "link")
    )  # a DEL comes after the API's object has gone
    other.remove()


@pytest.mark.skipif(shutil.which("helm") is None, reason="not on the PATH: helm")
def test_a_release_of_helm_goes_whoever_applied_its_agents_last(cluster: Installed) -> None:
    for is_applied in (False, True):
        cluster.rig.helm("install", "net", str(manifests.CHART), f"--set=api.host={CONTROL}", "--set=controllers.replicas=1")
        cluster.rolled_out()
        if is_applied:  # without helm's annotations
            cluster.kubectl("--namespace=kube-system", "delete", AGENTS, "--wait", "--cascade=foreground")
            cluster.install()
        said = cluster.rig.podplane("cluster", "uninstall", "--prove")
        assert "release net of helm" in said and "stays in the API: the custom resource loadbalancerpools.podplane.dev" in said
        assert cluster.rig.helm("list", "--all", "--short") == ""
        assert "podplane" not in cluster.kubectl("get", KINDS, "--all-namespaces", "--output=name")


def test_machines_that_are_not_fit_stay_as_they_are_and_say_why_until_they_are(cluster: Installed) -> None:
    first, second = cluster.rig.nodes["w1"], cluster.rig.nodes["w2"]
    block = cluster.rig.get("node", "w1")["spec"]["podCIDR"]
    taken = f"{block.rpartition('.')[0]}.77"
    for line in ("link add docker0 type bridge", f"address add {taken}/28 dev docker0"):
        first("ip", *line.split())
    Path(second.path(OTHERS)).write_text('{"cniVersion": "1.0.0", "name": "others", "plugins": [{"type": "bridge"}]}')
    cluster.kubectl("taint", "nodes", "--all", f"{NOT_READY}=:NoSchedule")
    before = {node: state_of(machine) for node, machine in cluster.rig.nodes.items()}
    cluster.begin_install()
    lines = {"w1": f"{block}, a network of pods, overlaps", "w2": f"{OTHERS} comes before {CONFLIST}"}
    told = ("get", "events", "--field-selector=reason=NetworkNotReady", "--output=jsonpath={range .items[*]}{.message}{end}")
    cluster.rig.until(lambda: all(line in cluster.kubectl(*told) for line in lines.values()))
    status = cluster.rig.podplane("cluster", "status", code=1)
    for node, line in lines.items():
        assert f"{node}: its agent is not ready: " in status and line in status
        changed = differences(before[node], cluster.rig.nodes[node])
        files = {Path(one).name for one in changed.pop("files", ())}
        assert not any(one.endswith(".conflist") for one in files), files
        assert changed.keys() <= {"sockets"}, (node, changed)
        assert any(one["key"] == NOT_READY for one in cluster.rig.get("node", node)["spec"]["taints"])
    first("ip", "link", "delete", "docker0")
    Path(second.path(OTHERS)).unlink()
    cluster.install()
    tainted = ("get", "nodes", "--output=jsonpath={.items[*].spec.taints[*].key}")
    cluster.rig.until(lambda: NOT_READY not in cluster.kubectl(*tainted))
    cluster.run("again", "w1", "serve", str(PORT))
    cluster.run("asks", "w2", "pause")
    cluster.ready("again", "asks")
    assert cluster.ask("asks", cluster.ip("again")) == cluster.ip("asks")
    cluster.kubectl("delete", "pods", "--all", "--wait")
