"""Services as a feature: which connections may go on and which are flushed, who has what two Services want, what is remembered."""

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
    Ingress,
    LoadBalancerStatus,
    Service,
    ServicePort,
    ServiceSpec,
    ServiceStatus,
    Zone,
)
from podplane.services.endpoints import Place
from podplane.services.feature import (
    NOTHING_CLAIMED,
    Planned,
    ServicesMemory,
    accept,
    plan,
    release,
    removed,
    repaired,
    stale_frontends,
)
from podplane.services.model import Claim
from podplane.services.resolve import NodeContext, resolve
from podplane.state.conntrack import Allowed, Frontend, Target
from podplane.state.effects import FlushConntrack, Warn

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


def allowed(one: Service, *slices: EndpointSlice) -> Allowed:
    return resolve(one, slices, HERE).allowed()


def target(number: int) -> Target:
    return Target(ipaddress.ip_address(f"10.244.0.{number}"), 53)


DNS = ("udp", ipaddress.ip_address(VIP), 53)


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
    assert allowed(service(ServicePort(53, protocol="UDP")), slice_of(first, second)) == {
        DNS: {target(1), target(2)} if may else {target(1)}
    }


def test_policies_are_for_new_connections() -> None:
    far = endpoint(1, node_name="node2")
    one = service(ServicePort(53, protocol="UDP", node_port=30053), external_traffic_policy="Local", type="NodePort")
    found = allowed(one, slice_of(far))
    assert found == {DNS: {target(1)}, ("udp", HERE.addresses[0], 30053): {target(1)}}


def test_tcp_and_services_of_others_are_none_of_its_business() -> None:
    assert allowed(service(ServicePort(53)), slice_of(endpoint(1), protocol="TCP")) == {}
    theirs = Service(Metadata(labels={"service.kubernetes.io/headless": ""}), service(ServicePort(53, protocol="UDP")).spec)
    assert allowed(theirs, slice_of(endpoint(1))) == {}


@pytest.mark.parametrize(
    ("before", "after", "looked_at"),
    [
        ({}, {DNS: {target(1)}}, {DNS}),
        ({DNS: {target(1)}}, {}, {DNS}),
        ({DNS: {target(1)}}, {DNS: {target(1), target(2)}}, set()),
        ({DNS: {target(1), target(2)}}, {DNS: {target(1)}}, {DNS}),
        ({DNS: set()}, {DNS: set()}, set()),
    ],
)
def test_connections_are_flushed_where_a_frontend_came_or_went_or_lost_an_endpoint(
    before: Allowed, after: Allowed, looked_at: set[Frontend]
) -> None:
    assert stale_frontends(before, after) == looked_at


UDP = ServicePort(53, protocol="UDP")


def named(name: str, ip: str, *external: str, ports: tuple[ServicePort, ...] = (UDP,)) -> Service:
    return Service(Metadata(name=name, namespace="default"), ServiceSpec("ClusterIP", ip, (ip,), external, ports))


def planned(memory: ServicesMemory, one: Service, *numbers: int, taken: frozenset[Claim] = NOTHING_CLAIMED) -> Planned:
    """As an agent does it that has nothing to decide."""
    found = plan(one, [slice_of(*map(endpoint, numbers))], HERE, memory, taken)
    accept(memory, found)
    return found


def test_effects_follow_what_changed_since_the_last_accepted_plan() -> None:
    memory, one = ServicesMemory(), named("dns", VIP)
    flush = FlushConntrack({DNS: frozenset({target(1), target(2)})})
    assert plan(one, [slice_of(endpoint(1), endpoint(2))], HERE, memory).effects == (flush,)
    assert planned(memory, one, 1, 2).effects == (flush,), "what was not accepted left no trace"
    assert planned(memory, one, 1, 2, 3).effects == ()
    assert planned(memory, one, 3).effects == (FlushConntrack({DNS: frozenset({target(3)})}),)
    assert repaired(memory) == (FlushConntrack({DNS: frozenset({target(3)})}),)
    gone = removed("default/dns", memory)
    assert gone.fragment == {} and gone.effects == (FlushConntrack({DNS: frozenset()}),)


def test_nothing_is_remembered_of_a_service_that_is_gone() -> None:
    memory = ServicesMemory()
    for number in range(1500):
        planned(memory, named(f"s{number}", VIP, "192.0.2.1"), 1, 2)
        accept(memory, removed(f"default/s{number}", memory))
        memory.tidy()
    assert list(memory.tables()) == [] and memory.holder(DNS) == "" and repaired(memory) == ()
    assert len(memory.numbers._slots) <= 1001 and len(memory.numbers.groups._by_name) <= 1001


def test_numbers_of_services_that_are_there_are_kept_when_others_are_freed() -> None:
    memory, stays = ServicesMemory(), named("stays", "10.96.0.99")
    before = planned(memory, stays, 1, 2).fragment
    for number in range(1500):
        planned(memory, named(f"s{number}", VIP), 1)
        accept(memory, removed(f"default/s{number}", memory))
        memory.tidy()
    assert plan(stays, [slice_of(endpoint(1), endpoint(2))], HERE, memory).fragment == before


SHARED = Frontend("udp", ipaddress.ip_address("192.0.2.1"), 53)


