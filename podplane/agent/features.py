"""The features of a node's agent: a literal table, in place of any discovery. A new feature is a folder, a key and a row here.

See docs/adding-a-feature.md.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from podplane.agent import policy_plans, service_plans
from podplane.agent.feature import Feature, Taken, Watch
from podplane.agent.keys import (
    AdvertisementKey,
    AttachmentKey,
    HostPortKey,
    Key,
    NameServerKey,
    NodeKey,
    PeerKey,
    PolicyNameServersKey,
    PolicyPeersKey,
    PolicyPodKey,
    PolicySetKey,
    ServiceKey,
)
from podplane.agent.peer_plans import PeerPlans
from podplane.agent.settings import Settings
from podplane.dns import node as dns
from podplane.dns.settings import DnsSettings
from podplane.hostports import feature as hostports
from podplane.hostports import tables as hostport_tables
from podplane.hostports.feature import HostPortMemory
from podplane.hostports.settings import HostPortSettings
from podplane.model.config import BACKENDS, UNDERLAY_MAC, UNDERLAY_MTU, NetworkConfig
from podplane.model.objects import Node
from podplane.model.service import EndpointSlice, Service
from podplane.model.view import Sandbox, View
from podplane.nodes import plan as nodes
from podplane.nodes.settings import NodeSettings
from podplane.pods import additional, bridge, former
from podplane.pods import plan as pods
from podplane.policy import tables as policy_tables
from podplane.policy.feature import PolicyMemory
from podplane.policy.index import Change
from podplane.policy.restart import after_start
from podplane.routes import ways
from podplane.routes.behind import behind
from podplane.routes.usable import TELLERS, Usable, is_teller, usable
from podplane.routes.withdrawal import withdrawn
from podplane.services import announce, lifetime, tables
from podplane.services.elements import hairpin
from podplane.services.feature import ServicesMemory
from podplane.state.effects import NOTHING, Announce, Plan, Warn
from podplane.state.value import Fragment

ZONE = "topology.kubernetes.io/zone"


# Which keys a change concerns.


def _is_planned_alike(old: Node, new: Node) -> bool:
    """Do these say the same of a node, as far as plans read it? A change of anything else touches no key."""
    before, now = old.metadata, new.metadata
    return (
        old.spec.pod_cidrs == new.spec.pod_cidrs
        and (old.status.addresses == new.status.addresses or (old.internal_ips, old.ips) == (new.internal_ips, new.ips))
        and all(before.annotations.get(name) == now.annotations.get(name) for name in (UNDERLAY_MAC, BACKENDS))
        and before.uid == now.uid
        and before.labels.get(ZONE) == now.labels.get(ZONE)
    )


def _concerns(old: Node | None, new: Node | None) -> str:
    """The name of a node of which something changed that plans read, or ""."""
    node = new or old
    if node is None or (old is not None and new is not None and _is_planned_alike(old, new)):
        return ""
    return node.metadata.name


def _own_node(old: Node | None, new: Node | None, view: View) -> bool:
    node = new or old
    return node is not None and node.metadata.name == view.node_name and bool(_concerns(old, new))


def _node(old: Node | None, new: Node | None, view: View) -> Iterable[Key]:
    return (NodeKey(view.node_name),) if _own_node(old, new, view) else ()


def _peers(old: Node | None, new: Node | None, view: View) -> Iterable[Key]:
    if _own_node(old, new, view):
        return map(PeerKey, [name for name in view.nodes if name != view.node_name])
    name = _concerns(old, new) or _takes_others(old, new)
    node = new or old
    touched = view.claims.touched(node.metadata.name) if view.claims is not None and node is not None else ()
    if touched and node is not None:
        return map(PeerKey, (node.metadata.name, *touched))
    return (PeerKey(name),) if name else ()


def _takes_others(old: Node | None, new: Node | None) -> str:
    """The name of a node that says that it takes larger packets, or smaller ones, than before; "" of any other."""
    if old is None or new is None or old.metadata.annotations.get(UNDERLAY_MTU) == new.metadata.annotations.get(UNDERLAY_MTU):
        return ""
    return new.metadata.name


def _all_attachments(old: Node | None, new: Node | None, view: View) -> Iterable[Key]:
    return map(attachment_key, tuple(view.sandboxes.values())) if _own_node(old, new, view) else ()


def _attachment(old: Sandbox | None, new: Sandbox | None, view: View) -> Iterable[Key]:
    """Its own key, and those of the pod's other interfaces: one has the default routes, and gives them up before another gets them."""
    sandbox = new or old
    if sandbox is None:
        return ()
    if sandbox.network is not None:  # the node's table knows the ports of further networks
        return _around(NodeKey(view.node_name), attachment_key(sandbox), new)
    others = [one for one in view.interfaces.get(sandbox.netns, {}).values() if one.ifname != sandbox.ifname]
    return map(attachment_key, (sandbox, *others) if new is None else (*others, sandbox))


