"""Between which nodes there is a tunnel, by what the cluster says."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from podplane.cli.check.promises import HasTunnel
from podplane.kubeapi.errors import ApiError
from podplane.model.config import NetworkConfig
from podplane.model.objects import Node
from podplane.routes import ways
from podplane.routes.cluster_settings import NAME, NAMESPACE, ClusterSettingsError, applied


def between_nodes(client: Any, subnets: Iterable[str]) -> HasTunnel:
    """As the Nodes and the cluster's settings are now; settings that make no sense count as none, as they do for agents that start.

    `subnets` are the networks on each of which nodes reach each other without a router.
    """
    own = NetworkConfig(cluster_cidrs=(), subnets=tuple(subnets))
    try:
        config = applied(client.get("configmaps", NAMESPACE, NAME).get("data") or {}, own)
    except (ApiError, ClusterSettingsError):
        config = own
    nodes = {node["metadata"]["name"]: msgspec.convert(node, Node) for node in client.objects("nodes")}

    def has_tunnel(source: str, target: str) -> bool:
        if source == target or not {source, target} <= nodes.keys():
            return False
        way = ways.towards(nodes[target], config)
        return way is not None and not way.is_direct(nodes[target], nodes[source], config)

    return has_tunnel
