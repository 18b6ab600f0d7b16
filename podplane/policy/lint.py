"""Mistakes in policies, as far as they can be told from the objects: what nothing matches, what adds nothing, what cuts names off.

None of it is wrong to the API, and some of it is right: a policy may come before its pods. So each finding says what is, not what to do.
"""

from __future__ import annotations

import enum
import functools
import ipaddress
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple, Protocol

from podplane.model.objects import Node
from podplane.model.pod_info import PodInfo
from podplane.model.policy import (
    DIRECTIONS,
    Direction,
    IPBlock,
    LabelSelector,
    NetworkPolicy,
    PodSelector,
    PolicyRule,
    Requirement,
)
from podplane.policy import tiers
from podplane.policy.covering import covers, selects_all_of
from podplane.policy.ends import End, ends_of
from podplane.policy.index import PolicyIndex
from podplane.policy.kinds import Tick
from podplane.policy.name_servers import PATH as NAME_SERVERS
from podplane.policy.name_servers import SERVICE
from podplane.policy.owners import owner
from podplane.policy.reach import side
from podplane.policy.served import Services, Serving
from podplane.policy.words import selector_text

LOOKED_AT = 500
"""Pods of one selector, and rules of one policy, that are looked at."""
NAMED = 3
"""Of blocks, and of groups of pods, in one sentence."""
NAME_LABEL = "kubernetes.io/metadata.name"
DNS_PORT = 53


class Mistake(enum.StrEnum):
    """What kinds there are."""

    SELECTS_NOTHING = "selects nothing"
    NO_NAMESPACE = "no such namespace"
    NOT_SERVED = "port not served"
    PODS_BY_ADDRESS = "pods by address"
    SERVICE_BY_ADDRESS = "Service by address"
    COVERED = "covered"
    NO_DNS = "no DNS"
    NOT_READ = "not read"


class Finding(NamedTuple):
    """One mistake in a policy (by path); `where` is the rule, "" when it is about the whole policy."""

    policy: str
    where: str
    mistake: Mistake
    text: str

    def __str__(self) -> str:
        return f"{self.policy}{' ' if self.where else ''}{self.where}: {self.text}"


class Cluster(Protocol):
    """The objects that policies are held against."""

    @property
    def index(self) -> PolicyIndex:
        """Of all policies."""

    @property
    def nodes(self) -> Mapping[str, Node]:
        """By name."""

    @property
    def services(self) -> Mapping[str, dict[str, Any]]:
        """As JSON has them, by path."""

    @property
    def dns(self) -> PodInfo | None:
        """The peer that has the addresses of the cluster's DNS; None when pods have them."""


