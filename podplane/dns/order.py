"""The order of addresses: the first one is what many clients take, so it is another one each time (RFC 1794)."""

from __future__ import annotations

from collections.abc import Callable

from msgspec.structs import replace

from podplane.dns import message as m
from podplane.dns.message import Answer

ADDRESSES = (m.A, m.AAAA)
SECONDS = 1.0
"""So long one order is kept."""
KEPT_HEADER = m.HEADER.size - 2


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


def turned(response: bytes) -> bytes:
    """A kept response, without its id, with its addresses from the next one on. They are last in the answer, as `rotated` has them."""
    at = m.skip_name(response, KEPT_HEADER) + m.TAIL.size
    start = count = 0
    for _ in range(int.from_bytes(response[4:6], "big")):
        data_at = m.skip_name(response, at) + m.RECORD.size
        type_, _, _, length = m.RECORD.unpack_from(response, data_at - m.RECORD.size)
        if type_ in ADDRESSES:
            if response[at] < m.POINTER >> 8:
                return response  # its name is written here, and the others point to it
            start, count = start or at, count + 1
        at = data_at + length
    if count < 2:
        return response
    second = start + (at - start) // count
    return response[:start] + response[second:at] + response[start:second] + response[at:]
