"""podplane on a cluster that kubeadm made, with its CoreDNS and without kube-proxy, as docs/install.md says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from podplane.machine import uninstall
from tests.cluster import kubeadm
from tests.cluster.kubeadm import Kubeadm
from tests.cluster.podplane import CONTROLLERS, Installed
from tests.cluster.rig import PODS
from tests.cluster.test_uninstall import differences

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("kubeadm"), pytest.mark.timeout(900)]
COREDNS = "deployment/coredns"


@pytest.fixture(scope="module")
def made(images: tuple[Path, list[Path]], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kubeadm]:
    """The cluster, without a network for pods."""
    if missing := kubeadm.missing():
        pytest.skip(f"not on the PATH: {', '.join(missing)}")
    with kubeadm.up(tmp_path_factory.mktemp("kubeadm"), *images, workers=1, skip=["addon/kube-proxy"]) as found:
        yield found


@pytest.fixture(scope="module")
def cluster(made: Kubeadm) -> Installed:
    """With podplane."""
    installed = Installed(made)
    installed.install()
    return installed


def test_names_and_all_promises_are_kept_with_the_networks_that_kubeadm_says(cluster: Installed) -> None:
    cluster.rolled_out(COREDNS)
    said = cluster.kubectl("--namespace=kube-system", "logs", f"pod/{cluster.agents()['w1']}", "--container=agent")
    assert f"{PODS} for pods (by the ConfigMap kubeadm-config) and 10.96.0.0/12 for Services (by ServiceCIDRs)" in said
    cluster.rolled_out(CONTROLLERS)
    cluster.rig.until(lambda: "all is well" in cluster.rig.podplane("cluster", "status", code=None))
    process = cluster.rig.podplane_started("check")
    found, _ = process.communicate(timeout=280)
    assert process.returncode == 0, found
    assert "✓ names of Services resolve to their addresses, whole and short, over UDP and TCP" in found


def test_a_node_that_was_reset_joins_again(cluster: Installed, made: Kubeadm) -> None:
    cluster.kubectl("drain", "w1", "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=50s")
    made.run("w1", "reset", "--force")
    cluster.kubectl("delete", "node", "w1")
    made.join("w1")
    made.until(lambda: made.is_ready("w1"))
    cluster.rolled_out()
    cluster.rolled_out(COREDNS)


def test_nothing_stays_of_it(cluster: Installed, made: Kubeadm) -> None:
    cluster.kubectl("--namespace=kube-system", "scale", COREDNS, "--replicas=0")
    chosen = ("--namespace=kube-system", "--selector=k8s-app=kube-dns", "--output=name")
    made.until(lambda: not cluster.kubectl("get", "pods", *chosen).strip())
    said = cluster.rig.podplane("cluster", "uninstall", "--prove")
    assert said.count(uninstall.SAME) == len(made.nodes), said
    changed = {node: differences(cluster.before[node], machine) for node, machine in made.nodes.items()}
    assert not any(changed.values()), changed
