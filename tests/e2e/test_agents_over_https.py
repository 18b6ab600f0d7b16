"""A lab whose agents and kubelets reach the API over HTTPS, as on a real cluster: `podplane up --agents-over-https`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Kubectl, Podplane, running

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("agents-over-https")]

SPEC = {
    "replicas": 3,
    "selector": {"matchLabels": {"app": "rolled"}},
    "template": {
        "metadata": {"labels": {"app": "rolled"}},
        "spec": {"containers": [{"name": "main", "image": "podplane/echo", "env": [{"name": "VERSION", "value": "1"}]}]},
    },
}


@pytest.fixture(scope="module")
def https_lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Podplane]:
    with running(tmp_path_factory, "--agents-over-https", "--pods-per-node", "1") as started:
        yield started


def audited(lab: Podplane, user: str) -> list[dict[str, Any]]:
    """The requests of users whose names begin so."""
    lines = lab.folder.audit.read_text().splitlines()
    return [entry for entry in map(json.loads, lines) if entry["user"]["username"].startswith(user)]


def test_every_request_of_a_node_came_over_the_network_with_a_token_of_its_own(https_lab: Podplane) -> None:
    requests = audited(https_lab, "system:node:node")
    assert {entry["user"]["username"] for entry in requests} == {f"system:node:node{n}" for n in (1, 2, 3)}
    assert {tuple(entry["sourceIPs"]) for entry in requests} == {("127.0.0.1",)}
    watches = [entry for entry in audited(https_lab, "system:podplane") if entry["verb"] == "watch"]
    resources = {entry["objectRef"]["resource"] for entry in watches if entry["sourceIPs"] == ["127.0.0.1"]}
    policies = {"networkpolicies", "clusternetworkpolicies"}
    assert resources == {"nodes", "services", "endpointslices", "leases", "pods", "namespaces", "configmaps"} | policies


def test_all_promises_are_kept(https_lab: Podplane) -> None:
    assert "promises are kept: " in https_lab("check").stdout


def test_a_deployment_rolls_out_and_its_agents_restart(https_lab: Podplane, tmp_path: Path) -> None:
    kubectl = Kubectl(https_lab, tmp_path)
    deployment = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "rolled"}, "spec": SPEC}
    kubectl("create", "-f", "-", stdin=json.dumps(deployment))
    assert "successfully rolled out" in kubectl("rollout", "status", "deployment/rolled", "--timeout=30s")
    kubectl("set", "env", "deployment/rolled", "VERSION=2")
    assert "successfully rolled out" in kubectl("rollout", "status", "deployment/rolled", "--timeout=30s")
    https_lab("fault", "node2", "--restart-agent")
    assert "promises are kept: " in https_lab("check").stdout
    assert "everything is as wanted" in https_lab("status", "--node", "node2").stdout
    kubectl("delete", "deployment", "rolled")


def test_the_setting_is_kept(https_lab: Podplane) -> None:
    https_lab("down")
    https_lab("up")
    assert json.loads(https_lab.folder.spec.read_text())["agents_over_https"] is True
    assert {tuple(entry["sourceIPs"]) for entry in audited(https_lab, "system:node:node")} == {("127.0.0.1",)}
    refused = https_lab("up", "--agents-direct", code=2).stderr
    assert "runs with --agents-over-https:" in refused
