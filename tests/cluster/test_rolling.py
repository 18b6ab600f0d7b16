"""podplane while a cluster changes: its store is restored, versions roll, its API is away, nodes go and come."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import podplane
from tests.cluster import versions
from tests.cluster.podplane import AGENTS, PORT, Installed
from tests.cluster.under_load import begin, check_load, service, under_load

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("cluster")]
NEXT = "localhost/podplane:next"
SECONDS = "--timeout=50s"
NODES = ("w1", "w2", "w3")
SERVICE = "10.96.77.77"


@pytest.fixture(scope="module")
def two(cluster: Installed) -> Iterator[Installed]:
    """Pods on two nodes, and a Service of the servers."""
    for node in cluster.rig.nodes:
        begin(cluster, node)
    cluster.apply(service(clusterIP=SERVICE))
    cluster.ready(*(f"{kind}-{node}" for kind in ("back", "front") for node in cluster.rig.nodes))
    cluster.rig.until(lambda: all(cluster.ask(f"front-{node}", SERVICE, 80) for node in cluster.rig.nodes))
    yield cluster
    cluster.kubectl("delete", "pods", "--all", "--wait", "--force")
    cluster.kubectl("delete", "service", "backs")
    for node in set(cluster.rig.nodes) - {"w1", "w2"}:
        cluster.remove_node(node)
    cluster.kubectl("--namespace=kube-system", "rollout", "restart", AGENTS)  # status names those that were started again
    cluster.rolled_out()


@pytest.fixture(scope="module")
def three(two: Installed) -> Installed:
    """The same with a third node."""
    if "w3" not in two.rig.nodes:
        two.add_node("w3", 3)
    begin(two, "w3")
    two.ready("back-w3", "front-w3")
    two.rig.until(lambda: two.ask("front-w3", SERVICE, 80))
    return two


def block(cluster: Installed, node: str) -> str:
    found: str = cluster.rig.get("node", node)["spec"]["podCIDR"]
    return found


def test_a_store_that_is_restored_from_a_backup_is_followed(two: Installed) -> None:
    """The backup knows neither of the third node nor of what is changed here: its block is given to a fourth one."""
    rig = two.rig
    spec: dict[str, Any] = {"podSelector": {"matchLabels": {"app": "back-w1"}}, "policyTypes": ["Ingress"], "ingress": []}
    two.apply({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "nobody"}, "spec": spec})
    closed, opened, asker = two.ip("back-w1"), two.ip("back-w2"), two.ip("front-w2")

    def is_denied() -> bool:
        return two.ask("front-w2", opened) == asker and two.ask("front-w2", closed, seconds=1) == ""

    rig.until(is_denied)
    backup = rig.backup()
    two.kubectl("delete", "networkpolicy", "nobody")
    rig.until(lambda: two.ask("front-w2", closed, seconds=1) == asker)
    two.add_node("w3", 3)
    two.run("forgotten", "w3", "serve", str(PORT))
    two.ready("forgotten")
    forgotten, given_twice = two.ip("forgotten"), block(two, "w3")
    for name in rig.kubelets:
        rig.kubelets[name].end(signal.SIGKILL)
    rig.restore(backup)
    for name in ("w1", "w2"):
        rig.start_kubelet(name)
    rig.until(is_denied)
    said = two.kubectl("--namespace=kube-system", "logs", two.agents()["w1"], "--container=agent")
    assert "its store was restored from a backup" in said
    two.kubectl("delete", "networkpolicy", "nobody")
    rig.until(lambda: two.ask("front-w2", closed, seconds=1) == asker)
    two.apply(
        {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": "w4"},
            "spec": {"podCIDR": given_twice, "podCIDRs": [given_twice]},
        }
    )
    two.add_node("w4", 4)
    two.run("again", "w4", "serve", str(PORT))
    two.ready("again")
    assert two.ask("front-w1", two.ip("again")) == two.ip("front-w1")
    rig.start_kubelet("w3")
    rig.until(lambda: "node/w3" in two.kubectl("get", "nodes", "--output=name"))
    rig.until(lambda: all(forgotten not in ips for ips in two.namespaces("w3").values()))
    rig.until(lambda: rig.is_ready("w3"))
    two.rolled_out()
    begin(two, "w3")
    two.ready("back-w3", "front-w3")
    for asked in ("again", "back-w1"):
        assert two.ask("front-w3", two.ip(asked)) == two.ip("front-w3"), asked
    two.kubectl("delete", "pod", "again", "back-w3", "front-w3", "--wait")


def test_a_node_that_is_removed_leaves_nothing_on_others_and_joins_with_another_name(two: Installed) -> None:
    rig, ip = two.rig, "192.168.100.14"
    if "w4" not in rig.nodes:
        two.add_node("w4", 4)
    routes = lambda: rig.nodes["w1"]("ip", "route")  # noqa: E731
    assert f"{block(two, 'w4')} via {ip}" in routes()
    two.kubectl("drain", "w4", "--ignore-daemonsets", "--force", SECONDS)
    two.remove_node("w4")
    rig.until(lambda: ip not in routes())
    rig.rename("w4", "w5")
    rig.boot("w5")
    rig.until(lambda: "node/w5" in two.kubectl("get", "nodes", "--output=name"))
    two.rolled_out()
    two.run("renamed", "w5", "serve", str(PORT))
    two.ready("renamed")
    assert two.ask("front-w1", two.ip("renamed")) == two.ip("front-w1")
    two.kubectl("delete", "pod", "renamed", "--wait")
    two.remove_node("w5")
    rig.until(lambda: ip not in routes())


def test_two_versions_roll_out_and_back_and_nothing_is_lost(three: Installed, tmp_path: Path) -> None:
    archive = tmp_path / "next.tar"
    versions.write_other(three.rig.archives[0], archive, NEXT)
    for node in three.rig.nodes:
        three.rig.load(node, archive)
    changed = ("--namespace=kube-system", "set", "image", AGENTS, f"*={NEXT}")
    undone = ("--namespace=kube-system", "rollout", "undo", AGENTS)
    with under_load(three, NODES, SERVICE) as found:
        for words, version in ((changed, versions.VERSION), (undone, podplane.__version__)):
            three.kubectl(*words)
            for node in NODES:  # these wait, where there is no agent at the moment
                three.run(f"new-{node}", node, "serve", str(PORT))
            three.rolled_out()
            assert said_by_agents(three) == {f"podplane, version {version}"}
            three.ready(*(f"new-{node}" for node in NODES))
            for node in NODES:
                assert three.ask("front-w1", three.ip(f"new-{node}")) == three.ip("front-w1")
            said = three.kubectl("--namespace=kube-system", "logs", three.agents()["w1"], "--container=agent")
            assert "made anew in one transaction: podplane-services" in said
            three.kubectl("delete", "pod", *(f"new-{node}" for node in NODES), "--wait")
    check_load(found)


def said_by_agents(cluster: Installed) -> set[str]:
    """What agents say of their version."""
    words = ("--container=agent", "--", "podplane", "--version")
    return {cluster.kubectl("--namespace=kube-system", "exec", pod, *words).strip() for pod in cluster.agents().values()}


def test_a_node_whose_power_fails_has_its_pods_back_and_all_see_them(three: Installed) -> None:
    """Kubelets take addresses of pods from the API when they start, so pods may have others then."""
    rig, pods = three.rig, ("back-w3", "front-w3")
    rig.power_off("w3")
    rig.boot("w3")
    boot = Path(rig.nodes["w3"].path("/proc/sys/kernel/random/boot_id")).read_text().strip()
    rig.until(lambda: rig.get("node", "w3")["status"]["nodeInfo"]["bootID"] == boot)
    rig.until(lambda: all("podIP" in rig.get("pod", pod)["status"] for pod in pods))
    rig.until(lambda: three.ask("front-w1", three.ip("back-w3")) == three.ip("front-w1"))
    rig.until(lambda: three.ask("front-w3", three.ip("back-w1")) == three.ip("front-w3"))
    three.rolled_out()
    three.ready(*pods)
    assert [three.ask("front-w2", three.ip("back-w3")), three.ask("front-w3", SERVICE, 80)] == [
        three.ip("front-w2"),
        three.ip("front-w3"),
    ]


def addresses(cluster: Installed, node: str) -> set[str]:
    """Those of all pods on a node."""
    return {ip for ips in cluster.namespaces(node).values() for ip in ips if ip.startswith("10.244.")}


READY = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:10256/readyz', timeout=2).status)"


def test_while_the_api_is_away_pods_go_on_and_come_back_and_agents_start(three: Installed) -> None:
    """It hangs, which is worse than what refuses."""
    rig, api = three.rig, three.rig.control_plane["kube-apiserver"]
    three.run("spare", "w1", "serve", str(PORT))
    three.ready("spare")
    asker, machine = three.ip("front-w2"), rig.nodes["w1"]
    asking = ("nsenter", f"--net={three.namespace('w2', asker)}", str(rig.program), "ask")
    spare = three.namespace("w1", three.ip("spare"))
    with under_load(three, NODES, SERVICE) as found:
        api.stop()
        try:
            agent = three.process("w1")
            machine("kill", "-9", agent.name)
            rig.until(lambda: not agent.exists())
            rig.until(lambda: machine(sys.executable, "-c", READY, code=None).strip() == "200")
            known = addresses(three, "w1")
            machine("sh", "-c", f"kill -9 $(ip netns pids {Path(spare).name})")
            rig.until(lambda: addresses(three, "w1") - known)
            (ip,) = addresses(three, "w1") - known
            rig.until(lambda: rig.nodes["w2"](*asking, ip, str(PORT), "2", code=None).strip() == asker)
        finally:
            api.resume()
        rig.until_api()
        rig.until(lambda: three.ip("spare") == ip)
        three.run("later", "w1", "serve", str(PORT))
        three.ready("later", "spare")
        assert three.ask("front-w2", three.ip("later")) == asker
    check_load(found)
    three.rolled_out()
    three.kubectl("delete", "pod", "later", "spare", "--wait")
