"""Two backends at once: host-gw to peers that are on a link with the node, and a tunnel to all others, past a router that knows no pods.

`auto` is that with vxlan; host-gw with `cross-subnet` names the tunnel, and the pair has a name of its own, by which nodes say that they
can be reached so. Pods have the MTU of the tunnel whether or not there is a peer that is reached so: it does not change as nodes come and
go.
"""

from __future__ import annotations

from collections.abc import Mapping

from podplane.model.config import NetworkConfig
from podplane.model.objects import Node
from podplane.routes import gre, host_gw, underlay, vxlan
from podplane.routes.backend import Backend
from podplane.state.value import Fragment

TUNNELS: Mapping[str, Backend] = {tunnel.name: tunnel for tunnel in (vxlan.BACKEND, gre.BACKEND)}
"""What `cross-subnet` may say."""


def is_near(peer: Node, node: Node, settings: NetworkConfig) -> bool:
    """Is all that both have in common on a link?"""
    shared = underlay.addresses(peer).keys() & underlay.addresses(node).keys()
    return bool(shared) and shared == underlay.on_link(peer, node, settings).keys() & shared


def name_of(backend: str, tunnel: str) -> str:
    """The name of host-gw together with a tunnel, or of a backend alone ("" as `tunnel`). ValueError for what can't be."""
    if not tunnel:
        return backend
    if tunnel not in TUNNELS:
        raise ValueError(f"there is no tunnel {tunnel!r}: choose one of {', '.join(TUNNELS)}")
    if backend != host_gw.BACKEND.name:
        raise ValueError(f"it is of {host_gw.BACKEND.name}, and the backend is {backend}: leave one of them out")
    return f"{backend}+{tunnel}"


def _with(name: str, tunnel: Backend) -> Backend:
    def way(peer: Node, node: Node, settings: NetworkConfig) -> Backend:
        return host_gw.BACKEND if is_near(peer, node, settings) else tunnel

    def plan_peer(peer: Node, node: Node, settings: NetworkConfig) -> Fragment:
        return way(peer, node, settings).plan_peer(peer, node, settings)

    return Backend(
        name=name,
        overhead=tunnel.overhead,
        devices=tunnel.devices,
        kinds=tunnel.kinds,
        plan_node=tunnel.plan_node,
        plan_peer=plan_peer,
        depends_on=underlay.place,
        owns=tunnel.owns,
        carried_in=tunnel.carried_in,
        outer=tunnel.outer,
        is_direct=lambda peer, node, settings: way(peer, node, settings) is host_gw.BACKEND,
        tunnel=tunnel.name,
    )


AUTO = _with("auto", vxlan.BACKEND)
PAIRS = tuple(_with(name_of(host_gw.BACKEND.name, name), tunnel) for name, tunnel in TUNNELS.items())
