"""ClusterNetworkPolicies in a lab, with real connections of both families: tiers, actions, and each kind of peer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from podplane.model.config import AGENT_PORT
from tests.e2e.conftest import Kubectl, Podplane
from tests.e2e.test_policies import BESIDE, FAR, OTHER, WEB, ips, reached  # noqa: F401 - a fixture is among them

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("policies")]
Object = dict[str, Any]
Ips = dict[str, list[str]]
EVERYBODY: Object = {"namespaces": {}}


def pods(**labels: str) -> Object:
    return {"pods": {"namespaceSelector": {}, "podSelector": {"matchLabels": labels}}}


@pytest.fixture(autouse=True)
def labelled(kubectl: Kubectl) -> Iterator[None]:
    """One pod that others connect to, two that policies tell apart; no policies before and after."""
    kubectl("label", "pod", WEB, "app=web")
    kubectl("label", "pod", BESIDE, "role=first")
    kubectl("label", "pod", FAR, "role=second")
    yield
    kubectl("delete", "clusternetworkpolicies,networkpolicies", "--all")
    kubectl("label", "pods", "--all", "app-", "role-")


def apply(kubectl: Kubectl, name: str, subject: Object, tier: str = "Admin", priority: int = 10, **sides: list[Object]) -> None:
    spec = {"tier": tier, "priority": priority, "subject": subject, **sides}
    kind = {"apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy"}
    kubectl("apply", "-f", "-", stdin=json.dumps({**kind, "metadata": {"name": name}, "spec": spec}))


def allow(kubectl: Kubectl, **labels: str) -> None:
    """A NetworkPolicy that lets pods with these labels in to the one that the others connect to, and nobody else."""
    spec = {"podSelector": {"matchLabels": {"app": "web"}}, "ingress": [{"from": [{"podSelector": {"matchLabels": labels}}]}]}
    body = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "web"}, "spec": spec}
    kubectl("apply", "-f", "-", stdin=json.dumps(body))


def test_admin_decides_before_networkpolicies_and_these_before_baseline(lab: Podplane, kubectl: Kubectl, ips: Ips) -> None:  # noqa: F811
    web = sorted(ips[WEB])

    def who() -> list[str]:
        found = {pod: reached(lab, pod, web) for pod in (BESIDE, FAR, OTHER)}
        assert all(one in ([], web) for one in found.values()), "both families fare alike"
        return [pod for pod, one in found.items() if one]

    apply(kubectl, "baseline", pods(app="web"), "Baseline", ingress=[{"action": "Deny", "from": [EVERYBODY]}])
    assert who() == []
    allow(kubectl, role="second")
    assert who() == [FAR], "what NetworkPolicies select they decide about, and finally"
    apply(kubectl, "deny", pods(app="web"), priority=5, ingress=[{"action": "Deny", "from": [EVERYBODY]}])
    assert who() == []
    accept = {"action": "Accept", "from": [pods(role="first")], "protocols": [{"tcp": {"destinationPort": {"number": 8080}}}]}
    apply(kubectl, "before", pods(app="web"), priority=4, ingress=[accept, {"action": "Pass", "from": [pods(role="second")]}])
    assert who() == [BESIDE, FAR], "the lesser priority goes first; what it passes on, the NetworkPolicy lets in"
    said = lab("policy", "verdict", f"default/{FAR}", f"{WEB}:8080").stdout
    assert "allowed: default/web ingress rule 1, after ClusterNetworkPolicy before ingress rule 2 (Pass)" in said
    kubectl("delete", "networkpolicy", "web")
    assert who() == [BESIDE], "without one it is Baseline's turn"
    kubectl("delete", "cnp", "baseline")
    assert who() == [BESIDE, FAR]
    kubectl("delete", "cnp", "deny", "before")
    assert who() == [BESIDE, FAR, OTHER]


def test_egress_to_pods_nodes_and_networks(lab: Podplane, kubectl: Kubectl, ips: Ips) -> None:  # noqa: F811
    nodes = json.loads(kubectl("get", "nodes", "-o", "json"))["items"]
    first, second = (sorted(a["address"] for a in one["status"]["addresses"] if a["type"] == "InternalIP") for one in nodes[:2])
    (v4,), (v6,) = ([ip for ip in ips[WEB] if (":" in ip) is of6] for of6 in (False, True))

    def denies(*peers: Object) -> None:
        apply(kubectl, "out", pods(role="second"), egress=[{"action": "Deny", "to": list(peers)}])

    assert reached(lab, FAR, [*first, *second], AGENT_PORT) == sorted([*first, *second])
    denies({"nodes": {"matchLabels": {"kubernetes.io/hostname": "node1"}}})
    assert reached(lab, FAR, [*first, *second], AGENT_PORT) == second
    assert reached(lab, BESIDE, first, AGENT_PORT) == first, "the policy selects another pod"
    denies({"nodes": {}})
    assert reached(lab, FAR, [*first, *second], AGENT_PORT) == [], "its own node, too"
    denies({"networks": [f"{v6}/128"]})
    assert reached(lab, FAR, [v4, v6]) == [v4] and reached(lab, FAR, first, AGENT_PORT) == first
    denies(pods(app="web"))
    assert reached(lab, FAR, [v4, v6, *ips[OTHER]]) == sorted(ips[OTHER])
    assert reached(lab, OTHER, [v4, v6]) == sorted([v4, v6])


def test_what_a_policy_of_the_cluster_denied_is_told_and_counted(lab: Podplane, kubectl: Kubectl, ips: Ips) -> None:  # noqa: F811
    apply(kubectl, "guard", pods(app="web"), ingress=[{"action": "Deny", "from": [pods(role="second")], "name": "strangers"}])
    assert reached(lab, FAR, ips[WEB]) == [] and reached(lab, BESIDE, ips[WEB]) == sorted(ips[WEB])
    told = lab("policy", "denied").stdout
    assert f"default/{FAR} → default/{WEB}, TCP 8080: ingress: a rule that denies, of ClusterNetworkPolicy guard" in told
    (guard,) = json.loads(lab("policy", "list", "-o", "json").stdout)["policies"]
    assert (guard["name"], guard["tier"], guard["pods"], guard["deniedPackets"]) == ("guard", "Admin", 1, 2)
    text = lab("policy", "list", WEB).stdout
    assert "Deny everything from pods with role=second of all namespaces (strangers)" in text
    row = lab("policy", "matrix", "--port", "8080").stdout.splitlines()
    assert any("·" in line and FAR in line for line in row)
    assert lab("policy", "lint").stdout.startswith("No mistake is found")


def test_a_dry_run_and_a_diff_say_what_a_policy_of_the_cluster_would_deny(lab: Podplane, kubectl: Kubectl) -> None:
    spec = {"tier": "Admin", "priority": 1, "subject": pods(app="web"), "ingress": [{"action": "Deny", "from": [EVERYBODY]}]}
    kind = {"apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy"}
    body = json.dumps({**kind, "metadata": {"name": "guard"}, "spec": spec})
    said = kubectl.warned("create", "--dry-run=server", "-f", "-", stdin=body)[0]
    assert (
        said.startswith("1 flow would be denied that was allowed") and f": 5 pods of default (run=echo) → default/{WEB}" in said
    )
    found = lab("policy", "diff", "--each", "-f", "-", stdin=body, code=1).stdout
    assert found.startswith("5 flows would be denied that were allowed") and f"  default/{OTHER} → default/{WEB}" in found


def test_what_policies_deny_is_no_broken_promise(lab: Podplane, kubectl: Kubectl) -> None:
    """Also where they deny everything, to the pods of the check itself, too."""
    everything = [EVERYBODY, {"networks": ["0.0.0.0/0", "::/0"]}, {"nodes": {}}]
    sides = {"ingress": [{"action": "Deny", "from": [EVERYBODY]}], "egress": [{"action": "Deny", "to": everything}]}
    apply(kubectl, "nothing", EVERYBODY, **sides)
    found = {one["promise"]: one for one in json.loads(lab("check", "--json").stdout)["promises"]}
    assert all(one["ok"] for one in found.values())
    denied = {name for name, one in found.items() if not one["probes"]}
    assert {"pod-to-pod", "no-nat", "pod-to-node", "outside", "full-size", "service-source"} <= denied
    assert {
        "node-to-pod",
        "localhost",
        "same-port",
        "policies",
        "services",
        "service-names",
        "service-hairpin",
    } <= found.keys() - denied
    assert found["outside"]["denied"].keys() == {"ClusterNetworkPolicy nothing egress rule 1 (Deny)"}