def attachment_key(sandbox: Sandbox) -> AttachmentKey:
    """The key of an attachment."""
    return AttachmentKey(f"{sandbox.namespace}/{sandbox.name}", sandbox.container_id, sandbox.ifname, sandbox.uid)


def _all_host_ports(old: Node | None, new: Node | None, view: View) -> Iterable[Key]:
    if not _own_node(old, new, view):
        return ()
    return [host_port_key(sandbox) for sandbox in view.sandboxes.values() if sandbox.host_ports]


def _host_ports(old: Sandbox | None, new: Sandbox | None, view: View) -> Iterable[Key]:
    """Its own key, and the node's: the table of host ports is there while a pod has one."""
    sandbox = new or old
    return _around(NodeKey(view.node_name), host_port_key(sandbox), new) if sandbox and sandbox.host_ports else ()


def _around(node: NodeKey, own: Key, new: Sandbox | None) -> Iterable[Key]:
    """What the node has for a pod comes before what is the pod's, and goes after it: the set, and its elements."""
    return (node, own) if new is not None else (own, node)


def host_port_key(sandbox: Sandbox) -> HostPortKey:
    """The key of the host ports of an attachment."""
    return HostPortKey(f"{sandbox.namespace}/{sandbox.name}", sandbox.container_id, sandbox.ifname, sandbox.uid)


def _all_policy_pods(old: Node | None, new: Node | None, view: View) -> Iterable[Key]:
    own = [one for one in view.sandboxes.values() if one.network is None]
    return map(policy_plans.pod_key, own) if _own_node(old, new, view) else ()


def _age(key: HostPortKey, view: View) -> tuple[int]:
    """The place of an attachment among those of the node, by age. It is asked for only when two pods claim the same port."""
    ids = list(view.sandboxes)
    return (ids.index((key.container_id, key.ifname)) if (key.container_id, key.ifname) in view.sandboxes else len(ids),)


def _all_services(old: Node | None, new: Node | None, view: View) -> Iterable[Key]:
    return map(ServiceKey, tuple(view.services)) if _own_node(old, new, view) else ()


def _service(old: Service | None, new: Service | None, view: View) -> Iterable[Key]:
    service = new or old
    return (ServiceKey(service.metadata.path),) if service else ()


def _slice(old: EndpointSlice | None, new: EndpointSlice | None, view: View) -> Iterable[Key]:
    return (ServiceKey(path) for path in {slice_.service for slice_ in (old, new) if slice_} if path)


def _name_server(old: Node | None, new: Node | None, view: View) -> Iterable[Key]:
    return (NameServerKey(view.node_name),) if _own_node(old, new, view) else ()


def _name_servers(old: EndpointSlice | None, new: EndpointSlice | None, view: View) -> Iterable[Key]:
    return (NameServerKey(view.node_name),) if _is_about_others(old, new, view) else ()


def _name_servers_in_policies(old: EndpointSlice | None, new: EndpointSlice | None, view: View) -> Iterable[Key]:
    return (PolicyNameServersKey(view.node_name),) if _is_about_others(old, new, view) else ()


def _is_about_others(old: EndpointSlice | None, new: EndpointSlice | None, view: View) -> bool:
    """Name servers of others count while this node has none."""
    return not view.has_name_server and any(one and one.service == dns.SERVICE for one in (old, new))


def _all_advertised(old: Node | None, new: Node | None, view: View) -> Iterable[Key]:
    return map(AdvertisementKey, tuple(view.advertised)) if _own_node(old, new, view) else ()


def _advertised(old: Service | None, new: Service | None, view: View) -> Iterable[Key]:
    service = new or old
    return (AdvertisementKey(service.metadata.path),) if service and service.metadata.path in view.advertised else ()


# What a key plans.


def _plan_node(view: View, key: NodeKey, settings: Settings, memory: None, taken: Taken) -> Plan:
    """The node's own network, and what every feature needs on it."""
    node = view.node
    if node is None:
        return NOTHING
    parts = (feature.on_node(view, node, feature.settings(settings)) for feature in FEATURES)
    why_not = ways.too_narrow(node, settings.network)
    fragment = {identity: value for part in parts for identity, value in part.items()}
    own = usable(view.registered or node, settings.network, view.claims.lost(key.path, key.path) if view.claims else {})
    return Plan(fragment=fragment, effects=(*_left_out(own, view), *([Warn(why_not)] if why_not else [])))


