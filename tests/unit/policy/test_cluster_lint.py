"""Mistakes in ClusterNetworkPolicies, and what they make of NetworkPolicies."""

from __future__ import annotations

import pytest

from podplane.policy.lint import Linter
from tests.unit.policy.cluster import Object, cluster_policy, node, pod, policy
from tests.unit.policy.test_lint import KUBE_DNS, world

ALL: Object = {"namespaces": {}}
SHOP: Object = {"namespaces": {"matchLabels": {"kubernetes.io/metadata.name": "shop"}}}
DEFAULT: Object = {"namespaces": {"matchLabels": {"kubernetes.io/metadata.name": "default"}}}
NOBODY: Object = {"networks": ["203.0.113.0/24"]}
TCP80 = {"tcp": {"destinationPort": {"number": 80}}}
TCP8080 = {"tcp": {"destinationPort": {"number": 8080}}}


def pods(**labels: str) -> Object:
    return {"pods": {"namespaceSelector": {}, "podSelector": {"matchLabels": labels}}}


def into(action: str, *peers: Object, **more: object) -> Object:
    return {"action": action, "from": list(peers) or [ALL]} | more


def out(action: str, *peers: Object, **more: object) -> Object:
    return {"action": action, "to": list(peers) or [ALL]} | more


def said(*policies: Object, alone: bool = False, without: str = "kube-dns") -> list[str]:
    """Of the first of these."""
    cluster = world(*policies, node("node2", {"role": "edge"}, "192.168.1.11"), without=without)
    metadata = policies[0]["metadata"]
    found = cluster.index.policy("/".join(filter(None, (metadata.get("namespace"), metadata["name"]))))
    assert found is not None
    return [f"{one.where}: {one.text}" for one in Linter(cluster).of(found, beside=not alone)]


def admin(*rules: Object, name: str = "p", **more: object) -> Object:
    side = "ingress" if "from" in rules[0] else "egress"
    return cluster_policy(name, **{"subject": DEFAULT, side: list(rules)} | more)  # type: ignore[arg-type]


def test_a_policy_without_mistakes() -> None:
    assert said(admin(into("Accept", pods(app="client"), protocols=[TCP8080]), into("Deny"))) == []
    assert said(admin(out("Pass"), out("Deny", {"networks": ["0.0.0.0/0", "::/0"]}))) == []
    assert said(admin(out("Deny", {"nodes": {}}, NOBODY), subject=pods(app="web"))) == []


def test_what_selects_no_pod_and_labels_that_nobody_has() -> None:
    wrong = {"namespaces": {"matchLabels": {"name": "shop"}}}
    no_namespace = "no namespace has name=shop; the label kubernetes.io/metadata.name=shop selects the namespace of that name"
    assert said(admin(into("Deny"), subject=wrong)) == [f": selects no pod so far: {no_namespace}"]
    assert said(admin(into("Deny", wrong))) == [f"ingress rule 1: {no_namespace}"]
    assert said(admin(into("Deny"), subject=pods(app="wbe"))) == [
        ": selects no pod so far: there are no pods with app=wbe of all namespaces"
    ]
    assert said(admin(out("Deny", {"nodes": {"matchLabels": {"role": "egde"}}}))) == ["egress rule 1: no node has role=egde"]
    assert said(admin(out("Deny", {"nodes": {"matchLabels": {"role": "edge"}}}))) == []


def test_ports_that_nobody_serves() -> None:
    web = pods(app="web")
    assert said(admin(into("Deny", protocols=[TCP80]), subject=web)) == [
        "ingress rule 1: TCP 80 is the port of Service default/web; policies are about the port of its pods, http"
    ]
    assert said(admin(out("Deny", web, protocols=[{"destinationNamedPort": "htpp"}]))) == [
        "egress rule 1: none of the pods has a port named htpp"
    ]
    assert said(admin(out("Deny", web, protocols=[{"destinationNamedPort": "http"}, TCP8080]))) == []


def test_networks_that_mean_pods_nodes_or_services() -> None:
    one = "egress rule 1: "
    assert said(admin(out("Deny", {"networks": ["10.244.1.2/32"]}))) == [
        f"{one}10.244.1.2/32 has addresses of pods; another pod may have them later, so select pods by labels"
    ]
    assert said(admin(out("Deny", {"networks": ["192.168.1.11/32"]}))) == [
        f"{one}192.168.1.11 (node2) is the address of a node; `nodes` selects nodes by labels"
    ]
    assert said(admin(out("Accept", {"networks": ["10.96.0.5/32"]}))) == [
        f"{one}10.96.0.5 (Service default/web) is the address of a Service; policies are about the pods behind it"
    ]
    wide = out("Deny", {"networks": ["10.0.0.0/8"]})
    text = "denies pods, too, because 10.0.0.0/8 has their addresses; a rule before it could pass all pods on"
    assert said(admin(wide)) == [f"{one}{text}"]
    assert said(admin(out("Accept", SHOP), wide)) == [f"egress rule 2: {text}"]
    assert said(admin(out("Pass"), wide)) == []
    assert said(admin(out("Accept", {"networks": ["10.0.0.0/8"]}))) == []


