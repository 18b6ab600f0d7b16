"""The address plan: overlaps and lack of room are refused with a reason and with what fits."""

from __future__ import annotations

import ipaddress
from itertools import combinations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from podplane.ipam.plan import Plan, PlanError, parse_cidrs


def plan(cluster: str = "10.244.0.0/16", service: str = "10.96.0.0/16", node: str = "192.168.1.0/24") -> Plan:
    return Plan(
        cluster=parse_cidrs(cluster, "cluster CIDR"),
        service=parse_cidrs(service, "service CIDR"),
        node=parse_cidrs(node, "node CIDR"),
    )


def test_node_addresses_begin_at_ten() -> None:
    dual = plan("fd00:1::/48,10.244.0.0/16", "10.96.0.0/16,fd00:2::/112", "192.168.1.0/24,fd00:3::/64")
    assert [str(ip) for ip in dual.node_ips(1)] == ["fd00:3::a", "192.168.1.10"]
    assert [str(ip) for ip in dual.underlay_gateways()] == ["fd00:3::1", "192.168.1.1"]
    assert dual.versions == (6, 4)
    dual.check(nodes=245, pods_per_node=253)


@pytest.mark.parametrize(
    ("cidrs", "words"),
    [
        ({"service": "10.244.128.0/20"}, "cluster CIDR 10.244.0.0/16 overlaps service CIDR 10.244.128.0/20"),
        ({"node": "10.244.1.0/24"}, "overlaps node CIDR 10.244.1.0/24"),
        ({"service": "192.168.0.0/16"}, "service CIDR 192.168.0.0/16 overlaps node CIDR"),
        ({"cluster": "10.244.0.0/16,fd00::/48"}, "has IPv6, the service CIDR 10.96.0.0/16 has not"),
    ],
)
def test_what_does_not_go_together_is_named(cidrs: dict[str, str], words: str) -> None:
    with pytest.raises(PlanError, match=words.replace(".", r"\.")):
        plan(**cidrs).check(nodes=1)


def test_too_small_says_what_fits() -> None:
    with pytest.raises(PlanError, match="room for 4 nodes with 253 pods each"):
        plan("10.244.0.0/22").check(nodes=5)
    with pytest.raises(PlanError, match="room for 1 node with 13 pods each"):
        plan("10.244.0.0/28").check(nodes=1, pods_per_node=14)
    with pytest.raises(PlanError, match="room for 245 nodes"):
        plan().check(nodes=246)


@pytest.mark.parametrize("text", ["10.244.0.0/33", "x", "10.244.0.1/16", "", "10.0.0.0/8,11.0.0.0/8"])
def test_wrong_cidrs_are_refused(text: str) -> None:
    with pytest.raises(PlanError, match="cluster CIDR"):
        parse_cidrs(text, "cluster CIDR")


@pytest.mark.parametrize(
    ("cluster", "words"),
    [
        ("10.244.0.0/32", "no room for a pod"),
        ("10.244.0.0/31", "no room for a pod"),
        ("127.0.0.0/16", "is loopback"),
        ("224.0.0.0/16", "is multicast"),
        ("fe80::/48", "is link-local"),
    ],
)
def test_networks_that_can_not_carry_pods(cluster: str, words: str) -> None:
    nodes = "fd00:1::/64" if ":" in cluster else "192.168.1.0/24"
    services = "fd00:2::/112" if ":" in cluster else "10.96.0.0/16"
    plan = Plan(*(parse_cidrs(text, "CIDR") for text in (cluster, services, nodes)))
    with pytest.raises(PlanError, match=words):
        plan.check(1)


def of(subnets: int) -> Plan:
    """A plan of both families with so many subnets."""
    both = plan("10.244.0.0/16,fd00:1::/48", "10.96.0.0/16,fd00:2::/112", "192.168.1.0/24,fd00:3::/64")
    return msgspec.structs.replace(both, subnets=subnets)


@given(st.integers(1, 9), st.integers(1, 40))
def test_subnets_divide_the_nodes_among_them(subnets: int, nodes: int) -> None:
    parted = of(subnets)
    parted.check(1)
    found = [network for index in range(subnets) for network in parted.subnet(index)]
    assert not any(a.overlaps(b) for a, b in combinations(found, 2) if a.version == b.version)  # type: ignore[arg-type]
    assert tuple(found) == parted.links()
    ips = [parted.node_ips(number) for number in range(1, min(nodes, parted.node_capacity) + 1)]
    assert len(set(ips)) == len(ips)
    for number, own in enumerate(ips, 1):
        subnet = parted.subnet(parted.subnet_of(number))
        assert all(ip in network for ip, network in zip(own, subnet, strict=True))
        assert not set(own) & set(parted.underlay_gateways(parted.subnet_of(number)))


def test_one_subnet_is_the_node_cidr_and_load_balancers_are_in_the_last_one() -> None:
    assert of(1).subnet(0) == of(1).node
    two = of(2)
    assert two.underlay_gateways(1)[0] == ipaddress.ip_address("192.168.1.129")
    first, _, last = two.load_balancer_addresses()[0].partition("-")
    assert all(ipaddress.ip_address(ip) in two.subnet(1)[0] for ip in (first, last))


def test_more_subnets_than_fit_are_refused() -> None:
    with pytest.raises(PlanError, match=r"192\.168\.1\.0/24 has no room for 17 subnets"):
        of(17).check(1)
