"""Pods that can't ask the cluster's DNS, and the policies that deny it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

import msgspec

from podplane.model.cluster_policy import Policy
from podplane.model.pod_info import PodInfo
from podplane.model.policy import EVERYTHING, LabelSelector, PodSelector, Requirement
from podplane.policy.ends import End, ends_of
from podplane.policy.findings import LOOKED_AT, some
from podplane.policy.index import PolicyIndex
from podplane.policy.kinds import Tick
from podplane.policy.match import Decision, Flow, verdict
from podplane.policy.name_servers import PATH as NAME_SERVERS
from podplane.policy.name_servers import SERVICE
from podplane.policy.owners import owner

DNS_PORT = 53


class Names(msgspec.Struct, frozen=True):
    """Where pods ask for names: the pods of the Service, or what stands for them (`dns`)."""

    index: PolicyIndex
    services: Mapping[str, dict[str, Any]]
    dns: PodInfo | None

    def cut_off(self, policy: Policy, tick: Tick, *, first: bool = True) -> dict[str, str]:
        """Pods that can't ask, and why: of those that a policy selects or, if it selects the servers, of all. With `first`, only pods of
        which it is the first of the policies that deny that: so each pod is told of once."""
        servers, found = list(self._servers()), dict[str, str]()
        for pod in self._asking(policy, servers):
            tick()
            decision = self._denying(pod, servers)
            if decision is not None and (not first or _decides(policy, decision)):
                found[f"{pod.metadata.namespace}/{owner(pod)}"] = _why(decision)
        return found

    def _asking(self, policy: Policy, servers: Iterable[End]) -> Iterable[PodInfo]:
        """Pods that the policy may keep from asking; of those with the same labels one."""
        if policy.rules("ingress") is not None and any(
            one.is_under_policies and self.index.selects(policy, one.path) for one in servers
        ):
            pods = self.index.members(PodSelector(EVERYTHING))
        elif policy.rules("egress") is not None:
            pods = self.index.selected(policy)
        else:
            return ()
        with_address = islice((pod for pod in pods if pod.ips and pod.metadata.path != NAME_SERVERS), LOOKED_AT)
        return {(pod.metadata.namespace, pod.metadata.labels, owner(pod)): pod for pod in with_address}.values()

    def _servers(self) -> Iterator[End]:
        if self.dns is not None:
            yield from ends_of(self.dns)
            return
        selector = (self.services.get(SERVICE, {}).get("spec") or {}).get("selector")
        if selector:
            namespace = SERVICE.partition("/")[0]
            labels = LabelSelector.of(Requirement(key, "In", (value,)) for key, value in selector.items())
            for pod in islice(self.index.members(PodSelector(namespace, labels)), LOOKED_AT):
                yield from ends_of(pod)

    def _denying(self, pod: PodInfo, servers: Iterable[End]) -> Decision | None:
        """What denies a pod the port for names at the first server, if that is denied at all of them, in each family."""
        found = None
        for end in ends_of(pod):
            for server in servers:
                for port in _ports(server) if (":" in end.ip) is (":" in server.ip) else ():
                    said = verdict(Flow(end, server, "UDP", port), self.index)
                    denying = next((one for one in (said.egress, said.ingress) if one is not None and not one.allowed), None)
                    if denying is None:
                        return None
                    found = found or denying
        return found


def told(pods: Mapping[str, str]) -> str:
    """Pods that can't ask, as a sentence; "" of none."""
    groups = dict[str, list[str]]()
    for pod, why in pods.items():
        groups.setdefault(why, []).append(pod)
    return "; ".join(f"{some(group)} can't ask the cluster's DNS: {why}" for why, group in groups.items())


def _ports(server: End) -> Iterable[int]:
    named = server.pod.ports.named if server.pod and server.path != NAME_SERVERS else ()
    return {DNS_PORT, *(one.port for one in named if one.name == "dns")}


def _decides(policy: Policy, decision: Decision) -> bool:
    return (decision.rule.policy if decision.rule is not None else decision.denying[0]) == policy.text


def _why(decision: Decision) -> str:
    if decision.rule is not None:
        return f"{decision.rule} denies UDP {DNS_PORT} to it"
    return f"no {decision.direction} rule allows UDP {DNS_PORT} to it"
