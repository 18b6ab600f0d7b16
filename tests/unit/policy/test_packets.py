"""Policies of a cluster on the fake kernel: which packets pass, as policies, labels and pods come and go."""

from __future__ import annotations

from ipaddress import ip_address

import msgspec
import pytest

from podplane.model.pod_info import Labels, NamedPort, Ports
from podplane.model.policy import (
    EVERYTHING,
    IPBlock,
    LabelSelector,
    NetworkPolicy,
    PodSelector,
    PolicyMetadata,
    PolicyPort,
    PolicyRule,
)
from podplane.policy.tables import TABLE
from podplane.state.conntrack import JUDGE_AGAIN, REVOKED
from podplane.state.nft import Chain, NftValue, Set
from podplane.trace.packet import ECHO_REQUEST
from podplane.trace.trace import Delivered, Dropped
from tests.fake_cluster import node_ip, outside_ip, pod_ip
from tests.policed import FakePoliced, info, namespace, policy, select

A1, B1, A2, B2 = (1, 1), (1, 2), (2, 1), (2, 2)
"""Pods: of namespace a and b on node 1, of a and b on node 2."""
FROM_B = PolicyRule((PodSelector(select(team="b")),))


def own_values(cluster: FakePoliced, number: int) -> set[str]:
    values = cluster.namespaces[f"node{number}"].objects.nft.values()
    return {str(v) for v in values if isinstance(v, NftValue) and (v.family, v.table) == TABLE}


@pytest.mark.parametrize("version", [4, 6])
def test_without_policies_every_pod_reaches_every_pod_and_the_table_drops_what_has_no_pods_address(version: int) -> None:
    cluster = FakePoliced()
    assert all(cluster.passes(one, other, version) for one in (A1, B2) for other in (B1, A2))
    gone = pod_ip(1, 77, version)
    assert isinstance(cluster.send("node1-pod1", gone, pod_ip(*A2, version)).end, Dropped), "an address that no pod has"
    forged = cluster.send("node1-pod1", outside_ip(version), pod_ip(*A2, version))
    assert isinstance(forged.end, Dropped), "an address of somebody else"


@pytest.mark.parametrize("version", [4, 6])
def test_a_policy_lets_its_peers_in_by_its_ports_and_nobody_else(version: int) -> None:
    cluster = FakePoliced()
    cluster.put(info(*A1, {"app": "web"}), info(*A2, {"app": "client"}))
    rule = PolicyRule((PodSelector("a", select(app="client")),), (PolicyPort("TCP", (80, 80)),))
    web = policy("web", select(app="web"), [rule])
    cluster.put(web)
    assert cluster.passes(A2, A1, version) and not cluster.passes(A2, A1, version, 81)
    assert not cluster.passes(B1, A1, version) and not cluster.passes(B2, A1, version)
    assert not cluster.passes(A2, A1, version, protocol="udp")
    assert cluster.passes(A1, B1, version) and cluster.passes(B1, A2, version), "other ways are as they were"
    cluster.put(info(*B2, {"app": "client"}))
    assert not cluster.passes(B2, A1, version), "of another namespace"
    cluster.put(info(*A2))
    assert not cluster.passes(A2, A1, version)
    cluster.remove(web)
    assert cluster.passes(B1, A1, version)


@pytest.mark.parametrize("version", [4, 6])
def test_egress_is_judged_where_the_sender_is_also_towards_its_own_node(version: int) -> None:
    cluster = FakePoliced()
    cluster.put(policy("out", EVERYTHING, egress=[FROM_B]))
    assert cluster.passes(A1, B1, version) and cluster.passes(A1, B2, version)
    assert not cluster.passes(A1, A2, version) and not cluster.passes(A2, A1, version)
    assert cluster.passes(B1, A1, version), "answers pass"
    for destination in (node_ip(1, version), node_ip(2, version), outside_ip(version), pod_ip(1, 0, version)):
        assert isinstance(cluster.from_pod(*A1, destination).end, Dropped), destination
        assert isinstance(cluster.from_pod(*B1, destination).end, Delivered), destination


@pytest.mark.parametrize("version", [4, 6])
def test_a_node_reaches_its_own_pods_and_no_others_and_a_pod_itself(version: int) -> None:
    cluster = FakePoliced()
    cluster.put(policy("none", EVERYTHING, [], []))
    assert isinstance(cluster.send("node1", pod_ip(1, 0, version), pod_ip(*A1, version)).end, Delivered)
    assert isinstance(cluster.send("node2", node_ip(2, version), pod_ip(*A1, version)).end, Dropped)
    assert not cluster.passes(B1, A1, version)
    assert isinstance(cluster.from_pod(*A1, pod_ip(*A1, version)).end, Delivered)


