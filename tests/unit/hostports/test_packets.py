"""Where packets to host ports go, asked of the fake kernel: what counts is where they arrive, not by which rules."""

from __future__ import annotations

import pytest

from podplane.model.view import HostPort
from podplane.pods.plan import veth_name
from podplane.state.mac import mac_of
from podplane.trace.trace import Delivered, Dropped
from tests.fake_cluster import FakeCluster, endpoints, ip, node_ip, outside_ip, pod_ip, service

BOTH = pytest.mark.parametrize("version", [4, 6])
CLIENT = 40000
WEB = HostPort(8080, 80)
GATEWAY = {4: ip("10.244.1.1"), 6: ip("fd00:10:244:1::1")}
LOOPBACK = {4: ip("127.0.0.1"), 6: ip("::1")}


def web(*ports: HostPort, **more: object) -> FakeCluster:
    """A cluster whose first pod of node1 has these host ports."""
    return FakeCluster(host_ports={(1, 1): ports or (WEB,)}, **more)  # type: ignore[arg-type]  # by name


def to_pod(number: int, pod: int, version: int, port: int = 80, protocol: str = "tcp") -> Delivered:
    return Delivered(f"node{number}-pod{pod}", pod_ip(number, pod, version), port, protocol)


@BOTH
def test_a_machine_outside_reaches_the_pod_with_its_own_address(version: int) -> None:
    cluster = web()
    trace = cluster.from_outside(node_ip(1, version), 8080)
    assert trace.end == to_pod(1, 1, version)
    assert trace.packet.source == outside_ip(version)
    assert "pod/default/node1-pod1" in trace.comments
    answer = cluster.reply(trace)
    assert answer.end == Delivered("outside", outside_ip(version), CLIENT, "tcp")
    assert (answer.packet.source, answer.packet.source_port) == (node_ip(1, version), 8080)


@BOTH
def test_other_ports_protocols_and_nodes_are_as_they_were(version: int) -> None:
    cluster = web()
    for number, port, protocol in ((1, 8081, "tcp"), (1, 8080, "udp"), (2, 8080, "tcp")):
        end = cluster.from_outside(node_ip(number, version), port, protocol=protocol).end
        assert end == Delivered(f"node{number}", node_ip(number, version), port, protocol)


@BOTH
@pytest.mark.parametrize("protocol", ["udp", "sctp"])
def test_other_protocols_than_tcp(version: int, protocol: str) -> None:
    cluster = web(HostPort(5353, 53, protocol.upper()))
    trace = cluster.from_outside(node_ip(1, version), 5353, protocol=protocol)
    assert trace.end == to_pod(1, 1, version, 53, protocol)
    assert cluster.reply(trace).packet.source_port == 5353


@BOTH
def test_another_node_and_its_pods_reach_it(version: int) -> None:
    cluster = web()
    for name, source in (("node2", node_ip(2, version)), ("node2-pod1", pod_ip(2, 1, version))):
        trace = cluster.send(name, source, node_ip(1, version), 8080)
        assert trace.end == to_pod(1, 1, version)
        assert trace.packet.source == source
        assert cluster.reply(trace).end == Delivered(name, source, CLIENT, "tcp")


@BOTH
def test_a_pod_of_the_node_reaches_it(version: int) -> None:
    cluster = web()
    trace = cluster.from_pod(1, 2, node_ip(1, version), 8080)
    assert trace.end == to_pod(1, 1, version)
    answer = cluster.reply(trace)
    assert answer.end == to_pod(1, 2, version, CLIENT)
    assert (answer.packet.source, answer.packet.source_port) == (node_ip(1, version), 8080)


class WithNameServers(FakeCluster):
    """Each node answers for names, at the cluster IPs of the cluster's DNS and at its bridge's addresses."""

    dns_ips = ("10.96.0.53", "fd00:10:96::53")


