"""podplane's controllers on a real cluster: an address that outside reaches, a leader that is killed, a node whose block is theirs."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from podplane.controllers.leadership import NAME
from podplane.machine import rbac
from tests.cluster.podplane import CONTROLLERS, PORT, Installed
from tests.cluster.rig import HUB, PODS

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("cluster")]
POOL = {
    "apiVersion": "podplane.dev/v1",
    "kind": "LoadBalancerPool",
    "metadata": {"name": "outside"},
    "spec": {"addresses": ["192.168.100.240-192.168.100.250"]},
}
OWN = "--namespace=kube-system"


@pytest.fixture(scope="module")
def served(cluster: Installed) -> Iterator[Installed]:
    """A server on w1, a client on w2, and addresses for load balancers."""
    cluster.apply(POOL)
    cluster.run("served", "w1", "serve", str(PORT))
    cluster.run("asking", "w2", "pause")
    cluster.ready("served", "asking")
    yield cluster
    cluster.kubectl("delete", "pods", "--all", "--wait")
    cluster.kubectl("delete", "loadbalancerpool", "outside")


def balance(cluster: Installed, name: str) -> str:
    """The address of a new load balancer of the server, which keeps the address of who asks."""
    spec = {"type": "LoadBalancer", "externalTrafficPolicy": "Local", "selector": {"app": "served"}}
    ports = [{"port": 80, "targetPort": PORT}]
    cluster.apply({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": {**spec, "ports": ports}})
    cluster.rig.until(lambda: address(cluster, name))
    return address(cluster, name)


def address(cluster: Installed, name: str) -> str:
    ingress = cluster.rig.get("service", name)["status"]["loadBalancer"].get("ingress", [])
    return str(ingress[0]["ip"]) if ingress else ""


def holder(cluster: Installed) -> str:
    """The machine whose process leads; "" while none does."""
    found: str = cluster.rig.get(OWN, "lease", NAME)["spec"].get("holderIdentity", "")
    return found.partition("_")[0]


def test_a_load_balancer_is_reached_from_outside_of_the_cluster(served: Installed) -> None:
    ip = balance(served, "outside")
    assert ip == "192.168.100.240"
    served.rig.until(lambda: served.rig.ask(ip, 80))
    assert served.rig.ask(ip, 80) == HUB
    assert served.ask("asking", ip, 80)
    assert "announced by w1" in served.kubectl("describe", "service", "outside")
    served.rig.until(lambda: served.rig.get("loadbalancerpool", "outside")["status"]["inUse"] == 1)
    served.kubectl("delete", "service", "outside")


def test_controllers_have_no_rights_on_the_machine(served: Installed) -> None:
    assert processes(served).keys() == served.rig.nodes.keys()
    for process in processes(served).values():
        lines = (process / "status").read_text().splitlines()
        status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
        assert {status[name].strip("0") for name in ("CapEff", "CapPrm", "CapBnd", "CapInh")} == {""}
        assert set(status["Uid"].split()) == {"65532"}
        assert (status["Seccomp"].strip(), status["NoNewPrivs"].strip()) == ("2", "1")


def processes(cluster: Installed) -> dict[str, Path]:
    """Both of them, by their machine."""
    found = {name: cluster.process_of(machine, b"controllers") for name, machine in cluster.rig.nodes.items()}
    return {name: process for name, process in found.items() if process is not None}


def test_a_leader_that_is_killed_is_followed(served: Installed) -> None:
    served.rig.until(lambda: holder(served) in served.rig.nodes)
    former = served.rig.get(OWN, "lease", NAME)["spec"]["holderIdentity"]
    machine = holder(served)
    served.rig.nodes[machine]("kill", "-KILL", processes(served)[machine].name)
    ip = balance(served, "later")
    assert served.rig.get(OWN, "lease", NAME)["spec"]["holderIdentity"] != former
    served.rig.until(lambda: served.rig.ask(ip, 80) == HUB)
    served.kubectl("delete", "service", "later")
    served.rolled_out(CONTROLLERS)


def test_a_node_that_comes_gets_a_block_that_nobody_has(served: Installed) -> None:
    rig = served.rig
    former = blocks(served)
    configured = rig.get(OWN, "configmap", "podplane-controllers")["data"]["config"]
    rig.restart("kube-controller-manager", "--allocate-node-cidrs=false")
    permit(served, rbac.CONTROLLERS)
    configure(served, json.dumps({"node_blocks": {"cidrs": [PODS]}}))
    served.add_node("w3", 3)
    try:
        found = blocks(served)
        assert {name: found[name] for name in former} == former
        new, others = ipaddress.ip_network(found["w3"]), map(ipaddress.ip_network, former.values())
        assert new.subnet_of(ipaddress.ip_network(PODS)) and not any(map(new.overlaps, others))
        served.run("third", "w3", "serve", str(PORT))
        served.ready("third")
        assert served.ask("asking", served.ip("third")) == served.ip("asking")
        served.kubectl("delete", "pod", "third", "--wait")
        twin_gets_no_pods(served, found["w1"])
    finally:
        served.remove_node("w3")
        configure(served, configured)
        permit(served, rbac.CONTROLLERS.without_node_blocks)
        rig.restart("kube-controller-manager")
        served.rolled_out(CONTROLLERS)


def twin_gets_no_pods(cluster: Installed, block: str) -> None:
    """A younger Node with the block of another one."""
    spec = {"podCIDR": block, "podCIDRs": [block]}
    cluster.apply({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "twin"}, "spec": spec})
    try:
        cluster.rig.until(
            lambda: "node.kubernetes.io/network-unavailable" in json.dumps(cluster.rig.get("node", "twin")["spec"])
        )
        assert "PodCIDRTwice" in cluster.kubectl("describe", "node", "twin")
    finally:
        cluster.kubectl("delete", "node", "twin")


def blocks(cluster: Installed) -> dict[str, Any]:
    return {one["metadata"]["name"]: one["spec"].get("podCIDR") for one in cluster.rig.get("nodes")["items"]}


def permit(cluster: Installed, account: rbac.Account) -> None:
    """What controllers may do, as `podplane controllers rbac` prints it for node blocks."""
    cluster.apply({"apiVersion": "v1", "kind": "List", "items": rbac.manifests(account)})


def configure(cluster: Installed, content: str) -> None:
    """Another configuration of the controllers, from now on."""
    patch = json.dumps({"data": {"config": content}})
    cluster.kubectl(OWN, "patch", "configmap", "podplane-controllers", "--type=merge", f"--patch={patch}")
    cluster.kubectl(OWN, "rollout", "restart", CONTROLLERS)
