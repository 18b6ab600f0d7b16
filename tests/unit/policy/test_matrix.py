"""Each cell of the table is the verdict on its pair of ends."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from podplane.policy.ends import End, ends_of
from podplane.policy.match import Flow, verdict
from podplane.policy.matrix import Matrix, matrix
from podplane.policy.name_servers import PATH, name_servers
from podplane.policy.reach import reach
from tests.unit.policy import objects
from tests.unit.policy.cluster import end, index_of, namespace, pod, policy


@given(st.data())
def test_a_cell_is_the_verdict_on_its_pair(data: st.DataObject) -> None:
    index = index_of(data.draw(objects.clusters()))
    version = data.draw(st.sampled_from([4, 6]))
    servers = name_servers(("10.96.0.10", "fd00:96::a"))
    index.set_pod(PATH, servers)
    ips = {4: ("192.168.1.10", objects.OUTSIDE), 6: ("fd00:f::1", "2001:db8::1")}[version]
    pods = [one for name in objects.NAMESPACES for number in range(5) if (one := index.pod(f"{name}/p{number}"))]
    ends = [e for one in (*pods, servers) for e in ends_of(one) if (":" in e.ip) is (version == 6)]
    ends += [End(ips[0], node="node1"), End(ips[1])]
    asked = data.draw(st.sampled_from([None, ("TCP", 80), ("UDP", 81), ("SCTP", 80), ("ICMP", None)]))
    found = matrix(ends, index, asked)
    _check_kinds(found)
    for source, row in zip(ends, found.rows, strict=True):
        for place, destination in enumerate(ends):
            if asked is None:
                allowed = reach(source, destination, index)
                assert bool(row.everything >> place & 1) is (allowed.is_everything or source == destination)
                assert bool(row.something >> place & 1) is (not allowed.is_nothing or source == destination)
            elif source != destination or source.pod:
                passes = verdict(Flow(source, destination, *asked), index).allowed
                assert bool(row.everything >> place & 1) is bool(row.something >> place & 1) is passes


def _check_kinds(found: Matrix) -> None:
    """Ends of one kind reach the same others, and are reached by the same others."""
    rows, places = found.rows, range(len(found.rows))
    for one in places:
        for two in range(one):
            if found.kinds[one] == found.kinds[two]:
                others = ~(1 << one | 1 << two)
                assert [bits & others for bits in rows[one]] == [bits & others for bits in rows[two]]
                for row in (rows[place] for place in places if place not in (one, two)):
                    assert [bits >> one & 1 for bits in row] == [bits >> two & 1 for bits in row]


def test_every_port_by_a_rule_for_each_protocol_is_not_everything() -> None:
    rule = {"ports": [{"protocol": protocol} for protocol in ("TCP", "UDP", "SCTP")]}
    index = index_of(
        [namespace("a"), pod("a/one"), pod("a/two", ip="10.244.1.3"), policy("a/p", podSelector={}, ingress=[rule])]
    )
    one, _ = matrix([end(index, "a/one"), end(index, "a/two")], index).rows
    assert (one.everything, one.something) == (0b01, 0b11)


def test_what_two_ranges_have_in_common_is_found() -> None:
    index = index_of(
        [
            namespace("a"),
            pod("a/one", {"app": "one"}),
            pod("a/two", {"app": "two"}, "10.244.1.3"),
            policy("a/p", podSelector={"matchLabels": {"app": "two"}}, ingress=[{"ports": [{"port": 80, "endPort": 90}]}]),
            policy(
                "a/q",
                podSelector={"matchLabels": {"app": "one"}},
                policyTypes=["Egress"],
                egress=[{"ports": [{"port": 90, "endPort": 99}]}],
            ),
        ]
    )
    one, two = matrix([end(index, "a/one"), end(index, "a/two")], index).rows
    assert (one.everything, one.something) == (0b01, 0b11)
    assert (two.everything, two.something) == (0b11, 0b11)


def test_pods_whose_named_ports_differ_are_of_one_kind_unless_a_rule_names_them() -> None:
    def kinds(**rule: Any) -> set[Hashable]:
        ports = [[{"name": "http", "containerPort": number}] for number in (80, 81)]
        pods = [pod(f"a/p{i}", {}, f"10.244.1.{i + 2}", ports=one) for i, one in enumerate(ports)]
        index = index_of([namespace("a"), *pods, policy("a/p", podSelector={}, ingress=[rule])])
        return set(matrix([end(index, "a/p0"), end(index, "a/p1")], index).kinds)

    assert len(kinds(ports=[{"port": 80}])) == 1
    assert len(kinds(ports=[{"port": "http"}])) == 2
