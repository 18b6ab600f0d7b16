"""What in the kernel is the agent's: by marks, whichever backend or feature made it."""

from __future__ import annotations

from podplane.agent.features import FEATURES
from podplane.model.config import ROUTE_PROTOCOL, NetworkConfig
from podplane.pods.plan import VETH_PREFIX
from podplane.routes.table import BY_NAME, backend
from podplane.state.ownership import Ownership


def ownership(config: NetworkConfig) -> Ownership:
    """The marks of all that an agent makes, and of what agents before it made for other backends."""
    backend(config.backend)
    routes = [way.owns(config) for way in BY_NAME.values()]
    return Ownership(
        links=frozenset({config.bridge}).union(*(one.links for one in routes)),
        link_prefixes=(VETH_PREFIX, *(prefix for one in routes for prefix in one.link_prefixes)),
        route_protocol=ROUTE_PROTOCOL,
        tables=frozenset(table for feature in FEATURES for table in feature.tables).union(*(one.tables for one in routes)),
    )
