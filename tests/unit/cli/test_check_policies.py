"""What a check tries of policies, and what it says of what became of it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from podplane.cli.check.policed import MOST_OF_SORTS, OTHERS, Around, every_way, some_ways
from podplane.cli.check.policies import (
    ICMP,
    OPEN,
    REFUSED,
    UDP,
    Judged,
    controls,
    fates,
    judge,
    plan,
    unchanged,
    untold,
    verdict,
)
from podplane.cli.check.promises import Fate, Party
from podplane.cli.policy.cluster import Cluster
from tests.unit.cli.policies import ALLOW_WEB, CLIENT, DENY_DB, WEB, known
from tests.unit.policy.cluster import pod, policy

PATHS = {name: f"default/{name}" for name in ("client", "web-1", "web-2")} | {"shop/db": "shop/db"}
PODS = [
    Party("client", "pod", "node1", ("10.244.1.2", "fd00:1::2"), 7000, datagrams=True),
    Party("web-1", "pod", "node2", ("10.244.2.2", "fd00:2::2"), 7000, datagrams=True),
    Party("web-2", "pod", "node2", ("10.244.2.3", "fd00:2::3"), 7000),
    Party("shop/db", "pod", "node1", ("10.244.1.3", "fd00:1::3"), 7000),
]
NODES = [Party(f"node{n}", "node", f"node{n}", (f"192.168.1.1{n}", f"fd00:f::{n}"), 7000) for n in (1, 2)]


OUTSIDE = Party("outside", "outside", "", ("203.0.113.10", "2001:db8::10"), 8080)
AROUND = Around(PODS, NODES, [OUTSIDE], PATHS)


def judged_of(cluster: Cluster, *, everything: bool = True) -> Judged:
    return plan((every_way if everything else some_ways)(AROUND, cluster), PATHS, cluster)


def planned(cluster: Cluster, protocol: str = OPEN) -> dict[tuple[str, str, str, int], bool]:
    judged = judged_of(cluster)
    return {
        (one.source, one.target, one.ip, one.port): said.allowed for one, said in judged.items() if one.protocol == protocol
    }


def test_without_policies_nothing_is_tried() -> None:
    assert planned(known()) == {}


def test_pods_under_policies_are_tried_from_and_to_all_others_at_ports_that_are_named() -> None:
    found = planned(known(ALLOW_WEB))
    for ip in PODS[1].ips:
        assert found["client", "web-1", ip, 8080] and not found["client", "web-1", ip, 7000]
        assert not found["shop/db", "web-1", ip, 8080] and not found["web-2", "web-1", ip, 8080]
        assert found["node2", "web-1", ip, 7000] and not found["node1", "web-1", ip, 7000]
    assert found["web-1", "client", "10.244.1.2", 7000], "it may send"
    assert not any({"client", "shop/db"} == {source, target} for source, target, _, _ in found), "no policy is about them"


def test_what_pods_send_to_nodes_and_outside_is_tried_too() -> None:
    found = planned(known(DENY_DB))
    for node in NODES:
        assert not found["shop/db", node.name, node.ips[0], 7000]
    assert not found["shop/db", "outside", "203.0.113.10", 8080] and not found["shop/db", "outside", "2001:db8::10", 8080]
    assert not any(source == "outside" for source, *_ in found), "it has no way to pods"


def test_other_protocols_are_tried_where_somebody_answers_and_the_source_may_send_them() -> None:
    cluster = known(ALLOW_WEB)
    datagrams = planned(cluster, UDP)
    assert not datagrams["client", "web-1", "10.244.2.2", 7000], "its rule is of TCP"
    assert datagrams["web-1", "client", "fd00:1::2", 7000] and {target for _, target, _, _ in datagrams} <= {"web-1", "client"}
    pings = planned(cluster, ICMP)
    assert not pings["client", "web-2", "10.244.2.3", 0] and pings["web-1", "node1", "192.168.1.11", 0]
    ways = list(every_way(AROUND, cluster))
    without = [way._replace(source=replace(way.source, pings=False)) for way in ways]
    assert not any(one.protocol == ICMP for one in plan(without, PATHS, cluster)), "they have no CAP_NET_RAW"
    assert {one.protocol for one in plan(ways, PATHS, cluster, ping=False)} == {OPEN, UDP}


def test_where_every_pair_is_tried_briefly_each_sort_is_tried_by_all_protocols() -> None:
    cluster = known(ALLOW_WEB)
    judged = plan(every_way(AROUND, cluster, briefly=True), PATHS, cluster)
    fully = judged_of(cluster)
    assert {one for one in fully if one.protocol == OPEN} == {one for one in judged if one.protocol == OPEN}
    for protocol in (UDP, ICMP):
        tried = [(one, said.allowed) for one, said in judged.items() if one.protocol == protocol]
        assert 0 < len(tried) < sum(one.protocol == protocol for one in fully) and {allowed for _, allowed in tried} == {
            True,
            False,
        }


def test_of_many_pods_some_are_tried_and_each_that_a_policy_selects() -> None:
    some, everything = (judged_of(known(ALLOW_WEB, DENY_DB), everything=wanted) for wanted in (False, True))
    assert some.items() <= everything.items() and some
    assert {"web-1", "web-2", "shop/db"} <= {one.source for one in some} & {one.target for one in some}


@pytest.mark.parametrize("count", [40, 400])
def test_a_sample_has_what_policies_deny_and_what_they_allow_however_rare_that_is(count: int) -> None:
    """One client among many, far from the pods that it may reach, is no other's neighbour; and the number goes by that of the pods."""
    labels = [WEB if i < count // 2 else CLIENT if i == count - 1 else {"app": "other"} for i in range(count)]
    objects = [
        pod(f"default/p{i}", own, f"10.244.1.{i % 250}" if i < 250 else f"10.244.3.{i - 250}") for i, own in enumerate(labels)
    ]
    cluster = known(ALLOW_WEB, *objects)
    pods = [Party(f"p{i}", "pod", "node1", tuple(cluster.pods[f"default/p{i}"].ips), 7000) for i in range(count)]
    around = Around(pods, NODES, [OUTSIDE], {one.name: f"default/{one.name}" for one in pods})
    judged = plan(some_ways(around, cluster), around.paths, cluster)
    webs = {f"p{i}" for i in range(count // 2)}
    into = {one: said.allowed for one, said in judged.items() if one.target in webs and one.source.startswith("p")}
    assert {said for one, said in into.items() if one.source == f"p{count - 1}" and one.port == 8080} == {True}
    assert {one.target for one, said in into.items() if not said} == webs
    assert any(not said for one, said in into.items() if labels[int(one.source[1:])] == {"app": "other"})
    assert len(judged) <= count // 2 * (2 * OTHERS + 1) * 2 + 100


@pytest.mark.parametrize("count", [80, 400])
def test_of_very_many_sorts_each_is_tried_with_some_others(count: int) -> None:
    objects = [pod(f"default/p{i}", {"app": f"a{i}"}, f"10.244.{i // 250}.{i % 250 + 1}") for i in range(count)]
    peers = [[{"podSelector": {"matchLabels": {"app": f"a{i - 1}"}}}] for i in range(count)]
    policies = [
        policy(f"default/n{i}", podSelector={"matchLabels": {"app": f"a{i}"}}, ingress=[{"from": peers[i]}])
        for i in range(count)
    ]
    cluster = known(*objects, *policies)
    pods = [Party(f"p{i}", "pod", "node1", tuple(cluster.pods[f"default/p{i}"].ips), 7000) for i in range(count)]
    around = Around(pods, NODES, [OUTSIDE], {one.name: f"default/{one.name}" for one in pods})
    fully = [way for way in some_ways(around, cluster) if not way.briefly]
    between = [way for way in fully if {way.source.kind, way.target.kind} == {"pod"}]
    assert {way.target.name for way in between} == {way.source.name for way in between} == {one.name for one in pods}
    assert len(between) <= max(MOST_OF_SORTS, 2 * count)


def test_what_passes_and_should_not_and_what_does_not_and_should() -> None:
    judged = {probe: said for probe, said in judged_of(known(ALLOW_WEB)).items() if probe.protocol == OPEN}
    right = {probe: {"ok": True} if said.allowed else {"ok": False, "error": "no answer"} for probe, said in judged.items()}
    found = verdict(judged, right)
    assert found.ok and found.proved == len(judged)
    assert found.stopped == sum(not said.allowed for said in judged.values()) > 0
    for probe, said in judged.items():
        if said.allowed:
            assert not judge(probe, said, {"ok": False, "error": REFUSED}), "it passed, and nobody listens there"
            assert "it is allowed" in judge(probe, said, {"ok": False, "error": "no answer"})
        else:
            for answer in ({"ok": True}, {"ok": False, "error": REFUSED}):
                text = judge(probe, said, answer)
                assert text.endswith("it is denied (default deny by default/web), and passed")
        assert judge(probe, said, None).endswith(f"no result from {probe.source}")
    wrong = right | {probe: {"ok": True} for probe in judged}
    assert not verdict(judged, wrong).ok


def test_pairs_have_what_passed_what_was_stopped_and_what_was_not_as_it_should_be() -> None:
    judged = judged_of(known(ALLOW_WEB))
    right = {probe: {"ok": said.allowed} for probe, said in judged.items()}
    found = fates(judged, right)
    assert found["client", "web-1"] == Fate.PASSED | Fate.STOPPED
    assert (found["web-1", "client"], found["shop/db", "web-1"]) == (Fate.PASSED, Fate.STOPPED)
    leak = next(probe for probe in judged if (probe.source, probe.target, probe.protocol) == ("shop/db", "web-1", ICMP))
    assert Fate.BROKEN in fates(judged, {**right, leak: {"ok": True}})["shop/db", "web-1"]
    assert verdict(judged, {**right, leak: {"ok": True}}).failures == [
        "shop/db → web-1 10.244.2.2 icmp: it is denied (default deny by default/web), and passed"
    ]


def test_what_policies_say_otherwise_after_it_was_tried_is_no_failure() -> None:
    before = judged_of(known(ALLOW_WEB))
    same = unchanged(before, judged_of(known(ALLOW_WEB)))
    assert same == before
    opened = policy("default/open", podSelector={"matchLabels": WEB}, ingress=[{}])
    left = unchanged(before, judged_of(known(ALLOW_WEB, opened)))
    assert left and all(said.allowed for said in left.values())


def test_what_nobody_would_have_answered_proves_nothing() -> None:
    judged = judged_of(known(ALLOW_WEB))
    right = {probe: {"ok": said.allowed} for probe, said in judged.items()}
    silent = {probe: {"ok": False} if probe.target == "web-2" else said for probe, said in right.items()}
    unclear = untold(judged, silent)
    assert unclear and {probe.target for probe in unclear} >= {"web-2"} and not any(judged[probe].allowed for probe in unclear)
    refused = {probe: {"ok": False, "error": REFUSED} if judged[probe].allowed else said for probe, said in silent.items()}
    assert not {probe for probe in untold(judged, refused) if probe.protocol == OPEN}, "who refuses would have refused"
    found = verdict(judged, silent, unclear)
    assert found.untold == len(unclear) and found.stopped == sum(not said.allowed for said in judged.values()) - len(unclear)
    assert ("client", "web-2") not in fates({probe: judged[probe] for probe in unclear}, silent, unclear)
    leak = next(iter(unclear))
    assert verdict(judged, {**silent, leak: {"ok": True}}, unclear).failures, "what passes is a failure, whoever else is silent"


def test_where_policies_deny_all_a_node_shows_that_somebody_would_answer() -> None:
    cluster = known(DENY_DB)
    judged = judged_of(cluster)
    added = controls(judged, AROUND, cluster)
    assert added and all(said.allowed for said in added.values())
    assert all(one.source == "node1" for one in added if one.target in ("outside", "shop/db")), "the node of who is denied"
    whole = {**judged, **added}
    ends = {(one.ip, one.protocol, one.port) for one, said in whole.items() if not said.allowed}
    assert ends == {(one.ip, one.protocol, one.port) for one, said in whole.items() if said.allowed} & ends
    assert not untold(whole, {probe: {"ok": said.allowed} for probe, said in whole.items()})
    alone = Around(PODS, [], [OUTSIDE], PATHS)
    assert not controls(plan(every_way(alone, cluster), PATHS, cluster), alone, cluster), "no node takes part"
