"""What of the kernel podplane can't do without, and whether it is there: each with the module that brings it.

Nothing is changed to find that out. Most modules the kernel loads by itself when they are asked for; `br_netfilter` it never does.
"""

from __future__ import annotations

import errno

from podplane.kernel import link_kinds
from podplane.kernel.errors import KernelError
from podplane.kernel.namespace import Namespace
from podplane.kernel.nft.foreign import table_names
from podplane.kernel.rtnl.conflicts import MODULES
from podplane.kernel.sysctl import read_here

LINKS = ("bridge", "veth")
"""Kinds of links that every node has."""
BRIDGED = "net.bridge.bridge-nf-call-iptables"
ABSENT = frozenset({errno.EINVAL, errno.EOPNOTSUPP, errno.EPROTONOSUPPORT, errno.EAFNOSUPPORT})
"""How the kernel answers questions for what it does not have (nfnetlink_rcv_msg, __sock_create)."""


def lacking(namespace: Namespace) -> list[str]:
    """A line for each thing that this kernel lacks."""
    found = [
        f"this kernel makes no links of type {kind}: load its module (modprobe {MODULES[kind]})"
        for kind in link_kinds.unknown(namespace, LINKS)
    ]
    if why := _no_tables(namespace):
        found.append(f"this kernel has no nf_tables ({why}): load its module (modprobe nf_tables)")
    if not namespace.run(read_here, [BRIDGED]):
        found.append(
            f"there is no sysctl {BRIDGED}, so packets between pods of this node would pass no policy: load its module "
            "(modprobe br_netfilter)"
        )
    return found


def _no_tables(namespace: Namespace) -> str:
    """Why there are none; "" where there are, or where that can't be told."""
    try:
        table_names(namespace)
    except (KernelError, OSError) as error:
        return str(error) if error.errno in ABSENT else ""
    return ""
