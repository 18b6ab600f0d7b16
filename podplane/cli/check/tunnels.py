"""Between which nodes there is a tunnel, by what the cluster says."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from podplane.cli import unreached
from podplane.cli.check.promises import HasTunnel
from podplane.model.config import NetworkConfig
from podplane.routes import ways


def between_nodes(client: Any, subnets: Iterable[str]) -> HasTunnel:
    """As the Nodes and the cluster's settings are now; settings that make no sense count as none, as they do for agents that start.

    `subnets` are the networks on each of which nodes reach each other without a router.
    """
    config = unreached.config_of(client, NetworkConfig(cluster_cidrs=(), subnets=tuple(subnets)))
    nodes = unreached.nodes_of(client)

    def has_tunnel(source: str, target: str) -> bool:
        if source == target or not {source, target} <= nodes.keys():
            return False
        way = ways.towards(nodes[target], config)
        return way is not None and not way.is_direct(nodes[target], nodes[source], config)

    return has_tunnel
