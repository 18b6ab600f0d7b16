"""Policies, labels and flows by chance for the cluster of `policed`, to hold what nodes do with packets against the verdict."""

from __future__ import annotations

import ipaddress

import msgspec
from hypothesis import strategies as st

from podplane.model.cluster_policy import NODES, ClusterNetworkPolicy
from podplane.model.pod_info import Ports
from podplane.model.policy import (
    EVERYTHING,
    IPBlock,
    NetworkPolicy,
    Peer,
    PodSelector,
    PolicyMetadata,
    PolicyPort,
    PolicyRule,
)
from podplane.policy.ends import End
from podplane.policy.match import Flow, verdict
from podplane.state.value import IPAddress
from podplane.trace.packet import ECHO_REQUEST, Packet
from tests.fake_cluster import node_ip, outside_ip, pod_ip
from tests.policed import NAMESPACES, Policed, info, name_of, namespace
from tests.unit.agent.rig import Object
from tests.unit.policy import generated

PORTS = (80, 81, 8080)
TEAMS = ("a", "b")
BLOCKS = (
    IPBlock("10.244.0.0/16", ("10.244.1.0/24",)),
    IPBlock("10.244.1.0/24", ("10.244.1.2/32",)),
    IPBlock("0.0.0.0/0", ("10.244.0.0/16",)),
    IPBlock("192.168.1.0/24"),
    IPBlock("fd00:10:244:1::/64", ("fd00:10:244:1::2/128",)),
    IPBlock("::/0", ("fd00:10:244::/48",)),
)
peers = st.one_of(generated.pod_selectors, generated.pod_selectors, st.sampled_from(BLOCKS))
ports = st.builds(
    PolicyPort, st.sampled_from(["TCP", "UDP"]), st.sampled_from([None, "http", "dns", (80, 80), (81, 81), (1, 80), (81, 9000)])
)
rules = st.builds(PolicyRule, generated.some(peers), generated.some(ports))
sides = st.one_of(st.none(), st.lists(rules, max_size=2).map(tuple))
policies = st.builds(
    lambda namespace, name, pods, ingress, egress: NetworkPolicy(PolicyMetadata(name, namespace, "u"), pods, ingress, egress),
    st.sampled_from(TEAMS),
    st.sampled_from(["k", "l", "m"]),
    st.one_of(st.just(EVERYTHING), generated.label_selectors),
    sides,
    sides,
)

_cluster_peers = st.builds(PodSelector, generated.label_selectors, st.one_of(st.just(EVERYTHING), generated.label_selectors))
_places = st.one_of(
    st.builds(PodSelector, st.just(NODES), st.sampled_from([EVERYTHING, generated.select(role="second")])),
    st.sampled_from([IPBlock("0.0.0.0/0"), IPBlock("::/0"), *(IPBlock(one.cidr) for one in BLOCKS)]),
)


def _cluster_rules(peers: st.SearchStrategy[Peer]) -> st.SearchStrategy[tuple[PolicyRule, ...]]:
    several = st.lists(peers, max_size=2).map(tuple)
    actions = st.sampled_from(["Accept", "Deny", "Pass"])
    return st.lists(st.builds(PolicyRule, several, generated.some(ports), actions), max_size=2).map(tuple)


cluster_policies = st.builds(
    lambda name, *more: ClusterNetworkPolicy(PolicyMetadata(name, "", "u"), *more),
    st.sampled_from(["k", "l", "m"]),
    st.sampled_from(["Admin", "Admin", "Baseline"]),
    st.integers(0, 2),
    _cluster_peers,
    _cluster_rules(_cluster_peers),
    _cluster_rules(st.one_of(_cluster_peers, _places)),
)


@st.composite
def pods(draw: st.DrawFn) -> Object:
    """One of the pods, with other labels and ports."""
    place = draw(st.sampled_from(sorted(NAMESPACES)))
    return info(*place, draw(generated.labels), Ports(draw(generated.named_ports)))


changes = st.one_of(
    policies,
    policies,
    cluster_policies,
    cluster_policies,
    pods(),
    st.builds(namespace, st.sampled_from(TEAMS), generated.labels),
)
"""What comes or changes."""


def ends(version: int) -> dict[str, End]:
    """Who sends and is sent to, by the namespace of the kernel: pods, nodes, the machine outside."""
    found = {f"node{n}": End(str(node_ip(n, version)), node=f"node{n}") for n in (1, 2)}
    found["outside"] = End(str(outside_ip(version)))
    return found | {name_of(*place): End(str(pod_ip(*place, version)), info(*place)) for place in NAMESPACES}


@st.composite
def flows(draw: st.DrawFn, protocols: tuple[str, ...] = ("tcp", "tcp", "udp", "sctp", "icmp")) -> tuple[str, Flow, Packet]:
    """Who sends, what, and its first packet. At least one end is a pod."""
    version = draw(st.sampled_from((4, 6)))
    everyone = ends(version)
    inside = [name for name, end in everyone.items() if end.pod is not None]
    sender = draw(st.sampled_from([*everyone, *inside]))
    others = inside if everyone[sender].pod is None else list(everyone)
    receiver = draw(st.sampled_from([name for name in others if name != sender]))
    protocol, port = draw(st.sampled_from(protocols)), draw(st.sampled_from(PORTS))
    source, destination = everyone[sender], everyone[receiver]
    packet = Packet(source=_ip(source), destination=_ip(destination), protocol=protocol, destination_port=port)
    if protocol == "icmp":
        name = "icmp" if version == 4 else "icmpv6"
        packet = msgspec.structs.replace(packet, protocol=name, destination_port=ECHO_REQUEST[name])
        return sender, Flow(source, destination, "ICMP", None), packet
    return sender, Flow(source, destination, protocol.upper(), port), packet


def _ip(end: End) -> IPAddress:
    return ipaddress.ip_address(end.ip)


def allowed(flow: Flow, cluster: Policed) -> bool:
    """What the verdict says of a flow in the cluster as it is."""
    index = cluster.caches[1].policy_index
    source, destination = (
        end if end.pod is None else End(end.ip, index.pod(end.path)) for end in (flow.source, flow.destination)
    )
    return verdict(Flow(source, destination, flow.protocol, flow.port), index).allowed
