"""Of a flow that no NetworkPolicy allows: which rules nearly do, and what they would have to say."""

from __future__ import annotations

from collections.abc import Iterator

from podplane.policy.match import Decision, Flow, Policies, Reason, RuleId, matches_peer, matches_port
from podplane.policy.tiers import rules_of, speaking
from podplane.policy.words import peers_text, ports_text


def hints(decision: Decision, flow: Flow, policies: Policies) -> Iterator[str]:
    """A line for each rule that allows the other end or the port, but not both; or one that says that no rule does. Where a rule denies
    the flow there is nothing to say: that rule would have to go."""
    if decision.reason is not Reason.DEFAULT_DENY:
        return
    direction = decision.direction
    subject, other = (flow.source, flow.destination) if direction == "egress" else (flow.destination, flow.source)
    side = "from" if direction == "ingress" else "to"
    found = False
    network = speaking(policies.policies_of(subject.path), direction, "NetworkPolicy")
    for policy, number, rule in rules_of(network, direction):
        name = RuleId.of(policy, direction, number, rule)
        if matches_peer(rule, other, policies):
            found = True
            yield f"{name} allows {ports_text(rule)} {side} it"
        elif matches_port(rule, flow.protocol, flow.port, flow.destination.pod):
            found = True
            yield f"{name} allows this port {side} {peers_text(rule, policy.metadata.namespace)} only"
    if not found:
        yield f"none of these policies has an {direction} rule for {other.text}, or for this port"