def _own_network(view: View, node: Node, settings: Settings) -> Fragment:
    network = settings.network
    planned = nodes.plan(node, network, settings.nodes, ways.pod_mtu(node, network), ways.devices(network), ways.outer(network))
    return {**behind(planned, network.route_metric), **former.on_node(node, network)}


def _host_ports_on_node(view: View, node: Node, settings: tuple[NetworkConfig, HostPortSettings]) -> Fragment:
    config, own = settings
    is_used = own.enabled and any(sandbox.host_ports for sandbox in view.sandboxes.values())
    return hostport_tables.on_node(node, config, is_used=is_used)


def _plan_host_ports(
    view: View,
    key: HostPortKey,
    settings: tuple[NetworkConfig, HostPortSettings],
    memory: HostPortMemory,
    taken: Taken,
) -> Plan:
    sandbox = view.sandboxes.get((key.container_id, key.ifname))
    return hostports.plan(key, sandbox, view.node, *settings, memory, taken, view.listeners)


def _plan_peer(view: View, key: PeerKey, settings: tuple[NetworkConfig, NodeSettings], memory: PeerPlans, taken: Taken) -> Plan:
    peer, node = view.nodes.get(key.path), view.node
    if peer is None:
        memory.remove(key.path)
    if peer is None or node is None or key.path == view.node_name:
        return NOTHING
    counted = usable(peer, settings[0], view.claims.lost(key.path, view.node_name) if view.claims else {})
    peer = counted.node
    planned = memory.plan(peer, node, view.versions, *settings)
    if key.path in view.withdrawn:
        planned = withdrawn(planned, peer)
    why_not = ways.why_not(peer, node, settings[0])
    if not counted.reasons and not why_not:
        return Plan(fragment=planned)
    return Plan(fragment=planned, effects=(*_left_out(counted, view), *([Warn(why_not)] if why_not else [])))


def _left_out(counted: Usable, view: View) -> Iterable[Warn]:
    """What of a Node does not count is told in the status of each node, and by an event of some of them."""
    if counted.reasons:
        name = counted.node.metadata.name
        first = view.claims.first(TELLERS) if view.claims is not None else sorted(view.nodes)[:TELLERS]
        yield Warn(counted.sentence, is_event=is_teller(view.node_name, name, first))


def _plan_attachment(
    view: View, key: AttachmentKey, settings: tuple[NetworkConfig, NetworkConfig], memory: None, taken: Taken
) -> Plan:
    config, of_services = settings
    sandbox = view.sandboxes.get((key.container_id, key.ifname))
    if sandbox is None or view.node is None:
        return NOTHING
    if sandbox.network is not None:
        return Plan(fragment=additional.plan(sandbox, sandbox.network, config))
    mtu = ways.pod_mtu(view.node, config)
    planned = {**pods.plan(sandbox, view, config, mtu), **former.of_pod(sandbox, config), **hairpin(sandbox, view, of_services)}
    return Plan(fragment=planned, effects=former.effects(sandbox, config))


def _served(settings: Settings) -> NetworkConfig:
    """The network as Services have it: without theirs where another proxy of the node serves them."""
    network = settings.network
    return network if settings.services.enabled else msgspec.structs.replace(network, service_cidrs=())


def _bridge_on_node(view: View, node: Node, settings: tuple[NetworkConfig, NetworkConfig]) -> Fragment:
    return bridge.plan(node, settings[0], has_further=any(one.network is not None for one in view.sandboxes.values()))


def _plan_name_server(
    view: View, key: NameServerKey, settings: tuple[NetworkConfig, DnsSettings], memory: None, taken: Taken
) -> Plan:
    return Plan(fragment=dns.plan(view, *settings))


def _plan_advertisement(view: View, key: AdvertisementKey, config: NetworkConfig, memory: None, taken: Taken) -> Plan:
    service = view.services.get(key.path) if key.path in view.advertised else None
    if service is None or view.node is None:
        return NOTHING
    ips = tuple(announce.announced_ips(service, view.versions, config))
    effects = (Announce(config.uplink, ips),) if ips else ()
    return Plan(fragment=announce.plan(service, view.node, config), effects=effects)


