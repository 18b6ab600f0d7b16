"""Services in the agent over the fake kernel: who has what two want, what a new agent finds, and UDP connections that begin anew."""

from __future__ import annotations

import asyncio
import ipaddress
import threading

import msgspec
import pytest

from podplane.model.objects import Metadata, NodeAddress
from podplane.model.service import EndpointPort, EndpointSlice, Service, ServicePort, ServiceSpec
from podplane.services.settings import ServiceSettings
from podplane.state.conntrack import Allowed
from podplane.state.nft import Element
from podplane.trace.packet import Packet
from podplane.trace.trace import Delivered, Rejected
from tests.unit.agent.rig import Rig, cluster, frontends, service_of, slice_of, until, wanting


async def test_a_new_agent_finds_services_as_they_are_and_writes_nothing() -> None:
    rig = Rig(("10.96.0.0/16", "fd00:10:96::/112"))
    await rig.start(*cluster(1, 2))
    services = [service_of(f"s{n}", f"10.96.0.{n}") for n in (1, 2, 3)]
    services += [service_of(f"k{n}", f"10.96.0.1{n}", "ClientIP") for n in (1, 2)]
    slices = [slice_of(s.metadata.name, "10.244.1.2", "10.244.2.3", "10.244.2.4") for s in services[1:]]
    for service in services:
        rig.put(service)
    for slice_ in slices:
        rig.put(slice_)
    await rig.settle()
    gone = services.pop(1)
    rig.remove(gone)
    await rig.settle()
    before = rig.host.objects.dump()
    fresh = rig.new_agent()
    await rig.start()
    assert fresh.writer.operations_applied == 0
    assert rig.host.objects.dump() == before
    assert "frontends4" in before


async def test_node_ports_are_served_on_the_chosen_addresses_only() -> None:
    for cidrs, wanted in (((), (True, True)), (("192.168.0.0/16",), (True, False)), (("10.0.0.0/8",), (False, False))):
        rig = Rig(("10.96.0.0/16", "fd00:10:96::/112"))
        own = ServiceSettings(node_port_addresses=cidrs)
        rig.settings = msgspec.structs.replace(rig.settings, services=own)
        rig.new_agent()
        ips = ("10.96.0.1", "fd00:10:96::1")
        spec = ServiceSpec(cluster_ip=ips[0], cluster_ips=ips, ports=(ServicePort(80, node_port=30080),), type="NodePort")
        await rig.start(*cluster(1), Service(metadata=Metadata(name="web", namespace="default"), spec=spec))
        nodes_ips = [ipaddress.ip_address(ip) for ip in cluster(1)[0].internal_ips]
        traces = [rig.host.send(Packet(source=ip, destination=ip, destination_port=30080)) for ip in nodes_ips]
        # Without endpoints what is served is refused by name; what is not reaches the node's own sockets.
        assert tuple(isinstance(trace.end, Rejected) and "svc/default/web:80" in trace.comments for trace in traces) == wanted
        assert all(isinstance(trace.end, Rejected | Delivered) for trace in traces)


async def test_node_ports_are_served_at_external_ips_where_these_are_chosen() -> None:
    """As kube-proxy's --nodeport-addresses; and when the Node gets one while the agent runs."""
    rig = Rig(("10.96.0.0/16",))
    rig.settings = msgspec.structs.replace(rig.settings, services=ServiceSettings(node_port_addresses=("172.30.0.0/22",)))
    rig.new_agent()
    spec = ServiceSpec(
        cluster_ip="10.96.0.9", cluster_ips=("10.96.0.9",), ports=(ServicePort(80, node_port=30080),), type="NodePort"
    )
    node, *others = cluster(1)
    await rig.start(node, *others, Service(metadata=Metadata(name="web", namespace="default"), spec=spec))
    assert "172.30.0.10" not in rig.host.objects.dump()
    addresses = (*node.status.addresses, NodeAddress("ExternalIP", "172.30.0.10"))
    rig.put(msgspec.structs.replace(node, status=msgspec.structs.replace(node.status, addresses=addresses)))
    await rig.settle()
    assert "172.30.0.10 . tcp . 30080" in rig.host.objects.dump()
    assert "192.168.1.10 . tcp . 30080" not in rig.host.objects.dump()


async def test_of_two_that_want_one_frontend_the_first_keeps_it_and_the_second_gets_it_when_that_goes() -> None:
    rig = Rig(("10.96.0.0/16",))
    await rig.start(*cluster(1))
    both = [msgspec.structs.replace(service_of(name, "10.96.0.9")) for name in ("one", "two")]
    for service, target in zip(both, ("10.244.1.2", "10.244.1.3"), strict=True):
        rig.put(service)
        rig.put(slice_of(service.metadata.name, target))
        await rig.settle()
    assert rig.events == [
        ("service/default/two", "NotApplied", "10.96.0.9 tcp 80 belongs to service/default/one: choose another one")
    ]
    assert frontends(rig) == {"10.96.0.9 80": "svc/default/one:80"}
    rig.remove(both[0])
    await rig.settle()
    assert frontends(rig) == {"10.96.0.9 80": "svc/default/two:80"}


