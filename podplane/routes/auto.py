"""auto: host-gw to peers that are on a link with the node, vxlan to all others.

Pods have the MTU of vxlan whether or not there is a peer that is reached so: it does not change as nodes come and go.
"""

from __future__ import annotations

from podplane.model.config import NetworkConfig
from podplane.model.objects import Node
from podplane.routes import host_gw, underlay, vxlan
from podplane.routes.backend import Backend
from podplane.state.value import Fragment


def _way(peer: Node, node: Node, settings: NetworkConfig) -> Backend:
    """host-gw where all that both have in common is on a link."""
    shared = underlay.addresses(peer).keys() & underlay.addresses(node).keys()
    return host_gw.BACKEND if shared and shared == underlay.on_link(peer, node, settings).keys() & shared else vxlan.BACKEND


def _plan_peer(peer: Node, node: Node, settings: NetworkConfig) -> Fragment:
    return _way(peer, node, settings).plan_peer(peer, node, settings)


BACKEND = Backend(
    name="auto",
    overhead=vxlan.BACKEND.overhead,
    devices=vxlan.BACKEND.devices,
    plan_node=vxlan.BACKEND.plan_node,
    plan_peer=_plan_peer,
    depends_on=underlay.place,
    owns=vxlan.BACKEND.owns,
    is_direct=lambda peer, node, settings: _way(peer, node, settings) is host_gw.BACKEND,
)
