"""Clusters and policies by chance, as the JSON objects of the API."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

Object = dict[str, Any]
NAMESPACES, KEYS, VALUES = ("a", "b"), ("app", "tier"), ("x", "y")
NODES = ("node1", "node2")
OUTSIDE = "192.0.2.1"

labels = st.dictionaries(st.sampled_from(KEYS), st.sampled_from(VALUES))
expressions = st.one_of(
    st.fixed_dictionaries(
        {
            "key": st.sampled_from(KEYS),
            "operator": st.sampled_from(["In", "NotIn"]),
            "values": st.lists(st.sampled_from(VALUES), min_size=1, max_size=2),
        }
    ),
    st.fixed_dictionaries({"key": st.sampled_from(KEYS), "operator": st.sampled_from(["Exists", "DoesNotExist"])}),
)
selectors: st.SearchStrategy[Object] = st.one_of(
    st.just({}),
    st.fixed_dictionaries({}, optional={"matchLabels": labels, "matchExpressions": st.lists(expressions, max_size=2)}),
)
blocks = st.sampled_from(
    [
        {"cidr": "0.0.0.0/0"},
        {"cidr": "0.0.0.0/0", "except": ["10.244.0.0/16"]},
        {"cidr": "10.244.0.0/16", "except": ["10.244.1.0/24", "10.244.2.1/32"]},
        {"cidr": "::/0", "except": ["fd00:1::/64"]},
        {"cidr": "192.168.1.10/32"},
    ]
)
peers = st.one_of(
    st.fixed_dictionaries({"podSelector": selectors}, optional={"namespaceSelector": selectors}),
    st.fixed_dictionaries({"namespaceSelector": selectors}),
    st.fixed_dictionaries({"ipBlock": blocks}),
)
ports = st.one_of(
    st.fixed_dictionaries({}, optional={"protocol": st.sampled_from(["TCP", "UDP", "SCTP"])}),
    st.fixed_dictionaries(
        {"port": st.sampled_from([79, 80, 81, "http", "web"])}, optional={"protocol": st.sampled_from(["TCP", "UDP"])}
    ),
    st.fixed_dictionaries({"port": st.just(80), "endPort": st.sampled_from([80, 82])}),
)


def _rules(side: str) -> st.SearchStrategy[list[Object]]:
    rule = st.fixed_dictionaries({}, optional={side: st.lists(peers, max_size=2), "ports": st.lists(ports, max_size=2)})
    return st.lists(rule, max_size=2)


specs = st.fixed_dictionaries(
    {"podSelector": selectors},
    optional={
        "ingress": _rules("from"),
        "egress": _rules("to"),
        "policyTypes": st.sampled_from([["Ingress"], ["Egress"], ["Ingress", "Egress"]]),
    },
)


_transports = st.sampled_from([{"destinationPort": {"number": 80}}, {"destinationPort": {"range": {"start": 80, "end": 82}}}])
protocols = st.one_of(
    *(st.fixed_dictionaries({name: _transports}) for name in ("tcp", "udp", "sctp")),
    st.fixed_dictionaries({"destinationNamedPort": st.sampled_from(["http", "web"])}),
)
"""Of rules of ClusterNetworkPolicies."""
subjects = st.one_of(
    st.fixed_dictionaries({"namespaces": selectors}),
    st.fixed_dictionaries({"pods": st.fixed_dictionaries({"namespaceSelector": selectors, "podSelector": selectors})}),
)
_networks = st.lists(
    st.sampled_from(["0.0.0.0/0", "10.244.1.0/24", "10.244.2.1/32", "192.168.1.0/24", "::/0", "fd00:1::/64"]),
    min_size=1,
    max_size=2,
)
places = st.one_of(
    st.fixed_dictionaries({"networks": _networks}),
    st.fixed_dictionaries({"nodes": selectors}),
    st.just({"domainNames": ["example.com"]}),
)
"""Peers of egress only; domain names are not known."""


def _cluster_rules(side: str, peers: st.SearchStrategy[Object]) -> st.SearchStrategy[list[Object]]:
    rule = st.fixed_dictionaries(
        {
            "action": st.sampled_from(["Accept", "Deny", "Pass"]),
            side: st.lists(peers, min_size=1, max_size=2),
        },
        optional={"protocols": st.lists(protocols, min_size=1, max_size=2)},
    )
    return st.lists(rule, max_size=2)


cluster_specs = st.fixed_dictionaries(
    {"tier": st.sampled_from(["Admin", "Baseline"]), "priority": st.integers(0, 3), "subject": subjects},
    optional={"ingress": _cluster_rules("from", subjects), "egress": _cluster_rules("to", st.one_of(subjects, places))},
)


@st.composite
def clusters(draw: st.DrawFn) -> list[Object]:
    """Nodes, namespaces, up to five pods with addresses of both families, up to three policies of each kind."""
    found = [{"kind": "Namespace", "metadata": {"name": name, "labels": draw(labels)}} for name in NAMESPACES]
    for number in range(draw(st.integers(1, 5))):
        node = draw(st.integers(1, 2))
        containers = [
            {"name": "c", "ports": draw(st.lists(_container_ports, max_size=2))} for _ in range(draw(st.integers(1, 2)))
        ]
        found.append(
            {
                "kind": "Pod",
                "metadata": {"name": f"p{number}", "namespace": draw(st.sampled_from(NAMESPACES)), "labels": draw(labels)},
                "spec": {"nodeName": f"node{node}", "containers": containers},
                "status": {
                    "phase": "Running",
                    "podIPs": [{"ip": f"10.244.{node}.{number + 2}"}, {"ip": f"fd00:{node}::{number + 2}"}],
                },
            }
        )
    for number in range(draw(st.integers(0, 3))):
        metadata = {"name": f"n{number}", "namespace": draw(st.sampled_from(NAMESPACES)), "uid": "u"}
        found.append({"kind": "NetworkPolicy", "metadata": metadata, "spec": draw(specs)})
    found += [
        {"kind": "ClusterNetworkPolicy", "metadata": {"name": f"c{number}"}, "spec": draw(cluster_specs)}
        for number in range(draw(st.integers(0, 3)))
    ]
    for number, name in enumerate(NODES):
        addresses = [{"type": "InternalIP", "address": ip} for ip in _node_ips(number)]
        metadata = {"name": name, "labels": draw(labels)}
        found.append({"kind": "Node", "metadata": metadata, "status": {"addresses": addresses}})
    return found


def _node_ips(number: int) -> tuple[str, str]:
    return f"192.168.1.1{number}", f"fd00:f::{number + 1}"


_container_ports = st.fixed_dictionaries(
    {"name": st.sampled_from(["http", "web"]), "containerPort": st.sampled_from([80, 81])},
    optional={"protocol": st.sampled_from(["TCP", "UDP"])},
)


@st.composite
def flows(draw: st.DrawFn, objects: list[Object]) -> Object:
    """One between two ends of one family."""
    version = draw(st.integers(0, 1))
    pods = [{"ip": one["status"]["podIPs"][version]["ip"], "pod": one} for one in objects if one["kind"] == "Pod"]
    nodes = [{"ip": _node_ips(i)[version], "node": name} for i, name in enumerate(NODES)]
    ends = st.sampled_from([*pods, *nodes, {"ip": (OUTSIDE, "2001:db8::1")[version]}])
    protocol = draw(st.sampled_from(["TCP", "TCP", "UDP", "SCTP", "ICMP"]))
    port = None if protocol == "ICMP" else draw(st.sampled_from([79, 80, 81, 82, 83]))
    return {"source": draw(ends), "destination": draw(ends), "protocol": protocol, "port": port}
