"""The cluster's DNS as policies see it.

Pods ask an address that their own node has, and its name server answers: there is no pod behind it. But policies that let pods ask for
names are written for pods: "to the pods `k8s-app: kube-dns` of the namespace kube-system, port 53", as everybody's recipes have it. So the
addresses of the cluster's DNS count as those of one such pod, which is a peer of rules, and under no policy itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from podplane.model.pod_info import Labels, NamedPort, PodInfo, Ports, SlimMetadata

NAMESPACE, NAME = "kube-system", "kube-dns:name-servers"
"""No pod can have this name."""
PATH = f"{NAMESPACE}/{NAME}"
SERVICE = f"{NAMESPACE}/kube-dns"
LABELS = Labels({"k8s-app": "kube-dns"})
PORTS = Ports((NamedPort("dns", "UDP", 53), NamedPort("dns-tcp", "TCP", 53)))
"""As CoreDNS's pods name them."""


def name_servers(ips: tuple[str, ...]) -> PodInfo:
    """The peer that has the addresses of the cluster's DNS, to be set in the index under `PATH`."""
    return PodInfo(SlimMetadata(NAME, NAMESPACE, "", LABELS), ips=ips, phase="Running", ports=PORTS)


def behind(service: Mapping[str, Any] | None) -> PodInfo | None:
    """The peer of the cluster's DNS, whose Service this is (as JSON has it). One with a selector has pods of its own behind it: then
    podplane's name servers are not the cluster's DNS."""
    spec = service.get("spec") if service else None
    return None if not spec or spec.get("selector") else name_servers(tuple(spec.get("clusterIPs", ())))
