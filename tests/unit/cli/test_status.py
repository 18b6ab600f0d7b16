"""`podplane status` of agents: what is printed of their state."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest

from podplane.cli.nodes import ask
from podplane.cli.status import gather, show
from podplane.kubeapi.errors import ApiError
from podplane.model.config import AGENT_PORT

STATUS: dict[str, Any] = {
    "node": "node1",
    "objects": [{"feature": "services", "kind": "nft element", "done": 12, "pending": 1, "refused": 2}],
    "refused": 0,
    "refused_objects": [],
    "blocked": 0,
    "blocked_keys": [],
    "dirty_keys": {"services": 0},
    "operations_applied": 40,
    "operations_refused": 3,
    "audits": [{"part": "tables", "count": 2, "age": 30.0, "took": 0.004, "found_deviation": False}],
    "repaired": {},
    "last_repairs": [],
    "tasks": [{"name": "agent", "is_running": True, "restarts": 0, "last_error": ""}],
    "caches": [{"resource": "nodes", "objects": 3, "is_synced": True, "failures": {}}],
    "api": {"is_reached": True, "age": 2.0, "error": ""},
    "reconcile_age": 1.0,
    "longest_turn": None,
}
REFUSED = {"object": "route 10.0.0.0/8", "wanted_by": ["node/node1"], "why": "Network is unreachable", "age": 90.0, "tries": 5}


def shown(**changes: Any) -> str:
    return show.node(STATUS | changes)


def test_a_node_at_rest() -> None:
    text = shown()
    assert text.splitlines()[0] == "Node node1: everything is as wanted"
    assert "services   nft element   12     1         2" in text
    assert "operations  40 applied, 3 refused" in text and "wait" not in text
    assert "audit       tables: 2, the last 30 s ago in 4 ms found nothing new" in text
    assert "API         answered 2 s ago" in text and "tasks       agent" in text and "event loop" not in text


def test_what_is_left_of_a_network_that_a_node_is_migrated_from_is_told() -> None:
    def line(*pods: str, ports: int) -> str:
        text = shown(former_network={"bridge": "cni0", "ports": ports, "pods": list(pods)})
        return next(one for one in text.splitlines() if one.startswith("  migration"))

    assert line("shop/a", "shop/b", ports=2) == "  migration   on cni0 still: 2 pods (shop/a, shop/b); 2 ports"
    assert line(ports=1) == "  migration   on cni0 still: no pod that the API has; 1 port"
    assert line(ports=0) == "  migration   nothing is on cni0 any more"
    assert "migration" not in shown() and "migration" not in shown(former_network=None)


def test_what_a_node_does_without_is_told_in_one_line_and_all_of_it_of_the_node() -> None:
    lines = shown(unmet=["its uplink is narrow", "node2 is far"]).splitlines()
    assert lines[:3] == ["Node node1: 2 not as asked for", "  without  its uplink is narrow", "  without  node2 is far"]
    assert not gather.is_as_wanted(STATUS | {"unmet": ["x"]}) and gather.is_as_wanted(STATUS | {"unmet": []})
    found = {"refused": 0, "blocked": 0, "restarts": 0, "unmet": ["its uplink is narrow", "node2 is far"]}
    assert show.summary({"node1": found}) == "node1: its uplink is narrow (and 1 more)"


def test_of_what_is_refused_or_blocked_the_first_is_told_in_the_one_line() -> None:
    found = {"refused": 2, "blocked": 1, "restarts": 0}
    assert show.summary({"node1": found}) == "node1: 2 refused, 1 blocked"
    found |= {"first_refused": "route 10.0.0.0/8: Network is unreachable", "first_blocked": "pod/default/a: no address is left"}
    line = "node1: 2 refused (route 10.0.0.0/8: Network is unreachable), 1 blocked (pod/default/a: no address is left)"
    assert show.summary({"node1": found}) == line


def test_tunnels_without_offload_are_told_and_nothing_is_wrong_with_that() -> None:
    lines = shown(without_offload=["vxlan: the settings say so"]).splitlines()
    assert lines[0] == "Node node1: everything is as wanted" and "  offload     none of vxlan: the settings say so" in lines
    assert "offload" not in shown()


WAY = {
    "peer": "node2",
    "layer": "overlay",
    "backend": "vxlan",
    "ip": "10.244.2.1",
    "state": "reached",
    "latency": 0.00034,
    "loss": 0.0,
    "probes": 64,
    "age": 90.0,
    "is_withdrawn": False,
}


def test_ways_to_peers_are_a_table_with_those_that_are_lost_first() -> None:
    lost = WAY | {"peer": "node3", "state": "lost", "latency": None, "loss": 1.0, "age": 8.0, "is_withdrawn": True}
    below = WAY | {"layer": "underlay", "backend": "", "ip": "192.168.1.11"}
    problem = {"peer": "node3", "backend": "vxlan", "families": [], "underlay": "lost", "carried_in": "UDP port 4789"}
    problem |= {"loss": 1.0, "age": 8.0, "is_not_ready": True, "is_withdrawn": True}
    new = WAY | {"peer": "node4", "state": "unknown", "latency": None, "probes": 0, "age": 1.0}
    lines = shown(peers=[WAY, below, lost, new], unreached=[problem]).splitlines()
    assert lines[0] == "Node node1: everything is as wanted; not reached as they should be: 1 peer"
    assert lines[1] == "  path     node3 is not reached over vxlan, and is not ready: its routes are withdrawn"
    first = next(number for number, line in enumerate(lines) if line.startswith("  PEER"))
    assert [line.split() for line in lines[first + 1 : first + 5]] == [
        ["node3", "vxlan", "10.244.2.1", "lost", "for", "8", "s,", "routes", "withdrawn", "-", "100%"],
        ["node2", "vxlan", "10.244.2.1", "reached", "for", "90", "s", "0.34", "ms", "0%"],
        ["node2", "underlay", "192.168.1.11", "reached", "for", "90", "s", "0.34", "ms", "0%"],
        ["node4", "vxlan", "10.244.2.1", "unknown", "for", "1", "s", "-", "-"],
    ]
    assert gather.is_as_wanted(STATUS | {"unreached": [problem]}), "that a peer failed is no fault of this node"
    assert not gather.is_as_wanted(STATUS | {"unreached": [problem | {"is_not_ready": False}]})
    assert gather.is_as_wanted(STATUS | {"unreached": [problem | {"is_not_ready": False, "loss": 0.1}]})


def test_what_is_refused_and_blocked_comes_first_and_is_cut() -> None:
    refused = [REFUSED | {"next_try_in": 12.0}] * 25
    blocked = [{"key": "service/default/web", "feature": "services", "why": "192.0.2.1 belongs to service/a/b"}]
    lines = shown(refused=31, refused_objects=refused, blocked=1, blocked_keys=blocked).splitlines()
    assert lines[0] == "Node node1: 31 refused, 1 blocked"
    assert lines[1] == "  refused  route 10.0.0.0/8: Network is unreachable"
    assert lines[2] == "           wanted by node/node1; for 90 s, 5 tries, next in 12 s"
    assert sum(line.startswith("  refused  ") for line in lines) == 20
    assert "           and 11 more refused" in lines
    assert "  blocked  service/default/web (services): 192.0.2.1 belongs to service/a/b" in lines


def test_an_object_that_nobody_wants_says_so() -> None:
    one = REFUSED | {"wanted_by": [], "tries": 1, "next_try_in": 0.2}
    assert "wanted by nobody, it is to be removed; for 90 s, 1 try, next in 200 ms" in shown(refused=1, refused_objects=[one])


def test_what_went_wrong_with_tasks_caches_and_the_api() -> None:
    text = shown(
        dirty_keys={"services": 1, "peers": 0},
        repaired={"route": 2},
        last_repairs=[{"age": 7300.0 * n, "what": f"repair {n}"} for n in range(1, 6)],
        tasks=[
            {"name": "agent", "is_running": True, "restarts": 1, "last_error": "KeyError('a')"},
            {"name": "health", "is_running": False, "restarts": 2, "last_error": "it returned"},
        ],
        caches=[{"resource": "nodes", "objects": 3, "is_synced": False, "failures": {"watch Gone": 2}}],
        api={"is_reached": False, "age": 130.0, "error": "connection refused"},
        longest_turn=0.031,
    )
    assert "1 key waits to be planned" in text
    assert "repaired    2 route" in text and "repair 5" in text and "repair 2" not in text
    assert "task        agent runs again after 1 restart: KeyError('a')" in text
    assert "task        health waits to be started again after 2 restarts: it returned" in text
    assert "cache       nodes: 3, not current; failures: 2 watch Gone" in text
    assert "API         did not answer (connection refused) 2 min ago" in text and "longest turn 31 ms" in text


def summary_of(**counts: int) -> dict[str, Any]:
    return {"refused": 0, "blocked": 0, "restarts": 0} | counts


@pytest.mark.parametrize(
    ("found", "line"),
    [
        ({}, ""),
        ({"node1": summary_of()}, ""),
        ({"node1": summary_of(refused=2, blocked=1), "node2": None}, "node1: 2 refused, 1 blocked; node2 does not answer"),
        ({"node1": summary_of(restarts=1)}, "node1: 1 restart of a task"),
        (
            {f"node{n}": summary_of(restarts=2) for n in range(1, 6)},
            "node1: 2 restarts of tasks; node2: 2 restarts of tasks; node3: 2 restarts of tasks; and 2 more nodes",
        ),
    ],
)
def test_one_line_for_a_lab(found: dict[str, Any], line: str) -> None:
    assert show.summary(found) == line


class Client:
    """Nodes that answer, but for node2; of node3, somebody else does."""

    @contextlib.contextmanager
    def another(self, seconds: float) -> Iterator[Client]:
        yield self

    def get(self, resource: str, namespace: str, name: str) -> dict[str, Any]:
        return {"metadata": {"name": name}}

    def of_node(self, node: str, port: int, path: str) -> Any:
        assert port == AGENT_PORT and path in ("status", "status/summary")
        if node == "node2":
            raise ApiError(503, "ServiceUnavailable", "no answer")
        answer = {"node": node, "refused": 1, "blocked": 0, "restarts": 0} if path == "status/summary" else STATUS
        return [] if node == "node3" else answer


def test_how_much_is_wrong_on_each_node() -> None:
    asked = gather.summary_questions(["node1", "node2", "node3"])
    found = gather.summaries(ask(Client(), asked.values()), asked)
    assert show.summary(found) == "node1: 1 refused; node2 does not answer; node3 does not answer"


def test_a_node_that_does_not_reach_the_api_says_so() -> None:
    found = {"node1": summary_of(api_error="connection refused")}
    assert show.summary(found) == "node1: it does not reach the API (connection refused)"


def test_a_node_that_does_not_answer_is_told_among_the_others() -> None:
    nodes = [{"metadata": {"name": name}} for name in ("node1", "node2", "node3")]
    good, silent, other = gather.statuses(Client(), nodes, lambda node: f"undo {node}")
    assert good == STATUS
    assert show.node(silent) == "Node node2 does not tell its state: no answer"
    assert "port 10256 of node node3 does not answer status as its agent does" in show.node(other)
    checked = (good, silent, other, STATUS | {"refused": 1}, STATUS | {"blocked": 1})
    assert [gather.is_as_wanted(one) for one in checked] == [True, False, False, False, False]
