"""rtnetlink: links, addresses, routes, neighbours, forwarding entries and rules of one network namespace (RFC 3549)."""

from podplane.kernel.rtnl.matching import matches
from podplane.kernel.rtnl.table import Rtnl

__all__ = ["Rtnl", "matches"]
