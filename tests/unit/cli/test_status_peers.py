"""Which nodes do not reach each other: what all nodes tell, in few lines."""

from __future__ import annotations

from typing import Any

import msgspec

from podplane.cli.status.peers import MOST, lines
from podplane.model.answers import PeerProblem, Summary

VXLAN = {"backend": "vxlan", "underlay": "reached", "carried_in": "UDP port 4789"}
BLOCKED = " over vxlan, but over the underlay: is UDP port 4789 filtered?"


def summary(node: str, *peers: str, **more: Any) -> dict[str, Any]:
    """A node that tells of these peers."""
    fields = {**VXLAN, "families": [], "loss": 1.0, "age": 5.0, "is_not_ready": False, "is_withdrawn": False, **more}
    told = [PeerProblem(peer=peer, **fields) for peer in peers]
    made: dict[str, Any] = msgspec.to_builtins(Summary(node, 0, 0, 0, "", told))
    return made


def of(*summaries: dict[str, Any]) -> list[str]:
    return lines({one["node"]: one for one in summaries})


def test_all_is_well() -> None:
    assert of(summary("node1"), summary("node2")) == []
    assert lines({"node1": None, "node2": {"node": "node2"}}) == [], "one does not answer, and one is of a former version"


def test_two_nodes_that_tell_of_each_other_are_one_line() -> None:
    assert of(summary("node1", "node2"), summary("node2", "node1"), summary("node3")) == [
        f"node1 and node2 do not reach each other{BLOCKED}"
    ]


def test_one_that_does_not_answer_itself_is_told_of_by_the_other() -> None:
    assert of(summary("node1", "node2")) == [f"node2 is not reached by node1{BLOCKED}"]


def test_a_node_that_several_do_not_reach_is_told_of_once_whatever_it_says_itself() -> None:
    told = [f"node3 is not reached by node1 and node2{BLOCKED}"]
    assert of(summary("node1", "node3"), summary("node2", "node3")) == told
    assert of(summary("node1", "node3"), summary("node2", "node3"), summary("node3", "node1", "node2")) == told


def test_a_node_that_alone_tells_of_several() -> None:
    assert of(summary("node1", "node2", "node10")) == [f"node1 does not reach node2 and node10{BLOCKED}"]


def test_different_reasons_are_different_lines() -> None:
    assert of(summary("node1", "node2"), summary("node3", "node4", underlay="lost")) == [
        f"node2 is not reached by node1{BLOCKED}",
        "node4 is not reached by node3 over vxlan, nor over the underlay",
    ]


def test_loss_is_told_with_the_worst_figure() -> None:
    assert of(summary("node1", "node2", loss=0.1), summary("node2", "node1", loss=0.12)) == [
        "12% of the probes between node1 and node2 are lost over vxlan"
    ]
    assert of(summary("node1", "node3", loss=0.1), summary("node2", "node3", loss=0.12)) == [
        "up to 12% of the probes between node3 and each of node1 and node2 are lost over vxlan"
    ]


def test_of_many_lines_some_are_written() -> None:
    found = of(*(summary(f"a{n}", f"b{n}") for n in range(9)))
    assert len(found) == MOST and found[-1] == f"and {9 - MOST + 1} more lines of that sort"
    (line,) = of(summary("node1", *(f"node{n}" for n in range(2, 40))))
    assert line == f"node1 does not reach node2, node3, node4, node5, node6 and 33 more{BLOCKED}"