async def test_who_wants_what_another_one_has_is_served_but_for_that() -> None:
    rig = Rig(("10.96.0.0/16",))
    await rig.start(*cluster(1))
    for one in (wanting("b", "10.96.0.1", "1", "192.0.2.1"), wanting("a", "10.96.0.2", "2", "192.0.2.1", "192.0.2.2")):
        rig.put(one)
        rig.put(slice_of(one.metadata.name, "10.244.1.2"))
        await rig.settle()
    assert frontends(rig) == {
        "10.96.0.1 80": "svc/default/b:80",
        "192.0.2.1 80": "svc/default/b:80",
        "10.96.0.2 80": "svc/default/a:80",
        "192.0.2.2 80": "svc/default/a:80",
    }


async def test_of_two_that_want_the_same_the_older_one_has_it_on_every_node_and_after_a_restart() -> None:
    rig = Rig(("10.96.0.0/16",))
    rivals = [wanting("a", "10.96.0.1", "2", "192.0.2.1"), wanting("b", "10.96.0.2", "1", "192.0.2.1")]
    slices = [slice_of(one.metadata.name, "10.244.1.2") for one in rivals]
    for _ in range(2):
        rig.new_agent()
        await rig.start(*cluster(1), *rivals, *slices)
        assert frontends(rig)["192.0.2.1 80"] == "svc/default/b:80"


async def test_an_older_one_that_comes_to_want_it_has_it_and_the_other_one_again_when_it_does_not() -> None:
    rig = Rig(("10.96.0.0/16",))
    younger, older = wanting("a", "10.96.0.1", "2", "192.0.2.1"), wanting("b", "10.96.0.2", "1")
    await rig.start(*cluster(1), *[younger, older], *[slice_of(name, "10.244.1.2") for name in "ab"])
    assert frontends(rig)["192.0.2.1 80"] == "svc/default/a:80"
    wants = wanting("b", "10.96.0.2", "1", "192.0.2.1")
    rig.put(wants)
    await rig.settle()
    assert not rig.agent.ledger.refused
    assert frontends(rig)["192.0.2.1 80"] == "svc/default/b:80" and {key for key, _, _ in rig.events} == {"service/default/a"}
    assert frontends(rig)["10.96.0.1 80"] == "svc/default/a:80"
    rig.put(older)
    await rig.settle()
    assert not rig.agent.ledger.refused
    assert frontends(rig)["192.0.2.1 80"] == "svc/default/a:80"


@pytest.mark.parametrize(
    ("ip", "why"),
    [
        ("10.96.0.1", "it lies in the range of cluster IPs"),
        ("127.0.0.1", "it is one that every machine uses for itself"),
        ("169.254.1.1", "it is one that every machine uses for itself"),
    ],
)
async def test_nobody_takes_a_cluster_ip_or_localhost_by_naming_it_as_external(ip: str, why: str) -> None:
    rig = Rig(("10.96.0.0/16",))
    rivals = [wanting("a", "10.96.0.2", "1", ip, "192.0.2.1"), wanting("b", "10.96.0.1", "2")]
    await rig.start(*cluster(1), *rivals, *(slice_of(name, "10.244.1.2") for name in "ab"))
    mine = {"10.96.0.2 80", "192.0.2.1 80"}
    assert frontends(rig) == {**dict.fromkeys(mine, "svc/default/a:80"), "10.96.0.1 80": "svc/default/b:80"}
    assert rig.events == [("service/default/a", "NotApplied", f"external IP {ip} is not served: {why}")]


DNS = ("udp", ipaddress.ip_address("10.96.0.10"), 53)


def dns(*ips: str) -> tuple[Service, EndpointSlice]:
    spec = ServiceSpec(cluster_ip="10.96.0.10", cluster_ips=("10.96.0.10",), ports=(ServicePort(53, protocol="UDP"),))
    one = slice_of("dns", *ips)
    slice_ = msgspec.structs.replace(one, ports=(EndpointPort("", "UDP", 53),))
    return Service(metadata=Metadata(name="dns", namespace="default"), spec=spec), slice_


def targets(*ips: str) -> set[tuple[object, int]]:
    return {(ipaddress.ip_address(ip), 53) for ip in ips}


