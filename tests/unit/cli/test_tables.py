"""Tables as kubectl users know them, and the check's plan and verdicts."""

from __future__ import annotations

import datetime

import pytest

from podplane.cli import tables
from podplane.cli.check import promises
from podplane.cli.check.parties import why_left_out
from podplane.cli.check.promises import Party, Probe

NOW = datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC)


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0, "0s"), (119, "119s"), (120, "2m"), (10_799, "179m"), (10_800, "3h"), (172_800, "2d"), (-5, "0s")],
)
def test_age(seconds: int, expected: str) -> None:
    then = (NOW - datetime.timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert tables.age(then, NOW) == expected


def pod(**status: object) -> tables.Object:
    meta = {"name": "web", "namespace": "default", "creationTimestamp": "2026-01-01T23:59:00Z"}
    return {"metadata": meta, "spec": {"nodeName": "n1", "containers": [{"name": "a"}]}, "status": status}


def test_pods() -> None:
    running = pod(
        phase="Running",
        podIPs=[{"ip": "10.1.0.2"}],
        containerStatuses=[{"ready": True, "restartCount": 2, "state": {"running": {}}}],
    )
    assert tables.pods([running], True, NOW).splitlines() == [
        "NAME   READY   STATUS    RESTARTS   AGE   IP         NODE",
        "web    1/1     Running   2          60s   10.1.0.2   n1",
    ]


def test_the_word_that_says_most() -> None:
    waiting = {"state": {"waiting": {"reason": "CrashLoopBackOff", "message": "why"}}, "name": "a"}
    assert tables.pod_state(pod(phase="Running", containerStatuses=[waiting])) == "CrashLoopBackOff"
    assert tables.trouble(pod(containerStatuses=[waiting])) == "why"
    going = pod(phase="Running")
    going["metadata"]["deletionTimestamp"] = "now"
    assert tables.pod_state(going) == "Terminating"
    assert tables.pod_state(pod()) == "Pending"


def test_a_pod_that_has_only_not_come_so_far_did_not_fail() -> None:
    unready = {"type": "Ready", "status": "False", "message": "containers with unready status: [main]"}
    creating = {"state": {"waiting": {"reason": "ContainerCreating"}}, "name": "main"}
    assert tables.failure(pod(containerStatuses=[creating], conditions=[unready])) == ""
    assert tables.trouble(pod(containerStatuses=[creating], conditions=[unready])) == unready["message"]
    without = {"type": "PodReadyToStartContainers", "status": "False", "message": "no agent"}
    waits = pod(containerStatuses=[creating], conditions=[without, unready])
    assert (tables.failure(waits), tables.why_waiting(waits), tables.trouble(waits)) == ("", "no agent", "no agent")
    nowhere = {"type": "PodScheduled", "status": "False", "message": "no node has room"}
    assert tables.failure(pod(conditions=[unready, nowhere])) == "no node has room"


def parties(nodes: int, pods: int) -> tuple[list[Party], list[Party]]:
    made = [
        Party(f"p{n}-{i}", "pod", f"n{n}", (f"10.{n}.0.{i}", f"fd00:{n}::{i}"), 8079) for n in range(nodes) for i in range(pods)
    ]
    return made, [Party(f"n{n}", "node", f"n{n}", (f"192.168.0.{n}",), 8079) for n in range(nodes)]


def test_every_ordered_pair_both_families_and_protocols() -> None:
    pods, nodes = parties(2, 2)
    probes = promises.plan(pods, nodes, None, True)
    reach = {(p.source, p.target, p.ip, p.protocol) for p in probes if p.promise in (promises.REACH, promises.NO_NAT)}
    assert len(reach) == 4 * 3 * 2 * 2


def test_sampled_pairs_take_every_pod_and_every_pair_of_nodes() -> None:
    pods, nodes = parties(12, 10)
    probes = promises.plan(pods, nodes, None, False)
    reach = [p for p in probes if p.promise == promises.REACH]
    node_of = {p.name: p.node for p in pods}
    assert {(node_of[p.source], node_of[p.target]) for p in reach} == {(a.name, b.name) for a in nodes for b in nodes}
    assert {p.source for p in reach} | {p.target for p in reach} == set(node_of)
    assert len(reach) < 2 * 400


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ({"ok": True, "seen": {"name": "b", "source": "10.0.0.1"}}, ""),
        ({"ok": True, "seen": {"name": "b", "source": "10.0.0.9"}}, "expected source 10.0.0.1, b saw 10.0.0.9"),
        ({"ok": True, "seen": {"name": "c", "source": "10.0.0.1"}}, "expected an answer of b, c answered"),
        ({"ok": False, "error": "no answer"}, "expected an answer, got no answer"),
        (None, "no result from a"),
    ],
)
def test_verdicts_name_the_pair_the_expected_and_the_seen(answer: dict[str, object] | None, expected: str) -> None:
    probe = Probe(promises.NO_NAT, "a", "b", "tcp", "10.0.0.2", 80, seen="10.0.0.1", answered_by="b")
    text = promises.judge(probe, answer)
    assert text.endswith(expected)
    assert not text or text.startswith("a → b 10.0.0.2 tcp")


