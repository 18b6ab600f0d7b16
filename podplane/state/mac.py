"""MAC addresses made from IP addresses, so that a neighbour entry needs no question to be asked.

`0a:58` and the last four bytes of the address: locally administered, unicast (IEEE 802). Addresses of one bridge are
of one block and differ in these bytes.
"""

from __future__ import annotations

from podplane.state.value import IPAddress


def mac_of(ip: IPAddress) -> str:
    """The MAC of the interface that has this address first."""
    return "0a:58:" + ip.packed[-4:].hex(":")