FEATURES: tuple[Feature[Any, Any], ...] = (
    Feature(
        name="nodes",
        key=NodeKey,
        watches=(Watch(Node, _node),),
        settings=lambda settings: settings,
        plan=_plan_node,
        on_node=_own_network,
        tables=frozenset({nodes.TABLE}),
    ),
    Feature(
        name="routes",
        key=PeerKey,
        watches=(Watch(Node, _peers),),
        settings=lambda settings: (settings.network, settings.nodes),
        plan=_plan_peer,
        on_node=lambda view, node, settings: ways.plan_node(node, settings[0]),
        memory=lambda shared: shared,
    ),
    Feature(
        name="pods",
        key=AttachmentKey,
        watches=(Watch(Node, _all_attachments), Watch(Sandbox, _attachment)),
        settings=lambda settings: (settings.network, _served(settings)),
        plan=_plan_attachment,
        on_node=_bridge_on_node,
        tables=frozenset({bridge.TABLE}),
    ),
    Feature(
        name="policies",
        key=PolicyPodKey,
        watches=(Watch(Node, _all_policy_pods), Watch(Sandbox, policy_plans.pod), Watch(Change, policy_plans.pods)),
        settings=lambda settings: (settings.network, settings.policies),
        plan=lambda view, key, settings, memory, taken: policy_plans.plan_pod(view, key, settings[1], memory, taken),
        on_node=lambda view, node, settings: policy_tables.on_node(node, settings[0]),
        tables=frozenset({policy_tables.TABLE}),
        memory=lambda shared: PolicyMemory(),
        accept=policy_plans.accept,
        needs=PolicyMemory.needs,
        fill=policy_plans.fill,
        filled=PolicyMemory.filled,
        after_repair=PolicyMemory.after_repair,
        after_start=after_start,
        close=lambda memory: memory.read_from(None),
    ),
    Feature(
        name="peers of policies",
        key=PolicyPeersKey,
        watches=(Watch(Change, policy_plans.peers),),
        settings=lambda settings: settings.network,
        plan=policy_plans.plan_peers,
        memory_of=PolicyPodKey,
        accept=policy_plans.accept_peers,
    ),
    Feature(
        name="name servers in policies",
        key=PolicyNameServersKey,
        watches=(Watch(EndpointSlice, _name_servers_in_policies),),
        settings=lambda settings: settings.network,
        plan=policy_plans.plan_name_servers,
        memory_of=PolicyPodKey,
        accept=policy_plans.accept_name_servers,
    ),
    Feature(
        name="sets of policies",
        key=PolicySetKey,
        watches=(),
        settings=lambda settings: settings.network,
        plan=policy_plans.plan_set,
        memory_of=PolicyPodKey,
        accept=policy_plans.accept_set,
    ),
    Feature(
        name="host ports",
        key=HostPortKey,
        watches=(Watch(Node, _all_host_ports), Watch(Sandbox, _host_ports)),
        settings=lambda settings: (settings.network, settings.hostports),
        plan=_plan_host_ports,
        on_node=_host_ports_on_node,
        tables=frozenset({hostport_tables.TABLE}),
        memory=lambda shared: HostPortMemory(),
        accept=HostPortMemory.accept,
        holder=lambda memory, claim: memory.holder(claim),
        after_repair=HostPortMemory.after_repair,
        precedence=_age,
    ),
    Feature(
        name="services",
        key=ServiceKey,
        watches=(Watch(Node, _all_services), Watch(Service, _service), Watch(EndpointSlice, _slice)),
        settings=lambda settings: (_served(settings), settings.services),
        plan=service_plans.plan_service,
        on_node=lambda view, node, settings: tables.plan(node, settings[0]),
        tables=frozenset({tables.TABLE}),
        memory=lambda shared: ServicesMemory(),
        accept=service_plans.accept,
        holder=service_plans.holder,
        recover=ServicesMemory.recover,
        tidy=ServicesMemory.tidy,
        after_repair=service_plans.after_repair,
        precedence=service_plans.precedence,
    ),
    Feature(
        name="dns",
        key=NameServerKey,
        watches=(Watch(Node, _name_server), Watch(EndpointSlice, _name_servers)),
        settings=lambda settings: (settings.network, settings.dns),
        plan=_plan_name_server,
        tables=frozenset({dns.TABLE}),
    ),
    Feature(
        name="advertisements",
        key=AdvertisementKey,
        watches=(Watch(Node, _all_advertised), Watch(Service, _advertised)),
        settings=lambda settings: settings.network,
        plan=_plan_advertisement,
        tables=lifetime.TABLES,
    ),
)
