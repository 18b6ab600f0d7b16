"""Settings of the cluster's DNS on a node."""

from __future__ import annotations

import ipaddress

import msgspec


class DnsSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`ips` are the cluster IPs of the cluster's DNS, which the node's own name server answers at; without any the node has none."""

    ips: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for ip in self.ips:
            ipaddress.ip_address(ip)