def test_a_rule_that_another_one_covers() -> None:
    client = pods(app="client")
    assert said(admin(into("Deny"), into("Accept", client))) == [
        "ingress rule 2: never decides, because ingress rule 1 (Deny) goes before it and matches all that it matches"
    ]
    assert said(admin(into("Deny", client), into("Deny"))) == ["ingress rule 1: decides nothing that ingress rule 2 does not"]
    assert said(admin(into("Deny", client), into("Accept", SHOP), into("Deny"))) == [], "one between them decides otherwise"
    assert said(admin(into("Deny", client), into("Accept"))) == []


@pytest.mark.parametrize("tier", ["Admin", "Baseline"])
def test_a_rule_that_another_policy_of_its_tier_covers(tier: str) -> None:
    first = admin(into("Pass"), name="first", tier=tier, priority=5, subject=ALL)
    later = admin(into("Deny", SHOP, protocols=[TCP8080]), tier=tier, priority=6)
    by = "ClusterNetworkPolicy first ingress rule 1 (Pass)"
    decided = f"ingress rule 1: never decides, because {by} goes before it and matches all that it matches"
    assert said(later, first) == [decided]
    assert said(first, later) == []
    narrow = admin(into("Pass"), name="first", tier=tier, priority=5, subject=pods(app="web"))
    assert said(later, narrow) == [], "that is not about all of its pods"
    unknown = admin(into("Pass", {"future": {}}), name="first", tier=tier, priority=5, subject=ALL)
    assert said(later, unknown) == []


def test_a_rule_of_baseline_that_is_never_reached() -> None:
    baseline = admin(into("Deny", SHOP), tier="Baseline", priority=0)
    deny, passes = (admin(into(one), name="guard", priority=9, subject=ALL) for one in ("Deny", "Pass"))
    guard = "ClusterNetworkPolicy guard ingress rule 1 (Deny)"
    assert said(baseline, deny) == [
        f"ingress rule 1: never decides, because {guard} goes before it and matches all that it matches"
    ]
    assert said(baseline, passes) == []
    some = admin(into("Pass", pods(app="client")), name="a", priority=1, subject=pods(app="web"))
    assert said(baseline, some, deny) == [], "what Pass takes out of its tier reaches Baseline"
    elsewhere = admin(into("Pass", DEFAULT), name="a", priority=1, subject=pods(app="web"))
    assert said(baseline, elsewhere, deny), "what is passed on there is not about this rule"


def test_a_baseline_policy_whose_pods_are_all_under_networkpolicies() -> None:
    baseline = admin(into("Deny"), tier="Baseline")
    isolated = policy("default/np", podSelector={})
    assert said(baseline, isolated) == [
        ": its ingress rules decide nothing so far, because NetworkPolicies select all its pods for ingress and go before it"
    ]
    assert said(baseline, policy("default/np", podSelector={"matchLabels": {"app": "web"}})) == []
    assert said(baseline, policy("default/np", podSelector={}, policyTypes=["Egress"])) == []
    assert said(admin(into("Deny"), tier="Baseline", subject=ALL), isolated) == [], "a net under all pods may be needed later"


def test_policies_of_one_priority_that_decide_otherwise() -> None:
    ours, theirs = admin(into("Deny", SHOP, protocols=[TCP8080])), admin(into("Accept", pods(app="client")), name="other")
    text = (
        "ingress rule 1 (Deny): ClusterNetworkPolicy other ingress rule 1 (Accept) may match the same flows with the "
        "same priority, and the API leaves open which decides (here other, the first by name)"
    )
    assert said(ours, theirs) == [text]
    assert said(theirs, ours) == [], "where all are looked at it is told once"
    assert len(said(theirs, ours, alone=True)) == 1
    for fine in (
        admin(into("Deny", pods(app="client")), name="other"),
        admin(into("Accept", pods(app="client")), name="other", priority=11),
        admin(into("Accept", pods(app="client")), name="other", tier="Baseline"),
        admin(into("Accept", pods(app="client"), protocols=[TCP80]), name="other", subject=SHOP),
        admin(into("Accept", DEFAULT), name="other"),
        admin(into("Accept", protocols=[{"udp": {"destinationPort": {"number": 9090}}}]), name="other"),
        admin(out("Accept"), name="other"),
    ):
        assert said(ours, fine) == []


