"""Which connections an agent that starts has judged again: all that are from or to pods under policies, for it can't know about which
the agent before it had judged what it changed; and those of addresses that its tables had and have no more.

An agent may be killed between a change of its tables and the walk through the connections that this forbids, and policies and labels may
change, or tables be removed, while none runs. What passes is judged once more, and goes on.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping

from podplane.policy import tables
from podplane.policy.feature import PolicyMemory
from podplane.state.effects import JudgeAgain
from podplane.state.nft import Element, Set
from podplane.state.value import Identity, IPAddress, Value

PEERS = ("pods", "named", "local")
"""Kinds of sets whose elements begin with the address of a pod. What other sets say is in the names of chains that look into them."""


def after_start(
    memory: PolicyMemory, found: Mapping[Identity, Value], wanted: Mapping[Identity, Value]
) -> tuple[JudgeAgain, ...]:
    """`found` is what the kernel had, `wanted` what is planned, which is sent next."""
    if not memory.takes_back:
        return ()
    ips = frozenset((*map(ipaddress.ip_address, memory.enforced.ips_under_policies()), *_gone(found, wanted)))
    return (JudgeAgain(ips),) if ips else ()


def _gone(found: Mapping[Identity, Value], wanted: Mapping[Identity, Value]) -> Iterator[IPAddress]:
    """Addresses that a map, or a set which rules still look into, had and has no more."""
    for identity, value in found.items():
        if isinstance(value, Element) and (value.family, value.table) == tables.TABLE and identity not in wanted:
            first, holder = value.key[0], Set(family=value.family, table=value.table, name=value.set, key=())
            is_peer = value.set.startswith(PEERS) or value.set.startswith(tuple(tables.MAPS.values()))
            if is_peer and holder.identity in wanted and isinstance(first, IPAddress):
                yield first
