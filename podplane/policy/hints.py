"""Of a flow that is denied: which rules nearly allow it, and what they would have to say."""

from __future__ import annotations

from collections.abc import Iterator

from podplane.policy.match import Decision, Flow, Policies, RuleId, allows_peer, allows_port
from podplane.policy.words import peers_text, ports_text


def hints(decision: Decision, flow: Flow, policies: Policies) -> Iterator[str]:
    """A line for each rule that allows the other end or the port, but not both; or one that says that no rule does."""
    subject, other = (flow.source, flow.destination) if decision.direction == "egress" else (flow.destination, flow.source)
    side = "from" if decision.direction == "ingress" else "to"
    found = False
    for policy in policies.policies_of(subject.path) if not decision.allowed else ():
        for number, rule in enumerate(policy.rules(decision.direction) or (), 1):
            name = RuleId(policy.metadata.path, decision.direction, number)
            if allows_peer(rule, other, policies):
                found = True
                yield f"{name} allows {ports_text(rule)} {side} it"
            elif allows_port(rule, flow.protocol, flow.port, flow.destination.pod):
                found = True
                yield f"{name} allows this port {side} {peers_text(rule, policy.metadata.namespace)} only"
    if not decision.allowed and not found:
        yield f"none of these policies has an {decision.direction} rule for {other.text}, or for this port"
