"""Which rewrite is about a name, whatever the number of rewrites: the first in the order of the configuration that fits it."""

from __future__ import annotations

from collections.abc import Sequence

from podplane.dns.config import Rewrite
from podplane.dns.message import MAX_NAME, Name


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
