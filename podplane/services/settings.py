"""Settings of Services."""

from __future__ import annotations

import ipaddress

import msgspec


class ServiceSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`node_port_addresses` are CIDRs: node ports are served on the nodes' addresses in them, or, when there are none, on all."""

    node_port_addresses: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for cidr in self.node_port_addresses:
            ipaddress.ip_network(cidr)