class Linter:
    """Finds mistakes in policies of a cluster. Of this, policies, pods and namespaces may change meanwhile, but for `beside`."""

    def __init__(self, cluster: Cluster, tick: Tick = int) -> None:
        self.tick = tick
        self._cluster, self._index = cluster, cluster.index
        self._services = Services(cluster.services)
        self._blocks = {
            ipaddress.ip_network(cidr): name for name, node in cluster.nodes.items() for cidr in node.spec.pod_cidrs
        }

    def of(self, policy: NetworkPolicy, *, beside: bool = True) -> Iterator[Finding]:
        """The mistakes in a policy. With `beside`, also what other policies of its namespace make needless, and names that pods of it
        can't ask for whichever policy denies that."""
        yield from (Finding(policy.metadata.path, "", Mistake.NOT_READ, text) for text in policy.unread)
        pods = list(islice(self._index.selected(policy), LOOKED_AT))
        selected = Serving(pods, self._services)
        if not pods:
            yield Finding(policy.metadata.path, "", Mistake.SELECTS_NOTHING, self._nothing(policy))
        others = self._beside(policy) if beside else []
        for direction, number, rule in _rules(policy):
            self.tick()
            where = f"{direction} rule {number}"
            for mistake, text in self._of_rule(rule, selected if direction == "ingress" else self._members(rule)):
                yield Finding(policy.metadata.path, where, mistake, text)
            if text := _covered(policy, direction, number, others):
                yield Finding(policy.metadata.path, where, Mistake.COVERED, text)
        if beside and (text := self.no_dns(policy)):
            yield Finding(policy.metadata.path, "", Mistake.NO_DNS, text)

    def no_dns(self, policy: NetworkPolicy, *, first: bool = True) -> str:
        """That pods of a policy can't ask the cluster's DNS; "" when they can. With `first`, only pods of which it is the first of the
        policies that speak of egress: so each pod is told of once."""
        if policy.egress is None:
            return ""
        servers, found = list(self._name_servers()), dict[str, None]()
        pods = (pod for pod in self._index.selected(policy) if pod.ips)
        for pod in {(pod.metadata.labels, owner(pod)): pod for pod in islice(pods, LOOKED_AT)}.values():
            self.tick()
            speaking = tiers.speaking(self._index.policies_of(pod.metadata.path), "egress", "NetworkPolicy")
            under = [one.metadata.path for one in speaking]
            if (not first or under[:1] == [policy.metadata.path]) and self._is_cut_off(pod, servers):
                found[f"{pod.metadata.namespace}/{owner(pod)}"] = None
        if not found:
            return ""
        return f"{_some(list(found))} can't ask the cluster's DNS: no egress rule allows UDP {DNS_PORT} to it"

    def _nothing(self, policy: NetworkPolicy) -> str:
        labels = selector_text(policy.pods)
        none = f"no pod of namespace {policy.metadata.namespace} has {labels}" if labels else "its namespace has no pod"
        return f"selects no pod so far: {none}"

    def _of_rule(self, rule: PolicyRule, destinations: Serving) -> Iterator[tuple[Mistake, str]]:
        for selector in dict.fromkeys(peer.namespaces for peer in rule.peers or () if isinstance(peer, PodSelector)):
            if isinstance(selector, LabelSelector) and not self._index.namespaces(selector):
                yield Mistake.NO_NAMESPACE, self._no_namespace(selector)
            self.tick()
        for port in rule.ports or ():
            number = port.port[0] if isinstance(port.port, tuple) and port.port[0] == port.port[1] else port.port
            if not isinstance(number, tuple | None) and (text := destinations.why_not(port.protocol, number)):
                yield Mistake.NOT_SERVED, text
            self.tick()
        yield from self._by_address([peer for peer in rule.peers or () if isinstance(peer, IPBlock)])

    def _no_namespace(self, selector: LabelSelector) -> str:
        text = f"no namespace has {selector_text(selector)}"
        names = [value for one in selector.requirements if one.operator == "In" for value in one.values]
        there = next((name for name in names if self._index.namespace(name) is not None), None)
        return text + (f"; the label that says the name of a namespace is {NAME_LABEL}={there}" if there else "")

    def _members(self, rule: PolicyRule) -> Serving:
        """The pods that a rule of egress is about; none when it is about others, too."""
        peers = [peer for peer in rule.peers or () if isinstance(peer, PodSelector)]
        members = (pod for peer in peers if len(peers) == len(rule.peers or ()) for pod in self._index.members(peer))
        return Serving(islice(members, LOOKED_AT if rule.ports else 0), self._services)

    def _by_address(self, blocks: Sequence[IPBlock]) -> Iterator[tuple[Mistake, str]]:
        pods, services = list[str](), list[str]()
        lengths = {(one.version, one.prefixlen) for one in self._blocks}
        for block in blocks:
            self.tick()
            network = ipaddress.ip_network(block.cidr)
            supernets = (network.supernet(new_prefix=n) for v, n in lengths if v == network.version and n <= network.prefixlen)
            if any(one in self._blocks for one in supernets):
                pods.append(block.cidr)
            service = self._services.by_ip.get(str(network.network_address)) if network.num_addresses == 1 else None
            if service is not None and not (service == SERVICE and self._cluster.dns is not None):
                services.append(f"{network.network_address} (Service {service})")
        if pods:
            yield Mistake.PODS_BY_ADDRESS, f"{_some(pods)} has addresses of pods, which others will have: labels select pods"
        if services:
            yield (
                Mistake.SERVICE_BY_ADDRESS,
                f"{_some(services)} is never the other end of a flow: policies are about the pods behind it",
            )

    def _beside(self, policy: NetworkPolicy) -> list[NetworkPolicy]:
        """Other policies of the namespace that select all pods of this one."""
        there = self._by_namespace.get(policy.metadata.namespace, ())
        return [one for one in there if one.metadata.path != policy.metadata.path and selects_all_of(one.pods, policy.pods)]

    @functools.cached_property
    def _by_namespace(self) -> Mapping[str, Sequence[NetworkPolicy]]:
        found: defaultdict[str, list[NetworkPolicy]] = defaultdict(list)
        for policy in self._index.policies.values():
            if isinstance(policy, NetworkPolicy):
                found[policy.metadata.namespace].append(policy)
        return found

    def _name_servers(self) -> Iterator[End]:
        if self._cluster.dns is not None:
            yield from ends_of(self._cluster.dns)
            return
        selector = (self._cluster.services.get(SERVICE, {}).get("spec") or {}).get("selector")
        if selector:
            namespace = SERVICE.partition("/")[0]
            labels = LabelSelector.of(Requirement(key, "In", (value,)) for key, value in selector.items())
            for pod in islice(self._index.members(PodSelector(namespace, labels)), LOOKED_AT):
                yield from ends_of(pod)

    def _is_cut_off(self, pod: PodInfo, servers: Sequence[End]) -> bool:
        """Is the port for names denied at all of them, in each family?"""
        pairs = [(end, server) for end in ends_of(pod) for server in servers if (":" in end.ip) is (":" in server.ip)]
        return bool(pairs) and not any(
            side("egress", end, server, self._index).has("UDP", port) for end, server in pairs for port in _dns_ports(server)
        )


def _rules(policy: NetworkPolicy) -> Iterator[tuple[Direction, int, PolicyRule]]:
    for direction in DIRECTIONS:
        for number, rule in enumerate((policy.rules(direction) or ())[:LOOKED_AT], 1):
            yield direction, number, rule


def _covered(policy: NetworkPolicy, direction: Direction, number: int, others: Iterable[NetworkPolicy]) -> str:
    """By which other rule everything is allowed that this one allows; of equal ones the first is needed."""
    if policy.unread:
        return ""
    rules = {n: rule for of, n, rule in _rules(policy) if of == direction}
    rule = rules[number]
    for n, wide in rules.items():
        if n != number and covers(wide, rule) and (n < number or not covers(rule, wide)):
            return f"allows nothing that {direction} rule {n} does not"
    for one in others:
        for n, wide in enumerate(one.rules(direction) or (), 1):
            equal = one.pods == policy.pods and covers(rule, wide)
            if covers(wide, rule) and (one.metadata.name < policy.metadata.name or not equal):
                return f"allows nothing that {one.metadata.path} {direction} rule {n} does not"
    return ""


def _dns_ports(server: End) -> Iterable[int]:
    named = server.pod.ports.named if server.pod and server.path != NAME_SERVERS else ()
    return {DNS_PORT, *(one.port for one in named if one.name == "dns")}


def _some(texts: Sequence[str]) -> str:
    more = len(texts) - NAMED
    return ", ".join(texts[:NAMED]) + (f" and {more:,} more" if more > 0 else "")
