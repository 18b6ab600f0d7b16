"""Where packets of a cluster with Services go, asked of the fake kernel: what counts is where they arrive, not by which rules."""

from __future__ import annotations

import msgspec
import pytest

from podplane.model.service import Ingress, LoadBalancerStatus, ServiceStatus
from podplane.trace.packet import RESET, SYN
from podplane.trace.trace import Delivered, Dropped, Rejected
from tests.fake_cluster import FakeCluster, endpoints, ip, node_ip, outside_ip, pod_ip, service

VIP = {4: ip("10.96.0.10"), 6: ip("fd00:10:96::10")}
BOTH = pytest.mark.parametrize("version", [4, 6])
PORT = 40000
LOCAL = {"external_traffic_policy": "Local"}


def web(*pods: tuple[int, int], **spec: object) -> FakeCluster:
    """A cluster with one Service that has these endpoints."""
    return FakeCluster([service(**spec)], endpoints("web", *pods))  # type: ignore[arg-type]  # by name


def to_pod(number: int, pod: int, version: int, port: int = 8080) -> Delivered:
    return Delivered(f"node{number}-pod{pod}", pod_ip(number, pod, version), port, "tcp")


@BOTH
def test_pods_of_one_node_reach_each_other_with_their_own_addresses(version: int) -> None:
    cluster = FakeCluster()
    trace = cluster.from_pod(1, 1, pod_ip(1, 2, version))
    assert trace.end == to_pod(1, 2, version, 80)
    assert trace.packet.source == pod_ip(1, 1, version) and trace.packet.ttl == 64
    assert cluster.reply(trace).end == to_pod(1, 1, version, PORT)


@BOTH
def test_pods_of_two_nodes_reach_each_other_with_their_own_addresses(version: int) -> None:
    cluster = FakeCluster()
    trace = cluster.from_pod(1, 1, pod_ip(2, 2, version))
    assert trace.end == to_pod(2, 2, version, 80)
    assert trace.packet.source == pod_ip(1, 1, version) and trace.packet.ttl == 62
    assert cluster.reply(trace).end == to_pod(1, 1, version, PORT)


@BOTH
@pytest.mark.parametrize("target", [(1, 2), (2, 1)])
def test_a_cluster_ip_leads_to_an_endpoint_and_the_answer_comes_from_it(version: int, target: tuple[int, int]) -> None:
    cluster = web(target)
    trace = cluster.from_pod(1, 1, VIP[version])
    assert trace.end == to_pod(*target, version)
    assert trace.packet.source == pod_ip(1, 1, version)
    assert "svc/default/web:80" in trace.comments
    answer = cluster.reply(trace)
    assert answer.end == to_pod(1, 1, version, PORT)
    assert (answer.packet.source, answer.packet.source_port) == (VIP[version], 80)


@BOTH
def test_a_node_itself_reaches_a_cluster_ip(version: int) -> None:
    cluster = web((2, 1))
    trace = cluster.send("node1", node_ip(1, version), VIP[version])
    assert trace.end == to_pod(2, 1, version)
    answer = cluster.reply(trace)
    assert isinstance(answer.end, Delivered) and answer.end.netns == "node1"
    assert answer.packet.source == VIP[version]


@BOTH
def test_a_pod_reaches_itself_through_its_service(version: int) -> None:
    cluster = web((1, 1))
    trace = cluster.from_pod(1, 1, VIP[version])
    assert trace.end == to_pod(1, 1, version)
    assert trace.packet.source != pod_ip(1, 1, version), "a pod drops packets that come with its own address"
    answer = cluster.reply(trace)
    assert answer.end == to_pod(1, 1, version, PORT)
    assert (answer.packet.source, answer.packet.source_port) == (VIP[version], 80)


@BOTH
def test_all_endpoints_are_chosen_from(version: int) -> None:
    pods = [(1, 1), (1, 2), (2, 1), (2, 2)]
    cluster = web(*pods)
    ends = [cluster.from_pod(1, 1, VIP[version], choose=lambda n, k=k: k % n, source_port=50000 + k).end for k in range(4)]
    assert {str(end) for end in ends} == {str(to_pod(*pod, version)) for pod in pods}


@BOTH
@pytest.mark.parametrize(("protocol", "how"), [("tcp", "tcp reset"), ("udp", "icmp port unreachable")])
def test_what_has_no_endpoint_is_refused_at_once(version: int, protocol: str, how: str) -> None:
    cluster = web()
    for port in (80, 81):  # without endpoints; not a port of the Service
        for trace in (
            cluster.from_pod(1, 1, VIP[version], port, protocol=protocol),
            cluster.send("node1", node_ip(1, version), VIP[version], port, protocol=protocol),
        ):
            assert isinstance(trace.end, Rejected), trace
            assert trace.end.how == how


@BOTH
def test_what_is_of_no_connection_is_dropped_where_a_service_would_translate_it_and_nowhere_else(version: int) -> None:
    """Asked of packets that arrive at node1: what is invalid there is known to no other machine."""
    cluster = web((2, 1))
    endpoint, client, node = pod_ip(2, 1, version), pod_ip(1, 1, version), node_ip(1, version)
    arrives = {"link": "eth0", "state": "invalid"}
    for trace in (
        cluster.send("node1", node, VIP[version], state="invalid"),
        cluster.send("node1", outside_ip(version), node, 30080, **arrives),
        cluster.send("node1", endpoint, client, PORT, source_port=8080, **arrives),
    ):
        assert isinstance(trace.end, Dropped), trace
    assert cluster.send("node1", endpoint, client, PORT, source_port=80, **arrives).end == to_pod(1, 1, version, PORT)
    assert cluster.send("node1", outside_ip(version), client, 8080, **arrives).end == to_pod(1, 1, version)


