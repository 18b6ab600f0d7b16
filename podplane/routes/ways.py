"""Which backends a node has, and by which of them a peer is reached.

Nodes do not learn of a change of the cluster's backend at the same time. So a node says by an annotation by which backends it can be
reached, a peer is reached by the cluster's backend once the peer has it, and what a node had before stays until nobody sends by it.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable

from podplane.model.config import BACKENDS, NetworkConfig
from podplane.model.objects import Node
from podplane.routes import offload
from podplane.routes.backend import Backend
from podplane.routes.table import backend
from podplane.state.links import carries
from podplane.state.nft_rules import Row
from podplane.state.value import Fragment


def of(config: NetworkConfig) -> tuple[Backend, ...]:
    """The node's backends: that of the cluster, and former ones."""
    return _named(config.backend, config.former_backends)


@functools.lru_cache(64)
def _named(first: str, others: tuple[str, ...]) -> tuple[Backend, ...]:
    return tuple(map(backend, dict.fromkeys((first, *others))))


def towards(peer: Node, config: NetworkConfig) -> Backend | None:
    """The backend by which a peer is reached; None where it has none of the node's."""
    ways, theirs = of(config), reached_by(peer)
    if theirs is None:
        return ways[0]
    return next((way for way in ways if way.name in theirs), None)


def why_not(peer: Node, node: Node, config: NetworkConfig) -> str:
    """Why pods of a peer are not reached, or some of their addresses; "" where they are."""
    way = towards(peer, config)
    if way is None:
        return f"{peer.metadata.name} can't be reached by {config.backend}, which {node.metadata.name} has"
    return way.why_not(peer, node, config) if config.subnets else ""


def reached_by(node: Node) -> frozenset[str] | None:
    """The backends by which the node says that it can be reached; None where it says nothing."""
    text = node.metadata.annotations.get(BACKENDS)
    return None if text is None else frozenset(text.split(","))


def are_left(config: NetworkConfig, nodes: Iterable[Node]) -> bool:
    """Can all of these nodes be reached by the cluster's backend?"""
    return all(theirs is None or config.backend in theirs for theirs in map(reached_by, nodes))


def pod_mtu(node: Node, config: NetworkConfig) -> int:
    """The MTU of a node's pods, in bytes: what passes by each of its backends."""
    return min(way.pod_mtu(node, config) for way in of(config))


def path_mtu(peer: Node, node: Node, config: NetworkConfig) -> int:
    """The largest packet of a pod of `node` to one of the peer, in bytes, as far as both nodes know; 0 where it is not reached."""
    way = towards(peer, config)
    return way.path_mtu(peer, node, config) if way is not None else 0


def too_narrow(node: Node, config: NetworkConfig) -> str:
    """Why pods of other nodes are not reached by IPv6, though the node has a block of it; "" where they are."""
    room = min(way.room(node, config) for way in of(config))
    if carries(6, room) or not any(":" in block for block in node.spec.pod_cidrs):
        return ""
    return (
        f"its uplink {config.uplink} carries packets of at most {config.mtu} bytes, which leaves {room} for pods: they don't reach pods "
        "of other nodes by IPv6, which needs 1280 (RFC 8200, section 5)"
    )


def devices(config: NetworkConfig) -> tuple[str, ...]:
    """Names of the links through which pods of other nodes are reached."""
    return tuple(name for way in of(config) for name in way.devices)


def without_offload(config: NetworkConfig) -> list[str]:
    """Types of tunnels whose checksums and segments are made in software, and why."""
    kinds = dict.fromkeys(kind for way in of(config) for kind in way.kinds.values())
    return [f"{kind}: {why}" for kind in kinds if (why := offload.why_not(kind, config))]


def outer(config: NetworkConfig) -> tuple[Row, ...]:
    """What matches the packets in which those of pods travel between nodes, by each of the backends that encapsulate."""
    return tuple(dict.fromkeys(row for way in of(config) if (row := way.outer(config))))


def plan_node(node: Node, config: NetworkConfig) -> Fragment:
    """What the backends need on the node whatever peers it has."""
    return {identity: value for way in of(config) for identity, value in way.plan_node(node, config).items()}
