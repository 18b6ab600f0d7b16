"""A check of a cluster: what depends on that it is one, and whichever network it has."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from podplane.cli.check import egress, lookups, names, promises, services, tunnels, users
from podplane.cli.check.cluster import policies, settling
from podplane.cli.check.cluster.place import SLICES, Place
from podplane.cli.check.names import Lookup
from podplane.cli.check.parties import Gathered
from podplane.cli.check.promises import UNKNOWN, HasTunnel, Largest, Party, Verdict
from podplane.cli.check.questions import PROBE_SECONDS, Ask
from podplane.cli.check.scene import Found
from podplane.cli.check.served import Made
from podplane.cli.check.services import Own
from podplane.cli.dns.asking import DNS_SERVICE
from podplane.dns.resolv_conf import ResolvConf
from podplane.kubeapi.errors import ApiError
from podplane.model.config import BACKENDS
from podplane.model.objects import Node

Object = dict[str, Any]
NOT_OUTSIDE = "nobody of the check's is outside of the cluster"
NO_NODES = "pods in the network of nodes are refused"
ONE_NODE = "there is no second node, which would be outside of the first"
EVERY_NODE_UP_TO = 16
"""Up to so many nodes each comes to Services of all others, where that is asked for."""


@dataclass(slots=True)
class OnCluster:
    """`scene.Scene`. The users' Services do not take part: what answers there is theirs."""

    place: Place
    nodes: Sequence[Object]
    deep: bool
    site: users.Site
    unproved: dict[str, str] = field(default_factory=dict)
    outside: Party | None = None
    stalled_seconds: float = 20.0

    def ways(self) -> tuple[HasTunnel, Largest]:
        """Of podplane's own networks it is known how much a way carries; whether there is a tunnel, of none."""
        is_ours = any(BACKENDS in (node["metadata"].get("annotations") or {}) for node in self.nodes)
        largest: Largest = tunnels.between_nodes(self.place.client, ())[1] if is_ours else lambda source, target: UNKNOWN
        return (lambda source, target: None if source != target else False), largest

    def made(
        self, endpoints: Sequence[Party], node_ips: Mapping[str, Sequence[str]], sources: Sequence[Party], ask: Ask
    ) -> Made:
        """They are there when they answer."""
        return settling.made(self.place, endpoints, node_ips, sources, ask)

    def outsiders(self, parties: Mapping[str, Party], nodes: Sequence[Party]) -> Iterable[tuple[Party, Sequence[Party]]]:
        """Each node comes to the next one's, or to those of all others."""
        if self.deep and len(nodes) <= EVERY_NODE_UP_TO:
            return [(one, [other for other in nodes if other is not one]) for one in nodes if len(nodes) > 1]
        return [(one, [other]) for one, other in zip(nodes, [*nodes[1:], *nodes[:1]], strict=True) if one is not other]

    def users(self, site: users.Site) -> list[users.Way]:
        """None."""
        return []

    def names(
        self,
        own: Own,
        pods: Sequence[Party],
        nodes: Sequence[Party],
        confs: Mapping[str, ResolvConf],
        ask: lookups.Ask,
        denied_by: lookups.DeniedBy,
    ) -> Found:
        """The check's own, asked of whichever server pods are told to ask."""
        parties = [*lookups.some(pods), *nodes]
        servers = list(dict.fromkeys(confs[pod.name].nameservers[0] for pod in pods if confs[pod.name].nameservers))
        domain = next((found for pod in pods if (found := domain_of(confs[pod.name], self.place.namespace))), "")
        why = (
            "pods have no server of the cluster's to ask for names"
            if not (servers and domain)
            else self._why_no_dns(servers, domain, parties, ask)
        )
        if why:
            return [Verdict(promise, not_tried=why) for promise in names.PROMISES if promise != names.FORWARDED], []
        askers, left_out = names.askers(parties, confs, servers)
        wanted = names.plan(own, askers, self.place.namespace, domain)
        verdicts, more = lookups.judged(wanted, askers, domain, dict, ask, denied_by)
        return verdicts, [*left_out, *more]

    def _why_no_dns(self, servers: Sequence[str], domain: str, parties: Sequence[Party], ask: lookups.Ask) -> str:
        """Why there is nobody to ask: no Service, and no answer; "" when there is somebody, or should be."""
        if self._get("services", *DNS_SERVICE) is not None:
            return ""
        name = f"kubernetes.default.svc.{domain}."
        asked = [Lookup(names.RESOLVE, one.name, servers[0], name, "A", ()) for one in parties]
        if any(answer.get("ok") for answer in ask(asked, False).values()):
            return ""
        return f"there is no Service {'/'.join(DNS_SERVICE)}, and nobody answers at {servers[0]}, where pods ask"

    def further(self, who: Gathered, parties: Sequence[Party], everything: bool, ask: Ask) -> list[Verdict]:
        """The way out, and then policies of the check's own."""
        pods, nodes = ([p for p in parties if p.kind == kind] for kind in ("pod", "node"))
        free = [pod for pod in pods if pod.name not in who.judged]
        targets = egress.addresses(self._get(SLICES, "default", "kubernetes"), self._get("services", "default", "kubernetes"))
        probes = egress.plan(free, targets)
        out = egress.verdict(probes, ask(probes, PROBE_SECONDS))
        if not targets:
            out.not_tried = "its addresses may not be read (get endpointslices and services in namespace default)"
        return [out, policies.prove(self.place, pods, nodes, self.nodes, ask, deep=self.deep)]

    def _get(self, resource: str, namespace: str, name: str) -> Object | None:
        """An object, if there is one and it may be read."""
        try:
            found: Object = self.place.client.get(resource, namespace, name)
        except ApiError:
            return None
        return found


def domain_of(conf: ResolvConf, namespace: str) -> str:
    """The cluster's domain, by the search path that a kubelet gives pods of this namespace; "" when it is none."""
    start = f"{namespace}.svc."
    return next((one.removeprefix(start) for one in conf.searches if one.startswith(start)), "")


def site_of(nodes: Sequence[Object], parties: Mapping[str, Sequence[str]]) -> users.Site:
    """Where Services are: these nodes, and their addresses as `parties` in their networks have them."""
    return users.Site(msgspec.convert(list(nodes), list[Node]), parties)


def unproved(count: int, nodes_speak: bool) -> dict[str, str]:
    """What so many nodes can't prove, and what where nobody speaks for nodes."""
    found = {promises.OUTSIDE: NOT_OUTSIDE}
    if count < 2:
        found[services.FROM_OUTSIDE] = ONE_NODE
    if not nodes_speak:
        found |= dict.fromkeys((promises.NODE_TO_POD, promises.POD_TO_NODE, services.FROM_OUTSIDE), NO_NODES)
    return found
