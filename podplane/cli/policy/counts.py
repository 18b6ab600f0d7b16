"""How often policies decided, by what nodes counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import click
import msgspec

from podplane.cli.nodes import Question, ask
from podplane.kubeapi.errors import ApiError
from podplane.model.answers import PolicyCounts
from podplane.model.config import AGENT_PORT


class Decided:
    """The sums of what some nodes counted, since the first of their pods came under each policy."""

    def __init__(self, counts: Iterable[PolicyCounts] = ()) -> None:
        self._rules = Counter[tuple[str, str, int]]()
        self._denials = Counter[tuple[str, tuple[str, ...]]]()
        self._together = Counter[tuple[str, tuple[str, ...]]]()
        for one in counts:
            self._rules.update({(rule.policy, rule.direction, rule.rule): rule.connections for rule in one.rules})
            self._denials.update({(group.direction, group.policies): group.packets for group in one.denials})
            for group in one.denials:
                if group.together:
                    self._together[group.direction, group.together] += group.connections

    def rule(self, policy: str, direction: str, number: int) -> int:
        """How many connections a rule allowed."""
        return self._rules[policy, direction, number]

    def allowed(self, policy: str) -> int:
        """How many connections all its rules allowed."""
        return sum(count for (path, _, _), count in self._rules.items() if path == policy)

    def together(self, policy: str, direction: str = "") -> int | None:
        """How many connections it and others that select the same pods allowed, which are counted together; None: nowhere."""
        found = [count for (one, policies), count in self._together.items() if policy in policies and direction in ("", one)]
        return sum(found) if found else None

    def denied(self, policy: str) -> int:
        """How many packets neither it nor the others that select the same pods allowed."""
        return sum(count for (_, policies), count in self._denials.items() if policy in policies)

    def denied_by(self, direction: str, policies: tuple[str, ...]) -> int:
        """How many packets of pods under just these policies, by path, were denied."""
        return self._denials[direction, policies]


def decided(client: Any, nodes: Iterable[str]) -> Decided | None:
    """Ask these nodes; those that don't answer are told on standard error. None: none answers."""
    answers = ask(client, [Question(node, AGENT_PORT, "policies", PolicyCounts) for node in nodes])
    found = []
    for question, answer in answers.items():
        if isinstance(answer, ApiError):
            click.echo(f"{question.node} does not say how often rules decided: {answer}", err=True)
        else:
            found.append(msgspec.convert(answer, PolicyCounts))
    return Decided(found) if found or not answers else None
