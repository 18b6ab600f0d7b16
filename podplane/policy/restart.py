"""Which connections an agent that starts has judged again: all that are from or to pods under policies, for it can't know about which
the agent before it had judged what it changed; and those of addresses that its tables had and have no more.

An agent may be killed between a change of its tables and the walk through the connections that this forbids, and policies and labels may
change, or tables be removed, while none runs. What passes is judged once more, and goes on.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping

import msgspec

from podplane.policy import tables
from podplane.policy.feature import PolicyMemory
from podplane.state.effects import JudgeAgain
from podplane.state.nft import Element, Set
from podplane.state.nft_members import Members
from podplane.state.value import Identity, IPAddress, Value

PEERS = "local"
"""The kind of sets that are not packed and whose elements begin with the address of a pod. What other sets say is in the names of chains
that look into them."""


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
        if isinstance(value, Members) and _holder(value) in wanted:
            now = wanted.get(identity)
            none = msgspec.structs.replace(value, chunks=())
            gone = (now if isinstance(now, Members) else none).differences(value)[0]
            yield from (one for content in gone if isinstance(one := value.parts(content)[0], IPAddress))
        elif isinstance(value, Element) and (value.family, value.table) == tables.TABLE and identity not in wanted:
            first = value.key[-1 if value.set.startswith(tables.MAPS[tables.OUT]) else 0]
            is_peer = value.set.startswith((PEERS, *tables.MAPS.values()))
            if is_peer and _holder(value) in wanted and isinstance(first, IPAddress):
                yield first


def _holder(value: Element | Members) -> Identity:
    return Set(family=value.family, table=value.table, name=value.set, key=()).identity
