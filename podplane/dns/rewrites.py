"""Names that stand for others (`rewrites` of the configuration), told as aliases: a CNAME record, and what its target has.

Every resolver follows an alias (RFC 1034, 5.2.2), it shows who asks what happened, and the target's own negative answers, TTLs and
signatures pass unchanged. Which rule counts is found in steps of the name's labels, whatever the number of rules.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from podplane.dns import message as m
from podplane.dns.config import Rewrite
from podplane.dns.message import MAX_NAME, Answer, Name, Question, Record, text_of
from podplane.dns.negative import CONFIG, negative


class Rewrites:
    """Rules, found by the names that they are about."""

    def __init__(self, rules: Sequence[Rewrite]) -> None:
        self.rules = rules
        self._by_name: dict[tuple[Name, bool], int] = {}
        for number, rule in enumerate(rules):
            self._by_name.setdefault((rule.name, rule.suffix), number)

    def number_of(self, name: Name) -> int | None:
        """The place of the first rule that is about this name; None when none is."""
        found = [self._by_name.get((name, False))]
        found += [self._by_name.get((name[i:], True)) for i in range(len(name))]
        return min((one for one in found if one is not None), default=None)

    def of(self, name: Name) -> tuple[Rewrite, Name] | None:
        """The rule that counts for a name, and what the name stands for by it; None when no rule is about it.

        ValueError when what it stands for is longer than a name can be.
        """
        number = self.number_of(name) if self.rules else None
        target = None if number is None else self.rules[number].of(name)
        if number is None or target is None:
            return None
        if sum(map(len, target)) + len(target) + 1 > MAX_NAME:
            raise ValueError("longer than a name can be")
        return self.rules[number], target


class RewrittenNames:
    """The names that rules are about, as a zone."""

    def __init__(self, rules: Sequence[Rewrite], ttl: int) -> None:
        self._rewrites = Rewrites(rules)
        self._ttl = ttl

    @property
    def ends(self) -> Collection[Name]:
        """As `zone.Zone` has it."""
        return [rule.name for rule in self._rewrites.rules]

    def answer(self, question: Question) -> Answer | None:
        """The alias; None when no rule is about the name. One that would be too long does not exist (RFC 6672, 2.2: YXDOMAIN there)."""
        try:
            found = self._rewrites.of(question.name)
        except ValueError as error:
            return negative(question.name, self._ttl, f"rewrite of the configuration: {error}", m.NXDOMAIN)
        if found is None:
            return None
        rule, target = found
        source = f"rewrite of {'all below ' if rule.suffix else ''}{text_of(rule.name)}"
        alias = Record(question.name, m.CNAME, self._ttl, m.written(target))
        return Answer(records=(alias,), source=source, depends=CONFIG, follow=target if question.type != m.CNAME else None)