@BOTH
@pytest.mark.parametrize("protocol", ["udp", "tcp"])
@pytest.mark.parametrize("host_ip", ["", "bridge", "cluster IP"])
def test_the_addresses_of_the_name_server_are_not_the_node_s(version: int, protocol: str, host_ip: str) -> None:
    """Neither where other nodes ask it nor where its own pods do, nor with other ports, nor for who names the address."""
    there = {"bridge": GATEWAY[version], "cluster IP": ip(WithNameServers.dns_ips[version == 6])}
    asked = str(there[host_ip]) if host_ip else ""
    ports = tuple(HostPort(number, number, protocol.upper(), asked) for number in (53, 8080))
    cluster = WithNameServers(host_ports={(1, 1): ports})
    for address in there.values():
        assert cluster.from_pod(1, 2, address, 53, protocol=protocol).end == Delivered("node1", address, 53, protocol)
        assert cluster.from_pod(1, 2, address, 8080, protocol=protocol).end != to_pod(1, 1, version, 8080, protocol)
    for name, source in (("node2", node_ip(2, version)), ("node2-pod1", pod_ip(2, 1, version)), ("node1", GATEWAY[version])):
        trace = cluster.send(name, source, GATEWAY[version], 53, protocol=protocol)
        assert trace.end == Delivered("node1", GATEWAY[version], 53, protocol)
    arrived = cluster.from_outside(node_ip(1, version), 53, protocol=protocol).end
    assert arrived == (
        Delivered("node1", node_ip(1, version), 53, protocol) if host_ip else to_pod(1, 1, version, 53, protocol)
    )


@BOTH
def test_the_pod_reaches_itself(version: int) -> None:
    cluster = web()
    trace = cluster.from_pod(1, 1, node_ip(1, version), 8080)
    assert trace.end == to_pod(1, 1, version)
    assert trace.packet.source != pod_ip(1, 1, version), "a pod drops packets that come with its own address"
    answer = cluster.reply(trace)
    assert answer.end == to_pod(1, 1, version, CLIENT)
    assert (answer.packet.source, answer.packet.source_port) == (node_ip(1, version), 8080)


@BOTH
def test_the_node_reaches_it_by_its_own_address(version: int) -> None:
    cluster = web()
    trace = cluster.send("node1", node_ip(1, version), node_ip(1, version), 8080)
    assert trace.end == to_pod(1, 1, version)
    assert cluster.reply(trace).end == Delivered("node1", node_ip(1, version), CLIENT, "tcp")


@pytest.mark.parametrize("host_ip", ["", "0.0.0.0", "127.0.0.1"])
def test_the_node_reaches_it_by_its_loopback_address(host_ip: str) -> None:
    cluster = web(HostPort(8080, 80, "TCP", host_ip))
    trace = cluster.send("node1", LOOPBACK[4], LOOPBACK[4], 8080)
    assert trace.end == to_pod(1, 1, 4)
    assert not trace.packet.source.is_loopback
    answer = cluster.reply(trace)
    assert answer.end == Delivered("node1", LOOPBACK[4], CLIENT, "tcp"), answer
    assert (answer.packet.source, answer.packet.source_port) == (LOOPBACK[4], 8080)


@pytest.mark.parametrize("host_ip", ["", "::", "::1"])
def test_what_comes_from_the_loopback_address_of_ipv6_is_left_to_the_node(host_ip: str) -> None:
    cluster = web(HostPort(8080, 80, "TCP", host_ip))
    for there in (LOOPBACK[6], node_ip(1, 6)):
        assert cluster.send("node1", LOOPBACK[6], there, 8080).end == Delivered("node1", there, 8080, "tcp")


@pytest.mark.parametrize("host_ip", ["", "::", "::1"])
def test_the_node_reaches_it_by_the_loopback_address_of_ipv6_from_another_one(host_ip: str) -> None:
    cluster = web(HostPort(8080, 80, "TCP", host_ip))
    trace = cluster.send("node1", node_ip(1, 6), LOOPBACK[6], 8080)
    assert trace.end == to_pod(1, 1, 6)
    answer = cluster.reply(trace)
    assert answer.end == Delivered("node1", node_ip(1, 6), CLIENT, "tcp"), answer
    assert (answer.packet.source, answer.packet.source_port) == (LOOPBACK[6], 8080)


