"""Services in the agent over the fake kernel: who has what two want, what a new agent finds, and UDP connections that begin anew."""

from __future__ import annotations

import ipaddress

import msgspec
import pytest

from podplane.agent.agent import Agent
from podplane.agent.features import PeerPlans
from podplane.kernel.door import Kernel
from podplane.model.objects import Metadata
from podplane.model.service import EndpointPort, EndpointSlice, Service, ServicePort, ServiceSpec
from podplane.trace.packet import Packet
from podplane.trace.trace import Delivered, Rejected
from tests.unit.agent.rig import Rig, cluster, frontends, service_of, slice_of, wanting


async def test_a_new_agent_finds_services_as_they_are_and_writes_nothing() -> None:
    rig = Rig(("10.96.0.0/16", "fd00:10:96::/112"))
    rig.agent.start(cluster(1, 2))
    services = [service_of(f"s{n}", f"10.96.0.{n}") for n in (1, 2, 3)]
    services += [service_of(f"k{n}", f"10.96.0.1{n}", "ClientIP") for n in (1, 2)]
    slices = [slice_of(s.metadata.name, "10.244.1.2", "10.244.2.3", "10.244.2.4") for s in services[1:]]
    for service in services:
        rig.agent.service_changed(None, service)
    for slice_ in slices:
        rig.agent.slice_changed(None, slice_)
    await rig.agent.reconcile()
    gone = services.pop(1)
    rig.agent.service_changed(gone, None)
    await rig.agent.reconcile()
    before = rig.host.objects.dump()
    fresh = rig.new_agent()
    report = fresh.start(cluster(1, 2), (), reversed(services), reversed(slices))
    assert [o for o in report.applied if o.old != o.new] == []
    assert rig.host.objects.dump() == before
    assert "frontends4" in before


async def test_node_ports_are_served_on_the_chosen_addresses_only() -> None:
    for cidrs, wanted in (((), (True, True)), (("192.168.0.0/16",), (True, False)), (("10.0.0.0/8",), (False, False))):
        rig = Rig(("10.96.0.0/16", "fd00:10:96::/112"))
        rig.config = msgspec.structs.replace(rig.config, node_port_addresses=cidrs)
        rig.agent = rig.new_agent()
        ips = ("10.96.0.1", "fd00:10:96::1")
        spec = ServiceSpec(cluster_ip=ips[0], cluster_ips=ips, ports=(ServicePort(80, node_port=30080),), type="NodePort")
        rig.agent.start(cluster(1), services=[Service(metadata=Metadata(name="web", namespace="default"), spec=spec)])
        ips = [ipaddress.ip_address(ip) for ip in cluster(1)["node1"].internal_ips]
        traces = [rig.host.send(Packet(source=ip, destination=ip, destination_port=30080)) for ip in ips]
        # Without endpoints what is served is refused by name; what is not reaches the node's own sockets.
        assert tuple(isinstance(trace.end, Rejected) and "svc/default/web:80" in trace.comments for trace in traces) == wanted
        assert all(isinstance(trace.end, Rejected | Delivered) for trace in traces)


async def test_of_two_that_want_one_frontend_the_first_keeps_it_and_the_second_gets_it_when_that_goes() -> None:
    rig = Rig(("10.96.0.0/16",))
    told: list[tuple[str, str]] = []
    rig.agent = Agent(
        "node1", rig.config, rig.kernel, PeerPlans(), lambda: 0.0, lambda key, why, reason="": told.append((key, why))
    )
    rig.agent.start(cluster(1))
    both = [msgspec.structs.replace(service_of(name, "10.96.0.9")) for name in ("one", "two")]
    for service, target in zip(both, ("10.244.1.2", "10.244.1.3"), strict=True):
        rig.agent.service_changed(None, service)
        rig.agent.slice_changed(None, slice_of(service.metadata.name, target))
        await rig.agent.reconcile()
    assert told == [("service/default/two", "10.96.0.9 tcp 80 belongs to service/default/one: choose another one")]
    assert frontends(rig) == {"10.96.0.9 80": "svc/default/one:80"}
    rig.agent.service_changed(both[0], None)
    await rig.agent.reconcile()
    assert frontends(rig) == {"10.96.0.9 80": "svc/default/two:80"}