def test_addresses_that_are_not_unique() -> None:
    twice = [Party("a", "pod", "n", ("10.0.0.1",)), Party("b", "pod", "n", ("10.0.0.1",))]
    verdict = promises.uniqueness(twice, {"a": ["10.0.0.1"], "b": []})
    assert verdict.failures == ["a: address 10.0.0.1 belongs to a, b", "b: address 10.0.0.1 belongs to a, b"]
    elsewhere = promises.uniqueness(twice[:1], {"a": ["10.0.0.9"]})
    assert elsewhere.failures == ["a: expected address 10.0.0.1 on its interfaces, found 10.0.0.9"]
    assert (verdict.tried, elsewhere.tried) == (2, 1), "each address is counted once"


def test_nothing_proved_is_not_kept() -> None:
    assert not promises.Verdict(promises.REACH).ok
    assert not promises.same_port([], {}).ok


@pytest.mark.parametrize(("status", "ready"), [("True", True), ("False", False), (None, False)])
def test_a_pod_is_ready_when_its_condition_says_so(status: str | None, ready: bool) -> None:
    conditions = [{"type": "Ready", "status": status}] if status else []
    assert tables.is_ready(pod(phase="Running", conditions=conditions)) is ready


def test_pods_that_have_ended_are_not_to_be_ready() -> None:
    ready = {"type": "Ready", "status": "True"}
    pods = [pod(phase="Running", conditions=[ready]), pod(phase="Running"), pod(phase="Failed"), pod(phase="Succeeded")]
    assert tables.readiness(pods) == "1 of 2 ready, 1 completed, 1 failed"
    assert tables.readiness(pods[:1]) == "1 of 1 ready"
    assert tables.readiness([]) == "0 of 0 ready"


@pytest.mark.parametrize(
    ("restarts", "seconds", "why"),
    [(0, 1, ""), (3, 2, "it was restarted just now"), (3, 120, "")],
)
def test_a_check_asks_no_pod_that_is_in_a_crash_loop(restarts: int, seconds: int, why: str) -> None:
    now = datetime.datetime(2026, 11, 26, 12, 0, tzinfo=datetime.UTC)
    began = (now - datetime.timedelta(seconds=seconds)).isoformat()
    container = {"name": "main", "restartCount": restarts, "state": {"running": {"startedAt": began}}}
    one = pod(
        phase="Running",
        conditions=[{"type": "Ready", "status": "True"}],
        podIPs=[{"ip": "10.244.1.2"}],
        containerStatuses=[container],
    )
    one["spec"]["nodeName"] = "node1"
    assert why_left_out(one, now) == why
    one["status"]["phase"], one["status"]["conditions"] = "Failed", []
    assert why_left_out(one, now) == ""
    one["status"]["phase"] = "Pending"
    assert why_left_out(one, now) == "it does not run"
