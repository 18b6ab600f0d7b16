"""Whatever is in a cluster, no command ends in a traceback, no request in a failure of the server, and nothing is silent for long.

By hand, for longer or elsewhere:

    PODPLANE_CHAOS_SEED=7 PODPLANE_CHAOS_STEPS=1000 PODPLANE_CHAOS_SILENT=1.5 pytest tests/e2e/test_chaos.py
    PODPLANE_CHAOS_SEED=7 PODPLANE_CHAOS_ONLY=3,17,40 pytest …      only these steps of it, to find those that matter
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from tests.e2e.chaos import Chaos
from tests.e2e.conftest import Podplane, until

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("chaos")]
SEED = int(os.environ.get("PODPLANE_CHAOS_SEED", "1"))
STEPS = int(os.environ.get("PODPLANE_CHAOS_STEPS", "80"))
SILENT_SECONDS = float(os.environ.get("PODPLANE_CHAOS_SILENT", "20"))
"""By hand 1.5: a second, and the start of a process; a busy machine needs more."""
ONLY = [int(number) for number in os.environ.get("PODPLANE_CHAOS_ONLY", "").split(",") if number]
PROXY, NOT_REACHED = "/proxy", (502, 503, 504)


def failures_of_the_server(lab: Podplane) -> list[str]:
    """Requests that were answered with 5xx (a node or pod that a proxy does not reach is no failure of the server)."""
    found = []
    for name in ("audit.log.1", "audit.log"):
        path = lab.folder.path / name
        for line in path.read_text().splitlines() if path.exists() else ():
            event = json.loads(line)
            code = event["responseStatus"]["code"]
            if code >= 500 and not (PROXY in event["requestURI"] and code in NOT_REACHED):
                found.append(line)
    return found


def tracebacks(lab: Podplane) -> list[str]:
    """Lines of the lab's log that tell of an error that nobody foresaw."""
    lines = (lab.folder.path / "lab.log").read_text(errors="replace").splitlines()
    places = [number for number, line in enumerate(lines) if line.startswith("Traceback (most recent call last)")]
    return ["\n".join(lines[max(0, number - 2) : number + 40]) for number in places]


def restarts(lab: Podplane) -> list[str]:
    """Tasks of nodes that ended with an error."""
    nodes = json.loads(lab("status", "--node", "all", "-o", "json", code=None).stdout)["nodes"]
    tasks = [(node["node"], task) for node in nodes for task in node.get("tasks", ())]
    return [f"{node} {task['name']}: {task['last_error']}" for node, task in tasks if task["restarts"]]


def test_what_a_proxy_does_not_reach_is_no_failure_but_its_own_are(tmp_path: Path) -> None:
    codes = (200, 404, 500, 502, 503, 504)
    for path in ("/api/v1/nodes/a:1/proxy/", "/api/v1/nodes"):
        lines = (json.dumps({"requestURI": path, "responseStatus": {"code": code}}) for code in codes)
        with (tmp_path / "audit.log").open("a") as log:
            log.writelines(f"{line}\n" for line in lines)
    lab = cast(Podplane, SimpleNamespace(folder=SimpleNamespace(path=tmp_path)))
    found = [json.loads(line)["responseStatus"]["code"] for line in failures_of_the_server(lab)]
    assert found == [500, 500, 502, 503, 504]


@pytest.mark.timeout(120 + 20 * STEPS)
def test_no_command_fails_inside_whatever_there_is(podplane: Podplane, tmp_path: Path) -> None:
    podplane("up", "--nodes", "2", "--pods-per-node", "1")
    chaos = Chaos(podplane, tmp_path, SEED, SILENT_SECONDS)
    chaos.request("POST", "/api/v1/namespaces", {"metadata": {"name": "odd"}})
    chaos.run(ONLY or range(STEPS))
    for found in (failures_of_the_server(podplane), tracebacks(podplane), restarts(podplane), chaos.slow):
        if found:
            raise chaos.failure("\n".join(found[:20]))
    still_works(podplane)


def still_works(lab: Podplane) -> None:
    """What was made goes, and the lab is as it was."""
    api = lab.api
    lab("run", "at-the-end", "-n", "kube-public", "--node", "node1", code=None)
    until(lambda: "Running" in lab("get", "pods", "-n", "kube-public", "at-the-end", code=None).stdout, 60)
    lab("exec", "-n", "kube-public", "at-the-end", "--", "true")
    assert api.get("namespaces", "", "default")["status"]["phase"] == "Active"
