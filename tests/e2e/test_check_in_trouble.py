"""`check`, `status` and `services` while something is wrong: they name the node and why, and go on with the others."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Kubectl, Podplane, until
from tests.e2e.test_load_balancer import service

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("check-in-trouble")]
SECONDS = 60
README = Path(__file__).parents[2] / "README.md"


def checked(lab: Podplane) -> tuple[dict[str, Any], str]:
    """Promise → what was found of it, in a lab where something is broken; and what was said on the way."""
    done = lab("check", "--json", code=1)
    return {row["promise"]: row for row in json.loads(done.stdout)["promises"]}, done.stderr


@pytest.fixture
def active(lab: Podplane) -> Iterator[Podplane]:
    """The lab, and no fault in the end."""
    yield lab
    lab("fault", "node1", "--clear")
    until(lambda: "All 21 promises are kept" in lab("check", code=None).stdout, SECONDS)


def test_the_readme_shows_what_a_user_sees(lab: Podplane) -> None:
    """But for how long it took. And the counts add up."""
    sample = README.read_text().split("$ podplane check\n")[1].split("$ podplane exec")[0]
    seen = re.sub(r"[\d.]+ s\.", "N s.", lab("check").stdout).strip()
    assert re.sub(r"[\d.]+ s\.", "N s.", "\n".join(line[4:] for line in sample.splitlines())).strip() == seen
    counts = [int(count) for count in re.findall(r"\((\d+) of \d+\)", seen)]
    assert f"All {len(counts)} promises are kept: {sum(counts):,} probes, 7 pods" in seen


def test_an_uplink_that_is_down(active: Podplane) -> None:
    active("fault", "node1", "--uplink-down")
    undo = f"`podplane fault --name {active.name} node1 --clear` undoes it"
    found, said = checked(active)
    why = f"(the fault uplink-down is active: {undo})"
    silent = rf"(no answer within \d s|.*no route to host) {re.escape(why)}"  # the kernel says so when it has asked for its MAC long enough
    assert re.search(rf"node1 can't be asked: it does not answer: {silent}\.", said), said
    reach = found["pod-to-pod"]
    assert not reach["ok"] and all("node1" in failure for failure in reach["failures"]), "the others reach each other"
    (lost,) = [failure for failure in reach["failures"] if failure.startswith("node1: the check's pod in-node1 does not run: ")]
    assert len(reach["failures"]) <= 5 < reach["probes"], "into and out of the node one probe of each sort is enough"
    assert lost.endswith(why), "its kubelet does not reach the API"
    (unasked,) = found["services"]["failures"]
    assert re.fullmatch(rf"node1 was not asked: it does not answer: {silent}", unasked)
    for promise in ("unique-addresses", "same-port", "localhost", "service-spread", "service-affinity", "service-refused"):
        assert found[promise]["ok"], promise
    status = active("status", "--node", "all", code=1).stdout
    assert re.search(rf"Node node1 does not tell its state: {silent}", status), status
    assert "Node node2: everything is as wanted" in status and "Node node3: everything is as wanted" in status
    overview = active("status").stdout
    assert f"fault   node1: uplink-down ({undo})" in overview and "agents  node1 does not answer" in overview
    detail = active("services", "kubernetes").stdout
    assert "node2, node3   https → 1 endpoint" in detail
    assert re.search(rf"node1 does not answer: {silent}", detail), detail


def test_a_node_that_is_cut_from_the_api(active: Podplane) -> None:
    active("fault", "node1", "--cut-api")
    found, said = checked(active)
    assert "node1 can't be asked: " in said and "the fault cut-api is active" in said
    broken = {promise: row["failures"] for promise, row in found.items() if not row["ok"]}
    assert broken.keys() == {"pod-to-pod", "services"}, "packets still pass, and pods that are there are reached"
    (lost,), (unasked,) = broken["pod-to-pod"], broken["services"]
    assert lost.startswith("node1: the check's pod in-node1 does not run: it is Pending, and of node1: ")
    assert unasked.startswith("node1 was not asked: ")


def test_a_port_of_an_agent_that_a_service_leads_elsewhere(lab: Podplane, kubectl: Kubectl) -> None:
    """Its external IP is a node's: whoever asks the node's agent is answered by a pod."""
    taken = service(
        "taken", selector={"run": "echo"}, externalIPs=["192.168.1.11"], ports=[{"port": 10256, "targetPort": 8080}]
    )
    kubectl("create", "-f", "-", stdin=json.dumps(taken))
    try:
        until(lambda: "does not answer" in lab("services", "taken").stdout, SECONDS)
        detail = lab("services", "taken").stdout
        assert (
            "node2 does not answer: port 10256 of node node2 does not answer services/default/taken as its agent does" in detail
        )
        assert json.loads(lab("services", "taken", "-o", "json").stdout)["nodes"]["node2"] is None
        assert "taken" in lab("services", "-A").stdout
        assert "Node node2 does not tell its state: port 10256 of node node2" in lab("status", "--node", "node2", code=1).stdout
        assert "agents  node2 does not answer" in lab("status").stdout
        _, said = checked(lab)
        assert "node2 can't be asked: it does not answer: port 10256 of node node2" in said
    finally:
        kubectl("delete", "service", "taken")
