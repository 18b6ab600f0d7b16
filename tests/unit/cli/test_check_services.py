"""What `check` promises of Services: whom it asks, and what it makes of the answers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from podplane.cli.check import services
from podplane.cli.check.promises import Party, Probe
from podplane.cli.check.services import FROM_OUTSIDE, HAIRPIN, REFUSED, SERVICES, SOURCE, SPREAD, STICKY, Own, Vip

PODS = [Party(f"p{n}", "pod", f"node{n % 2 + 1}", (f"10.244.0.{n}",), 8079) for n in range(1, 6)]
NODES = [Party(f"node{n}", "node", f"node{n}", (f"192.168.1.{n}",), 8079) for n in (1, 2)]
OUTSIDE = Party("outside", "outside", "outside", ("203.0.113.10",), 8079)
ENDPOINTS = services.endpoints_of(PODS)


def own() -> Own:
    vips = {name: [Vip(name, f"10.96.0.{n}", 80)] for n, name in enumerate(services.NAMES)}
    balanced = {name: [Vip(name, f"192.0.2.{n}", 80)] for n, name in enumerate(services.NAMES)}
    return Own(vips, balanced, dict.fromkeys(services.NAMES, 30000), ENDPOINTS, {node.node: node.ips for node in NODES})


def answered(name: str, source: str = "") -> dict[str, Any]:
    return {"ok": True, "seen": {"name": name, "source": source}}


def good(probe: Probe) -> dict[str, Any]:
    """What a network that keeps all promises answers."""
    if probe.promise == REFUSED:
        return {"ok": False, "error": "Connection refused"}
    turn = 0 if probe.promise == STICKY else probe.turn
    return answered(probe.answered_by or ENDPOINTS[turn % len(ENDPOINTS)].name, probe.seen)


def failures(changed: dict[Probe, dict[str, Any]], probes: list[Probe]) -> dict[str, list[str]]:
    answers = {probe: good(probe) for probe in probes} | changed
    return {v.promise: v.failures for v in services.verdicts(probes, answers, ENDPOINTS) if v.failures}


def test_endpoints_are_of_as_many_nodes_as_there_are() -> None:
    assert len(ENDPOINTS) == 4
    assert [pod.node for pod in ENDPOINTS[:2]] == ["node2", "node1"]


def test_when_all_is_well_every_promise_is_proved() -> None:
    probes = services.plan(own(), PODS, NODES, OUTSIDE)
    found = services.verdicts(probes, {probe: good(probe) for probe in probes}, ENDPOINTS)
    assert [v.promise for v in found] == list(services.PROMISES)
    assert all(v.ok for v in found)
    assert len(probes) == len(set(probes)), "no probe hides another one"


@pytest.mark.parametrize("promise", [SERVICES, SOURCE, HAIRPIN, FROM_OUTSIDE])
def test_an_answer_that_does_not_come_breaks_its_promise(promise: str) -> None:
    probes = services.plan(own(), PODS, NODES, OUTSIDE)
    bad = next(probe for probe in probes if probe.promise == promise)
    found = failures({bad: {"ok": False, "error": "no answer"}}, probes)
    assert list(found) == [promise] and "expected an answer, got no answer" in found[promise][0]


def test_a_wrong_source_is_told_but_not_of_a_pod_that_reaches_itself() -> None:
    probes = services.plan(own(), PODS, NODES, OUTSIDE)
    bad = next(probe for probe in probes if probe.promise == SOURCE)
    assert list(failures({bad: answered("p5", "192.168.1.1")}, probes)) == [SOURCE]
    assert failures({bad: answered(bad.source, "192.168.1.1")}, probes) == {}


def test_a_choice_that_is_uneven_is_told_with_its_counts() -> None:
    probes = [probe for probe in services.plan(own(), PODS, NODES, None) if probe.promise == SPREAD]
    all_to_one = {probe: answered(ENDPOINTS[0].name) for probe in probes}
    (why,) = failures(all_to_one, probes)[SPREAD]
    assert "expected about 30 of 120 connections for each endpoint, got p1 120" in why
    without_one = {probe: answered(ENDPOINTS[probe.turn % 3].name) for probe in probes}
    assert failures(without_one, probes)[SPREAD]


def test_a_client_that_is_moved_is_told() -> None:
    probes = [probe for probe in services.plan(own(), PODS, NODES, None) if probe.promise == STICKY]
    found = failures({probes[3]: answered("p4")}, probes)
    assert found[STICKY] == ["p1 → Service 10.96.0.1: expected one endpoint for all connections of a client, got p1, p4"]


@pytest.mark.parametrize(
    ("answer", "got"), [(answered("p1"), "a connection"), ({"ok": False, "error": "no answer"}, "no answer")]
)
def test_what_should_be_refused_at_once_and_is_not(answer: dict[str, Any], got: str) -> None:
    probes = services.plan(own(), PODS, NODES, None)
    bad = next(probe for probe in probes if probe.promise == REFUSED)
    assert failures({bad: answer}, probes)[REFUSED] == [f"p1 → Service nobody 10.96.0.4: expected to be refused, got {got}"]


def test_node_ports_are_asked_at_the_addresses_that_serve_them_only() -> None:
    chosen = replace(own(), node_ips={"node1": (), "node2": ("192.168.1.2",)})
    ips = {probe.ip for probe in services.plan(chosen, PODS, NODES, OUTSIDE) if probe.port == 30000}
    assert ips == {"192.168.1.2"}


def test_what_is_to_be_proved_does_not_depend_on_what_is_found() -> None:
    """A choice that is even counts as one that is not."""
    probes = services.plan(own(), PODS, NODES, OUTSIDE)
    bad: dict[Probe, dict[str, Any]] = {probe: answered(ENDPOINTS[0].name, probe.seen) for probe in probes}
    totals = [
        [verdict.tried for verdict in services.verdicts(probes, answers, ENDPOINTS)]
        for answers in ({probe: good(probe) for probe in probes}, bad)
    ]
    assert totals[0] == totals[1]
    assert sum(totals[0]) == len(probes) + len({(p.promise, p.source, p.ip) for p in probes if p.promise in (SPREAD, STICKY)})


def test_endpoints_have_the_families_that_most_pods_have() -> None:
    """Anybody may write another status; and what is asked in a family has endpoints in it."""
    dual = [Party(f"d{n}", "pod", f"node{n}", (f"10.244.0.{n}", f"fd00::{n}"), 8079) for n in (1, 2)]
    odd = [Party("odd", "pod", "node1", ("10.244.0.9",), 8079), Party("six", "pod", "node2", ("fd00::9",), 8079)]
    assert services.endpoints_of([*odd, *dual]) == dual
    assert services.endpoints_of([]) == []
    _, slices = services.manifests(dual, "x", (4, 6))
    assert {slice_["addressType"] for slice_ in slices} == {"IPv4", "IPv6"}


def test_of_pods_with_one_address_one_is_an_endpoint() -> None:
    twin = replace(PODS[1], ips=(PODS[0].ips[0], *PODS[1].ips[1:]))
    assert services.endpoints_of([PODS[0], twin, *PODS[2:]]) == services.endpoints_of([PODS[0], *PODS[2:]])
