"""Who asks, by address: which pod, and the search path that its resolver goes along.

Of an address that several pods have, or a node, nothing is known: its processes have different paths. The path of a pod that ends is
not known, either, because its address may be another's before its end is told.
"""

from __future__ import annotations

from dataclasses import dataclass

from podplane.dns import search_path
from podplane.dns.directory import Directory
from podplane.dns.resolv_conf import NodeDns
from podplane.model.dns import NamedPod, canonical
from podplane.nameserver.resolver import Client


@dataclass(frozen=True, slots=True)
class Clients:
    """`node` is what the nodes' kubelets know of names."""

    directory: Directory
    node: NodeDns

    def identify(self, ip: str) -> Client:
        """Who has this address now."""
        pods = list((self.directory.pods_by_ip.get(canonical(ip)) or {}).values())
        if len(pods) != 1 or pods[0].is_on_host:
            return Client(ip)
        (pod,) = pods
        return Client(ip, pod.metadata.name, pod.metadata.namespace, search_path.NOWHERE if pod.is_ending else self._path(pod))

    def _path(self, pod: NamedPod) -> search_path.SearchPath:
        conf = self.node.of_pod(pod.metadata.namespace, pod.dns_policy, pod.dns_config, on_host=pod.is_on_host)
        return search_path.of_conf(conf)
