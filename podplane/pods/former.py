"""Pods of a node that is migrated from another network: those of that network stay on its bridge, and reach ours as before. Pure.

    old pod ── its bridge (cni0, with the block's route) ── the node's IP layer ── /32 route ── cbr0 ── pod of ours

A pod on the former bridge takes the whole block for its own link, as bridge and host-local of the reference plugins set it up, and asks
there for the addresses of ours: the node answers for them (proxies, ip-neighbour(8)), and forwards. The other way needs nothing: pods of
ours send all to their gateway, and the node has the block's route to that bridge. Whoever had resolved an address there when another pod
had it is told of the new MAC (gratuitous ARP).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

from podplane.model.config import ROUTE_PROTOCOL, NetworkConfig
from podplane.model.objects import Node
from podplane.model.view import Sandbox
from podplane.state.effects import Announce
from podplane.state.network import Proxy, Sysctl
from podplane.state.value import Fragment, Value, address_of, fragment


def on_node(node: Node, config: NetworkConfig) -> Fragment:
    """What the kernel needs to answer on the former bridge, at once; nothing where there is none."""
    if not config.former_bridge:
        return {}
    versions = {ipaddress.ip_network(block).version for block in node.spec.pod_cidrs}
    return fragment(one for version in sorted(versions) for one in _sysctls(version, config.former_bridge))


def _sysctls(version: int, bridge: str) -> Iterator[Value]:
    """The kernel waits for so long (of 1/100 s, at most) before it answers for another: somebody else might know better."""
    yield Sysctl(name=f"net.ipv{version}.neigh.{bridge}.proxy_delay", value="0")
    if version == 6:
        yield Sysctl(name=f"net.ipv6.conf.{bridge}.proxy_ndp", value="1")


def of_pod(sandbox: Sandbox, config: NetworkConfig) -> Fragment:
    """The node answers for the pod's addresses on the former bridge."""
    if not config.former_bridge:
        return {}
    return fragment(Proxy(link=config.former_bridge, ip=ip, protocol=ROUTE_PROTOCOL) for ip in map(address_of, sandbox.ips))


def effects(sandbox: Sandbox, config: NetworkConfig) -> tuple[Announce, ...]:
    """Tell whoever is on the former bridge where the pod's addresses are now."""
    return (Announce(config.former_bridge, tuple(map(address_of, sandbox.ips))),) if config.former_bridge else ()
