"""Where UDP and SCTP connections may go, and whose are looked at after a change."""

from __future__ import annotations

import ipaddress

import pytest

from podplane.model.objects import Metadata
from podplane.model.service import (
    Conditions,
    Endpoint,
    EndpointPort,
    EndpointSlice,
    Hints,
    Service,
    ServicePort,
    ServiceSpec,
    Zone,
)
from podplane.services import flows
from podplane.services.endpoints import Place
from podplane.services.numbers import Numbers
from podplane.services.plan import NodeContext, plan
from podplane.state.conntrack import Allowed, Frontend, Target

HERE = NodeContext(Place("node1", "a"), (4,), (ipaddress.ip_address("192.168.1.10"),))
VIP = "10.96.0.10"
NOTHING_SAID, ENDING = Conditions(), Conditions(ready=False, serving=True, terminating=True)


def service(*ports: ServicePort, **spec: object) -> Service:
    whole = ServiceSpec(cluster_ip=VIP, cluster_ips=(VIP,), ports=ports, **spec)  # type: ignore[arg-type]  # by name
    return Service(Metadata(name="dns", namespace="default"), whole)


def slice_of(*endpoints: Endpoint, protocol: str = "UDP") -> EndpointSlice:
    return EndpointSlice(endpoints=endpoints, ports=(EndpointPort("", protocol, 53),))


def endpoint(number: int, conditions: Conditions = NOTHING_SAID, **more: object) -> Endpoint:
    return Endpoint((f"10.244.0.{number}",), conditions, **more)  # type: ignore[arg-type]  # by name


def ways(one: Service, *slices: EndpointSlice) -> dict[Frontend, frozenset[Target]]:
    return flows.ways(one, slices, HERE, plan(one, slices, HERE, Numbers()))


def target(number: int) -> Target:
    return Target(ipaddress.ip_address(f"10.244.0.{number}"), 53)


END = ("udp", ipaddress.ip_address(VIP), 53)


@pytest.mark.parametrize(
    ("second", "may"),
    [
        (endpoint(2), True),
        (endpoint(2, ENDING), True),
        (endpoint(2, hints=Hints(for_zones=(Zone("b"),))), True),
        (endpoint(2, Conditions(ready=False, serving=False)), False),
        (endpoint(2, Conditions(ready=False)), False),
    ],
)
def test_connections_go_on_to_whoever_serves_be_it_chosen_for_new_ones_or_not(second: Endpoint, may: bool) -> None:
    first = endpoint(1, hints=Hints(for_zones=(Zone("a"),)))
    assert ways(service(ServicePort(53, protocol="UDP")), slice_of(first, second)) == {
        END: {target(1), target(2)} if may else {target(1)}
    }


def test_policies_are_for_new_connections() -> None:
    far = endpoint(1, node_name="node2")
    one = service(ServicePort(53, protocol="UDP", node_port=30053), external_traffic_policy="Local", type="NodePort")
    found = ways(one, slice_of(far))
    assert found == {END: {target(1)}, ("udp", HERE.addresses[0], 30053): {target(1)}}


def test_tcp_and_services_of_others_are_none_of_its_business() -> None:
    assert ways(service(ServicePort(53)), slice_of(endpoint(1), protocol="TCP")) == {}
    theirs = Service(Metadata(labels={"service.kubernetes.io/headless": ""}), service(ServicePort(53, protocol="UDP")).spec)
    assert ways(theirs, slice_of(endpoint(1))) == {}


def test_a_frontend_that_another_service_has_is_not_its_own() -> None:
    one = service(ServicePort(53, protocol="UDP"))
    assert flows.ways(one, [slice_of(endpoint(1))], HERE, {}) == {}


@pytest.mark.parametrize(
    ("before", "after", "looked_at"),
    [
        ({}, {END: {target(1)}}, {END}),
        ({END: {target(1)}}, {}, {END}),
        ({END: {target(1)}}, {END: {target(1), target(2)}}, set()),
        ({END: {target(1), target(2)}}, {END: {target(1)}}, {END}),
        ({END: set()}, {END: set()}, set()),
    ],
)
def test_only_where_something_came_or_was_lost_connections_are_looked_at(
    before: Allowed, after: Allowed, looked_at: set[Frontend]
) -> None:
    assert flows.changed(before, after) == looked_at
