"""Pods that end, or never begin: what others are told of them meanwhile."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.e2e.conftest import Kubectl, Podplane

pytestmark = pytest.mark.e2e

DRAINS = """
apiVersion: v1
kind: Service
metadata: {name: drain}
spec: {selector: {app: drain}, ports: [{port: 8080}]}
---
apiVersion: v1
kind: Pod
metadata: {name: drain, labels: {app: drain}}
spec:
  containers:
  - name: main
    image: podplane/agnhost
    args: [netexec, --delay-shutdown=60]
    readinessProbe: {httpGet: {path: /readyz, port: 8080}, periodSeconds: 1, failureThreshold: 1}
    livenessProbe: {httpGet: {path: /readyz, port: 8080}, periodSeconds: 1, failureThreshold: 1}
"""
SLICES = "endpointslices.discovery.k8s.io"


def test_a_pod_is_asked_whether_it_is_ready_until_it_ends(lab: Podplane, kubectl: Kubectl) -> None:
    """And no longer whether it is alive: it would be started again."""

    def conditions(slices: list[dict[str, Any]]) -> list[dict[str, bool]]:
        found = [e for s in slices if s["metadata"]["name"].startswith("drain-") for e in s.get("endpoints", ())]
        return [endpoint["conditions"] for endpoint in found]

    def become(*wanted: dict[str, bool]) -> bool:
        looks = lab.api.poll(SLICES, "default", lambda slices: conditions(slices) == [*wanted], 30)
        return conditions(list(looks)[-1]) == [*wanted]

    kubectl("apply", "-f", "-", stdin=DRAINS)
    try:
        assert become({"ready": True, "serving": True, "terminating": False})
        kubectl("delete", "pod", "drain", "--wait=false", "--grace-period=60")
        assert become({"ready": False, "serving": False, "terminating": True})
        pod = json.loads(kubectl("get", "pod", "drain", "-o", "json"))
        assert [c["restartCount"] for c in pod["status"]["containerStatuses"]] == [0]
        kubectl("delete", "pod", "drain", "--now")
        assert become()
    finally:
        kubectl("delete", "--now", "--ignore-not-found", "-f", "-", stdin=DRAINS)
    assert "Liveness" not in kubectl("events", "--for=pod/drain")


def test_what_cannot_be_entered_says_why(lab: Podplane, kubectl: Kubectl) -> None:
    def waits(pods: list[dict[str, Any]]) -> bool:
        statuses = [s for p in pods if p["metadata"]["name"] == "lost" for s in p["status"].get("containerStatuses", ())]
        return any("registry" in status["state"].get("waiting", {}).get("message", "") for status in statuses)

    kubectl("run", "lost", "--image=example.org/nobody")
    for _ in lab.api.poll("pods", "default", waits, 30):
        pass
    said = kubectl("exec", "lost", "--", "true", code=1)
    kubectl("delete", "pod", "lost", "--now")
    assert "container lost of pod lost does not run now (waiting: " in said
    assert "a lab has no registry: use podplane/echo" in said
