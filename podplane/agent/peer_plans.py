"""What other nodes add to a node: the same on every node, so all agents of a process share one plan of each peer."""

from __future__ import annotations

from podplane.model.config import NetworkConfig
from podplane.model.objects import Node
from podplane.nodes import plan as nodes
from podplane.nodes.settings import NodeSettings
from podplane.routes import host_gw
from podplane.state.value import Fragment


class PeerPlans:
    """The last plan of each peer; of peers that are gone, none."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[Node, NetworkConfig, NodeSettings, tuple[int, ...], Fragment]] = {}

    def __len__(self) -> int:
        return len(self._known)

    def plan(self, peer: Node, versions: tuple[int, ...], config: NetworkConfig, own: NodeSettings) -> Fragment:
        """Routes to the peer's pods, and its addresses as those of a node."""
        name = peer.metadata.name
        known = self._known.get(name)
        if known is None or known[0] is not peer or known[1:4] != (config, own, versions):
            planned = {**host_gw.plan(peer, config), **nodes.peer_plan(peer, versions, own)}
            known = self._known[name] = (peer, config, own, versions, planned)
        return known[4]

    def forget(self, name: str) -> None:
        """A peer is gone."""
        self._known.pop(name, None)
