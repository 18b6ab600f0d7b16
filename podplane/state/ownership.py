"""What of a kernel's state is podplane's, so that it can be told from what others put there.

Every owned object can be recognized by one of these marks alone; reading and uninstalling touch nothing else.
"""

from __future__ import annotations

import msgspec


class Ownership(msgspec.Struct, frozen=True, kw_only=True):
    """The marks of one owner: link names and prefixes of names, the route protocol, and nf_tables tables.

    `neighbour_links` are interfaces of others on which permanent neighbours are owned.
    """

    links: frozenset[str] = frozenset()
    link_prefixes: tuple[str, ...] = ()
    neighbour_links: frozenset[str] = frozenset()
    route_protocol: int = 0
    tables: frozenset[tuple[str, str]] = frozenset()
