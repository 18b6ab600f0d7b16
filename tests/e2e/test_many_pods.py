"""A lab of some hundred pods, with processes: each starts, and nobody waits for long meanwhile."""

from __future__ import annotations

import datetime
import itertools
from typing import Any

import pytest

from tests.e2e.conftest import running

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("many-pods")]
NODES, PODS = 3, 70
STALL = datetime.timedelta(seconds=30)
"""Between two starts, on however busy a machine: 10 ms are usual, and who waits for what never comes waits a minute or more."""


def started_at(pod: dict[str, Any]) -> datetime.datetime:
    """When its container started, and after that nothing else did."""
    (status,) = pod["status"]["containerStatuses"]
    assert status["ready"] and status["restartCount"] == 0, pod["status"]
    return datetime.datetime.fromisoformat(status["state"]["running"]["startedAt"])


def test_hundreds_of_pods_start_one_after_the_other_without_a_stall(tmp_path_factory: pytest.TempPathFactory) -> None:
    with running(tmp_path_factory, "--nodes", str(NODES), "--pods-per-node", str(PODS)) as lab:
        pods = lab.api.objects("pods")
        assert len(pods) == NODES * PODS
        starts = sorted(map(started_at, pods))
        assert max(later - earlier for earlier, later in itertools.pairwise(starts)) < STALL
        assert len({ip["ip"] for pod in pods for ip in pod["status"]["podIPs"]}) == 2 * len(pods)
        (last,) = (pod for pod in pods if pod["metadata"]["name"] == f"echo-node{NODES}-{PODS}")
        script = "import socket, sys; print(socket.create_connection((sys.argv[1], 8080), 5).getpeername()[0])"
        for ip in last["status"]["podIPs"]:
            assert lab("exec", "echo-node1-1", "--", "python3", "-c", script, ip["ip"]).stdout.strip() == ip["ip"]
        assert "error" not in (lab.folder.path / "lab.log").read_text().lower()
