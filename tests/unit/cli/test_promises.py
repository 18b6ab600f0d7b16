"""Which probes a check plans: whoever takes part is proved, in every direction that is promised."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from podplane.cli.check import promises
from podplane.cli.check.promises import Party

OUTSIDE = Party("outside", "outside", "", ("203.0.113.10", "2001:db8::10"), 8080)


def cluster(sizes: Sequence[int]) -> tuple[list[Party], list[Party]]:
    """Pods and nodes: so many dual-stack pods on each node."""
    nodes = [
        Party(f"n{n}", "node", f"n{n}", (f"192.168.1.{n + 10}", f"fd00::{n + 10:x}"), 30000 + n) for n in range(len(sizes))
    ]
    pods = [
        Party(f"p{n}-{i}", "pod", f"n{n}", (f"10.244.{n}.{i + 2}", f"fd01:{n:x}::{i + 2:x}"), 1024 + i)
        for n, size in enumerate(sizes)
        for i in range(size)
    ]
    return pods, nodes


sizes = st.lists(st.integers(0, 5), min_size=1, max_size=6).filter(lambda s: sum(s) > 1)


@given(sizes)
def test_everything_is_every_ordered_pair(size: list[int]) -> None:
    pods, _ = cluster(size)
    found = {(a.name, b.name) for a, b in promises.pairs(pods, True)}
    assert found == {(a.name, b.name) for a in pods for b in pods if a is not b}


@given(sizes)
def test_a_choice_has_every_pair_of_nodes_and_every_pod(size: list[int]) -> None:
    pods, _ = cluster(size)
    found = list(promises.pairs(pods, False))
    assert all(a is not b for a, b in found)
    assert {p.name for pair in found for p in pair} == {p.name for p in pods}
    with_pods = [f"n{n}" for n, count in enumerate(size) if count]
    pairs_of_nodes = {(a.node, b.node) for a, b in found}
    assert pairs_of_nodes >= {(a, b) for a in with_pods for b in with_pods if a != b}


@given(sizes, st.booleans())
def test_each_direction_is_proved_for_each_pod_and_family(size: list[int], everything: bool) -> None:
    pods, nodes = cluster(size)
    probes = promises.plan(pods, nodes, OUTSIDE, everything)
    assert len(set(probes)) == len(probes)
    for pod in pods:
        for ip in pod.ips:
            reaching = {p.source for p in probes if p.promise == promises.NODE_TO_POD and p.ip == ip and p.protocol == "icmp"}
            assert pod.node in reaching
            assert not everything or reaching == {n.name for n in nodes}
        seen_outside = {(p.ip, p.seen) for p in probes if p.promise == promises.OUTSIDE and p.source == pod.name}
        own = next(n for n in nodes if n.node == pod.node)
        assert seen_outside == set(zip(OUTSIDE.ips, own.ips, strict=True))


def test_the_world_outside_must_see_the_external_ip_of_a_node_that_has_one() -> None:
    pods, nodes = cluster([1, 1])
    external = {nodes[0].node: ("192.0.2.7",)}
    probes = [p for p in promises.plan(pods, nodes, OUTSIDE, True, external_ips=external) if p.promise == promises.OUTSIDE]
    seen = {(p.source, promises.family(p.ip)): p.seen for p in probes}
    for pod in pods:
        own = next(n for n in nodes if n.node == pod.node)
        for ip in own.ips:
            version = promises.family(ip)
            is_external = pod.node in external and version == promises.family("192.0.2.7")
            assert seen[pod.name, version] == ("192.0.2.7" if is_external else ip)


@given(sizes)
def test_a_receiver_must_see_the_senders_own_address_of_the_same_family(size: list[int]) -> None:
    pods, nodes = cluster(size)
    by_name = {p.name: p for p in [*pods, *nodes]}
    for probe in promises.plan(pods, nodes, None, True):
        if probe.promise in (promises.NO_NAT, promises.POD_TO_NODE):
            assert probe.seen in by_name[probe.source].ips
            assert promises.family(probe.seen) == promises.family(probe.ip)
            assert probe.ip in by_name[probe.target].ips
            assert probe.port == by_name[probe.target].port


@given(sizes, st.booleans(), st.data())
def test_who_may_not_ping_is_asked_to_connect_alone(size: list[int], everything: bool, data: st.DataObject) -> None:
    pods, nodes = cluster(size)
    asked = set(promises.plan(pods, nodes, OUTSIDE, everything))
    for pod in pods:
        pod.pings = data.draw(st.booleans())
    mute = {pod.name for pod in pods if not pod.pings}
    found = set(promises.plan(pods, nodes, OUTSIDE, everything))
    assert not [p for p in found if p.source in mute and p.protocol == "icmp"]
    kept = {p for p in asked if p.promise != promises.FULL_SIZE and not (p.source in mute and p.protocol == "icmp")}
    assert {p for p in found if p.promise != promises.FULL_SIZE} == kept


def test_full_size_packets_go_between_nodes_and_on_each_node() -> None:
    pods, nodes = cluster([2, 2, 1])
    routes = {(p.source, p.target, p.size) for p in promises.plan(pods, nodes, None, True) if p.promise == promises.FULL_SIZE}
    between = {(f"p{a}-0", f"p{b}-0", 1500) for a in range(3) for b in range(3) if a != b}
    assert routes == between | {("p0-0", "p0-1", 1500), ("p1-0", "p1-1", 1500)}


def test_a_full_size_packet_is_no_larger_than_both_ends_and_the_way_between_them() -> None:
    pods, nodes = cluster([1, 1, 1])
    pods[1].mtu = 1400

    def largest(source: str, target: str) -> int:
        return 1300 if {source, target} == {"n0", "n2"} else 65536

    probes = promises.plan(pods, nodes, None, False, largest=largest)
    found = {(p.source, p.target): p.size for p in probes if p.promise == promises.FULL_SIZE}
    ways = {("p0-0", "p1-0"): 1400, ("p1-0", "p2-0"): 1400, ("p0-0", "p2-0"): 1300}
    assert found == ways | {(b, a): size for (a, b), size in ways.items()}


@given(st.integers(1, 200), st.booleans())
def test_each_node_is_tried_with_others_in_both_directions_and_all_of_few(count: int, everything: bool) -> None:
    nodes = [f"n{n}" for n in range(count)]
    pairs = list(promises.node_pairs(nodes, everything))
    found = set(pairs)
    assert len(found) == len(pairs) and all(a != b and (b, a) in found for a, b in found)
    if everything or count <= promises.EVERY_NODE_UP_TO:
        assert len(found) == count * (count - 1)
    else:
        assert all((a, b) in found for a, b in zip(nodes, [*nodes[1:], nodes[0]], strict=True))
        assert len(found) <= 2 * count * count.bit_length()
