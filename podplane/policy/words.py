"""Selectors, peers, ports and rules as people write them."""

from __future__ import annotations

from podplane.model.cluster_policy import NODES, Policy
from podplane.model.policy import Direction, IPBlock, LabelSelector, Peer, PolicyPort, PolicyRule, Requirement
from podplane.policy.reach import LAST_PORT, Ports

SHOWN = 6
"""Peers and ports of one rule, and labels of one selector, that are named."""


def selector_text(selector: LabelSelector) -> str:
    """`app=web,tier in (a,b)`, as kubectl takes it; "" for one that selects everything."""
    return ",".join(map(_requirement, selector.requirements))


def short_selector_text(selector: LabelSelector) -> str:
    """The same for people, of which a long one is cut."""
    more = len(selector.requirements) - SHOWN
    return selector_text(LabelSelector(selector.requirements[:SHOWN])) + (f",… and {more:,} more labels" if more > 0 else "")


def peer_text(peer: Peer, namespace: str) -> str:
    """A peer of a policy in `namespace`."""
    if isinstance(peer, IPBlock):
        return peer.cidr + (f" but not {_listed(list(peer.excepts))}" if peer.excepts else "")
    pods = short_selector_text(peer.pods)
    if peer.namespaces == NODES:
        return f"nodes with {pods}" if pods else "all nodes"
    who = f"pods with {pods}" if pods else "all pods"
    if isinstance(peer.namespaces, str):
        return who if peer.namespaces == namespace else f"{who} of namespace {peer.namespaces}"
    where = short_selector_text(peer.namespaces)
    return f"{who} of " + (f"namespaces with {where}" if where else "all namespaces")


def ports_text(rule: PolicyRule) -> str:
    """`TCP 80, UDP 53`; "everything" of a rule that names none."""
    return "everything" if rule.ports is None else _listed(list(map(_port, rule.ports))) or "nothing"


def peers_text(rule: PolicyRule, namespace: str) -> str:
    """Its peers; "anybody" of a rule that names none."""
    return "anybody" if rule.peers is None else _listed([peer_text(peer, namespace) for peer in rule.peers], " or ") or "nobody"


def rule_text(rule: PolicyRule, direction: Direction, policy: Policy) -> str:
    """`TCP 80 from pods with app=web`; of a ClusterNetworkPolicy `Deny TCP 80 from pods with app=web of all namespaces (no telnet)`."""
    side = "from" if direction == "ingress" else "to"
    text = f"{ports_text(rule)} {side} {peers_text(rule, policy.metadata.namespace)}"
    return text if policy.tier == "NetworkPolicy" else f"{rule.action} {text}" + (f" ({rule.name})" if rule.name else "")


def unread_text(policy: Policy, what: str) -> str:
    """What becomes of a part of a policy that can't be read."""
    if policy.tier == "NetworkPolicy":
        return f"{what}: it allows nothing"
    return f"{what}: an Accept does not mean it, a Deny or Pass with it denies everything"


def _requirement(one: Requirement) -> str:
    values = ",".join(one.values)
    match one.operator:
        case "In":
            return f"{one.key}={values}" if len(one.values) == 1 else f"{one.key} in ({values})"
        case "NotIn":
            return f"{one.key}!={values}" if len(one.values) == 1 else f"{one.key} notin ({values})"
        case "Exists":
            return one.key
        case "DoesNotExist":
            return f"!{one.key}"


def _port(one: PolicyPort) -> str:
    if isinstance(one.port, tuple):
        return str(Ports(one.protocol, *one.port))
    return str(Ports(one.protocol, 1, LAST_PORT)) + (f" {one.port}" if one.port else "")


def _listed(texts: list[str], joint: str = ", ") -> str:
    more = len(texts) - SHOWN
    return joint.join(texts[:SHOWN]) + (f" and {more:,} more" if more > 0 else "")
