"""Where questions for names go: to the node itself, untracked, and nothing else is exempt; or, while its server is away, to other nodes."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from podplane.agent.agent import Agent
from podplane.dns import endpoints
from podplane.dns.node import TABLE
from podplane.dns.settings import DnsSettings
from podplane.kernel.door import Kernel
from podplane.model.service import EndpointSlice, Service, ServicePort
from podplane.state.network import Address
from podplane.state.operations import Operation
from podplane.trace.trace import Delivered, Dropped, Rejected
from tests.fake_cluster import FakeCluster, ip, node_ip, pod_ip, service
from tests.plans import node

DNS = {4: ip("10.96.0.53"), 6: ip("fd00:10:96::53")}
OTHER = {4: ip("10.96.0.54"), 6: ip("fd00:10:96::54")}
GATEWAY = {4: ip("10.244.2.1"), 6: ip("fd00:10:244:2::1")}
BOTH = pytest.mark.parametrize("version", [4, 6])
PROTOCOLS = pytest.mark.parametrize("protocol", ["udp", "tcp"])
PORTS = (ServicePort(53, "dns", "UDP"), ServicePort(53, "dns-tcp", "TCP"))


class DnsCluster(FakeCluster):
    """Each node has a name server, and offers it."""

    dns_ips = tuple(map(str, DNS.values()))


def in_system(one: Service | EndpointSlice) -> Service | EndpointSlice:
    return msgspec.structs.replace(one, metadata=msgspec.structs.replace(one.metadata, namespace="kube-system"))


def slices_of(number: int, *, answers: bool = True) -> list[EndpointSlice]:
    manifests = endpoints.wanted(node(number, (4, 6)), answers=answers).values()
    return [in_system(msgspec.convert(one, EndpointSlice)) for one in manifests]  # type: ignore[misc]  # a slice stays one


@pytest.fixture
def cluster() -> DnsCluster:
    """With the Service of the DNS, and another one at the same port that has no endpoints."""
    own, other = (
        service(name, tuple(map(str, ips.values())), ports=PORTS) for name, ips in (("kube-dns", DNS), ("other", OTHER))
    )
    return DnsCluster([in_system(own), other], [*slices_of(1), *slices_of(2)])  # type: ignore[list-item]  # a Service stays one


def stop(cluster: DnsCluster, *numbers: int) -> None:
    """The name servers of these nodes answer none; all agents know it."""
    for number, agent in cluster.agents.items():
        for gone in numbers:
            for one in slices_of(gone, answers=False):
                cluster.caches[number].slices.set(one)
                agent.changed(EndpointSlice, None, one)
        if number in numbers:
            agent.name_server_changed(is_here=False)
        asyncio.run(agent.reconcile())


@BOTH
@PROTOCOLS
def test_a_question_goes_to_the_node_itself_and_the_answer_back(cluster: DnsCluster, version: int, protocol: str) -> None:
    for trace in (
        cluster.from_pod(1, 1, DNS[version], 53, protocol=protocol),
        cluster.send("node1", node_ip(1, version), DNS[version], 53, protocol=protocol),
        cluster.send("node1", DNS[version], DNS[version], 53, protocol=protocol),
    ):
        assert trace.end == Delivered("node1", DNS[version], 53, protocol), trace
        assert not trace.memory.connections.get("node1"), "neither translated nor tracked"
    answer = cluster.send(
        "node1", DNS[version], pod_ip(1, 1, version), 40000, protocol=protocol, source_port=53, state="untracked"
    )
    assert answer.end == Delivered("node1-pod1", pod_ip(1, 1, version), 40000, protocol)


@BOTH
def test_only_questions_are_exempt(cluster: DnsCluster, version: int) -> None:
    """Other ports of the address and other Services are refused, tracked, translated as ever; nobody gets past that from port 53, not even
    with the server's own address."""
    for ips, port, own in ((DNS, 54, 40000), (OTHER, 53, 40000), (OTHER, 80, 53), (OTHER, 53, 53)):
        for protocol in ("udp", "tcp"):
            trace = cluster.from_pod(1, 1, ips[version], port, protocol=protocol, source_port=own)
            assert isinstance(trace.end, Rejected), trace
    forged = cluster.send("node1-pod1", DNS[version], OTHER[version], 53, protocol="udp", source_port=53)
    assert isinstance(forged.end, Rejected | Dropped), forged


@BOTH
def test_what_a_pod_sends_from_the_address_of_the_dns_is_dropped(cluster: DnsCluster, version: int) -> None:
    for port in (53, 4000):
        forged = cluster.send("node1-pod1", DNS[version], pod_ip(1, 2, version), 9999, protocol="udp", source_port=port)
        assert isinstance(forged.end, Dropped), forged


@BOTH
def test_an_untracked_packet_reaches_no_service_untranslated(cluster: DnsCluster, version: int) -> None:
    """Another program's rules may exempt packets: to what is no address of the node, they are refused."""
    trace = cluster.send("node1", node_ip(1, version), OTHER[version], 53, protocol="udp", state="untracked")
    assert isinstance(trace.end, Rejected | Dropped), trace


