"""A packet that a rule had logged (NFLOG), as far as it says who wanted what of whom."""

from __future__ import annotations

from typing import NamedTuple


class LoggedPacket(NamedTuple):
    """`prefix` is the rule's; addresses are in their canonical text; `protocol` is tcp, udp, sctp, icmp, icmpv6, or a number in digits.

    `port` is what it was sent to; 0 of protocols without ports, and of all fragments but the first.
    """

    prefix: str
    source: str
    destination: str
    protocol: str
    port: int
