"""What a check adds to a lab so that every promise has somebody to prove it, and who speaks for whom."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podplane.cli.check import parties
from podplane.kubeapi.errors import ApiError
from podplane.lab.errors import LabError
from podplane.model.config import ACTIVE_FAULTS


def pod(name: str, node: str, namespace: str = "default", **status: Any) -> dict[str, Any]:
    ready = [{"type": "Ready", "status": "True"}]
    return {
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"nodeName": node, "containers": [{"name": "a"}]},
        "status": {"conditions": ready, "podIPs": [{"ip": "10.0.0.2"}], **status},
    }


@given(st.lists(st.integers(0, 3), min_size=1, max_size=8))
def test_there_is_always_enough_to_prove_every_promise(sizes: list[int]) -> None:
    nodes = [f"node{n}" for n in range(len(sizes))]
    pods = [pod(f"p{n}-{i}", nodes[n]) for n, size in enumerate(sizes) for i in range(size)]
    added = parties.additions(nodes, pods)
    names = [p["metadata"]["name"] for p in added]
    assert len(set(names)) == len(names)
    in_nodes = {p["spec"]["nodeName"] for p in added if p["spec"]["hostNetwork"]}
    assert in_nodes == {*nodes, "outside"}
    networked = [*pods, *(p for p in added if not p["spec"]["hostNetwork"])]
    on = Counter(p["spec"]["nodeName"] for p in networked)
    assert max(on.values()) >= 2, "two pods on one node"
    assert all(on[node] for node in nodes[: parties.NODES_TO_FILL]), "pods on several nodes"
    assert any(len(p["spec"]["containers"]) == 2 for p in added), "a pod of two containers"


def test_only_pods_that_serve_take_part() -> None:
    assert parties.runs(pod("a", "n"))
    assert not parties.runs(pod("a", "n", podIPs=[]))
    assert not parties.runs(pod("a", "n", conditions=[{"type": "Ready", "status": "False"}]))
    ending = pod("a", "n")
    ending["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert not parties.runs(ending)


def test_members_speak_for_pods_nodes_and_containers() -> None:
    two = pod("two", "n1", parties.NAMESPACE)
    two["spec"]["containers"].append({"name": "b"})
    host = pod("in-n1", "n1", parties.NAMESPACE)
    host["spec"]["hostNetwork"] = True
    found = parties.members([pod("web", "n1"), two, host])
    assert [(m.name, m.kind, m.container) for m in found] == [
        ("web", "pod", "a"),
        ("podplane-check/two", "pod", "a"),
        ("podplane-check/two:b", "container", "b"),
        ("n1", "node", "a"),
    ]


@pytest.mark.parametrize(
    ("context", "expected"),
    [
        ({}, True),
        ({"capabilities": {"drop": ["ALL"]}}, False),
        ({"capabilities": {"drop": ["NET_RAW"]}}, False),
        ({"capabilities": {"drop": ["ALL"], "add": ["NET_RAW"]}}, True),
        ({"privileged": True, "capabilities": {"drop": ["ALL"]}}, True),
    ],
)
def test_who_has_given_up_raw_sockets_does_not_ping(context: dict[str, Any], expected: bool) -> None:
    one = pod("a", "n1")
    one["spec"]["containers"][0]["securityContext"] = context
    assert [member.pings for member in parties.members([one])] == [expected]


def test_what_may_be_anywhere_is_not_put_on_a_node_that_is_silent() -> None:
    nodes = ["node1", "node2", "node3"]
    added = parties.additions(nodes, [pod(f"p{n}", node) for n, node in enumerate(nodes)], {"node1"})
    places = {p["metadata"]["name"]: p["spec"]["nodeName"] for p in added}
    assert places["two-containers"] == "node2"
    assert "also-on-node1" not in places and "also-on-node2" in places
    assert places["in-node1"] == "node1", "it is tried there all the same"
    assert {p["spec"]["nodeName"] for p in parties.additions(["node1"], [], {"node1"})} == {"node1", "outside"}


class Nobody:
    """An API without nodes."""

    def objects(self, resource: str) -> list[Any]:
        assert resource == "nodes"
        return []


def test_a_lab_without_nodes_is_told_at_once() -> None:
    with pytest.raises(LabError, match="there is nothing to check: this lab has no nodes"), parties.gathered(Nobody(), str):
        pass


@pytest.mark.parametrize(
    ("annotations", "conditions", "answer", "why"),
    [
        ({}, [{"type": "Ready", "status": "True"}], {"api_error": ""}, ""),
        ({}, [{"type": "Ready", "status": "True"}], {"api_error": "no route"}, "it does not reach the API: no route"),
        ({}, [], ApiError(504, "Timeout", "no answer"), "it does not answer: no answer"),
        ({}, [{"status": "True"}], {}, "it is not Ready: nobody says why"),
        ({}, [{"type": "Ready", "status": "Unknown", "message": "lost"}], {}, "it is not Ready: lost"),
        ({ACTIVE_FAULTS: '[{"fault": "cut-api", "since": ""}]'}, [], {}, "it does not reach the API"),
    ],
)
def test_why_a_node_is_not_asked(annotations: dict[str, str], conditions: list[Any], answer: Any, why: str) -> None:
    node = {"metadata": {"name": "node1", "annotations": annotations}, "status": {"conditions": conditions}}
    assert parties._why_not(node, answer) == why
