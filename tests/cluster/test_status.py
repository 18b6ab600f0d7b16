"""A cluster is shown in one screen, by who has the rights that docs/status.md lists; and what is wrong with it is told."""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import podplane
from podplane.model.config import VIEWER
from tests.cluster.podplane import Installed

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("cluster")]
PAGE = Path(__file__).parents[2] / "docs/status.md"
STRAY = "w9"


def of(cluster: Installed, code: int, *words: str) -> dict[str, Any]:
    """What it says; that it waits goes before."""
    said = cluster.rig.podplane("cluster", "status", "-o", "json", *words, code=code)
    found: dict[str, Any] = json.loads(said[said.index("{") :])
    return found


def troubles(cluster: Installed) -> dict[str, list[str]]:
    return {one["problem"]: one["nodes"] for one in of(cluster, 1)["problems"]}


def become_well(cluster: Installed) -> None:
    """Controllers take their time to be ready, and to find out who leads."""
    cluster.rig.until(lambda: "all is well" in cluster.rig.podplane("cluster", "status", code=None))


def test_all_is_well_and_agents_say_what_they_have_programmed(cluster: Installed) -> None:
    become_well(cluster)
    found = of(cluster, 0)
    assert found["problems"] == [] and found["summary"]["answered"] == len(cluster.rig.nodes)
    for one in found["nodes"]:
        status = one["status"]
        assert (one["agent"], one["error"], status["version"]) == ("ready", "", podplane.__version__)
        assert sum(row["done"] for row in status["objects"]) > 20 and one["blocks"]
    said = cluster.rig.podplane("cluster", "status")
    assert said.startswith("2 nodes, 2 of them ready: all is well\n") and "w1     Ready    ready   " in said


def test_other_commands_read_agents_of_the_cluster_too(cluster: Installed) -> None:
    rig = cluster.rig
    assert "Node w1: everything is as wanted" in rig.podplane("status", "--node", "w1")
    assert re.search(r"w1 +10\.244\.\d\.0/24 +192\.168\.100\.12 +eth0", rig.podplane("routes"))
    services = rig.podplane("services")
    assert re.search(r"kubernetes +ClusterIP +10\.96\.0\.1", services), services
    assert "There is no policy" in rig.podplane("policy", "list")
    assert rig.podplane("policy", "denied").startswith("Nothing is denied: no policy selects any pod")


def rules() -> Iterator[tuple[str, dict[str, Any]]]:
    """Namespace ("": all) and rule, of each row of the page's table of rights."""
    _, _, rest = PAGE.read_text().partition("**Rights**")
    for line in rest.partition("\n\nAgents are asked")[0].splitlines():
        cells = [one.strip() for one in line.split("|")[1:-1]]
        if len(cells) != 3 or cells[0] in ("verbs", "---"):
            continue
        verbs, resources, namespace = cells
        named, _, only = resources.partition(", resourceName ")
        for resource in re.split("[,;] ", named):
            name, _, group = resource.partition(".")
            rule = {"apiGroups": [group], "resources": [name], "verbs": [verbs]}
            yield namespace, rule | ({"resourceNames": [only]} if only else {})


