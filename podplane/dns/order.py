"""The order of addresses: the first one is what many clients take, so it is another one each time (RFC 1794)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from podplane.dns import message as m
from podplane.dns.message import Answer

ADDRESSES = (m.A, m.AAAA)
SECONDS = 1.0
"""So long one order is kept."""


def rotated(answer: Answer, choose: Callable[[int], int]) -> Answer:
    """The answer with its addresses from another one on; `choose` gives one of so many numbers, from 0. Aliases stay before them."""
    addresses = [record for record in answer.records if record.type in ADDRESSES]
    if len(addresses) < 2:
        return answer
    first = choose(len(addresses))
    others = [record for record in answer.records if record.type not in ADDRESSES]
    is_kept = answer.depends or answer.lifetime is not None
    lifetime = min(SECONDS, answer.lifetime or SECONDS) if is_kept else None
    return replace(answer, records=(*others, *addresses[first:], *addresses[:first]), lifetime=lifetime)
