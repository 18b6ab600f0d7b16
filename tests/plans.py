"""A small cluster's plans, for tests of everything that carries them out: one node with two pods, and a peer."""

from __future__ import annotations

import msgspec

from podplane.agent.settings import Settings
from podplane.kernel.door import Kernel
from podplane.kernel.namespace import Namespace
from podplane.model.config import ROUTE_PROTOCOL, UNDERLAY_MAC, NetworkConfig
from podplane.model.objects import Metadata, Node, NodeAddress, NodeSpec, NodeStatus
from podplane.model.view import Sandbox, View
from podplane.nodes import plan as nodes
from podplane.nodes.settings import NodeSettings
from podplane.pods import bridge
from podplane.pods import plan as pods
from podplane.routes import host_gw
from podplane.state.network import Address, Link
from podplane.state.operations import Report, diff
from podplane.state.ownership import Ownership
from podplane.state.value import Identity, Value, fragment

FAMILIES = {"ipv4": (4,), "ipv6": (6,), "dual": (4, 6), "dual-ipv6-first": (6, 4)}
CLUSTER = {4: "10.244.0.0/16", 6: "fd00:10:244::/48"}
BLOCK = {4: "10.244.{}.0/24", 6: "fd00:10:244:{}::/64"}
POD = {4: "10.244.1.{}", 6: "fd00:10:244:1::{}"}
UNDERLAY = {4: "192.168.1.{}", 6: "fd00:192:168:1::{}"}
OWNER = Ownership(
    links=frozenset({"cbr0"}),
    link_prefixes=(pods.VETH_PREFIX,),
    route_protocol=ROUTE_PROTOCOL,
    tables=frozenset({nodes.TABLE, bridge.TABLE}),
)


def node(number: int, versions: tuple[int, ...]) -> Node:
    """Node `number`."""
    return Node(
        metadata=Metadata(name=f"node{number}", annotations={UNDERLAY_MAC: f"0a:58:c0:a8:01:{9 + number:02x}"}),
        spec=NodeSpec(pod_cidrs=tuple(BLOCK[v].format(number) for v in versions)),
        status=NodeStatus(addresses=tuple(NodeAddress("InternalIP", UNDERLAY[v].format(9 + number)) for v in versions)),
    )


def config(versions: tuple[int, ...]) -> NetworkConfig:
    """The settings that all features share."""
    return NetworkConfig(cluster_cidrs=tuple(CLUSTER[v] for v in versions))


def node_settings(versions: tuple[int, ...]) -> NodeSettings:
    """Those of a node's own network."""
    return NodeSettings(masquerade_exclude=tuple(c for c in ("198.51.100.0/24",) if 4 in versions))


def agent_settings(versions: tuple[int, ...], **network: object) -> Settings:
    """Those of an agent; fields of the shared ones by name."""
    return Settings(network=msgspec.structs.replace(config(versions), **network), nodes=node_settings(versions))


def sandbox(number: int, versions: tuple[int, ...]) -> Sandbox:
    """Pod `number` of node1."""
    ips = tuple(POD[v].format(number + 1) for v in versions)
    return Sandbox("default", f"pod{number}", f"uid-{number}", f"uid-{number}", f"pod/uid-{number}", ips)


def uplink(versions: tuple[int, ...]) -> dict[Identity, Value]:
    """What is on a node before podplane comes: an uplink with addresses."""
    import ipaddress

    ips = [ipaddress.ip_address(UNDERLAY[v].format(10)) for v in versions]
    links: list[Value] = [Link(name="lo"), Link(name="eth0", kind="bridge")]
    addresses = [Address(link="eth0", ip=ip, prefix_length=24 if ip.version == 4 else 64) for ip in ips]
    return dict(fragment([*links, *addresses]))


def wanted(versions: tuple[int, ...], pod_count: int = 2) -> dict[Identity, Value]:
    """Everything that node1 wants."""
    own, peer, settings, more = node(1, versions), node(2, versions), config(versions), node_settings(versions)
    view = View("node1", {"node1": own, "node2": peer})
    result = {**nodes.plan(own, settings, more), **bridge.plan(own, settings)}
    result |= {**nodes.peer_plan(peer, versions, more), **host_gw.BACKEND.plan_peer(peer, own, settings)}
    for number in range(1, pod_count + 1):
        result |= pods.plan(sandbox(number, versions), view, settings)
    return result


def build(kernel: Kernel, namespaces: list[Namespace], versions: tuple[int, ...]) -> Report:
    """Carry it all out, the pods in these namespaces; the report on what the node wants."""
    for number, namespace in enumerate(namespaces, 1):
        kernel.attach(f"pod/uid-{number}", namespace)
    before = kernel.apply(diff({}, uplink(versions)))
    assert not before.failed, before.failed
    return kernel.apply(diff({}, wanted(versions, len(namespaces))))