@pytest.mark.parametrize(("first", "second"), [((1,), (2,)), ((1,), ()), ((), (2,)), ((), ())])
def test_what_two_services_want_is_contested_whether_they_have_endpoints_or_not(
    first: tuple[int, ...], second: tuple[int, ...]
) -> None:
    memory = ServicesMemory()
    planned(memory, named("one", VIP, "192.0.2.1"), *first)
    two = named("two", "10.96.0.11", "192.0.2.1")
    found = plan(two, [slice_of(*map(endpoint, second))], HERE, memory)
    assert found.contested == {SHARED: "default/one"}
    rest = planned(memory, two, *second, taken=frozenset({SHARED}))
    assert rest.contested == {} and [one.key.ip for one in rest.table.frontends] == [ipaddress.ip_address("10.96.0.11")]
    assert memory.holder(SHARED) == "default/one"


def test_who_gives_a_frontend_up_keeps_the_rest_and_the_connections_are_those_of_the_new_holder() -> None:
    memory = ServicesMemory()
    younger, older = named("a", VIP, "192.0.2.1"), named("b", "10.96.0.11", "192.0.2.1")
    planned(memory, younger, 1)
    given_up = release("default/a", frozenset({SHARED}), memory)
    accept(memory, given_up)
    has = planned(memory, older, 2)
    assert [one.key for one in memory.table("default/a").frontends] == [DNS]
    assert given_up.effects == (FlushConntrack({SHARED: frozenset()}),)
    assert has.effects[0].allowed[SHARED] == {target(2)}  # type: ignore[union-attr]  # a flush
    again = planned(memory, younger, 1, taken=frozenset({SHARED}))
    assert again.effects == () and again.fragment == given_up.fragment


def test_a_service_that_stops_wanting_what_another_one_has_does_not_flush_its_connections() -> None:
    memory = ServicesMemory()
    planned(memory, named("a", VIP, "192.0.2.1"), 1)
    planned(memory, named("b", "10.96.0.11", "192.0.2.1"), 2)
    assert planned(memory, named("a", VIP), 1).effects == (FlushConntrack({SHARED: frozenset({target(2)})}),)


def test_an_external_ip_that_can_not_be_served_is_a_warning_and_two_ports_at_one_frontend_too() -> None:
    context = NodeContext(HERE.place, (4,), HERE.addresses, (ipaddress.ip_network("10.96.0.0/16"),))
    assert plan(named("a", VIP, "127.0.0.1"), [], context, ServicesMemory()).effects[0] == Warn(
        "external IP 127.0.0.1 is not served: it is one that every machine uses for itself"
    )
    pods = NodeContext(HERE.place, (4,), HERE.addresses, (), (ipaddress.ip_network("10.244.0.0/16"),))
    found = plan(named("a", VIP, "10.244.1.1"), [], pods, ServicesMemory())
    assert found.effects[0] == Warn("external IP 10.244.1.1 is not served: it lies in the range of pods")
    assert {one.key.ip for one in found.table.frontends} == {ipaddress.ip_address(VIP)}
    ports = (ServicePort(53, "a", "TCP"), ServicePort(54, "b", "TCP", 53))
    own = Service(Metadata(name="s", namespace="default"), ServiceSpec("NodePort", VIP, (VIP,), ("192.168.1.10",), ports))
    found = plan(own, [], HERE, ServicesMemory())
    assert found.effects == (Warn("node port 192.168.1.10 tcp 53 is not served: the Service has it as external IP already"),)
    assert found.fragment


def balanced(name: str, ip: str, port: int) -> Service:
    """A load balancer at 198.51.100.1 for some clients only."""
    spec = ServiceSpec("LoadBalancer", ip, (ip,), (), (ServicePort(port),), load_balancer_source_ranges=("192.0.2.0/24",))
    return Service(
        Metadata(name=name, namespace="default"), spec, ServiceStatus(LoadBalancerStatus((Ingress(ip="198.51.100.1"),)))
    )


@pytest.mark.parametrize("port", [80, 81])
def test_the_address_of_a_load_balancer_is_one_services_with_its_frontends_and_guards(port: int) -> None:
    memory, address = ServicesMemory(), ipaddress.ip_address("198.51.100.1")
    accept(memory, plan(balanced("one", VIP, 80), [], HERE, memory))
    two, shared = balanced("two", "10.96.0.11", port), Frontend("tcp", address, 80)
    found = plan(two, [], HERE, memory)
    assert set(found.contested) == ({shared, address} if port == 80 else {address})
    rest = plan(two, [], HERE, memory, frozenset(found.contested)).table
    assert rest.owned == () and [one.key.port for one in rest.guards] == ([] if port == 80 else [81])
    assert rest.frontends[0].key.ip == ipaddress.ip_address("10.96.0.11")
    assert len(rest.frontends) == (1 if port == 80 else 2)


@pytest.mark.parametrize(
    ("of_services", "of_pods"), [("198.51.100.0/24", "10.244.0.0/16"), ("10.96.0.0/16", "198.51.100.0/24")]
)
def test_a_load_balancer_takes_no_address_of_services_or_pods(of_services: str, of_pods: str) -> None:
    """Neither its frontends nor its guards are there, nor does it refuse the other ports of the address; and it is said."""
    networks = ((ipaddress.ip_network(of_services),), (ipaddress.ip_network(of_pods),))
    context = NodeContext(HERE.place, (4,), (), *networks)
    found = plan(balanced("one", VIP, 80), [], context, ServicesMemory())
    assert {one.key.ip for one in found.table.frontends} == {ipaddress.ip_address(VIP)}
    assert not found.table.owned and not found.table.guards
    whose = "cluster IPs" if of_services.startswith("198") else "pods"
    assert found.effects[0] == Warn(f"load balancer IP 198.51.100.1 is not served: it lies in the range of {whose}")
    free = plan(balanced("one", VIP, 80), [], NodeContext(HERE.place, (4,), ()), ServicesMemory())
    assert free.table.owned and free.table.guards and not free.table.unserved
