"""What a look at policies finds: kinds of mistakes, and one mistake as a sentence."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import NamedTuple

from podplane.model.cluster_policy import Policy
from podplane.model.policy import Direction
from podplane.policy.match import RuleId

LOOKED_AT = 500
"""Pods of one selector, and rules of one policy, that are looked at."""
NAMED = 3
"""Of blocks, and of groups of pods, in one sentence."""


class Mistake(enum.StrEnum):
    """What kinds there are."""

    SELECTS_NOTHING = "selects nothing"
    NO_NAMESPACE = "no such namespace"
    NO_NODE = "no such node"
    NOT_SERVED = "port not served"
    PODS_BY_ADDRESS = "pods by address"
    NODES_BY_ADDRESS = "nodes by address"
    SERVICE_BY_ADDRESS = "Service by address"
    COVERED = "covered"
    NEVER_REACHED = "never reached"
    OVERRULED = "overruled"
    EQUAL_PRIORITY = "equal priority"
    NO_DNS = "no DNS"
    NOT_READ = "not read"


class Finding(NamedTuple):
    """One mistake in a policy; `where` is the rule, "" when it is about the whole policy."""

    policy: Policy
    where: str
    mistake: Mistake
    text: str

    def __str__(self) -> str:
        return f"{self.policy.text}{' ' if self.where else ''}{self.where}: {self.text}"


def of_rule(policy: Policy, direction: Direction, number: int) -> RuleId:
    """One rule of a policy, by its number."""
    return RuleId.of(policy, direction, number, (policy.rules(direction) or ())[number - 1])


def some(texts: Sequence[str]) -> str:
    """The first of them, and how many more there are."""
    more = len(texts) - NAMED
    return ", ".join(texts[:NAMED]) + (f" and {more:,} more" if more > 0 else "")
