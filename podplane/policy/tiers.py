"""How policies decide together: Admin, then NetworkPolicy, then Baseline.

    Admin           the first rule that matches: Accept and Deny are final, Pass leaves the tier; when none does, on to the next
    NetworkPolicy   when any selects the pod for this direction: what one of their rules allows, and nothing else; final
    Baseline        as Admin; what it passes on, or no rule of it is about, is allowed

ClusterNetworkPolicies of one tier decide by priority, the lesser first, and rules of one in their order. Among those of one priority the
API leaves it open; here the name decides, so that all nodes do the same.

From the types of network-policy-api (apis/v1alpha2) and its conformance tests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol, Self, TypeVar

from podplane.model.cluster_policy import Policy
from podplane.model.policy import Direction, PolicyRule, Tier


class Flows(Protocol):
    """A set of flows: bits of an integer, or ports."""

    def __and__(self, other: Self, /) -> Self: ...
    def __or__(self, other: Self, /) -> Self: ...
    def __invert__(self) -> Self: ...


F = TypeVar("F", bound=Flows)


def speaking(policies: Iterable[Policy], direction: Direction, tier: Tier) -> list[Policy]:
    """Those of a tier that say anything about a direction."""
    return [one for one in policies if one.tier == tier and one.rules(direction) is not None]


def rules_of(policies: Iterable[Policy], direction: Direction) -> Iterator[tuple[Policy, int, PolicyRule]]:
    """Their rules, each with its policy and its number, in the order in which they decide."""
    return ((one, number, rule) for one in policies for number, rule in enumerate(one.rules(direction) or (), 1))


def allowed(policies: Sequence[Policy], direction: Direction, of_rule: Callable[[PolicyRule], F], everything: F) -> F:
    """The flows that one direction of a pod allows. `policies` select it, in their order; `of_rule` are the flows that a rule is about."""
    nothing = everything & ~everything
    accepted, rest = _ordered(policies, direction, "Admin", of_rule, (nothing, everything))
    network = speaking(policies, direction, "NetworkPolicy")
    if network:
        for _, _, rule in rules_of(network, direction):
            accepted |= of_rule(rule) & rest
        return accepted
    accepted, rest = _ordered(policies, direction, "Baseline", of_rule, (accepted, rest))
    return accepted | rest


def _ordered(
    policies: Iterable[Policy], direction: Direction, tier: Tier, of_rule: Callable[[PolicyRule], F], before: tuple[F, F]
) -> tuple[F, F]:
    """What is accepted after this tier, and what it does not decide."""
    accepted, rest = before
    passed = rest & ~rest
    for _, _, rule in rules_of(speaking(policies, direction, tier), direction):
        hit = of_rule(rule) & rest
        rest &= ~hit
        if rule.action == "Accept":
            accepted |= hit
        elif rule.action == "Pass":
            passed |= hit
    return accepted, rest | passed
