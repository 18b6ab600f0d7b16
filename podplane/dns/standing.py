"""Whose the cluster's DNS is: podplane's name servers answer at its addresses, or what others have put behind them; never half of each.

    the addresses are of                                                podplane answers there
    no Service                                                          yes; other nodes can't answer for a node whose server is away
    kube-system/kube-dns, without a selector                            yes; nodes' servers are its endpoints
    kube-system/kube-dns, with a selector: CoreDNS, say                 when it is told to take over; CoreDNS's pods stay its endpoints
    kube-system/kube-dns, which has other addresses; another Service    no

Taken over, questions of pods go to their own node's server, and where that is away to all that the Service leads to. When podplane is told
to stop, questions go by the Service again, which was never changed.
"""

from __future__ import annotations

from collections.abc import Iterable

from podplane.dns.node import SERVICE
from podplane.dns.settings import DnsSettings
from podplane.model.service import Service

LEFT = "podplane's name server does not answer at"


def concerns(service: Service, own: DnsSettings) -> bool:
    """Is this the Service of the cluster's DNS, or one at its addresses?"""
    return service.metadata.path == SERVICE or not set(own.ips).isdisjoint(ips_of(service))


def why_not(services: Iterable[Service], own: DnsSettings) -> str:
    """Why the cluster's DNS is not podplane's to answer, and what to do; "" when it is. `services` are those that this concerns."""
    ips = ", ".join(own.ips)
    for service in services:
        path, there = service.metadata.path, ips_of(service)
        if path != SERVICE:
            return f"{LEFT} {ips}: the Service {path} has {', '.join(there)}, and only {SERVICE} can be taken over"
        if not set(own.ips) <= set(there):
            return f"{LEFT} {ips}: the Service {path} has {', '.join(there) or 'no address'}: give these in dns.ips"
        if service.spec.selector is not None and not own.take_over:
            return (
                f"{LEFT} {ips}: the Service {path} leads to pods that it selects (CoreDNS?), and they go on answering: dns.takeOver "
                "(take_over of an agent's configuration) has podplane answer instead"
            )
    return ""


def ips_of(service: Service) -> tuple[str, ...]:
    """Its cluster IPs."""
    spec = service.spec
    return tuple(ip for ip in spec.cluster_ips or (spec.cluster_ip,) if ip not in ("", "None"))