def test_named_ports_are_those_of_each_destination() -> None:
    cluster = FakePoliced()
    for place, number in ((A1, 8080), (A2, 9090), (B1, 666)):
        cluster.put(info(*place, {"app": "x"}, Ports((NamedPort("http", "TCP", number),))))
    http = (PolicyPort("TCP", "http"),)
    cluster.put(policy("in", EVERYTHING, [PolicyRule(None, http)]))
    assert [cluster.passes(B1, A1, port=port) for port in (8080, 9090, 666)] == [True, False, False]
    assert [cluster.passes(B1, A2, port=port) for port in (8080, 9090, 666)] == [False, True, False]
    cluster.remove(policy("in", EVERYTHING))
    for peers in (None, (PodSelector("a"),), (IPBlock("10.244.0.0/16"),)):
        cluster.put(policy("out", EVERYTHING, egress=[PolicyRule(peers, http)], namespace="b"))
        assert [cluster.passes(B1, A1, port=port) for port in (8080, 9090, 666)] == [True, False, False], peers
        assert [cluster.passes(B2, A2, port=port) for port in (8080, 9090, 666)] == [False, True, False], peers
        assert cluster.passes(B2, B1, port=666) == (peers != (PodSelector("a"),))


@pytest.mark.parametrize("is_late", [False, True])
def test_who_has_the_address_of_a_finished_job_is_not_let_in_for_it(is_late: bool) -> None:
    """N5 (antrea-io/antrea#6507): from the first packet of the new pod; also where the other pod is known before the Job has ended."""
    cluster = FakePoliced()
    job, at = info(*B2, {"app": "job"}), PodSelector("b", select(app="job"))
    ended = msgspec.structs.replace(job, phase="Succeeded")
    cluster.put(job, policy("web", EVERYTHING, [PolicyRule((at,))]))
    assert cluster.passes(B2, A1) and not cluster.passes(B1, A1)
    for labels, passes in (({}, False), ({"app": "job"}, True), ({"app": "other"}, False)):
        metadata = msgspec.structs.replace(job.metadata, name="late", uid="late", labels=Labels(labels))
        late = msgspec.structs.replace(job, metadata=metadata)
        for one in (late, ended) if is_late else (ended, late):
            cluster.put(one)
        assert cluster.passes(B2, A1) is passes, labels
        assert cluster.passes(B2, A1, 6) is passes, labels
        cluster.remove(late)
        cluster.put(job)


def test_blocks_without_their_excepts_and_ranges_of_ports() -> None:
    cluster = FakePoliced()
    block = IPBlock("10.244.0.0/16", ("10.244.2.0/24",))
    cluster.put(policy("blocks", EVERYTHING, [PolicyRule((block,), (PolicyPort("TCP", (80, 90)), PolicyPort("UDP")))]))
    assert [cluster.passes(B1, A1, port=port) for port in (79, 80, 85, 90, 91)] == [False, True, True, True, False]
    assert cluster.passes(B1, A1, port=9999, protocol="udp")
    assert not cluster.passes(B2, A1) and not cluster.passes(B1, A1, 6)


def test_what_says_nothing_of_ports_lets_every_protocol_pass() -> None:
    cluster = FakePoliced()
    cluster.put(policy("all", EVERYTHING, [PolicyRule((PodSelector("b"),))]), policy("tcp", EVERYTHING, [], namespace="b"))
    for protocol, version in (("icmp", 4), ("icmpv6", 6), ("sctp", 4)):
        echo = {"destination_port": ECHO_REQUEST[protocol]} if protocol in ECHO_REQUEST else {}
        port = echo.get("destination_port", 80)
        assert cluster.passes(B1, A1, version, port, protocol=protocol)
        assert not cluster.passes(A1, B1, version, port, protocol=protocol)


def test_policies_add_up_and_many_ports_and_networks_are_sets() -> None:
    cluster = FakePoliced()
    ports = tuple(PolicyPort("TCP", (port, port)) for port in (1, 3, 5, 7, 9, 11))
    blocks = tuple(IPBlock(f"10.244.1.{2 * n}/32") for n in range(10))
    cluster.put(
        policy("many", EVERYTHING, [PolicyRule(blocks, ports)]),
        policy("udp", EVERYTHING, [PolicyRule(None, (PolicyPort("UDP"),))]),
    )
    assert [cluster.passes(B1, A2, port=port) for port in (1, 2, 11, 12)] == [False] * 4, "10.244.1.3 is none of them"
    assert [cluster.passes(A1, A2, port=port) for port in (1, 2, 11, 12)] == [True, False, True, False]
    assert cluster.passes(B1, A2, port=2, protocol="udp")
    names = {v.name for v in cluster.namespaces["node2"].objects.nft.values() if isinstance(v, Chain)}
    assert len([name for name in names if name.startswith("np-")]) == 2


