"""Settings of a node's own network."""

from __future__ import annotations

import ipaddress

import msgspec


class NodeSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`masquerade`: what pods send out of the cluster gets the node's address. `masquerade_exclude` are CIDRs that pods reach with their
    own address, beside the cluster's CIDRs and its nodes."""

    masquerade: bool = True
    masquerade_exclude: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for cidr in self.masquerade_exclude:
            ipaddress.ip_network(cidr)
