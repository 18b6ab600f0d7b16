"""Clusters and policies by chance, of few labels and addresses, so that they meet; and short ways to write both."""

from __future__ import annotations

from collections.abc import Mapping

from hypothesis import strategies as st

from podplane.model.cluster_policy import ClusterNetworkPolicy
from podplane.model.pod_info import Labels, NamedPort, NamespaceInfo, PodInfo, Ports, SlimMetadata
from podplane.model.policy import (
    IPBlock,
    LabelSelector,
    NetworkPolicy,
    PodSelector,
    PolicyMetadata,
    PolicyPort,
    PolicyRule,
    Requirement,
)

NAMESPACES = ("a", "b", "c")
KEYS, VALUES = ("app", "tier"), ("x", "y", "z")
IPS = ("10.244.1.2", "10.244.1.3", "10.244.2.2", "10.244.2.3", "fd00:1::2", "fd00:2::2")


def pod(
    path: str,
    labels: Mapping[str, str] = {},
    *,
    ips: tuple[str, ...] = ("10.244.1.2",),
    node: str = "node1",
    ports: tuple[NamedPort, ...] = (),
    phase: str = "Running",
    host_network: bool = False,
    uid: str = "u",
    is_terminating: bool = False,
) -> PodInfo:
    namespace, name = path.split("/")
    metadata = SlimMetadata(name, namespace, uid, Labels(labels))
    return PodInfo(metadata, node, ips, phase, is_terminating, host_network, Ports(ports))


def namespace(name: str, labels: Mapping[str, str] = {}) -> NamespaceInfo:
    return NamespaceInfo(SlimMetadata(name, labels=Labels(labels)))


def select(**labels: str) -> LabelSelector:
    return LabelSelector.of(Requirement(key, "In", (value,)) for key, value in labels.items())


labels = st.dictionaries(st.sampled_from(KEYS), st.sampled_from(VALUES))
requirements = st.one_of(
    st.builds(
        Requirement,
        st.sampled_from(KEYS),
        st.sampled_from(["In", "NotIn"]),
        st.lists(st.sampled_from(VALUES), min_size=1, max_size=2).map(tuple),
    ),
    st.builds(Requirement, st.sampled_from(KEYS), st.sampled_from(["Exists", "DoesNotExist"]), st.just(())),
)
label_selectors = st.lists(requirements, max_size=3).map(LabelSelector.of)
pod_selectors = st.builds(PodSelector, st.one_of(st.sampled_from(NAMESPACES), label_selectors), label_selectors)
named_ports = st.sampled_from(
    [(), (NamedPort("http", "TCP", 80),), (NamedPort("http", "TCP", 81), NamedPort("http", "UDP", 80))]
)


@st.composite
def pods(draw: st.DrawFn) -> PodInfo:
    return pod(
        f"{draw(st.sampled_from(NAMESPACES))}/{draw(st.sampled_from(['p', 'q', 'r']))}",
        draw(labels),
        ips=draw(st.sampled_from([(), *((ip,) for ip in IPS), ("10.244.1.4", "fd00:1::4")])),
        node=draw(st.sampled_from(["node1", "node2"])),
        ports=draw(named_ports),
        phase=draw(st.sampled_from(["Pending", "Running", "Running", "Succeeded"])),
        host_network=draw(st.sampled_from([False, False, False, True])),
    )


namespaces = st.builds(namespace, st.sampled_from(NAMESPACES), labels)
blocks = st.one_of(
    st.builds(IPBlock, st.just("10.244.0.0/16"), st.lists(st.sampled_from(["10.244.1.0/24", "10.244.1.2/32"])).map(tuple)),
    st.sampled_from(
        [IPBlock("0.0.0.0/0"), IPBlock("10.244.1.2/32"), IPBlock("fd00:1::/32"), IPBlock("::/0", ("fd00:2::/32",))]
    ),
)
ports = st.builds(
    PolicyPort,
    st.sampled_from(["TCP", "UDP", "SCTP"]),
    st.sampled_from([None, "http", "dns", (80, 80), (81, 81), (1, 80), (80, 65535)]),
)


def some(strategy: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    return st.one_of(st.none(), st.lists(strategy, min_size=1, max_size=2).map(tuple))


rules = st.builds(PolicyRule, some(st.one_of(pod_selectors, blocks)), some(ports))
sides = st.one_of(st.none(), st.lists(rules, max_size=2).map(tuple))
policies = st.builds(
    lambda namespace, name, pods, ingress, egress: NetworkPolicy(PolicyMetadata(name, namespace, "u"), pods, ingress, egress),
    st.sampled_from(NAMESPACES),
    st.sampled_from(["k", "l", "m"]),
    label_selectors,
    sides,
    sides,
)
cluster_policies = st.builds(
    lambda name, tier, priority, *subjects: ClusterNetworkPolicy(
        PolicyMetadata(name, "", "u"), tier, priority, PodSelector(*subjects), (PolicyRule(),)
    ),
    st.sampled_from(["guard", "base"]),
    st.sampled_from(["Admin", "Baseline"]),
    st.integers(0, 2),
    label_selectors,
    label_selectors,
)
