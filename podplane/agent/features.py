"""The features of a node and what each plans: a literal list, in place of any discovery.

A feature has keys. `affected` says which of them a changed node object touches; `plan` turns one key into its fragment.
Pod sandboxes are planned under the sandbox's own key whenever they are attached or detached.
"""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Hashable, Iterable

from podplane.model.config import UNDERLAY_MAC, NetworkConfig
from podplane.model.objects import Node
from podplane.model.view import Sandbox, View
from podplane.nodes import plan as nodes
from podplane.pods import bridge
from podplane.pods import plan as pods
from podplane.routes.table import backend
from podplane.services import announce, flows, tables
from podplane.services import plan as services
from podplane.services.endpoints import Place
from podplane.services.flows import Ways
from podplane.services.numbers import Numbers
from podplane.services.plan import NodeContext
from podplane.state.value import Fragment, IPAddress, IPNetwork, Value

NODE, PEER, POD, SERVICE, ANNOUNCE = "node", "peer", "pod", "service", "announce"
ZONE = "topology.kubernetes.io/zone"


def affected(old: Node | None, new: Node | None, view: View) -> Iterable[str]:
    """The keys whose fragments may differ after this change of a node object."""
    node = new or old
    if node is None or _planned_of(old) == _planned_of(new):
        return ()
    if node.metadata.name != view.node_name:
        return (f"{PEER}/{node.metadata.name}",)
    peers = (f"{PEER}/{name}" for name in view.nodes if name != view.node_name)
    paths = (*(f"{SERVICE}/{path}" for path in view.services), *(f"{ANNOUNCE}/{path}" for path in view.announced))
    return (f"{NODE}/{node.metadata.name}", *peers, *view.sandboxes, *paths)


def _planned_of(node: Node | None) -> object:
    """What plans read of a node: a change of anything else touches no key."""
    metadata = node.metadata if node else None
    return (
        node
        and metadata
        and (
            node.spec.pod_cidrs,
            node.internal_ips,
            metadata.annotations.get(UNDERLAY_MAC),
            metadata.uid,
            metadata.labels.get(ZONE),
        )
    )


class PeerPlans:
    """What other nodes add to a node: mostly the same on every node, so all agents of a process share one plan of each peer."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[Node, NetworkConfig, Hashable, Fragment]] = {}

    def plan(self, peer: Node, node: Node, versions: tuple[int, ...], config: NetworkConfig) -> Fragment:
        """The way from `node` to the peer's pods, and the peer's addresses as those of a node."""
        name, routes = peer.metadata.name, backend(config.backend)
        read = (versions, routes.depends_on(node))
        known = self._known.get(name)
        if known is None or known[0] is not peer or known[1] is not config or known[2] != read:
            planned = {**routes.plan_peer(peer, node, config), **nodes.peer_plan(peer, versions, config)}
            known = self._known[name] = (peer, config, read, planned)
        return known[3]


def plan(key: str, view: View, config: NetworkConfig, peers: PeerPlans, numbers: Numbers) -> Fragment:
    """The fragment of one key; empty when what it stands for is gone."""
    feature, _, name = key.partition("/")
    if feature == POD:
        sandbox = view.sandboxes.get(key)
        return _pod(sandbox, view, config) if sandbox else {}
    if feature == SERVICE:
        return _service(name, view, config, numbers)
    if feature == ANNOUNCE:
        service = view.services.get(name) if name in view.announced else None
        return announce.plan(service, view.node, config) if service and view.node else {}
    node = view.nodes.get(name)
    if node is None or view.node is None:
        return {}
    if feature == NODE:
        return _node(node, config)
    return peers.plan(node, view.node, view.versions, config)


def _node(node: Node, config: NetworkConfig) -> Fragment:
    routes = backend(config.backend)
    own = {**nodes.plan(node, config, routes.pod_mtu(node, config)), **bridge.plan(node, config)}
    return {**own, **tables.plan(node, config), **routes.plan_node(node, config)}


def _pod(sandbox: Sandbox, view: View, config: NetworkConfig) -> Fragment:
    mtu = backend(config.backend).pod_mtu(view.node, config) if view.node else 0
    return {**pods.plan(sandbox, view, config, mtu), **services.hairpin(sandbox, view, config)}


def _service(path: str, view: View, config: NetworkConfig, numbers: Numbers) -> Fragment:
    service, context = view.services.get(path), _context(view, config)
    return services.plan(service, view.slices_of(path), context, numbers) if service and context else {}


def ways(path: str, view: View, config: NetworkConfig, planned: Fragment) -> Ways:
    """Where UDP and SCTP connections to a Service may go, that is planned so."""
    service = view.services.get(path)
    context = _context(view, config) if service and flows.has_any(service) else None
    return flows.ways(service, view.slices_of(path), context, planned) if service and context else {}


def without(key: str, planned: Fragment, clash: Value) -> Fragment:
    """A fragment without what another key has already; as it is, when that would be nothing whole."""
    return services.without(planned, clash) if key.partition("/")[0] == SERVICE else planned


def unserved(path: str, view: View, config: NetworkConfig) -> Iterable[str]:
    """What a Service asks for in vain, in words."""
    service = view.services.get(path)
    context = _context(view, config) if service and service.spec.external_ips else None
    return services.unserved(service, context) if service and context else ()


def order(key: str, view: View) -> tuple[str, str, str]:
    """Of two keys that want the same, the one that comes first here has it: of Services the older one, on every node."""
    feature, _, path = key.partition("/")
    service = view.services.get(path) if feature == SERVICE else None
    return feature, service.metadata.creation_timestamp if service else "", path


def _context(view: View, config: NetworkConfig) -> NodeContext | None:
    """The node as Services see it; None while there is nothing to serve with."""
    node = view.node
    if node is None or not view.versions or not config.service_cidrs:
        return None
    place = Place(node.metadata.name, node.metadata.labels.get(ZONE, ""))
    addresses = _node_port_addresses(node.internal_ips, config.node_port_addresses)
    return NodeContext(place, view.versions, addresses, _networks(config.service_cidrs))


@functools.cache
def _networks(cidrs: tuple[str, ...]) -> tuple[IPNetwork, ...]:
    return tuple(map(ipaddress.ip_network, cidrs))


@functools.lru_cache(maxsize=2048)
def _node_port_addresses(ips: tuple[str, ...], cidrs: tuple[str, ...]) -> tuple[IPAddress, ...]:
    """The addresses of a node that serve node ports: those in these CIDRs, or all."""
    own = map(ipaddress.ip_address, ips)
    return tuple(ip for ip in own if not cidrs or any(ip in network for network in _networks(cidrs)))
