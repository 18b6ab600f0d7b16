"""ClusterNetworkPolicies in the verdict: tiers, priorities, actions, peers; and what of one is not known."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest

from podplane.model.cluster_policy import ClusterNetworkPolicy
from podplane.model.policy import EVERYTHING, PodSelector, PolicyRule
from podplane.policy.ends import End
from podplane.policy.index import PolicyIndex
from podplane.policy.match import Flow, Reason, verdict
from podplane.policy.reach import reach
from podplane.policy.words import unread_text
from tests.unit.policy.cluster import Object, ask, cluster_policy, end, index_of, namespace, node, pod, policy

ALL: Object = {"namespaces": {}}
SIDES = {"ingress": "from", "egress": "to"}


def rule(action: str, *peers: Object, side: str = "ingress", **more: Any) -> Object:
    return {"action": action, SIDES[side]: list(peers) or [ALL]} | more


def cluster(*policies: Object) -> PolicyIndex:
    objects = [
        namespace("a", team="a"),
        namespace("b", team="b"),
        pod("a/web", {"app": "web"}, "10.244.1.2", ports=[{"name": "http", "containerPort": 80}]),
        pod("b/client", {"app": "client"}, "10.244.2.2", "node2"),
        node("node1", {"role": "first"}, "192.168.1.10"),
        node("node2", {"role": "second"}, "192.168.1.11"),
    ]
    return index_of([*objects, *policies])


@pytest.mark.parametrize("direction", ["ingress", "egress"])
@pytest.mark.parametrize(("deny", "passes", "allows", "baseline"), [*itertools.product([False, True], repeat=4)])
def test_each_combination_of_tiers(direction: str, deny: bool, passes: bool, allows: bool, baseline: bool) -> None:
    """N17: Admin Deny at priority 5, Admin Pass at 3, a NetworkPolicy that allows, Baseline Deny: all of 2⁴, both directions."""
    subject = "a" if direction == "ingress" else "b"
    own = {"namespaces": {"matchLabels": {"team": subject}}}
    chosen = [
        (deny, cluster_policy("deny", "Admin", 5, subject=own, **{direction: [rule("Deny", side=direction)]})),
        (passes, cluster_policy("pass", "Admin", 3, subject=own, **{direction: [rule("Pass", side=direction)]})),
        (allows, policy(f"{subject}/np", podSelector={}, policyTypes=[direction.title()], **{direction: [{}]})),
        (baseline, cluster_policy("base", "Baseline", 1, subject=own, **{direction: [rule("Deny", side=direction)]})),
    ]
    index = cluster(*(one for wanted, one in chosen if wanted))
    found = ask(index, "b/client", "a/web")
    if deny and not passes:
        expected, by = False, f"ClusterNetworkPolicy deny {direction} rule 1 (Deny)"
    elif allows:
        expected, by = True, f"{subject}/np {direction} rule 1"
    else:
        expected, by = not baseline, f"ClusterNetworkPolicy base {direction} rule 1 (Deny)" if baseline else ""
    decision = found.ingress if direction == "ingress" else found.egress
    assert decision is not None
    assert found.allowed is decision.allowed is expected
    assert decision.by.startswith(by)
    assert ("Pass" in decision.by) is passes
    ends = end(index, "b/client"), end(index, "a/web")
    assert reach(*ends, index).is_everything is expected


def test_a_networkpolicy_that_selects_the_pod_is_final_and_pass_leaves_its_tier_only() -> None:
    deny = cluster_policy("deny", ingress=[rule("Pass"), rule("Deny")])
    baseline = cluster_policy("base", "Baseline", ingress=[rule("Accept")])
    found = ask(cluster(deny, baseline, policy("a/none", podSelector={})), "b/client", "a/web")
    assert found.ingress is not None and found.ingress.reason is Reason.DEFAULT_DENY
    assert found.by == "default deny by a/none, after ClusterNetworkPolicy deny ingress rule 1 (Pass)"
    found = ask(cluster(deny, baseline, policy("a/out", podSelector={}, policyTypes=["Egress"])), "b/client", "a/web")
    assert found.allowed and found.by == (
        "no policy selects it for egress; ClusterNetworkPolicy base ingress rule 1 (Accept), "
        "after ClusterNetworkPolicy deny ingress rule 1 (Pass)"
    )


def test_the_lesser_priority_decides_first_then_the_name_and_the_order_of_rules() -> None:
    accept, deny = ([rule(action)] for action in ("Accept", "Deny"))
    for before, after in (((1, "z"), (2, "a")), ((2, "a"), (2, "b"))):
        for first, allowed in ((accept, True), (deny, False)):
            second = deny if allowed else accept
            index = cluster(
                cluster_policy(after[1], priority=after[0], ingress=second),
                cluster_policy(before[1], priority=before[0], ingress=first),
            )
            assert ask(index, "b/client", "a/web").allowed is allowed
    assert not ask(cluster(cluster_policy("p", ingress=[*deny, *accept])), "b/client", "a/web").allowed


def test_a_rule_is_about_its_protocols_only_and_the_rest_stays_allowed() -> None:
    ports = [{"tcp": {"destinationPort": {"number": 80}}}, {"udp": {"destinationPort": {"range": {"start": 1, "end": 99}}}}]
    index = cluster(cluster_policy("p", ingress=[rule("Deny", protocols=ports)]))
    asked = (("TCP", 80), ("TCP", 81), ("UDP", 99), ("UDP", 100), ("SCTP", 80), ("ICMP", None))
    denied = [(protocol, port) for protocol, port in asked if not ask(index, "b/client", "a/web", port, protocol).allowed]
    assert denied == [("TCP", 80), ("UDP", 99)]
    found = reach(end(index, "b/client"), end(index, "a/web"), index)
    assert str(found) == "everything but TCP 80, UDP 1-99"
    decision = ask(index, "b/client", "a/web", 81).ingress
    assert decision is not None and decision.by == "no rule of ClusterNetworkPolicy p is about it"
    named = cluster(cluster_policy("p", ingress=[rule("Deny", protocols=[{"destinationNamedPort": "http"}])]))
    assert [port for port in (79, 80, 81) if not ask(named, "b/client", "a/web", port).allowed] == [80]


@pytest.mark.parametrize(
    ("peer", "denied"),
    [
        ({"nodes": {}}, {"node1", "node2"}),
        ({"nodes": {"matchLabels": {"role": "second"}}}, {"node2"}),
        ({"networks": ["192.168.1.0/24"]}, {"node1", "node2"}),
        ({"networks": ["0.0.0.0/0"]}, {"node1", "node2", "192.0.2.1", "a/web"}),
        ({"networks": ["::/0"]}, set()),
        ({"namespaces": {}}, {"a/web"}),
        ({"pods": {"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "web"}}}}, {"a/web"}),
        ({"pods": {"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "db"}}}}, set()),
    ],
)
def test_peers_of_egress(peer: Object, denied: set[str]) -> None:
    index = cluster(cluster_policy("p", egress=[rule("Deny", peer, side="egress")]))
    ends = {
        "node1": End("192.168.1.10", node="node1"),
        "node2": End("192.168.1.11", node="node2"),
        "192.0.2.1": End("192.0.2.1"),
        "a/web": end(index, "a/web"),
    }
    flows = {name: Flow(end(index, "b/client"), one, "TCP", 80) for name, one in ends.items()}
    assert {name for name, flow in flows.items() if not verdict(flow, index).allowed} == denied


def test_a_node_that_goes_or_has_other_labels_is_no_peer_any_more() -> None:
    index = cluster(cluster_policy("p", egress=[rule("Deny", {"nodes": {"matchLabels": {"role": "second"}}}, side="egress")]))
    flow = Flow(end(index, "b/client"), End("192.168.1.11", node="node2"), "TCP", 80)
    second = PodSelector("nodes:", EVERYTHING)
    assert not verdict(flow, index).allowed and index.has_address(second, "192.168.1.11")
    index.set_node("node2", None)
    assert verdict(flow, index).allowed and not index.has_address(second, "192.168.1.11")


def test_a_pod_reaches_itself_and_a_node_its_pods_whatever_they_say() -> None:
    index = cluster(cluster_policy("p", ingress=[rule("Deny")], egress=[rule("Deny", side="egress")]))
    assert ask(index, "a/web", "a/web").allowed
    assert verdict(Flow(End("192.168.1.10", node="node1"), end(index, "a/web"), "TCP", 80), index).allowed


def parsed(**egress: Any) -> ClusterNetworkPolicy:
    return ClusterNetworkPolicy.from_json(json.dumps(cluster_policy("p", egress=[egress])).encode())


def test_what_is_not_known_fails_closed_and_is_said() -> None:
    names, known = {"domainNames": ["example.org"]}, {"networks": ["192.0.2.0/24"]}
    accept = parsed(action="Accept", to=[names, known])
    assert accept.egress == (PolicyRule(parsed(action="Accept", to=[known]).egress[0].peers),)
    assert parsed(action="Accept", to=[names]).egress == (PolicyRule(()),)
    for action in ("Deny", "Pass"):
        assert parsed(action=action, to=[names, known], name="n").egress == (PolicyRule(None, None, "Deny", "n"),)
    quic = parsed(action="Deny", to=[known], protocols=[{"quic": {}}])
    assert quic.egress == (PolicyRule(None, None, "Deny"),)
    assert unread_text(quic, quic.unread[0]) == (
        "egress rule 1: what has neither tcp, udp, sctp nor destinationNamedPort is not known: "
        "an Accept does not mean it, a Deny or Pass with it denies everything"
    )
    assert accept.unread and not parsed(action="Accept", to=[known]).unread
