"""Which nodes may answer for a load balancer's address, and how many endpoints they say that they have."""

from __future__ import annotations

import ipaddress

import msgspec
import pytest

from podplane.model.config import NetworkConfig
from podplane.model.objects import Metadata, Node, NodeSpec
from podplane.model.service import (
    Conditions,
    Endpoint,
    EndpointSlice,
    Ingress,
    LoadBalancerStatus,
    Service,
    ServiceSpec,
    ServiceStatus,
)
from podplane.services.announce import EXCLUDED, effects, may_announce, ready_here
from podplane.state.effects import Announce

STATUS = ServiceStatus(LoadBalancerStatus((Ingress(ip="192.0.2.1"),)))
EVERYWHERE = Service(spec=ServiceSpec(type="LoadBalancer"), status=STATUS)
LOCAL = Service(spec=ServiceSpec(type="LoadBalancer", external_traffic_policy="Local"), status=STATUS)
READY, ENDS = Conditions(ready=True), Conditions(ready=False, serving=True, terminating=True)
ENDED, STARTS = Conditions(ready=False, serving=False, terminating=True), Conditions(ready=False, serving=False)


def slice_(*endpoints: tuple[str, str, Conditions], family: str = "IPv4") -> EndpointSlice:
    """A slice of (address, node, conditions)."""
    return EndpointSlice(
        address_type=family, endpoints=tuple(Endpoint((ip,), conditions, node) for ip, node, conditions in endpoints)
    )


def those_that_may(service: Service, *slices: EndpointSlice) -> list[str]:
    nodes = (Node(Metadata(name=f"node{n}"), NodeSpec(pod_cidrs=("10.244.0.0/24",))) for n in (1, 2, 3))
    return [node.metadata.name for node in nodes if may_announce(service, slices, node)]


@pytest.mark.parametrize(
    ("endpoints", "nodes"),
    [
        ((), []),
        ((("10.0.0.1", "node1", READY), ("10.0.0.2", "node2", READY), ("10.0.0.3", "node3", STARTS)), ["node1", "node2"]),
        ((("10.0.0.1", "node1", ENDS), ("10.0.0.2", "node2", READY)), ["node2"]),
        ((("10.0.0.1", "node1", ENDS), ("10.0.0.2", "node2", ENDED)), ["node1"]),
        ((("10.0.0.1", "node1", ENDS), ("10.0.0.2", "", READY)), ["node1"]),
        ((("10.0.0.1", "node1", ENDED), ("10.0.0.2", "node2", STARTS)), []),
    ],
)
def test_with_policy_local_those_answer_that_have_endpoints_for_it(
    endpoints: tuple[tuple[str, str, Conditions], ...], nodes: list[str]
) -> None:
    assert those_that_may(LOCAL, slice_(*endpoints)) == nodes
    assert those_that_may(LOCAL, *(slice_(one) for one in endpoints)) == nodes
    assert those_that_may(EVERYWHERE, slice_(*endpoints)) == ["node1", "node2", "node3"]


def test_who_is_excluded_or_goes_never_answers() -> None:
    for metadata in (Metadata(name="node1", labels={EXCLUDED: ""}), Metadata(name="node1", deletion_timestamp="2026-01-01")):
        assert not may_announce(EVERYWHERE, (), Node(metadata, NodeSpec(pod_cidrs=("10.244.0.0/24",))))


def test_an_endpoint_with_an_address_of_each_family_counts_once() -> None:
    four = slice_(("10.0.0.1", "node1", READY), ("10.0.0.2", "node1", ENDS), ("10.0.0.3", "node2", READY))
    six = slice_(("fd00::1", "node1", READY), ("fd00::2", "node1", ENDS), ("fd00::3", "node2", READY), family="IPv6")
    assert ready_here([four, six], "node1") == 1
    assert ready_here([four, six, slice_(("10.0.0.1", "node1", READY), ("10.0.0.4", "node1", READY))], "node1") == 2
    assert ready_here([six], "node2") == 1
    assert ready_here([four, six], "node3") == ready_here([], "node1") == 0


def test_a_name_or_an_address_of_the_other_version_is_no_endpoint_here() -> None:
    own = slice_(("10.0.0.1", "node1", READY), ("fd00::1", "node2", READY), ("example.com", "node2", READY))
    names = slice_(("example.com", "node3", READY), family="FQDN")
    assert those_that_may(LOCAL, own, names) == ["node1"]
    assert (ready_here([own, names], "node1"), ready_here([own, names], "node2"), ready_here([names], "node3")) == (1, 0, 0)


def test_neighbours_are_told_of_addresses_that_this_node_has_and_of_no_others() -> None:
    config = NetworkConfig(cluster_cidrs=("10.244.0.0/16",), uplink="eth7")
    assert effects(EVERYWHERE, (4,), config) == (Announce("eth7", (ipaddress.ip_address("192.0.2.1"),)),)
    assert effects(EVERYWHERE, (6,), config) == ()
    for name in ("cluster_cidrs", "service_cidrs"):
        assert effects(EVERYWHERE, (4,), msgspec.structs.replace(config, **{name: ("192.0.2.0/24",)})) == ()
    other_class = msgspec.structs.replace(EVERYWHERE.spec, load_balancer_class="example.com/other")
    assert effects(msgspec.structs.replace(EVERYWHERE, spec=other_class), (4,), config) == ()
