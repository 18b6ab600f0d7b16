"""Routes to blocks that let those of another network count before them, while a node is migrated from that. Pure.

    10.244.2.0/24 via 10.244.2.0 dev flannel.1                         metric 0 (IPv6: 1024): theirs, as long as it is there
    10.244.2.0/24 via 10.244.2.1 dev podplane-vxlan4 metric 2048       ours
    10.244.1.0/24 dev cni0                                             the node's own block: pods that are on their bridge still
    10.244.1.7    dev cbr0                                             a pod of ours: the longest prefix counts first
    unreachable 10.244.1.0/24 metric 2048

So the way between two nodes is theirs in both directions until somebody removes it, and no packet is without one when that is done.
"""

from __future__ import annotations

import msgspec

from podplane.state.network import Route
from podplane.state.value import Fragment, fragment

METRIC = 2048
"""More than what the kernel gives to routes that say none: 0, of IPv6 1024 (IP6_RT_PRIO_USER), of addresses 256 (IP6_RT_PRIO_ADDRCONF)."""


def behind(planned: Fragment, metric: int) -> Fragment:
    """A plan whose routes of the node have this metric; as it is for 0."""
    if not metric:
        return planned
    return fragment(
        msgspec.structs.replace(one, metric=metric) if isinstance(one, Route) and not one.netns else one
        for one in planned.values()
    )