def test_a_reset_is_answered_by_nobody() -> None:
    assert isinstance(web().from_pod(1, 1, VIP[4], tcp_flags=RESET).end, Dropped)


@BOTH
@pytest.mark.parametrize("target", [(1, 2), (2, 1)])
def test_a_node_port_leads_to_an_endpoint_and_the_answer_comes_back_through_the_node(
    version: int, target: tuple[int, int]
) -> None:
    cluster = web(target)
    trace = cluster.from_outside(node_ip(1, version), 30080)
    assert trace.end == to_pod(*target, version)
    answer = cluster.reply(trace)
    assert answer.end == Delivered("outside", outside_ip(version), PORT, "tcp"), answer
    assert (answer.packet.source, answer.packet.source_port) == (node_ip(1, version), 30080)


@BOTH
def test_with_policy_local_who_comes_from_outside_reaches_pods_of_this_node_with_its_own_address(version: int) -> None:
    cluster = web((1, 2), (2, 1), **LOCAL)
    for number, pod in ((1, 2), (2, 1)):
        trace = cluster.from_outside(node_ip(number, version), 30080, source_port=PORT + number)
        assert trace.end == to_pod(number, pod, version)
        assert trace.packet.source == outside_ip(version)
        assert cluster.reply(trace).end == Delivered("outside", outside_ip(version), PORT + number, "tcp")


@BOTH
def test_with_policy_local_a_node_without_endpoints_refuses_who_comes_from_outside_and_serves_pods(version: int) -> None:
    cluster = web((2, 1), **LOCAL)
    assert isinstance(cluster.from_outside(node_ip(1, version), 30080).end, Rejected)
    assert cluster.from_pod(1, 1, node_ip(1, version), 30080).end == to_pod(2, 1, version)


@BOTH
def test_with_policy_local_the_node_port_of_another_node_is_one_outside_and_other_addresses_are_served_here(
    version: int,
) -> None:
    external, balancer = {4: ("192.0.2.7", "192.0.2.8"), 6: ("2001:db8::7", "2001:db8::8")}[version]
    own = service(**LOCAL, external_ips=(external,))
    own = msgspec.structs.replace(own, status=ServiceStatus(LoadBalancerStatus((Ingress(balancer),))))
    cluster = FakeCluster([own], endpoints("web", (2, 1)))
    for sender in (
        cluster.from_pod(2, 2, node_ip(1, version), 30080),
        cluster.send("node2", node_ip(2, version), node_ip(1, version), 30080),
    ):
        assert isinstance(sender.end, Rejected), sender
    for address in (external, balancer):
        assert cluster.from_pod(1, 1, ip(address)).end == to_pod(2, 1, version)
        assert cluster.send("node1", node_ip(1, version), ip(address)).end == to_pod(2, 1, version)
        assert isinstance(cluster.from_outside(ip(address)).end, Rejected), "node1 has no endpoint of its own"
    assert cluster.from_pod(1, 1, node_ip(2, version), 30080).end == to_pod(2, 1, version), "node2 has one"


@BOTH
def test_what_leaves_the_cluster_has_the_address_of_the_node(version: int) -> None:
    cluster = FakeCluster()
    trace = cluster.from_pod(1, 1, outside_ip(version))
    assert trace.end == Delivered("outside", outside_ip(version), 80, "tcp")
    assert trace.packet.source == node_ip(1, version)
    assert cluster.reply(trace).end == to_pod(1, 1, version, PORT)


@BOTH
def test_nodes_see_the_address_of_the_pod(version: int) -> None:
    trace = FakeCluster().from_pod(1, 1, node_ip(2, version))
    assert trace.end == Delivered("node2", node_ip(2, version), 80, "tcp")
    assert trace.packet.source == pod_ip(1, 1, version)


@BOTH
def test_a_client_keeps_its_endpoint(version: int) -> None:
    cluster = web((1, 1), (1, 2), (2, 1), session_affinity="ClientIP")
    first = cluster.from_pod(2, 2, VIP[version], choose=lambda n: n - 1, source_port=50000).end
    again = [cluster.from_pod(2, 2, VIP[version], choose=lambda n, k=k: k % n, source_port=50001 + k).end for k in range(3)]
    assert isinstance(first, Delivered) and again == [first] * 3
    others = [cluster.from_pod(1, 1, VIP[version], choose=lambda n, k=k: k % n, source_port=50001 + k).end for k in range(2)]
    assert others[0] == others[1] != first, "another client has one of its own"


@BOTH
def test_an_address_that_no_pod_has_is_refused(version: int) -> None:
    trace = FakeCluster().from_pod(1, 1, pod_ip(1, 9, version), tcp_flags=SYN)
    assert isinstance(trace.end, Rejected)


@BOTH
def test_without_netfilter_on_the_bridge_the_answer_of_a_neighbour_would_come_from_the_wrong_address(version: int) -> None:
    """Why `nodes.plan` sets bridge-nf-call: the fake says what goes wrong without it."""
    cluster = web((1, 2))
    sysctls = cluster.namespaces["node1"].objects.sysctls
    for name in ("iptables", "ip6tables"):
        assert sysctls[f"net.bridge.bridge-nf-call-{name}"] == "1"
    trace = cluster.from_pod(1, 1, VIP[version])
    for name in ("iptables", "ip6tables"):
        sysctls[f"net.bridge.bridge-nf-call-{name}"] = "0"
    answer = cluster.reply(trace)
    assert answer.packet.source == pod_ip(1, 2, version) != VIP[version]
