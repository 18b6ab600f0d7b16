"""Does the kernel hold what is wanted? Fields that a value leaves to the kernel may have come out as anything.

`FIXED` names the attributes of each kind of link that only its creation can set. A change of one of them makes the link anew.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from podplane.kernel.rtnl.traffic_control import same_shaper
from podplane.state.network import PORT_MODES, Gre, Link, Peer, Qdisc, Route, Sysctl, Vxlan
from podplane.state.nft import Set
from podplane.state.value import Value

Options = Peer | Vxlan | Gre
FIXED: Mapping[str, tuple[Callable[[Link], Options | None], tuple[str, ...]]] = {
    "veth": (lambda link: link.peer, ("netns", "name", "mac")),
    "vxlan": (lambda link: link.vxlan, ("vni", "local", "port", "device", "learning")),
    "gre": (lambda link: link.gre, ("external",)),
    "ip6gre": (lambda link: link.gre, ("external",)),
}
"""Kind of link → where its options are, and which of them are set when it is created and never later.

veth_changelink does not exist (the MTU of a peer follows that of its veth: `kernel.door`); vxlan_changelink refuses VNI and port, and the
others are not worth a second way to set them. Whether a GRE device is external can't be changed (ipgre_changelink).
"""


def matches(wanted: Value, found: Value) -> bool:
    """True when `found`, as read from the kernel, fulfils `wanted`."""
    if isinstance(wanted, Link) and isinstance(found, Link):
        return _link_matches(wanted, found) and not must_recreate(found, wanted)
    if isinstance(wanted, Route) and isinstance(found, Route):
        return _route_matches(wanted, found)
    if isinstance(wanted, Set) and isinstance(found, Set):
        return wanted == msgspec.structs.replace(found, rank=wanted.rank)
    if isinstance(wanted, Qdisc) and isinstance(found, Qdisc):
        return same_shaper(wanted, found)
    if isinstance(wanted, Sysctl) and isinstance(found, Sysctl):
        return wanted.value == found.value
    return wanted == found


def must_recreate(present: Link, wanted: Link) -> bool:
    """Does the link differ in something that the kernel can't change? What `present` does not know is not compared."""
    if not wanted.kind:
        return False
    if present.kind != wanted.kind:
        return bool(present.kind)
    if wanted.kind not in FIXED:
        return False
    options, names = FIXED[wanted.kind]
    old, new = options(present), options(wanted)
    if old is None or new is None:
        return False
    return any(_differs(getattr(old, name), getattr(new, name)) for name in names)


def _differs(old: object, new: object) -> bool:
    left_to_the_kernel = new is None or new == "" or (new == 0 and new is not False)
    return not left_to_the_kernel and old != new


def _link_matches(wanted: Link, found: Link) -> bool:
    return (
        wanted.up == found.up
        and wanted.kind in ("", found.kind)
        and wanted.mtu in (0, found.mtu)
        and wanted.mac in ("", found.mac)
        and (not wanted.kind or wanted.master == found.master)
        and all(getattr(wanted, mode) == getattr(found, mode) for mode in PORT_MODES)
        and (wanted.kind != "bridge" or wanted.snooping == found.snooping)
        and wanted.alias in ("", found.alias)
    )


def _route_matches(wanted: Route, found: Route) -> bool:
    return (
        (
            wanted.destination,
            wanted.kind,
            wanted.gateway,
            wanted.metric,
            wanted.table,
            wanted.protocol,
            wanted.mtu,
            wanted.encap,
        )
        == (found.destination, found.kind, found.gateway, found.metric, found.table, found.protocol, found.mtu, found.encap)
        and wanted.link in ("", found.link)
        and wanted.source in (None, found.source)
        and (found.onlink or not wanted.onlink)
    )
