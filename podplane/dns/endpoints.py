"""The EndpointSlices by which a node offers its name server to all others: one for each family, of the Service `kube-system/kube-dns`.

That Service has no selector, so no controller writes slices for it, and none changes those that say that podplane manages them
(k8s.io/endpointslice knows its own by the same label). A slice is owned by the Node, and is collected with it.
"""

from __future__ import annotations

import hashlib
import ipaddress
from typing import Any

import msgspec

from podplane.dns.node import MANAGED_BY, PODPLANE, PORT, SERVICE
from podplane.model.objects import Node
from podplane.model.service import SERVICE_NAME, EndpointSlice

NAMESPACE, NAME = SERVICE.split("/")
APP = "k8s-app"
"""A label of the Service, as in CoreDNS's manifests; the cluster's controller gives slices the labels of their Service, too."""
PORTS = (("dns", "UDP", PORT), ("dns-tcp", "TCP", PORT))
"""Name, protocol and number of each port of the Service."""
VERSIONS = (4, 6)
NAME_LENGTH, DIGEST_LENGTH = 253, 10
"""The longest name of an object (RFC 1123 subdomain), and what of a digest stands for the rest of a longer one."""

Manifest = dict[str, Any]


def name_of(node: str, version: int) -> str:
    """The name of a node's slice for one IP version."""
    name = f"{NAME}-{node}-ipv{version}"
    if len(name) <= NAME_LENGTH:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:DIGEST_LENGTH]
    return f"{name[: NAME_LENGTH - 1 - DIGEST_LENGTH].rstrip('.-')}-{digest}"


def wanted(node: Node, *, answers: bool, ends: bool = False) -> dict[str, Manifest]:
    """The slices that a node shall have, by name; `answers`: its name server does; `ends`: it answers what is asked yet, and is to be asked
    nothing new (KEP-1672)."""
    blocks = map(ipaddress.ip_network, node.spec.pod_cidrs)
    gateways = {block.version: str(block.network_address + 1) for block in blocks}
    name = node.metadata.name
    return {name_of(name, v): _slice(node, name_of(name, v), v, gateways[v], answers, ends) for v in VERSIONS if v in gateways}


def _slice(node: Node, name: str, version: int, address: str, answers: bool, ends: bool) -> Manifest:
    owner = {"apiVersion": "v1", "kind": "Node", "name": node.metadata.name, "uid": node.metadata.uid}
    return {
        "metadata": {
            "name": name,
            "labels": {SERVICE_NAME: NAME, MANAGED_BY: PODPLANE, APP: NAME},
            "ownerReferences": [owner],
        },
        "addressType": f"IPv{version}",
        "endpoints": [
            {
                "addresses": [address],
                "conditions": {"ready": answers and not ends, "serving": answers or ends, "terminating": ends},
                "nodeName": node.metadata.name,
                "hints": {"forNodes": [{"name": node.metadata.name}]},
            }
        ],
        "ports": [{"name": port, "protocol": protocol, "port": number} for port, protocol, number in PORTS],
    }


def is_as_wanted(found: EndpointSlice, manifest: Manifest) -> bool:
    """Does a stored slice say what it shall?"""
    want = msgspec.convert(manifest, EndpointSlice)
    labels = want.metadata.labels.items() <= found.metadata.labels.items()
    return labels and (found.endpoints, found.ports) == (want.endpoints, want.ports)
