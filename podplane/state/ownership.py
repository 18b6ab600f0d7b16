"""Which kernel objects podplane made, so that they can be told from what others put there.

Every owned object carries a mark; reading and uninstalling touch nothing else. What carries the mark:

| object | owned when |
|---|---|
| link | its alias (IFLA_IFALIAS) is `podplane` or begins with `podplane `, and its name is the owner's or has the owner's prefix |
| address, forwarding entry | it is on an owned link |
| route, rule, neighbour, proxy | its protocol (rtm_protocol, FRA_PROTOCOL, NDA_PROTOCOL) is the owner's |
| shaper, filter | it is on an owned link, and has the handle, or the priority, that podplane gives |
| checksums in software | of an owned tunnel |
| nf_tables | it is in one of the owner's tables |
"""

from __future__ import annotations

import msgspec

from podplane.state.network import Link, Neighbour, Proxy, Qdisc, Route, Rule
from podplane.state.value import Value

MARK = "podplane"
"""First word of the alias of each link that podplane made."""


def link_alias(name: str = "") -> str:
    """The alias of a link that podplane makes; `name` is the API object that the link is for (`pod/default/web`)."""
    return f"{MARK} {name}" if name else MARK


def is_marked(alias: str) -> bool:
    """Is this the alias of a link that podplane made?"""
    return alias == MARK or alias.startswith(MARK + " ")


def is_foreign(wanted: Value, present: Value) -> bool:
    """Is what is there somebody else's? `wanted` tells the mark that one of podplane's would have; without a mark, nothing is foreign."""
    if isinstance(wanted, Link) and isinstance(present, Link):
        return is_marked(wanted.alias) and not is_marked(present.alias)
    if isinstance(wanted, Route | Neighbour | Proxy | Rule) and isinstance(present, Route | Neighbour | Proxy | Rule):
        return wanted.protocol not in (0, present.protocol)
    if isinstance(wanted, Qdisc) and isinstance(present, Qdisc):
        return wanted.handle != present.handle
    return False


class Ownership(msgspec.Struct, frozen=True, kw_only=True):
    """The marks of one owner: link names and prefixes of names, the protocol number, and nf_tables tables."""

    links: frozenset[str] = frozenset()
    link_prefixes: tuple[str, ...] = ()
    route_protocol: int = 0
    tables: frozenset[tuple[str, str]] = frozenset()

    def may_name(self, link: str) -> bool:
        """Is this a name that a link of the owner may have? A link of somebody else may have it, too."""
        return link in self.links or any(map(link.startswith, self.link_prefixes))

    def owns_link(self, name: str, alias: str) -> bool:
        """Is the link with this name and alias the owner's?"""
        return is_marked(alias) and self.may_name(name)
