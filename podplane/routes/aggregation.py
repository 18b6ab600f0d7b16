"""The fewest prefixes for a node's blocks: adjoining ones are routed as one (RFC 4632, section 5). Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from podplane.state.value import IPNetwork, network_of


def aggregated(blocks: Iterable[str]) -> list[IPNetwork]:
    """The fewest networks that together hold just the addresses of these blocks. Nearly all nodes have one block of an IP version."""
    found = list(map(network_of, blocks))
    if len(found) < 2 or len({block.version for block in found}) == len(found):
        return found
    by_version = [[block for block in found if block.version == version] for version in (4, 6)]
    return [one for row in by_version for one in ipaddress.collapse_addresses(row)]  # type: ignore[type-var]  # one version in each
