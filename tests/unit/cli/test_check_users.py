"""What `check` promises of the users' Services: from where each is asked, and where it must refuse."""

from __future__ import annotations

import ipaddress
from typing import Any

import msgspec
import pytest

from podplane.cli.check import users
from podplane.cli.check.promises import Party
from podplane.cli.check.services import FROM_OUTSIDE, REFUSED, SERVICES
from podplane.cli.check.users import Site, Way, ways
from podplane.model.objects import Node
from podplane.model.service import EndpointSlice, Service

PODS = [Party(f"p{n}", "pod", f"node{n % 2 + 1}", (f"10.244.0.{n}",), 8079) for n in range(1, 6)]
NODES = [Party(f"node{n}", "node", f"node{n}", (f"192.168.1.{n}",), 8079) for n in (1, 2)]
OUTSIDE = Party("outside", "outside", "outside", ("203.0.113.10",), 8079)


def site(**node_ips: list[str]) -> Site:
    spec, ready = {"podCIDRs": ["10.244.0.0/24"]}, {"conditions": [{"type": "Ready", "status": "True"}]}
    nodes = [{"metadata": {"name": f"node{n}"}, "spec": spec, "status": ready} for n in (1, 2)]
    return Site(
        msgspec.convert(nodes, list[Node]),
        node_ips or {"node1": ["192.168.1.1", "fd00::1"], "node2": ["192.168.1.2", "fd00::2"]},
        (ipaddress.ip_network("10.96.0.0/16"),),
        OUTSIDE.ips,
    )


def service(
    name: str = "a", ip: str = "10.96.0.1", labels: dict[str, str] | None = None, status: Any = None, **spec: Any
) -> Any:
    metadata = {"namespace": "default", "name": name, "labels": labels or {}}
    whole = {"clusterIP": ip, "clusterIPs": [ip], "ports": [{"port": 80}], **spec}
    return {"metadata": metadata, "spec": whole, "status": status or {}}


def slice_(*endpoints: tuple[str, str], name: str = "a", kind: str = "IPv4", **conditions: bool) -> Any:
    """Endpoints by address and node."""
    metadata = {"namespace": "default", "name": f"{name}-1", "labels": {"kubernetes.io/service-name": name}}
    rows = [{"addresses": [ip], "nodeName": node, "conditions": conditions} for ip, node in endpoints]
    return {"metadata": metadata, "addressType": kind, "ports": [{"port": 8080}], "endpoints": rows}


def found(services: list[Any], slices: list[Any], where: Site | None = None) -> list[Way]:
    return ways(msgspec.convert(services, list[Service]), msgspec.convert(slices, list[EndpointSlice]), where or site())


def short(these: list[Way]) -> list[tuple[str, int, list[str], str]]:
    """(address, port, endpoints, from where)."""
    return [
        (w.vip.ip, w.vip.port, [e.ip for e in w.endpoints], "outside" if w.outside else ",".join(sorted(w.nodes)))
        for w in these
    ]


READY = ("10.244.0.1", "node1")


def test_services_serve_or_refuse_and_what_has_no_cluster_ip_of_tcp_is_not_asked() -> None:
    services = [
        service("a", "10.96.0.1"),
        service("b", "10.96.0.2"),
        service("c", "None"),
        service("d", "10.96.0.4", ports=[{"port": 80, "protocol": "UDP"}]),
        service("e", "", type="ExternalName"),
    ]
    slices = [slice_(READY), slice_(("10.244.0.2", "node1"), name="b", ready=False), slice_(READY, name="d")]
    assert short(found(services, slices)) == [
        ("10.96.0.1", 80, ["10.244.0.1"], "node1,node2"),
        ("10.96.0.2", 80, [], "node1,node2"),
    ]


@pytest.mark.parametrize("label", ["service.kubernetes.io/service-proxy-name", "service.kubernetes.io/headless"])
def test_services_of_others_are_left_out(label: str) -> None:
    assert found([service(labels={label: "x"})], [slice_(READY)]) == []


def test_endpoints_that_serve_to_the_last_are_served_and_those_that_nodes_do_not_use_are_not() -> None:
    (last,) = found([service()], [slice_(READY, ready=False, serving=True, terminating=True)])
    assert [one.ip for one in last.endpoints] == ["10.244.0.1"]
    unused = [slice_(("10.96.0.77", "node1")), slice_(("example.com", "node1"), kind="FQDN")]
    (refuses,) = found([service()], unused)
    assert refuses.endpoints == ()


def test_policy_local_inside_is_asked_where_endpoints_are_and_refused_elsewhere() -> None:
    these = found([service(internalTrafficPolicy="Local")], [slice_(READY)])
    assert short(these) == [("10.96.0.1", 80, ["10.244.0.1"], "node1"), ("10.96.0.1", 80, [], "node2")]
    probes = users.plan(these, PODS, NODES, OUTSIDE)
    here = {party.name for party in (*PODS, *NODES) if party.node == "node1"}
    assert {probe.source for probe in probes if probe.promise == SERVICES} == here
    assert {probe.source for probe in probes if probe.promise == REFUSED} == {p.name for p in (*PODS, *NODES)} - here


BALANCED = {"loadBalancer": {"ingress": [{"ip": "192.0.2.1", "ipMode": "VIP"}, {"ip": "192.0.2.2", "ipMode": "Proxy"}]}}


def outside(service: Any, *slices: Any, where: Site | None = None) -> list[tuple[str, int]]:
    """What is asked from outside."""
    return [(way.vip.ip, way.vip.port) for way in found([service], list(slices), where) if way.outside]