def test_rules_of_both_directions_may_have_the_same_many_networks() -> None:
    """As those that keep pods within the world outside, but for networks of its own."""
    cluster = FakePoliced()
    outside = PolicyRule((IPBlock("0.0.0.0/0", ("10.244.2.0/24", "192.168.0.0/16")), IPBlock("::/0", ("fd00:10:244:2::/64",))))
    meta = PolicyMetadata("outside", "a", "u")
    cluster.put(NetworkPolicy(meta, EVERYTHING, (outside, outside), (outside, outside)))
    for version in (4, 6):
        assert cluster.passes(A1, B1, version) and cluster.passes(B1, A1, version), "both are on node1"
        assert not cluster.passes(A1, A2, version) and not cluster.passes(A2, A1, version), "node2 is not of that world"


def test_peers_and_ports_that_are_many_have_a_chain_for_the_peers() -> None:
    cluster = FakePoliced()
    peers = tuple(PodSelector("b", select(app=str(n))) for n in range(9))
    ports = tuple(PolicyPort("TCP", (100 * n, 100 * n + 9)) for n in range(1, 9))
    cluster.put(policy("wide", EVERYTHING, [PolicyRule(peers, ports)]), info(*B1, {"app": "7"}))
    assert [cluster.passes(B1, A2, port=port) for port in (99, 100, 809, 810)] == [False, True, True, False]
    assert not cluster.passes(B2, A2, port=100)
    (chain,) = (v for v in cluster.namespaces["node2"].objects.nft.values() if isinstance(v, Chain) and v.name.endswith("-1"))
    assert len(chain.rules) == 2 * len(peers)


def test_labels_of_namespaces_move_all_their_pods() -> None:
    cluster = FakePoliced()
    cluster.put(policy("b", EVERYTHING, [FROM_B]))
    assert cluster.passes(B1, A1) and not cluster.passes(A2, A1)
    cluster.put(namespace("b", {"team": "x"}))
    assert not cluster.passes(B1, A1)
    cluster.put(namespace("a", {"team": "b"}))
    assert cluster.passes(A2, A1)


def test_what_came_and_went_leaves_nothing_behind() -> None:
    cluster = FakePoliced()
    before = [own_values(cluster, number) for number in (1, 2)]
    selector = PodSelector(LabelSelector(), select(app="x"))
    some = [policy(str(n), EVERYTHING, [PolicyRule((selector,), (PolicyPort("TCP", "http"),))], [FROM_B]) for n in range(3)]
    cluster.put(*some, info(*A1, {"app": "x"}, Ports((NamedPort("http", "TCP", 80),))))
    assert [own_values(cluster, number) for number in (1, 2)] != before
    cluster.put(info(*A1))
    cluster.remove(*some)
    assert [own_values(cluster, number) for number in (1, 2)] == before
    for number, caches in cluster.caches.items():
        moves = caches.policy_index.set_pod("a/new", info(*A1, {"app": "x"})).moves
        assert not moves, f"node{number} has no set of this selector"


class WithNames(FakePoliced):
    """Each node has a name server."""

    dns_ips = ("10.96.0.53", "fd00:10:96::53")


USUAL = PolicyRule(
    (PodSelector(select(**{"kubernetes.io/metadata.name": "kube-system"}), select(**{"k8s-app": "kube-dns"})),),
    (PolicyPort("UDP", (53, 53)), PolicyPort("TCP", (53, 53))),
)
"""The rule of everybody's recipes that lets pods ask for names."""


@pytest.mark.parametrize("version", [4, 6])
def test_questions_to_the_cluster_s_dns_need_the_usual_rule(version: int) -> None:
    cluster = WithNames()
    asked = ip_address(cluster.dns_ips[version == 6])
    cluster.put(namespace("kube-system", {"kubernetes.io/metadata.name": "kube-system"}))

    def answers(port: int = 53, protocol: str = "udp") -> bool:
        trace = cluster.from_pod(*A1, asked, port, protocol=protocol)
        return isinstance(trace.end, Delivered) and isinstance(cluster.reply(trace).end, Delivered)

    assert answers()
    cluster.put(policy("none", EVERYTHING, egress=[]))
    assert not answers() and not answers(protocol="tcp")
    cluster.put(policy("names", EVERYTHING, egress=[USUAL]))
    assert answers() and answers(protocol="tcp") and not answers(54)
    cluster.put(policy("names", EVERYTHING, egress=[PolicyRule(USUAL.peers, (PolicyPort("UDP", "dns"),))]))
    assert answers() and not answers(protocol="tcp"), "by the names that ports of CoreDNS have"
    cluster.put(policy("names", EVERYTHING, egress=[PolicyRule((IPBlock(f"{asked}/{asked.max_prefixlen}"),))]))
    assert answers()
    cluster.remove(policy("names", EVERYTHING))
    assert not answers()


