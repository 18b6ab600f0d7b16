"""Mistakes in policies, as far as they can be told from the objects: what nothing matches, what adds nothing, what cuts names off.

None of it is wrong to the API, and some of it is right: a policy may come before its pods. So each finding says what is, not what to do.
"""

from __future__ import annotations

import functools
import ipaddress
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Protocol

from podplane.model.cluster_policy import NODES, ClusterNetworkPolicy, Policy
from podplane.model.objects import Node
from podplane.model.pod_info import PodInfo
from podplane.model.policy import (
    DIRECTIONS,
    EVERYTHING,
    PROTOCOLS,
    Direction,
    IPBlock,
    LabelSelector,
    NetworkPolicy,
    PodSelector,
    PolicyRule,
)
from podplane.policy import precedence
from podplane.policy.covering import covers, selects_all_of
from podplane.policy.cut_off import Names, told
from podplane.policy.findings import LOOKED_AT, Finding, Mistake, some
from podplane.policy.index import PolicyIndex
from podplane.policy.kinds import Tick
from podplane.policy.name_servers import SERVICE
from podplane.policy.served import Services, Serving
from podplane.policy.wide_rules import Numbered, WideRules
from podplane.policy.words import peer_text, short_selector_text

NAME_LABEL = "kubernetes.io/metadata.name"


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
        self._nodes = {ip: name for name, node in cluster.nodes.items() for ip in node.internal_ips}
        self._wide: dict[tuple[str, LabelSelector, Direction], WideRules] = {}

    def of(self, policy: Policy, *, beside: bool = True) -> Iterator[Finding]:
        """The mistakes in a policy. With `beside`, as all policies are looked at: also what other policies of its namespace make needless,
        and pods that can't ask for names whichever policy denies that; what an Admin policy overrules is told of what it overrules."""
        yield from (Finding(policy, "", Mistake.NOT_READ, text) for text in policy.unread)
        pods = list(islice(self._index.selected(policy), LOOKED_AT))
        if not pods:
            yield Finding(policy, "", Mistake.SELECTS_NOTHING, f"selects no pod so far: {self._nothing(policy)}")
        yield from self._of_rules(policy, Serving(pods, self._services), beside=beside)
        tiers = self._cluster_policies if beside else precedence.cluster_policies(self._index)
        self.tick()
        if isinstance(policy, NetworkPolicy):
            yield from precedence.of_network_policy(policy, self._index, tiers)
        else:
            yield from precedence.of_cluster_policy(policy, pods, self._index, tiers, alone=not beside)
        if beside and (text := told(self.no_dns(policy))):
            yield Finding(policy, "", Mistake.NO_DNS, text)

    def no_dns(self, policy: Policy, *, first: bool = True) -> dict[str, str]:
        """Pods that can't ask the cluster's DNS, and why: as `Names.cut_off` says."""
        return Names(self._index, self._cluster.services, self._cluster.dns).cut_off(policy, self.tick, first=first)

    def _nothing(self, policy: Policy) -> str:
        if isinstance(policy, NetworkPolicy):
            labels = short_selector_text(policy.pods)
            return f"no pod of namespace {policy.metadata.namespace} has {labels}" if labels else "its namespace has no pod"
        where = policy.subjects.namespaces
        if isinstance(where, LabelSelector) and not self._index.namespaces(where):
            return self._no_namespace(where)
        return f"there are no {peer_text(policy.subjects, '').removeprefix('all ')}"

    def _of_rules(self, policy: Policy, selected: Serving, *, beside: bool) -> Iterator[Finding]:
        for direction, number, rule in _rules(policy):
            self.tick()
            finding = functools.partial(Finding, policy, f"{direction} rule {number}")
            for mistake, text in self._of_rule(policy, rule, selected if direction == "ingress" else self._members(rule)):
                yield finding(mistake, text)
            if isinstance(policy, NetworkPolicy):
                others = self._beside(policy, direction).candidates(rule) if beside else ()
                if text := _covered(policy, direction, number, others):
                    yield finding(Mistake.COVERED, text)
            if rule.action == "Deny" and (text := self._denies_pods(rule, (policy.rules(direction) or ())[: number - 1])):
                yield finding(Mistake.PODS_BY_ADDRESS, text)

    def _of_rule(self, policy: Policy, rule: PolicyRule, destinations: Serving) -> Iterator[tuple[Mistake, str]]:
        peers = [peer for peer in rule.peers or () if isinstance(peer, PodSelector)]
        for selector in dict.fromkeys(peer.namespaces for peer in peers):
            if isinstance(selector, LabelSelector) and not self._index.namespaces(selector):
                yield Mistake.NO_NAMESPACE, self._no_namespace(selector)
            self.tick()
        for peer in peers:
            if peer.namespaces == NODES and next(self._index.members(peer), None) is None:
                yield Mistake.NO_NODE, f"no node has {short_selector_text(peer.pods)}"
        for protocol, port in _asked(rule):
            if text := destinations.why_not(protocol, port):
                yield Mistake.NOT_SERVED, text
            self.tick()
        nodes = self._nodes if isinstance(policy, ClusterNetworkPolicy) else {}
        yield from self._by_address([peer for peer in rule.peers or () if isinstance(peer, IPBlock)], nodes)

    def _no_namespace(self, selector: LabelSelector) -> str:
        text = f"no namespace has {short_selector_text(selector)}"
        names = [value for one in selector.requirements if one.operator == "In" for value in one.values]
        there = next((name for name in names if self._index.namespace(name) is not None), None)
        return text + (f"; the label {NAME_LABEL}={there} selects the namespace of that name" if there else "")

    def _members(self, rule: PolicyRule) -> Serving:
        """The pods that a rule of egress is about; none when it is about others, too."""
        peers = [peer for peer in rule.peers or () if isinstance(peer, PodSelector)]
        members = (pod for peer in peers if len(peers) == len(rule.peers or ()) for pod in self._index.members(peer))
        return Serving(islice(members, LOOKED_AT if rule.ports else 0), self._services)

    def _by_address(self, blocks: Sequence[IPBlock], by_ip: Mapping[str, str]) -> Iterator[tuple[Mistake, str]]:
        pods, nodes, services = list[str](), list[str](), list[str]()
        lengths = {(one.version, one.prefixlen) for one in self._blocks}
        for block in blocks:
            self.tick()
            network = ipaddress.ip_network(block.cidr)
            ip = str(network.network_address) if network.num_addresses == 1 else ""
            supernets = (network.supernet(new_prefix=n) for v, n in lengths if v == network.version and n <= network.prefixlen)
            if ip in by_ip:
                nodes.append(f"{ip} ({by_ip[ip]})")
            elif any(one in self._blocks for one in supernets):
                pods.append(block.cidr)
            service = self._services.by_ip.get(ip)
            if service is not None and not (service == SERVICE and self._cluster.dns is not None):
                services.append(f"{ip} (Service {service})")
        if pods:
            yield (
                Mistake.PODS_BY_ADDRESS,
                f"{some(pods)} has addresses of pods; another pod may have them later, so select pods by labels",
            )
        if nodes:
            yield Mistake.NODES_BY_ADDRESS, f"{some(nodes)} is the address of a node; `nodes` selects nodes by labels"
        if services:
            yield (
                Mistake.SERVICE_BY_ADDRESS,
                f"{some(services)} is the address of a Service; policies are about the pods behind it",
            )

    def _denies_pods(self, rule: PolicyRule, before: Iterable[PolicyRule]) -> str:
        """That a Deny of a network is about pods, too, as it has their addresses: not of all addresses, which can't be meant otherwise."""
        networks = [ipaddress.ip_network(peer.cidr) for peer in rule.peers or () if isinstance(peer, IPBlock)]
        within = [str(one) for one in networks if one.prefixlen and any(_is_within(block, one) for block in self._blocks)]
        all_pods = rule._replace(peers=(PodSelector(EVERYTHING),))
        if not within or any(covers(one, all_pods) for one in before):
            return ""
        return f"denies pods, too, because {some(within)} has their addresses; a rule before it could pass all pods on"

    def _beside(self, policy: NetworkPolicy, direction: Direction) -> WideRules:
        """The rules of policies of the namespace that select all pods of this one."""
        key = policy.metadata.namespace, policy.pods, direction
        if key not in self._wide:
            there = self._by_namespace.get(policy.metadata.namespace, ())
            self._wide[key] = WideRules((one for one in there if selects_all_of(one.pods, policy.pods)), direction)
        return self._wide[key]

    @functools.cached_property
    def _cluster_policies(self) -> Sequence[ClusterNetworkPolicy]:
        return precedence.cluster_policies(self._index)

    @functools.cached_property
    def _by_namespace(self) -> Mapping[str, Sequence[NetworkPolicy]]:
        found: defaultdict[str, list[NetworkPolicy]] = defaultdict(list)
        for policy in self._index.policies.values():
            if isinstance(policy, NetworkPolicy):
                found[policy.metadata.namespace].append(policy)
        return found


