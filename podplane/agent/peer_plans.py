"""What other nodes add to a node: mostly the same on every node, so all agents of a process share one plan of each peer."""

from __future__ import annotations

from collections.abc import Hashable
from typing import NamedTuple

from podplane.model.config import NetworkConfig
from podplane.model.objects import Node
from podplane.nodes import plan as nodes
from podplane.nodes.settings import NodeSettings
from podplane.routes import ways
from podplane.routes.backend import Backend
from podplane.routes.behind import behind
from podplane.state.value import Fragment

Read = tuple[tuple[int, ...], Hashable, NetworkConfig, NodeSettings]
"""What a plan reads besides the peer: IP versions, what the backend reads of the planning node, settings."""


class Reader(NamedTuple):
    """Who plans, and what its plans read besides the peer: worked out once, as thousands of peers may be planned in a row."""

    node: Node
    versions: tuple[int, ...]
    config: NetworkConfig
    own: NodeSettings
    read: Read

    def is_of(self, node: Node, versions: tuple[int, ...], config: NetworkConfig, own: NodeSettings) -> bool:
        """Is it the same node, with the same settings?"""
        return self.node is node and self.config is config and self.own is own and self.versions == versions


class PeerPlans:
    """The last plan of each peer, one for each; of peers that are gone, none."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[Node, Read, Fragment]] = {}
        self._readers: dict[tuple[str, str], Reader] = {}
        """By the names of the planning node and of the backend."""

    def __len__(self) -> int:
        return len(self._known)

    def plan(self, peer: Node, node: Node, versions: tuple[int, ...], config: NetworkConfig, own: NodeSettings) -> Fragment:
        """The way from `node` to the peer's pods; and the peer's addresses as those of a node, which pods reach with their own address
        where the network between both nodes knows pods."""
        name, way = peer.metadata.name, ways.towards(peer, config)
        if way is None:
            return {}
        read = self._read(way, node, versions, config, own)
        known = self._known.get(name)
        if known is None or known[0] is not peer or known[1] != read:
            planned = behind(way.plan_peer(peer, node, config), config.route_metric)
            if way.is_direct(peer, node, config):
                planned = {**planned, **nodes.peer_plan(peer, versions, own)}
            known = self._known[name] = (peer, read, planned)
        return known[2]

    def _read(self, way: Backend, node: Node, versions: tuple[int, ...], config: NetworkConfig, own: NodeSettings) -> Read:
        reader = self._readers.get((node.metadata.name, way.name))
        if reader is None or not reader.is_of(node, versions, config, own):
            reader = Reader(node, versions, config, own, (versions, way.depends_on(node, config), config, own))
            self._readers[node.metadata.name, way.name] = reader
        return reader.read

    def remove(self, name: str) -> None:
        """A peer is gone."""
        self._known.pop(name, None)
