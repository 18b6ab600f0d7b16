"""Between which nodes there is a tunnel, and the largest packet between them, by what the cluster says."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from podplane.cli import unreached
from podplane.cli.check.promises import UNKNOWN, HasTunnel, Largest
from podplane.model.config import NetworkConfig
from podplane.routes import underlay, ways


def between_nodes(client: Any, subnets: Iterable[str]) -> tuple[HasTunnel, Largest]:
    """As the Nodes and the cluster's settings are now; settings that make no sense count as none, as they do for agents that start.

    `subnets` are the networks on each of which nodes reach each other without a router.
    """
    config = unreached.config_of(client, NetworkConfig(cluster_cidrs=(), mtu=UNKNOWN, subnets=tuple(subnets)))
    nodes = unreached.nodes_of(client)

    def has_tunnel(source: str, target: str) -> bool:
        if source == target or not {source, target} <= nodes.keys():
            return False
        way = ways.towards(nodes[target], config)
        return way is not None and not way.is_direct(nodes[target], nodes[source], config)

    def largest(source: str, target: str) -> int:
        if not {source, target} <= nodes.keys():
            return UNKNOWN
        own = msgspec.structs.replace(config, mtu=underlay.mtu_to(nodes[source], config))
        return ways.path_mtu(nodes[target], nodes[source], own) or UNKNOWN

    return has_tunnel, largest
