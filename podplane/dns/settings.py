"""Settings of the cluster's DNS on a node."""

from __future__ import annotations

import ipaddress

import msgspec

from podplane.dns.message import name_of
from podplane.model.config import CLUSTER_DOMAIN


class DnsSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`ips` are the cluster IPs of the cluster's DNS, which the node's own name server answers at; without any the node has none.

    `take_over`: also where the Service at these addresses has pods of others behind it, CoreDNS's say (`dns.standing`). `domain` is the
    cluster's. `serve`: the agent starts the name server itself; false where something else on the node does, as in a lab.
    """

    ips: tuple[str, ...] = ()
    take_over: bool = False
    domain: str = CLUSTER_DOMAIN
    serve: bool = True

    def __post_init__(self) -> None:
        for ip in self.ips:
            ipaddress.ip_address(ip)
        name_of(self.domain)