@pytest.mark.parametrize("port", [8080, 10250])
def test_pods_do_not_reach_the_loopback_address_of_the_node(port: int) -> None:
    """route_localnet alone would let them (CVE-2020-8558). A pod needs a raw socket for it: here the veth gets the packet."""
    cluster = web()
    for source, destination in ((pod_ip(1, 2), LOOPBACK[4]), (ip("127.0.0.2"), node_ip(1))):
        trace = cluster.send(
            "node1", source, destination, port, link=veth_name("node1-pod2", "eth0"), destination_mac=mac_of(GATEWAY[4])
        )
        assert isinstance(trace.end, Dropped), trace
        assert "pods don't reach the node's loopback" in trace.comments


@BOTH
def test_a_port_of_one_address_is_not_that_of_another_one(version: int) -> None:
    cluster = web(HostPort(8080, 80, "TCP", str(node_ip(1, version))))
    assert cluster.from_outside(node_ip(1, version), 8080).end == to_pod(1, 1, version)
    other, gateway = 10 - version, GATEWAY[version]
    assert cluster.from_pod(1, 2, gateway, 8080).end == Delivered("node1", gateway, 8080, "tcp")
    assert cluster.from_outside(node_ip(1, other), 8080).end == Delivered("node1", node_ip(1, other), 8080, "tcp")


@BOTH
def test_an_address_that_is_not_the_node_s_captures_nothing_that_is_forwarded(version: int) -> None:
    cluster = web(HostPort(80, 80, "TCP", str(outside_ip(version))))
    assert cluster.from_pod(1, 2, outside_ip(version)).end == Delivered("outside", outside_ip(version), 80, "tcp")


@BOTH
def test_a_port_of_one_address_goes_before_the_same_port_of_all(version: int) -> None:
    there = node_ip(1, version)
    cluster = FakeCluster(host_ports={(1, 1): (WEB,), (1, 2): (HostPort(8080, 81, "TCP", str(there)),)})
    assert cluster.from_outside(there, 8080).end == to_pod(1, 2, version, 81)
    assert cluster.send("node1", LOOPBACK[4], LOOPBACK[4], 8080).end == to_pod(1, 1, 4)


@BOTH
def test_services_and_host_ports_do_not_disturb_each_other(version: int) -> None:
    """The Service leads to the pod of node2, the host port to that of node1."""
    cluster = web(services=[service()], slices=endpoints("web", (2, 1)))
    vip = {4: ip("10.96.0.10"), 6: ip("fd00:10:96::10")}[version]
    for trace, end in (
        (cluster.from_outside(node_ip(1, version), 30080), to_pod(2, 1, version, 8080)),
        (cluster.from_outside(node_ip(1, version), 8080, source_port=CLIENT + 1), to_pod(1, 1, version)),
        (cluster.from_pod(1, 1, vip), to_pod(2, 1, version, 8080)),
    ):
        assert trace.end == end
        assert isinstance(cluster.reply(trace).end, Delivered)


@BOTH
def test_a_node_port_keeps_its_port(version: int) -> None:
    cluster = web(HostPort(30080, 80), services=[service()], slices=endpoints("web", (2, 1)))
    assert cluster.from_outside(node_ip(1, version), 30080).end == to_pod(2, 1, version, 8080)


def test_without_route_localnet_nothing_of_a_loopback_address_leaves_the_node() -> None:
    cluster = web()
    cluster.namespaces["node1"].set_sysctl("net.ipv4.conf.cbr0.route_localnet", "0")
    trace = cluster.send("node1", LOOPBACK[4], LOOPBACK[4], 8080)
    assert isinstance(trace.end, Dropped) and "may not leave by cbr0" in str(trace.end)
    assert cluster.send("node1", node_ip(1), node_ip(1), 8080).end == to_pod(1, 1, 4)
