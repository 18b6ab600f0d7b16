"""Nodes that do not reach each other are named, and routes to a node that is dead are withdrawn until it is back."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.e2e.conftest import Podplane, running

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("probes")]
DROP = "nft add table inet other '{ chain drops { type filter hook input priority -300; ip saddr 192.168.1.11 udp dport 4789 drop; }; }'"
"""Something on the way drops the tunnel from node2 to node1."""
REFUSED = 7
"""Exit status of curl that was told that nothing leads there; 28: it was told nothing."""
SECONDS = 30
"""For what takes one or two on a machine that is not busy; bench.withdrawal says how long."""
FILTERED = "node1 and node2 do not reach each other over vxlan, but over the underlay: is UDP port 4789 filtered?"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Podplane]:
    with running(tmp_path_factory, "--nodes", "3", "--pods-per-node", "1", "--backend", "vxlan") as started:
        yield started


def within(seconds: float, condition: Callable[[], bool]) -> bool:
    """Does it come about within so long?"""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True


def kinds(lab: Podplane, of: str, on: str = "node1") -> set[str]:
    """Of the routes to a node's blocks on another one."""
    rows = lab.api.of_node(on, 10256, "routes")
    return {
        one["kind"] for one in rows if f"node/{of}" in one["wanted_by"] and not one["destination"].endswith(("/32", "/128"))
    }


def say_unknown(lab: Podplane, node: str) -> None:
    """What the API says of a node of which it has not heard for the time of grace."""
    found = lab.api.get("nodes", "", node)["status"]["conditions"]
    said = [one | {"status": "Unknown", "reason": "NodeStatusUnknown"} if one["type"] == "Ready" else one for one in found]
    lab.api.patch("nodes", "", node, {"status": {"conditions": said}}, "status")


def test_all_ways_are_reached_and_told_with_latency_and_loss(lab: Podplane) -> None:
    def ways() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(lab("status", "--node", "node1", "-o", "json", code=None).stdout)["peers"]
        return found

    assert within(SECONDS, lambda: {one["state"] for one in ways()} == {"reached"})
    assert {(one["peer"], one["backend"], one["ip"]) for one in ways()} >= {
        ("node2", "vxlan", "10.244.2.1"),
        ("node2", "vxlan", "fd00:10:244:2::1"),
        ("node2", "", "192.168.1.11"),
    }
    assert all(0 < one["latency"] < 1 and one["loss"] == 0 for one in ways())
    assert "paths" not in lab("status").stdout


def test_a_tunnel_that_is_filtered_is_named_with_its_nodes_and_its_port(lab: Podplane) -> None:
    lab.on_node("node1", DROP)
    try:
        assert within(SECONDS, lambda: FILTERED in lab("status").stdout)
        assert "is UDP port 4789 filtered?" in lab("status", "--node", "node2", code=1).stdout

        def condition() -> dict[str, str]:
            found = lab.api.get("nodes", "", "node1")["status"]["conditions"]
            return next((one for one in found if one["type"] == "PeersUnreachable"), {})

        assert within(SECONDS, lambda: condition().get("status") == "True")
        assert condition()["message"] == "node2 is not reached over vxlan, but over the underlay: is UDP port 4789 filtered?"
        events = [one for one in lab.api.objects("events", "default") if one["reason"] == "PeersUnreachable"]
        assert {one["involvedObject"]["name"] for one in events} >= {"node1"}
        assert kinds(lab, "node2") == {"unicast"}, "both are ready: no route goes"
    finally:
        lab.on_node("node1", "nft delete table inet other")
    assert within(SECONDS, lambda: "paths" not in lab("status").stdout)


def test_routes_to_a_node_that_is_dead_are_withdrawn_and_are_back_with_it(lab: Podplane) -> None:
    dead = lab.api.get("pods", "default", "echo-node2-1")["status"]["podIPs"]
    lab("fault", "node2", "--uplink-down")
    assert kinds(lab, "node2") == {"unicast"}
    say_unknown(lab, "node2")
    assert within(SECONDS, lambda: kinds(lab, "node2") == {"unreachable"})
    for ip in (one["ip"] for one in dead):
        host = f"[{ip}]" if ":" in ip else ip
        lab("exec", "echo-node1-1", "--", "curl", "-sS", "-m", "5", f"http://{host}:8080/", code=REFUSED)
    assert "wrote nothing to the kernel" in lab("fault", "node1", "--restart-agent").stdout
    assert kinds(lab, "node2") == {"unreachable"} and kinds(lab, "node3") == {"unicast"}
    shown = lab("routes", "--node", "node1", code=1)
    assert "10.244.2.0/24" in shown.stdout and "unreachable" in shown.stdout
    assert "node2: its routes are withdrawn on node1: it is not ready and does not answer" in shown.stderr
    reasons = {(one["reason"], one["involvedObject"]["name"]) for one in lab.api.objects("events", "default")}
    assert ("RoutesWithdrawn", "node2") in reasons
    lab("fault", "node2", "--clear")
    assert within(SECONDS, lambda: kinds(lab, "node2") == {"unicast"})
    assert "promises are kept" in lab("check").stdout