@pytest.mark.parametrize("protocol", ["tcp", "udp", "sctp"])
def test_a_connection_that_is_judged_again_passes_or_is_refused_from_then_on(protocol: str) -> None:
    cluster = FakePoliced()
    rule = policy("web", EVERYTHING, [FROM_B])
    cluster.put(rule)
    first = cluster.from_pod(*B1, pod_ip(*A1), protocol=protocol)
    assert isinstance(cluster.reply(first).end, Delivered)
    cluster.put(policy("web", EVERYTHING, [PolicyRule((PodSelector("b", select(app="x")),))]))

    def mark(bits: int) -> None:
        known = cluster.opener.traffic.memory.connections["node1"]
        for tuple_, one in known.items():
            known[tuple_] = msgspec.structs.replace(one, mark=bits)

    def marks() -> set[int]:
        return {one.mark for one in cluster.opener.traffic.memory.connections["node1"].values()}

    assert isinstance(cluster.from_pod(*B1, pod_ip(*A1), protocol=protocol).end, Delivered), "it was not judged"
    mark(JUDGE_AGAIN)
    assert isinstance(cluster.reply(first).end, Delivered), "what the client sends is judged"
    mark(JUDGE_AGAIN)
    assert not isinstance(cluster.from_pod(*B1, pod_ip(*A1), protocol=protocol).end, Delivered)
    mark(REVOKED)
    assert not isinstance(cluster.from_pod(*B1, pod_ip(*A1), protocol=protocol).end, Delivered)
    back = cluster.from_pod(*A1, pod_ip(*B1), 40000, source_port=80, protocol=protocol)
    assert not isinstance(back.end, Delivered), "nor does the other end send"
    cluster.put(rule)
    for bits in (JUDGE_AGAIN, REVOKED):
        mark(bits)
        assert isinstance(cluster.from_pod(*B1, pod_ip(*A1), protocol=protocol).end, Delivered)
        assert marks() == {0}, "it passes, and is as it was"


@pytest.mark.parametrize("version", [4, 6])
def test_what_many_policies_of_a_pod_allow_is_one_set_and_counted_together(version: int) -> None:
    cluster = FakePoliced()
    apps = [PodSelector("b", select(app=str(number))) for number in range(12)]
    one_each = [
        policy(f"p{n}", EVERYTHING, [PolicyRule((app,), (PolicyPort("TCP", (80 + n, 80 + n)),))]) for n, app in enumerate(apps)
    ]
    cluster.put(
        *one_each, policy("range", EVERYTHING, [PolicyRule((apps[7],), (PolicyPort("UDP", (1, 9)),))]), info(*B1, {"app": "7"})
    )
    assert [cluster.passes(B1, A2, version, port) for port in (80, 86, 87, 88)] == [False, False, True, False]
    assert cluster.passes(B1, A2, version, 5, protocol="udp") and not cluster.passes(B1, A2, version, 87, protocol="udp")
    values = cluster.namespaces["node2"].objects.nft.values()
    assert len([v for v in values if isinstance(v, Chain) and v.name.startswith("np-")]) == 1, "the one with a range"
    cluster.put(info(*B1, {"app": "3"}))
    assert [cluster.passes(B1, A2, version, port) for port in (83, 87)] == [True, False]
    cluster.put(policy("p3", EVERYTHING, [PolicyRule((apps[4],), (PolicyPort("TCP", (83, 83)),))]))
    assert not cluster.passes(B1, A2, version, 83)
    for number in range(5, 12):
        cluster.remove(one_each[number])
    cluster.put(info(*B1, {"app": "4"}))
    assert [cluster.passes(B1, A2, version, port) for port in (83, 84, 85)] == [True, True, False]
    values = cluster.namespaces["node2"].objects.nft.values()
    assert len([v for v in values if isinstance(v, Chain) and v.name.startswith("np-")]) == 6
    assert not any(isinstance(v, Set) and v.name.startswith("group") for v in values)