@pytest.mark.parametrize(
    ("spec", "asked"),
    [
        ({}, True),
        ({"loadBalancerClass": "podplane.dev/load-balancer"}, True),
        ({"loadBalancerClass": "example.com/x"}, False),
        ({"loadBalancerSourceRanges": ["203.0.113.0/24"]}, True),
        ({"loadBalancerSourceRanges": ["10.0.0.0/8", " 203.0.113.8/29"]}, True),
        ({"loadBalancerSourceRanges": ["10.0.0.0/8", "2001:db8::/32"]}, False),
        ({"externalTrafficPolicy": "Local"}, True),
    ],
)
def test_load_balancers_are_asked_from_outside_where_they_let_it_in(spec: dict[str, Any], asked: bool) -> None:
    one = service(type="LoadBalancer", status=BALANCED, **spec)
    assert outside(one, slice_(READY)) == ([("192.0.2.1", 80)] if asked else [])


def test_a_load_balancer_that_nobody_may_answer_for_is_not_asked() -> None:
    one = service(type="LoadBalancer", status=BALANCED, externalTrafficPolicy="Local")
    assert outside(one, slice_(READY, ready=False, serving=True, terminating=True)) == [("192.0.2.1", 80)]
    assert outside(one, slice_(READY, ready=False, serving=False)) == []
    assert outside(service(type="LoadBalancer", status=BALANCED)) == []


def test_node_ports_are_asked_at_the_addresses_that_serve_them() -> None:
    one = service(type="NodePort", ports=[{"port": 80, "nodePort": 30080}])
    assert outside(one, slice_(READY)) == [("192.168.1.1", 30080), ("192.168.1.2", 30080)]
    assert outside(one, slice_(READY), where=site(node1=[], node2=["192.168.1.2"])) == [("192.168.1.2", 30080)]
    local = service(type="NodePort", ports=[{"port": 80, "nodePort": 30080}], externalTrafficPolicy="Local")
    assert outside(local, slice_(READY)) == [("192.168.1.1", 30080)]


def test_what_is_asked_from_outside_is_asked_by_the_host_outside() -> None:
    these = found([service(type="LoadBalancer", status=BALANCED)], [slice_(READY)])
    probes = [probe for probe in users.plan(these, PODS, NODES, OUTSIDE) if probe.promise == FROM_OUTSIDE]
    assert [(probe.source, probe.ip, probe.protocol) for probe in probes] == [("outside", "192.0.2.1", "open")]
    assert all(probe.promise != FROM_OUTSIDE for probe in users.plan(these, PODS, NODES, None))


def test_deaf_endpoints_are_nobodys_fault() -> None:
    services = [service("a", "10.96.0.1"), service("b", "10.96.0.2")]
    these = found(services, [slice_(READY), slice_(READY, ("10.244.0.2", "node2"), name="b")])
    direct = users.direct(these, NODES)
    assert sorted((probe.source, probe.ip, probe.port) for probe in direct) == [
        ("node1", "10.244.0.1", 8080),
        ("node2", "10.244.0.2", 8080),
    ], "each endpoint once, by the nodes in turn"
    assert users.direct(these, []) == []
    answers = {probe: {"ok": probe.ip == "10.244.0.1"} for probe in direct}
    assert [way.vip.service for way in users.listening(these, answers)] == ["default/a"]
    assert users.deaf(these, answers) == ["Service default/b (nobody answers at 10.244.0.2:8080)"]
    six = found([service("c", "fd00::c")], [slice_(("fd00:1::2", "node1"), name="c", kind="IPv6")])
    assert users.deaf(six, {}) == ["Service default/c (nobody answers at [fd00:1::2]:8080)"]


def test_nodes_that_can_not_be_asked_are_neither_sources_nor_targets() -> None:
    services = [service(ports=[{"port": 80, "nodePort": 30080}])]
    whole, less = site(), site().without({"node1"})
    assert less.names == {"node2"} and whole.names == {"node1", "node2"}
    probes = users.plan(found(services, [slice_(READY)], less), PODS, NODES, OUTSIDE)
    assert {probe.source for probe in probes} == {*(p.name for p in PODS if p.node == "node2"), "node2", "outside"}
    assert {probe.ip for probe in probes if probe.source == "outside"} == {"192.168.1.2"}


def test_of_many_services_each_is_asked_from_some() -> None:
    many = [service(f"s{n}", f"10.96.{n >> 8}.{n & 255}", ports=[{"port": 80, "nodePort": 20000 + n}]) for n in range(2000)]
    probes = users.plan(found(many, [slice_(READY, name=f"s{n}") for n in range(2000)]), PODS, NODES, OUTSIDE)
    inside = [probe for probe in probes if probe.promise == SERVICES]
    assert len(inside) == 2000 and len({probe.target for probe in inside}) == 2000
    assert len({probe.source for probe in inside}) == len(PODS) + len(NODES)
    ports = [probe for probe in probes if probe.promise == FROM_OUTSIDE]
    assert len({probe.port for probe in ports}) == 2000 == len(ports)
    assert {probe.ip for probe in ports} == {"192.168.1.1", "192.168.1.2"}
    few = found(many[:3], [slice_(READY, name=f"s{n}") for n in range(3)])
    asked = [probe for probe in users.plan(few, PODS, NODES, None) if probe.promise == SERVICES]
    assert len(set(asked)) == 3 * (len(PODS) + len(NODES))


def test_a_service_that_changes_meanwhile_is_known() -> None:
    before = found([service("a"), service("b", "10.96.0.2")], [slice_(READY), slice_(READY, name="b")])
    after = found([service("a"), service("b", "10.96.0.2")], [slice_(READY), slice_(("10.244.0.9", "node1"), name="b")])
    assert users.changed(before, after) == {"default/b"}
    assert users.changed(before, before) == set()
    assert users.changed(before, []) == {"default/a", "default/b"}