def _rules(policy: Policy) -> Iterator[tuple[Direction, int, PolicyRule]]:
    for direction in DIRECTIONS:
        for number, rule in enumerate((policy.rules(direction) or ())[:LOOKED_AT], 1):
            yield direction, number, rule


def _asked(rule: PolicyRule) -> dict[tuple[str, int | str], None]:
    """The protocols ("": any) and single ports that a rule names. ClusterNetworkPolicies name ports of any protocol."""
    names = Counter(port.port for port in rule.ports or ())
    found: dict[tuple[str, int | str], None] = {}
    for port in rule.ports or ():
        if isinstance(port.port, str):
            found["" if names[port.port] == len(PROTOCOLS) else port.protocol, port.port] = None
        elif port.port is not None and port.port[0] == port.port[1]:
            found[port.protocol, port.port[0]] = None
    return found


def _covered(policy: NetworkPolicy, direction: Direction, number: int, others: Iterable[Numbered]) -> str:
    """By which other rule everything is allowed that this one allows; of equal ones the first is needed."""
    if policy.unread:
        return ""
    rules = {n: rule for of, n, rule in _rules(policy) if of == direction}
    rule = rules[number]
    for n, wide in rules.items():
        if n != number and covers(wide, rule) and (n < number or not covers(rule, wide)):
            return f"allows nothing that {direction} rule {n} does not"
    for one, n, wide in others:
        if one.metadata.name == policy.metadata.name or not covers(wide, rule):
            continue
        equal = one.pods == policy.pods and covers(rule, wide)
        if one.metadata.name < policy.metadata.name or not equal:
            return f"allows nothing that {one.metadata.path} {direction} rule {n} does not"
    return ""


def _is_within(block: Any, network: Any) -> bool:
    return bool(block.version == network.version and block != network and block.subnet_of(network))
