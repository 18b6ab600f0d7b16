"""Who has an address."""

from __future__ import annotations

from podplane.model.objects import Metadata, Node, NodeAddress, NodeSpec, NodeStatus
from podplane.policy.ends import End, Ends, ends_of
from podplane.policy.name_servers import name_servers
from tests.unit.policy.generated import pod

NODE = Node(
    Metadata(name="node1"),
    NodeSpec(pod_cidrs=("10.244.1.0/24", "fd00:1::/64")),
    NodeStatus((NodeAddress("InternalIP", "192.168.1.10"), NodeAddress("Hostname", "node1"))),
)


def test_addresses_of_nodes_are_their_own_and_those_of_their_bridges() -> None:
    ends = Ends((), (NODE,))
    for ip in ("192.168.1.10", "10.244.1.1", "fd00:1::1"):
        assert ends.at(ip) == End(ip, node="node1")
    assert ends.at("node1") == End("node1")
    assert (ends.at("192.168.1.10").path, ends.at("192.168.1.10").text) == ("", "node node1")


def test_an_address_of_a_node_counts_however_it_is_written() -> None:
    written = NodeStatus((NodeAddress("InternalIP", "fd00:f:0::0"), NodeAddress("InternalIP", "no address")))
    node = Node(Metadata(name="node2"), status=written)
    assert Ends((), (node,)).at("fd00:f::") == End("fd00:f::", node="node2")


def test_addresses_of_pods() -> None:
    web = pod("a/web", ips=("10.244.1.2", "fd00:1::2"))
    agent = pod("a/agent", ips=("192.168.1.10",), host_network=True)
    job = pod("a/job", ips=("10.244.1.3",), phase="Succeeded")
    ends = Ends((agent, job, web), (NODE,))
    assert [ends.at(ip) for ip in web.ips] == ends_of(web) == [End(ip, web) for ip in web.ips]
    assert ends.at("192.168.1.10") == End("192.168.1.10", node="node1")
    assert ends_of(agent) == [End("192.168.1.10", node="node1")]
    assert ends.at("10.244.1.3") == End("10.244.1.3")
    assert (ends.at("10.244.1.2").text, ends.at("10.244.1.3").text) == ("a/web", "10.244.1.3")


def test_the_clusters_dns_is_no_pod_to_people() -> None:
    (dns,) = ends_of(name_servers(("10.96.0.10",)))
    assert dns.text == "the cluster's DNS"
    assert not dns.is_under_policies
