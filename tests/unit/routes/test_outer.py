"""What nodes send each other in a tunnel no pod sends to a node: the packet in it could have any sender."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from podplane.trace.trace import Delivered, Dropped, Trace
from tests.fake_cluster import FakeCluster, endpoints, ip, node_ip, outside_ip, pod_ip, service
from tests.unit.agent.rig import DUAL

VXLAN, OTHER_PORT, GRE = ("udp", 4789), ("udp", 8472), ("gre", 0)


def cluster(backend: str, **fields: object) -> FakeCluster:
    """With this backend; fields of the network's settings."""

    class WithBackend(FakeCluster):
        network: Mapping[str, object] = {"backend": backend, **fields}

    return WithBackend([service()], endpoints("web", (2, 1)))


def is_refused(trace: Trace) -> bool:
    """Is it dropped for that reason?"""
    return isinstance(trace.end, Dropped) and "what only nodes send each other" in trace.end.by.comment


@pytest.mark.parametrize(
    ("backend", "refused"), [("host-gw", set()), ("vxlan", {VXLAN}), ("gre", {GRE}), ("auto", {VXLAN}), ("host-gw+gre", {GRE})]
)
def test_a_pod_sends_no_node_what_only_nodes_send(backend: str, refused: set[tuple[str, int]]) -> None:
    made = cluster(backend)
    for version in DUAL:
        for protocol, port in (VXLAN, OTHER_PORT, GRE):
            for destination in (node_ip(1, version), node_ip(2, version), outside_ip(version)):
                trace = made.from_pod(1, 1, destination, port, protocol=protocol)
                assert is_refused(trace) is ((protocol, port) in refused), trace
            near = made.from_pod(1, 1, pod_ip(1, 2, version), port, protocol=protocol)
            assert isinstance(near.end, Delivered), "pods may have tunnels of their own between them"
            assert not is_refused(made.from_pod(1, 1, pod_ip(2, 1, version), port, protocol=protocol))


def test_it_is_so_for_both_backends_while_one_takes_over_from_the_other_and_for_the_port_that_is_set() -> None:
    made = cluster("gre", former_backends=("vxlan",), vxlan_port=8472)
    sent = [made.from_pod(1, 1, node_ip(2), port, protocol=protocol) for protocol, port in (VXLAN, OTHER_PORT, GRE)]
    assert [is_refused(trace) for trace in sent] == [False, True, True]


def test_what_nodes_send_and_what_pods_send_to_other_ports_goes_on() -> None:
    made = cluster("vxlan")
    trace = made.send("node2", node_ip(2), node_ip(1), 4789, protocol="udp")
    assert isinstance(trace.end, Delivered) and trace.end.netns == "node1"
    assert isinstance(made.from_pod(1, 1, ip("10.244.1.3"), 4789, protocol="udp").end, Delivered)
