"""Who is cut off in a check, and which probes are not worth their time then."""

from __future__ import annotations

from typing import Any

from podplane.cli.check import promises, reach
from podplane.cli.check.promises import LOCALHOST, Party, Probe

PODS = [Party(f"p{n}{i}", "pod", f"node{n}", (f"10.244.{n}.{i}", f"fd00::{n}:{i}"), 8079) for n in (1, 2, 3) for i in (1, 2)]
NODES = [Party(f"node{n}", "node", f"node{n}", (f"192.168.1.{n}",), 8079) for n in (1, 2, 3)]
NODE_OF = {party.name: party.node for party in (*PODS, *NODES)}
PROBES = promises.plan(PODS, NODES, None, True)
GOOD, BAD = {"ok": True}, {"ok": False, "error": "no answer"}


def test_without_a_node_that_is_not_reached_all_probes_stay() -> None:
    assert list(reach.thinned(PROBES, NODE_OF, ())) == PROBES


def test_of_probes_into_and_out_of_an_unreached_node_one_of_each_sort_stays() -> None:
    left = list(reach.thinned(PROBES, NODE_OF, {"node1"}))
    crossing = [probe for probe in left if reach.crosses(probe, NODE_OF, {"node1"})]
    others = [probe for probe in PROBES if not reach.crosses(probe, NODE_OF, {"node1"})]
    assert [probe for probe in left if probe not in set(crossing)] == others, (
        "nothing else is left out, within the node neither"
    )
    sorts = {(p.promise, p.protocol, p.size > 0, promises.family(p.ip), NODE_OF[p.source] == "node1") for p in crossing}
    assert len(crossing) == len(sorts)
    assert {probe.promise for probe in crossing} == {probe.promise for probe in PROBES}, "every promise is tried"
    assert {sort[-1] for sort in sorts} == {True, False}


def test_targets_that_are_no_party_do_not_cross() -> None:
    assert not reach.crosses(Probe("services", "p11", "Service web", "tcp", "10.96.0.1"), NODE_OF, {"node1"})


def test_who_reaches_nobody_and_is_reached_by_nobody_is_cut_off() -> None:
    def answer(probe: Probe) -> dict[str, Any]:
        return BAD if "p21" in (probe.source, probe.target) and probe.promise != LOCALHOST else GOOD

    own = [*PROBES, Probe(LOCALHOST, "p21:b", "p21", "tcp", "127.0.0.1")]
    assert reach.cut_off(own, {probe: answer(probe) for probe in own}) == {"p21"}
    assert reach.cut_off(own, dict.fromkeys(own, GOOD)) == set()


def test_a_few_failures_cut_nobody_off() -> None:
    few = PROBES[: reach.FEW - 1]
    assert reach.cut_off(few, dict.fromkeys(few, BAD)) == set()
    assert reach.cut_off(PROBES, {}) == set(), "what was not answered at all says nothing"
