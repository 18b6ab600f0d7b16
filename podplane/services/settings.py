"""Settings of Services."""

from __future__ import annotations

import ipaddress

import msgspec


class ServiceSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`enabled`: the node serves Services. Where it does not, that is left to another proxy of the node, kube-proxy say, and nothing of
    podplane's is in its way. `node_port_addresses` are CIDRs: node ports are served on those addresses of the nodes (InternalIP,
    ExternalIP) that are in them; when there are none, on the InternalIPs."""

    enabled: bool = True
    node_port_addresses: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for cidr in self.node_port_addresses:
            ipaddress.ip_network(cidr)