def test_a_networkpolicy_that_an_admin_policy_overrules() -> None:
    client = {"from": [{"podSelector": {"matchLabels": {"app": "client"}}}], "ports": [{"port": 8080}]}
    web = policy("default/web", podSelector={"matchLabels": {"app": "web"}}, ingress=[client])
    deny = admin(into("Deny", DEFAULT), name="guard")
    by = "ClusterNetworkPolicy guard ingress rule 1"
    assert said(web, deny) == [
        f"ingress rule 1: never decides, because {by} (Deny) goes before it and matches all that it matches"
    ]
    accept = admin(into("Accept"), name="guard")
    assert said(web, accept) == [f": keeps no pod out, because {by} (Accept) goes before it and lets all pods in"]
    assert said(policy("default/web", podSelector={}), accept) == said(web, accept)
    assert said(web, admin(into("Pass"), into("Deny"), name="guard")) == []
    assert said(web, admin(into("Accept"), name="guard", tier="Baseline")) == []
    assert said(web, admin(into("Accept"), name="guard", subject=SHOP)) == []
    egress = policy("default/none", podSelector={}, policyTypes=["Egress"])
    assert said(egress, admin(out("Accept"), name="guard")) == [
        ": keeps its pods from no pod, because ClusterNetworkPolicy guard egress rule 1 (Accept) goes before it "
        "and lets all pods be reached"
    ]


def test_whoever_applies_the_admin_policy_is_told_which_networkpolicies_it_overrules() -> None:
    client = {"from": [{"podSelector": {"matchLabels": {"app": "client"}}}]}
    web = policy("default/web", podSelector={"matchLabels": {"app": "web"}}, ingress=[client])
    none = policy("default/none", podSelector={})
    assert said(admin(into("Accept")), web, none, alone=True) == [
        "ingress rule 1 (Accept): decides about all pods before NetworkPolicies default/none, default/web"
    ]
    assert said(admin(into("Deny", DEFAULT)), web, alone=True) == [
        "ingress rule 1 (Deny): decides about all that is meant by a rule of NetworkPolicy default/web before that is asked"
    ]
    assert said(admin(into("Accept")), web) == [], "where all are looked at it is told of the other one"
    before = admin(into("Deny"), name="before", priority=1)
    assert said(admin(into("Accept", SHOP)), web, before, alone=True)[1:] == [], "another one decides before both"


def test_an_admin_deny_that_cuts_names_off() -> None:
    denies = admin(out("Deny"), name="guard")
    (found,) = said(denies, without="")
    pods_, _, why = found.removeprefix(": ").partition(" can't ask the cluster's DNS: ")
    assert sorted(pods_.split(", ")) == ["default/client", "default/web-1", "default/web-2"]
    assert why == "ClusterNetworkPolicy guard egress rule 1 (Deny) denies UDP 53 to it"
    system = {"namespaces": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}}}
    assert said(admin(out("Accept", system), out("Deny"), name="guard"), without="") == []
    deny_all = policy("default/deny", podSelector={}, policyTypes=["Egress"])
    assert said(deny_all, denies, without="") == [], "it is the Admin policy that cuts them off"
    assert "no egress rule allows UDP 53" in said(deny_all, without="")[0]


def test_a_deny_of_what_the_name_servers_are_sent_cuts_all_off() -> None:
    """Where pods serve names, their ingress counts, too."""
    behind = {**KUBE_DNS, "spec": {"clusterIPs": ["10.96.0.10"], "selector": {"k8s-app": "kube-dns"}}}
    server = pod("kube-system/coredns", {"k8s-app": "kube-dns"}, "10.244.1.9")
    guard = admin(into("Deny", DEFAULT), subject=pods(**{"k8s-app": "kube-dns"}))
    (found,) = said(guard, behind, server, without="")
    assert found.endswith("can't ask the cluster's DNS: ClusterNetworkPolicy p ingress rule 1 (Deny) denies UDP 53 to it")
    assert "default/client" in found
    deny = policy("kube-system/deny", podSelector={})
    assert said(deny, behind, server, without="")[0].endswith(
        "can't ask the cluster's DNS: no ingress rule allows UDP 53 to it"
    )
    assert said(policy("kube-system/deny", podSelector={}, ingress=[{}]), behind, server, without="") == []