async def test_udp_connections_are_looked_at_when_an_endpoint_went_and_only_then() -> None:
    rig = Rig(service_cidrs=("10.96.0.0/16",))
    await rig.start(*cluster(1))
    service, two = dns("10.244.1.2", "10.244.1.3")
    rig.put(service)
    rig.put(two)
    await rig.settle()
    assert rig.opener.flushed == [{DNS: targets("10.244.1.2", "10.244.1.3")}], "a client may have come before the Service"
    _, three = dns("10.244.1.2", "10.244.1.3", "10.244.1.4")
    rig.put(three)
    await rig.settle()
    assert len(rig.opener.flushed) == 1
    _, one = dns("10.244.1.4")
    rig.put(one)
    await rig.settle()
    assert rig.opener.flushed[1:] == [{DNS: targets("10.244.1.4")}]
    rig.remove(service)
    await rig.settle()
    assert rig.opener.flushed[2:] == [{DNS: frozenset()}]


async def test_udp_connections_are_looked_at_by_a_new_agent_and_after_a_repair() -> None:
    rig = Rig(service_cidrs=("10.96.0.0/16",))
    service, slice_ = dns("10.244.1.2")
    await rig.start(*cluster(1), service, slice_)
    assert rig.opener.flushed == [{DNS: targets("10.244.1.2")}]
    rig.new_agent()
    await rig.start()
    assert len(rig.opener.flushed) == 2, "endpoints may have gone meanwhile"
    rig.host.objects.nft.clear()
    rig.host.objects.foreign_commits += 1
    await rig.poll(at=1.0)
    await rig.poll(at=1.1)
    assert rig.opener.flushed[2:] == [{DNS: targets("10.244.1.2")}]
    await rig.poll(at=2.0)
    assert len(rig.opener.flushed) == 3, "nobody was at work"


async def test_nothing_waits_while_a_long_table_of_connections_is_gone_through(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig(service_cidrs=("10.96.0.0/16",))
    await rig.start(*cluster(1))
    asked: list[Allowed] = []
    may_end = threading.Event()

    def slow(allowed: Allowed) -> int:
        asked.append(allowed)
        may_end.wait(10)
        return 0

    monkeypatch.setattr(rig.agent._kernel, "flush_conntrack", slow)
    rig.put(*dns("10.244.1.2"))
    await rig.agent.reconcile()
    await until(lambda: bool(asked))
    try:
        rig.put(service_of("web", "10.96.0.11"), slice_of("web", "10.244.1.9"))
        await asyncio.wait_for(rig.agent.reconcile(), 5)
        assert "10.244.1.9" in rig.host.objects.dump()
        rig.put(dns("10.244.1.3")[1])
        await rig.agent.reconcile()
        assert len(asked) == 1, "one walk at a time"
    finally:
        may_end.set()
    await rig.agent.idle()
    assert asked == [{DNS: targets("10.244.1.2")}, {DNS: targets("10.244.1.3")}]


async def test_a_flush_that_failed_is_tried_again_with_what_came_since(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig(service_cidrs=("10.96.0.0/16",))
    await rig.start(*cluster(1))
    flush = rig.agent._kernel.flush_conntrack

    def fails(allowed: Allowed) -> int:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(rig.agent._kernel, "flush_conntrack", fails)
    rig.put(*dns("10.244.1.2"))
    await rig.settle()
    assert rig.opener.flushed == [] and rig.agent._effects.has_due
    monkeypatch.setattr(rig.agent._kernel, "flush_conntrack", flush)
    rig.put(dns("10.244.1.3")[1])
    await rig.settle()
    assert rig.opener.flushed == [{DNS: targets("10.244.1.3")}] and not rig.agent._effects.has_due


@pytest.mark.parametrize("older_has_endpoints", [True, False])
async def test_a_service_without_endpoints_keeps_its_frontend_and_so_does_one_with_them(older_has_endpoints: bool) -> None:
    """A refused frontend and a served one are different objects of the kernel, but only one Service can have it."""
    rig = Rig(("10.96.0.0/16",))
    older, younger = wanting("b", "10.96.0.2", "1", "192.0.2.1"), wanting("a", "10.96.0.1", "2", "192.0.2.1")
    slices = [slice_of("b" if older_has_endpoints else "a", "10.244.1.2")]
    await rig.start(*cluster(1), younger, older, *slices)
    refused = [v for v in rig.agent.ledger.desired.values() if isinstance(v, Element) and v.set == "refused4"]
    assert frontends(rig).get("192.0.2.1 80") == ("svc/default/b:80" if older_has_endpoints else None)
    assert {(str(v.key[0]), v.comment) for v in refused} == (
        {("10.96.0.1", "svc/default/a:80")}
        if older_has_endpoints
        else {("10.96.0.2", "svc/default/b:80"), ("192.0.2.1", "svc/default/b:80")}
    )
    assert {key for key, _, _ in rig.events} == {"service/default/a"}
