"""What limits the bandwidth of a pod: shapers at the node's end of its veth, out of its reach.

    to the pod      a token bucket filter (tbf) at the root of the veth's near end, by which all comes that the pod receives
    from the pod    what comes in by the near end is sent to a link of kind ifb of its own (clsact, u32, mirred), whose root is a tbf, and
                    comes in by the near end after that: the bridge, policies and everything else see it as they would without

A packet waits in a queue of 25 ms, then it is dropped, which is what TCP goes by. The root qdisc of the pod's own end would do for what
it sends, but the pod can change that. Each limited pod costs a link and a few objects, whatever the number of others.

Sources: tc-tbf(8), tc-mirred(8); containernetworking/plugins, bandwidth, which does the same.
"""

from __future__ import annotations

from collections.abc import Iterator

from podplane.model.view import Bandwidth
from podplane.state.network import Link, Qdisc, Redirect, Sysctl
from podplane.state.value import Value

QUEUE_SECONDS, BURST_SECONDS = 0.025, 0.01
"""What may wait, and, unless it is said, what may pass at once: so long at the rate."""
LEAST_QUEUE, LEAST_BURST = 32 * 1024, 8 * 1024
"""In byte, for slow rates: 20 packets, which TCP needs to be told of a loss quickly, and 5."""
FRAME_HEADER = 18
"""Ethernet, with a VLAN tag: the largest frame must fit into the burst."""
MOST_BYTES = 0xFFFF_FFFF
"""The kernel's numbers have 32 bits."""
LONGEST_BURST_SECONDS = 200
"""The kernel says bursts as times, of 274 s at most."""
NO_OPINION = 2**31 - 1
"""Container engines say such a burst, or a greater one, where a pod says none: half a gigabyte would pass at once, before any limit."""


def turn_name(veth: str) -> str:
    """The link by which a pod's packets make their turn; 15 bytes (IFNAMSIZ)."""
    return f"{veth}i"


def values(veth: str, bandwidth: Bandwidth, mtu: int, alias: str) -> Iterator[Value]:
    """What limits the pod with this near end; `mtu` in byte is that of the pod, `alias` that of links that are made for it."""
    if bandwidth.ingress_rate:
        yield shaper(veth, bandwidth.ingress_rate, bandwidth.ingress_burst, mtu)
    if bandwidth.egress_rate:
        turn = turn_name(veth)
        yield Link(name=turn, kind="ifb", mtu=mtu, alias=alias)
        yield Sysctl(name=f"net.ipv6.conf.{turn}.disable_ipv6", value="1", link=turn)
        yield shaper(turn, bandwidth.egress_rate, bandwidth.egress_burst, mtu)
        yield Redirect(link=veth, to=turn)


def shaper(link: str, rate: int, burst: int, mtu: int) -> Qdisc:
    """The shaper of a link: `rate` in bit/s, `burst` in bit, or 0 for one that suits the rate."""
    per_second = rate // 8
    wanted = burst // 8 if 0 < burst < NO_OPINION else max(LEAST_BURST, int(per_second * BURST_SECONDS))
    most = min(MOST_BYTES, per_second * LONGEST_BURST_SECONDS)
    at_once = max(mtu + FRAME_HEADER, min(most, wanted))
    queue = max(LEAST_QUEUE, int(per_second * QUEUE_SECONDS))
    return Qdisc(link=link, rate=per_second, burst=at_once, limit=min(MOST_BYTES, at_once + queue))