@BOTH
@PROTOCOLS
def test_a_node_without_a_server_leads_to_another_one(cluster: DnsCluster, version: int, protocol: str) -> None:
    stop(cluster, 1)
    trace = cluster.from_pod(1, 1, DNS[version], 53, protocol=protocol)
    assert trace.end == Delivered("node2", GATEWAY[version], 53, protocol), trace
    assert trace.packet.source == pod_ip(1, 1, version), "which says who asks"
    answer = cluster.reply(trace)
    assert answer.end == Delivered("node1-pod1", pod_ip(1, 1, version), 40000, protocol)
    assert answer.packet.source == DNS[version]
    assert cluster.from_pod(2, 1, DNS[version], 53, protocol=protocol).end == Delivered("node2", DNS[version], 53, protocol)
    own = cluster.send("node1", node_ip(1, version), DNS[version], 53, protocol=protocol)
    assert own.end == Delivered("node2", GATEWAY[version], 53, protocol)


@BOTH
@PROTOCOLS
def test_no_question_falls_between_the_address_and_its_exemption(cluster: DnsCluster, version: int, protocol: str) -> None:
    """The kernel loses or gets one before the other: what is asked in between goes to a server, here by the Service."""
    node1 = cluster.namespaces["node1"]
    kernel = Kernel(node1, cluster.opener)
    address = next(
        one for one in cluster.agents[1].ledger.desired.values() if isinstance(one, Address) and one.ip == DNS[version]
    )
    assert not kernel.apply([Operation(address, None)]).failed
    own = {4: ip("10.244.1.1"), 6: ip("fd00:10:244:1::1")}[version]
    ends = {cluster.from_pod(1, 1, DNS[version], 53, protocol=protocol, source_port=port).end for port in range(40000, 40003)}
    assert ends == {Delivered("node1", own, 53, protocol)}, "its own server is the nearest one still"
    assert not kernel.apply([Operation(None, address)]).failed
    assert cluster.from_pod(1, 1, DNS[version], 53, protocol=protocol).end == Delivered("node1", DNS[version], 53, protocol)


@BOTH
def test_a_late_answer_leaves_no_entry(cluster: DnsCluster, version: int) -> None:
    """It would take the next question from the same port for an answer to it, and lead it nowhere."""
    stop(cluster, 1)
    late = cluster.send("node1", DNS[version], pod_ip(1, 1, version), 40000, protocol="udp", source_port=53)
    assert late.end == Delivered("node1-pod1", pod_ip(1, 1, version), 40000, "udp")
    assert not late.memory.connections.get("node1")


@BOTH
def test_while_no_node_has_a_server_questions_wait_at_the_node(cluster: DnsCluster, version: int) -> None:
    stop(cluster, 1, 2)
    for number in (1, 2):
        assert cluster.from_pod(number, 1, DNS[version], 53, protocol="udp").end == Delivered(
            f"node{number}", DNS[version], 53, "udp"
        )


def test_an_agent_without_dns_removes_all_of_it(cluster: DnsCluster) -> None:
    namespace = cluster.namespaces["node1"]
    before = namespace.objects.dump()
    assert TABLE[1] in before and "10.96.0.53/32" in before
    settings = msgspec.structs.replace(cluster.settings, dns=DnsSettings())
    asyncio.run(Agent("node1", settings, Kernel(namespace, cluster.opener), cluster.caches[1]).start())
    after = namespace.objects.dump()
    assert TABLE[1] not in after and "10.96.0.53/32" not in after


def test_an_agent_that_restarts_writes_nothing(cluster: DnsCluster) -> None:
    namespace = cluster.namespaces["node2"]
    before = namespace.objects.dump()
    agent = Agent("node2", cluster.settings, Kernel(namespace, cluster.opener), cluster.caches[2])
    asyncio.run(agent.start(cluster.agents[2].network.attached))
    assert agent.writer.operations_applied == 0 and namespace.objects.dump() == before


@BOTH
def test_where_the_dns_is_others_it_is_a_service_like_any_other(cluster: DnsCluster, version: int) -> None:
    agent = cluster.agents[1]
    agent.names_changed(may_answer=False)
    asyncio.run(agent.reconcile())
    trace = cluster.from_pod(1, 1, DNS[version], 53, protocol="udp")
    assert isinstance(trace.end, Delivered) and trace.end.ip != DNS[version], "the Service leads to its endpoints"
    assert TABLE[1] not in cluster.namespaces["node1"].objects.dump()
    agent.names_changed(may_answer=True)
    asyncio.run(agent.reconcile())
    assert cluster.from_pod(1, 1, DNS[version], 53, protocol="udp").end == Delivered("node1", DNS[version], 53, "udp")


@BOTH
def test_a_server_of_others_on_the_same_node_answers_while_that_of_the_node_is_away(cluster: DnsCluster, version: int) -> None:
    """CoreDNS, taken over."""
    stop(cluster, 1, 2)
    assert cluster.from_pod(1, 1, DNS[version], 53, protocol="udp").end == Delivered("node1", DNS[version], 53, "udp"), "none"
    endpoint = {"addresses": [str(pod_ip(1, 2, version))], "nodeName": "node1", "conditions": {"ready": True}}
    manifest = {
        "metadata": {
            "name": "kube-dns-abcde",
            "namespace": "kube-system",
            "labels": {"kubernetes.io/service-name": "kube-dns"},
        },
        "addressType": f"IPv{version}",
        "endpoints": [endpoint],
        "ports": [{"name": "dns", "protocol": "UDP", "port": 53}],
    }
    theirs = msgspec.convert(manifest, EndpointSlice)
    cluster.caches[1].slices.set(theirs)
    cluster.agents[1].changed(EndpointSlice, None, theirs)
    asyncio.run(cluster.agents[1].reconcile())
    end = cluster.from_pod(1, 1, DNS[version], 53, protocol="udp").end
    assert end == Delivered("node1-pod2", pod_ip(1, 2, version), 53, "udp")
