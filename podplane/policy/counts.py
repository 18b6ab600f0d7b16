"""How often policies decided on a node, from what the kernel's counters say. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from podplane.model.answers import DenialCount, PolicyCounts, RuleCount
from podplane.policy.compiling import SHORT, Group, Program
from podplane.policy.enforced import AllEnforced
from podplane.policy.tables import DENIALS, denial_counter

DIRECTION = {short: direction for direction, short in SHORT.items()}


class InForce(NamedTuple):
    """What is in force at one moment."""

    programs: tuple[Program, ...]
    groups: tuple[tuple[str, Group], ...]


def in_force(enforced: AllEnforced) -> InForce:
    """To be called where the plans are made; what is made of it may be made anywhere."""
    return InForce(tuple(enforced.programs()), tuple(enforced.groups()))


def counted(rules: InForce, counts: Mapping[str, int]) -> PolicyCounts:
    """`counts` are the packets of each counter, by its name; what has no counter in the kernel yet has decided nothing."""
    return PolicyCounts(
        rules=list(_rules(rules.programs, counts)),
        denials=[
            DenialCount(
                DIRECTION[short],
                group.policies,
                counts.get(group.denied.name, 0),
                group.together,
                counts.get(group.allowed.name, 0) if group.allowed is not None else 0,
            )
            for short, group in rules.groups
        ],
        dropped={reason: counts.get(denial_counter(reason), 0) for reason in DENIALS},
    )


def _rules(programs: Iterable[Program], counts: Mapping[str, int]) -> Iterable[RuleCount]:
    for program in programs:
        for one in program.counters:
            yield RuleCount(program.name, program.direction, one.rule, counts.get(one.name, 0))
