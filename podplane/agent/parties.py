"""Whose an address is, by what the caches of an agent say at this moment."""

from __future__ import annotations

from podplane.agent.caches import Caches
from podplane.model.answers import Party
from podplane.policy.enforced import AllEnforced
from podplane.policy.name_servers import PATH as NAME_SERVERS


class Parties:
    """Names of pods, nodes and the cluster's DNS; of the node's own pods also those that the caches do not have any more."""

    def __init__(self, caches: Caches, enforced: AllEnforced) -> None:
        self.caches = caches
        self._enforced = enforced

    def at(self, ip: str) -> Party:
        """Whose an address is now."""
        if (enforced := self._enforced.at(ip)) is not None:
            return Party(ip, "pod", enforced.path)
        for path, pod in self.caches.pods_by_ip.get(ip).items():
            if not pod.has_ended and not pod.host_network:
                return Party(ip, "pod", path)
        if (dns := self.caches.policy_index.pod(NAME_SERVERS)) is not None and ip in dns.ips:
            return Party(ip, "dns", "the cluster's DNS")
        return next((Party(ip, "node", name) for name in self.caches.nodes_by_ip.get(ip)), Party(ip))

    def names(self, ip: str, pod_uid: str) -> bool:
        """Does the API name this address as that of a pod that has not ended, and is not this one?"""
        others = (one for one in self.caches.pods_by_ip.get(ip).values() if not pod_uid or not one.is_of(pod_uid))
        return any(not one.has_ended and not one.host_network for one in others)