async def test_who_wants_what_another_one_has_is_served_but_for_that() -> None:
    rig = Rig(("10.96.0.0/16",))
    rig.agent.start(cluster(1))
    for one in (wanting("b", "10.96.0.1", "1", "192.0.2.1"), wanting("a", "10.96.0.2", "2", "192.0.2.1", "192.0.2.2")):
        rig.agent.service_changed(None, one)
        rig.agent.slice_changed(None, slice_of(one.metadata.name, "10.244.1.2"))
        await rig.agent.reconcile()
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
        rig.agent = rig.new_agent()
        rig.agent.start(cluster(1), services=rivals, slices=slices)
        assert frontends(rig)["192.0.2.1 80"] == "svc/default/b:80"


async def test_an_older_one_that_comes_to_want_it_has_it_and_the_other_one_again_when_it_does_not() -> None:
    rig = Rig(("10.96.0.0/16",))
    told: list[str] = []
    rig.agent = Agent("node1", rig.config, rig.kernel, PeerPlans(), lambda: 0.0, lambda key, _why, _reason="": told.append(key))
    younger, older = wanting("a", "10.96.0.1", "2", "192.0.2.1"), wanting("b", "10.96.0.2", "1")
    rig.agent.start(cluster(1), services=[younger, older], slices=[slice_of(name, "10.244.1.2") for name in "ab"])
    assert frontends(rig)["192.0.2.1 80"] == "svc/default/a:80"
    wants = wanting("b", "10.96.0.2", "1", "192.0.2.1")
    rig.agent.service_changed(older, wants)
    assert not (await rig.agent.reconcile()).failed
    assert frontends(rig)["192.0.2.1 80"] == "svc/default/b:80" and set(told) == {"service/default/a"}
    assert frontends(rig)["10.96.0.1 80"] == "svc/default/a:80"
    rig.agent.service_changed(wants, older)
    assert not (await rig.agent.reconcile()).failed
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
    told: list[tuple[str, str]] = []
    rig.agent = Agent(
        "node1", rig.config, rig.kernel, PeerPlans(), lambda: 0.0, lambda key, why, reason="": told.append((key, why))
    )
    rivals = [wanting("a", "10.96.0.2", "1", ip, "192.0.2.1"), wanting("b", "10.96.0.1", "2")]
    rig.agent.start(cluster(1), services=rivals, slices=[slice_of(name, "10.244.1.2") for name in "ab"])
    mine = {"10.96.0.2 80", "192.0.2.1 80"}
    assert frontends(rig) == {**dict.fromkeys(mine, "svc/default/a:80"), "10.96.0.1 80": "svc/default/b:80"}
    assert told == [("service/default/a", f"external IP {ip} is not served: {why}")]


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
    rig.agent.start(cluster(1))
    service, two = dns("10.244.1.2", "10.244.1.3")
    rig.agent.service_changed(None, service)
    rig.agent.slice_changed(None, two)
    await rig.agent.reconcile()
    assert rig.opener.forgotten == [{DNS: targets("10.244.1.2", "10.244.1.3")}], "a client may have come before the Service"
    _, three = dns("10.244.1.2", "10.244.1.3", "10.244.1.4")
    rig.agent.slice_changed(two, three)
    await rig.agent.reconcile()
    assert len(rig.opener.forgotten) == 1
    _, one = dns("10.244.1.4")
    rig.agent.slice_changed(three, one)
    await rig.agent.reconcile()
    assert rig.opener.forgotten[1:] == [{DNS: targets("10.244.1.4")}]
    rig.agent.service_changed(service, None)
    await rig.agent.reconcile()
    assert rig.opener.forgotten[2:] == [{DNS: frozenset()}]


async def test_udp_connections_are_looked_at_by_a_new_agent_and_after_a_repair() -> None:
    rig = Rig(service_cidrs=("10.96.0.0/16",))
    service, slice_ = dns("10.244.1.2")
    rig.agent.start(cluster(1), services=[service], slices=[slice_])
    assert rig.opener.forgotten == [{DNS: targets("10.244.1.2")}]
    now = 0.0
    fresh = Agent("node1", rig.config, Kernel(rig.host, rig.opener), PeerPlans(), lambda: now)
    fresh.start(cluster(1), services=[service], slices=[slice_])
    assert len(rig.opener.forgotten) == 2, "endpoints may have gone meanwhile"
    rig.host.objects.nft.clear()
    rig.host.objects.foreign_commits += 1
    now = 1.0
    await fresh._turn()
    assert rig.opener.forgotten[2:] == [{DNS: targets("10.244.1.2")}]
    now = 2.0
    await fresh._turn()
    assert len(rig.opener.forgotten) == 3, "nobody was at work"
