"""Which connections an agent that starts has judged again: those about which the kernel's tables said otherwise than they are planned now.

The agent before it missed a change of policies or labels, or somebody removed its tables while no agent ran.
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
    ips = frozenset((*_led_elsewhere(memory, found, wanted), *_gone(found, wanted)))
    return (JudgeAgain(ips),) if ips else ()


def _led_elsewhere(
    memory: PolicyMemory, found: Mapping[Identity, Value], wanted: Mapping[Identity, Value]
) -> Iterator[IPAddress]:
    """Addresses under policies that the kernel led to other chains, or past all of them."""
    for ip in map(ipaddress.ip_address, memory.enforced.ips_under_policies()):
        for name in tables.MAPS.values():
            identity = tables.element(f"{name}{ip.version}", (ip,), "").identity
            before, now = found.get(identity), wanted.get(identity)
            if isinstance(now, Element) and not (isinstance(before, Element) and before.data == now.data):
                yield ip


def _gone(found: Mapping[Identity, Value], wanted: Mapping[Identity, Value]) -> Iterator[IPAddress]:
    """Addresses that a map, or a set which rules still look into, had and has no more."""
    for identity, value in found.items():
        if isinstance(value, Element) and (value.family, value.table) == tables.TABLE and identity not in wanted:
            first, holder = value.key[0], Set(family=value.family, table=value.table, name=value.set, key=())
            is_peer = value.set.startswith(PEERS) or value.set.startswith(tuple(tables.MAPS.values()))
            if is_peer and holder.identity in wanted and isinstance(first, IPAddress):
                yield first
