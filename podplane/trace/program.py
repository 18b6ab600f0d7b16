"""The nf_tables of one namespace as programs: base chains in the order of their hooks, and how a packet passes one.

A packet passes all base chains of a hook, of all tables and families that see it, in the order of their priorities. "accept"
ends one base chain, "drop" ends the packet. Chains of type nat are passed at the priority of address translation, by the first packet
of a connection only, and end when one of them decided.

Sources: net/netfilter/nf_tables_core.c (nft_do_chain), net/netfilter/core.c, net/netfilter/nf_nat_core.c.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

from podplane.state.nft import ACCEPT, CONTINUE, DROP, GOTO, JUMP, RETURN, Chain, Element, Hook, NftValue, Rule, Set, Table
from podplane.state.nft_members import Members
from podplane.state.value import Value
from podplane.trace.expressions import Context, Scope, Step, Undecided, compile_expression
from podplane.trace.sets import Index

STACK_DEPTH = 16
"""NFT_JUMP_STACK_SIZE."""
SEEN_BY: dict[int | str, tuple[str, ...]] = {4: ("inet", "ip"), 6: ("inet", "ip6"), "bridge": ("bridge",)}
"""Which families' tables see a packet of IPv4, of IPv6, and a frame on a bridge."""


class Outcome(NamedTuple):
    """What a base chain did: let the packet go on or not; how it is refused ("": silently)."""

    accepted: bool
    rejected: str = ""


class Hit(NamedTuple):
    """A rule all of whose expressions passed, or the policy of a chain (rule None); elements that it found; the packet is as after it."""

    chain: Chain
    rule: Rule | None
    elements: tuple[Element, ...]


class Compiled:
    """A chain whose rules are functions, made when a packet first gets there."""

    def __init__(self, chain: Chain, scope: Scope) -> None:
        self.chain = chain
        self._scope = scope

    @functools.cached_property
    def rules(self) -> list[tuple[Rule, list[Step]]]:
        """Each rule with its expressions as functions."""
        return [(rule, [compile_expression(e, self._scope) for e in rule.expressions]) for rule in self.chain.rules]


class Program:
    """One table: its sets and its chains."""

    def __init__(self, netns: str, table: Table, sets: Mapping[str, Index], chains: Iterable[Chain]) -> None:
        scope = Scope(netns, table.family, table.table, sets)
        self._chains = {chain.name: Compiled(chain, scope) for chain in chains}

    def base_chains(self) -> Iterator[tuple[Hook, Compiled]]:
        """Those with a hook."""
        for compiled in self._chains.values():
            if compiled.chain.hook is not None:
                yield compiled.chain.hook, compiled

    def run(self, base: Compiled, context: Context, tell: Callable[[Hit], None]) -> Outcome:
        """Pass the packet through a base chain; `tell` hears of each rule that applied."""
        stack: list[tuple[Compiled, int]] = []
        chain, position = base, 0
        while True:
            if position == len(chain.rules):
                if not stack:
                    return self._policy(base, context, tell)
                chain, position = stack.pop()
                continue
            rule, steps = chain.rules[position]
            position += 1
            code, target = _apply(chain.chain, rule, steps, context, tell)
            if code in (ACCEPT, DROP):
                return Outcome(code == ACCEPT, context.rejected)
            if code in (JUMP, GOTO):
                if code == JUMP:
                    if len(stack) == STACK_DEPTH:
                        return Outcome(False)
                    stack.append((chain, position))
                chain, position = self._chain(target), 0
            elif code == RETURN:
                position = len(chain.rules)

    def _chain(self, name: str) -> Compiled:
        if name not in self._chains:
            raise Undecided(f"a rule leads to chain {name}, which is not there")
        return self._chains[name]

    @staticmethod
    def _policy(base: Compiled, context: Context, tell: Callable[[Hit], None]) -> Outcome:
        hook = base.chain.hook
        if hook is not None and hook.policy == "drop":
            tell(Hit(base.chain, None, ()))
            return Outcome(False)
        return Outcome(True)


def _apply(chain: Chain, rule: Rule, steps: list[Step], context: Context, tell: Callable[[Hit], None]) -> tuple[int, str]:
    """The verdict of one rule; CONTINUE when it has none, or does not apply."""
    context.begin_rule()
    for step in steps:
        if not step(context):
            return CONTINUE, ""
        if context.verdict is not None:
            break
    tell(Hit(chain, rule, tuple(context.found)))
    verdict = context.verdict
    return (CONTINUE, "") if verdict is None else (verdict.code, verdict.chain)


class BaseChain(NamedTuple):
    """A base chain where it is called."""

    priority: int
    program: Program
    compiled: Compiled

    @property
    def is_nat(self) -> bool:
        """Does it choose translations?"""
        hook = self.compiled.chain.hook
        return hook is not None and hook.type == "nat"

    @property
    def is_route(self) -> bool:
        """Is a packet routed again when it changed here?"""
        hook = self.compiled.chain.hook
        return hook is not None and hook.type == "route"


HARMLESS = ("nft element", "nft members", "nft set", "nft object")
"""What counts only where a rule refers to it."""


def opaque_tables(values: Iterable[Value]) -> dict[str, NftValue]:
    """By family, a chain or table of which not all is known: every packet that its family sees is undecided."""
    known = (Table, Chain, Set, Element)
    others = (value for value in values if isinstance(value, NftValue) and not isinstance(value, known))
    return {value.family: value for value in others if value.identity[0] not in HARMLESS}


def programs(netns: str, values: Iterable[Value]) -> dict[tuple[int | str, str], list[BaseChain]]:
    """(4, 6 or "bridge", hook) → base chains in the order in which packets pass them.

    Of chains with one priority the kernel calls the one that was made last first; values that are later here count as made later.
    """
    tables: dict[tuple[str, str], Table] = {}
    indices: dict[tuple[str, str], dict[str, Index]] = {}
    chains: dict[tuple[str, str], list[Chain]] = {}
    elements: list[Element] = []
    opaque: list[tuple[str, str, str]] = []
    for value in values:
        match value:
            case Table():
                tables[value.family, value.table] = value
            case Set():
                indices.setdefault((value.family, value.table), {})[value.name] = Index(value)
            case Chain():
                chains.setdefault((value.family, value.table), []).append(value)
            case Element():
                elements.append(value)
            case Members():
                elements += value.elements()
            case NftValue():
                if value.identity[0] == "nft element":
                    opaque.append((value.family, value.table, value.identity[4]))
    for family, table_name, set_name in opaque:
        if set_name in indices.get((family, table_name), {}):
            indices[family, table_name][set_name].is_opaque = True
    for element in elements:
        index = indices.get((element.family, element.table), {}).get(element.set)
        if index is not None:
            index.add(element)
    found: dict[tuple[int | str, str], list[BaseChain]] = {}
    for key, table in tables.items():
        program = Program(netns, table, indices.get(key, {}), chains.get(key, ()))
        for hook, compiled in program.base_chains():
            for seen, families in SEEN_BY.items():
                if table.family in families:
                    found.setdefault((seen, hook.hook), []).insert(0, BaseChain(hook.priority, program, compiled))
    for own in found.values():
        own.sort(key=lambda one: one.priority)
    return found