def test_the_rights_that_the_documentation_lists_are_enough_and_all_of_them_are_needed(cluster: Installed) -> None:
    kubeconfig = cluster.rig.user("reader")
    refused = cluster.rig.podplane("cluster", "status", kubeconfig=kubeconfig, code=2)
    assert "(the right to list nodes is missing)" in refused and len(refused.splitlines()) == 1
    by_namespace: dict[str, list[dict[str, Any]]] = {}
    for namespace, rule in rules():
        by_namespace.setdefault(namespace, []).append(rule)
    subject = {"kind": "User", "name": "reader", "apiGroup": "rbac.authorization.k8s.io"}
    objects = []
    for namespace, found in by_namespace.items():
        kind = "Role" if namespace else "ClusterRole"
        metadata = {"name": "reader", **({"namespace": namespace} if namespace else {})}
        api = {"apiVersion": "rbac.authorization.k8s.io/v1"}
        reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": "reader"}
        objects += [
            {**api, "kind": kind, "metadata": metadata, "rules": found},
            {**api, "kind": f"{kind}Binding", "metadata": metadata, "roleRef": reference, "subjects": [subject]},
        ]
    cluster.apply(*objects)
    said = cluster.rig.podplane("cluster", "status", kubeconfig=kubeconfig)
    assert "2 of 2 agents that were asked answered" in said
    only = f"serviceaccounts/token of {VIEWER}"
    cluster.kubectl("--namespace=kube-system", "delete", "role", "reader")
    less = cluster.rig.podplane("cluster", "status", kubeconfig=kubeconfig, code=1)
    missing = re.findall(r"not known: (.*): this right is missing", less)
    assert f"create {only} in kube-system" in missing and "list pods in kube-system" in missing and len(missing) >= 7
    for one in objects:
        space = [f"--namespace={one['metadata']['namespace']}"] if "namespace" in one["metadata"] else []
        cluster.kubectl(*space, "delete", "--ignore-not-found", one["kind"], "reader")


def test_a_node_that_is_a_copy_of_another_and_an_agent_that_hangs_are_told(cluster: Installed) -> None:
    """At once: each costs a look."""
    block = cluster.rig.get("node", "w1")["spec"]["podCIDR"]
    cluster.apply(
        {"apiVersion": "v1", "kind": "Node", "metadata": {"name": STRAY}, "spec": {"podCIDR": block, "podCIDRs": [block]}}
    )
    machine, agent = cluster.rig.nodes["w2"], cluster.process("w2").name
    try:
        machine("sh", "-c", f"kill -STOP {agent}")
        found = troubles(cluster)
        assert found["has no InternalIP: no other node can reach it"] == [STRAY]
        assert next(
            nodes
            for text, nodes in found.items()
            if text.startswith(f"is left out in part: the block {block} is that of w1, too")
        ) == [STRAY]
        assert next(nodes for text, nodes in found.items() if text.startswith("its agent does not answer: ")) == ["w2"]
    finally:
        machine("sh", "-c", f"kill -CONT {agent}")
        cluster.kubectl("delete", "node", STRAY)
    cluster.rolled_out()
    become_well(cluster)


def test_a_node_whose_block_is_in_the_network_between_nodes_takes_no_way_from_others(cluster: Installed) -> None:
    """Its routes would take that of the API's machine, which is no node's. It is told, and agents that start then become ready."""
    family = cluster.rig.families[0]
    network = ipaddress.ip_network((family.hub, family.length), strict=False)
    block = str(ipaddress.ip_network((cluster.rig.control, 30), strict=False))
    spec = {"podCIDR": block, "podCIDRs": [block]}
    address = {"type": "InternalIP", "address": family.machine(99)}
    cluster.apply({"apiVersion": "v1", "kind": "Node", "metadata": {"name": STRAY}, "spec": spec})
    cluster.kubectl(
        "patch", "node", STRAY, "--subresource=status", f"--patch={json.dumps({'status': {'addresses': [address]}})}"
    )
    told = f"{STRAY}: the block {block} overlaps {network}, the node's own network (eth0): left out"
    try:
        cluster.rig.until(lambda: set(troubles(cluster).get(told, [])) == set(cluster.rig.nodes))
        cluster.kubectl("--namespace=kube-system", "delete", "pods", "--selector=app.kubernetes.io/component=agent", "--wait")
        cluster.rolled_out()
        cluster.rig.until(lambda: set(troubles(cluster).get(told, [])) == set(cluster.rig.nodes))
        for machine in cluster.rig.nodes.values():
            assert block not in machine("ip", "route")
    finally:
        cluster.kubectl("delete", "node", STRAY)
    become_well(cluster)
