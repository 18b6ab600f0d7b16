"""`podplane services`, health checks, and what a node tells of its Services through the API."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.e2e.conftest import Kubectl, Podplane
from tests.e2e.test_load_balancer import patch, service, until

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("services-command")]


@pytest.fixture(scope="module")
def web(kubectl: Kubectl) -> Iterator[str]:
    """A load balancer of the echo pods of node1; its cluster IP."""
    one = service("web", type="LoadBalancer", selector={"here": "yes"})
    try:
        kubectl("label", "pod", "echo-node1-1", "here=yes")
        kubectl("create", "-f", "-", stdin=json.dumps(one))
        yield json.loads(kubectl("get", "service", "web", "-o", "json"))["spec"]["clusterIP"]
    finally:
        kubectl("delete", "service", "web", "--ignore-not-found")


def test_it_shows_addresses_endpoints_and_connections(web: str, lab: Podplane) -> None:
    until(lambda: "web" not in lab("exec", "echo-node2-1", "--", "sh", "-c", f"curl -sS -m 2 http://{web}/ || echo web").stdout)
    line = next(line for line in lab("services").stdout.splitlines() if " web " in line).split()
    assert line[2] == "LoadBalancer" and line[5] == "1/1" and int(line[6]) >= 1
    text = lab("services", "web").stdout
    assert "echo-node1-1" in text and "announced by node" in text and "connection" in text
    assert "80 → 1 endpoint" in text


def test_a_service_without_pods_says_so(lab: Podplane, kubectl: Kubectl) -> None:
    kubectl("create", "service", "clusterip", "lost", "--tcp=80:80")
    try:
        until(lambda: "refuses 80/tcp" in lab("services", "lost").stdout)
        assert "its selector matches no pod of its namespace: connections are refused" in lab("services", "lost").stdout
    finally:
        kubectl("delete", "service", "lost")


def test_of_what_is_not_there_it_says_so(lab: Podplane) -> None:
    assert 'services "nobody" not found' in lab("services", "nobody", code=2).stderr


def test_health_checks_pass_where_a_ready_endpoint_is(web: str, kubectl: Kubectl) -> None:
    patch(kubectl, "service/web", {"spec": {"externalTrafficPolicy": "Local"}})
    try:
        port = json.loads(kubectl("get", "service", "web", "-o", "json"))["spec"]["healthCheckNodePort"]
        path = f"/api/v1/nodes/{{}}:{port}/proxy/"
        until(lambda: "localEndpoints" in kubectl("get", "--raw", path.format("node1"), code=None))
        answer = json.loads(kubectl("get", "--raw", path.format("node1")))
        assert answer == {"service": {"namespace": "default", "name": "web"}, "localEndpoints": 1, "serviceProxyHealthy": True}
        assert "unable to handle the request" in kubectl("get", "--raw", path.format("node2"), code=1)
    finally:
        patch(kubectl, "service/web", {"spec": {"externalTrafficPolicy": "Cluster"}})
    until(lambda: "connection refused" in kubectl("get", "--raw", path.format("node1"), code=None))


def test_nodes_answer_healthz_until_they_are_to_be_deleted(kubectl: Kubectl) -> None:
    path = "/api/v1/nodes/node3:10256/proxy/{}"
    assert json.loads(kubectl("get", "--raw", path.format("healthz")))["nodeEligible"] is True
    kubectl("taint", "node", "node3", "ToBeDeletedByClusterAutoscaler=1:PreferNoSchedule")
    try:
        until(lambda: "unable to handle" in kubectl("get", "--raw", path.format("healthz"), code=None))
        assert json.loads(kubectl("get", "--raw", path.format("livez")))["nodeEligible"] is False
    finally:
        kubectl("taint", "node", "node3", "ToBeDeletedByClusterAutoscaler-")


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("/api/v1/nodes/nobody:10256/proxy/healthz", 'nodes "nobody" not found'),
        ("/api/v1/nodes/node1/proxy/healthz", "has no kubelet port here"),
        ("/api/v1/nodes/node1:9/proxy/", "connection refused"),
        ("/api/v1/nodes/node1:10256/proxy/nothing", "could not find the requested resource"),
    ],
)
def test_what_a_node_does_not_serve_is_refused_clearly(kubectl: Kubectl, path: str, why: str) -> None:
    assert why in kubectl("get", "--raw", path, code=1)
