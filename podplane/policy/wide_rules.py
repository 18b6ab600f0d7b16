"""Rules of some policies by their ports: which may cover another one is looked up, not looked for among all."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from podplane.model.policy import Direction, NetworkPolicy, PolicyPort, PolicyRule

Numbered = tuple[NetworkPolicy, int, PolicyRule]
"""A policy, the number of one of its rules (from 1), and this rule."""
BLOCK, MAX_BLOCKS = 64, 32
"""Ranges are looked up by the blocks of so many ports that they have a part of; those of more blocks are always looked at."""


class WideRules:
    """Those of one direction, in the order of the policies."""

    def __init__(self, policies: Iterable[NetworkPolicy], direction: Direction) -> None:
        found = [(one, n, rule) for one in policies for n, rule in enumerate(one.rules(direction) or (), 1)]
        self._rules = dict(enumerate(found))
        self._by_port: dict[PolicyPort, list[int]] = {}
        self._many_ports: list[int] = []
        """Those of all ports, or of wide ranges."""
        self._by_block: dict[tuple[str, int], list[int]] = {}
        for place, (_, _, rule) in self._rules.items():
            if rule.ports is None or any(map(_is_many, rule.ports)):
                self._many_ports.append(place)
            for port in dict.fromkeys(rule.ports or ()):
                self._by_port.setdefault(port, []).append(place)
                for block in _blocks(port) if _is_range(port) and not _is_many(port) else ():
                    self._by_block.setdefault((port.protocol, block), []).append(place)

    def candidates(self, narrow: PolicyRule) -> Iterator[Numbered]:
        """All rules that cover this one, and some others."""
        if not narrow.ports:
            yield from (one for one in self._rules.values() if narrow.ports == () or one[2].ports is None)
            return
        port = narrow.ports[0]
        of_block = self._by_block.get((port.protocol, next(iter(_blocks(port)), -1)), ())
        for place in sorted({*self._many_ports, *self._by_port.get(port, ()), *of_block}):
            yield self._rules[place]


def _is_many(port: PolicyPort) -> bool:
    return port.port is None or len(_blocks(port)) > MAX_BLOCKS


def _is_range(port: PolicyPort) -> bool:
    return isinstance(port.port, tuple) and port.port[0] != port.port[1]


def _blocks(port: PolicyPort) -> range:
    """Those that it has a part of; none of a name, and of all ports."""
    if not isinstance(port.port, tuple):
        return range(0)
    first, last = port.port
    return range(first // BLOCK, last // BLOCK + 1)
