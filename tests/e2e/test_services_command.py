"""`podplane services`, health checks, and what a node tells of its Services through the API."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
import yaml

from tests.e2e.conftest import Kubectl, Podplane, until
from tests.e2e.test_load_balancer import patch, service

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
        until(lambda: "80/tcp → refused" in lab("services", "lost").stdout)
        assert "its selector matches no pod of its namespace: connections are refused" in lab("services", "lost").stdout
    finally:
        kubectl("delete", "service", "lost")


def test_of_what_is_not_there_it_says_so(lab: Podplane) -> None:
    assert 'services "nobody" not found' in lab("services", "nobody", code=2).stderr


@pytest.mark.parametrize("name", ["web", "svc/web", "service/web", "services/web"])
def test_a_service_is_named_as_for_kubectl(web: str, lab: Podplane, name: str) -> None:
    assert lab("services", name).stdout.startswith("Service default/web: LoadBalancer")


@pytest.mark.parametrize("name", ["", "default/web", "svc/", "pod/web", "Web"])
def test_what_is_no_name_of_a_service_is_refused_in_one_line(lab: Podplane, name: str) -> None:
    assert lab("services", name, code=2).stderr == (
        f"podplane: {name!r} is no name of a Service: write web or svc/web, and `-n` for its namespace\n"
    )


def test_programs_get_json_and_yaml(web: str, lab: Podplane) -> None:
    one = json.loads(lab("services", "web", "-o", "json").stdout)
    assert (one["name"], one["ready"], one["problems"]) == ("web", 1, [])
    assert {row["kind"] for row in one["frontends"]} == {"cluster IP", "load balancer", "node port"}
    found = yaml.safe_load(lab("services", "-o", "yaml").stdout)["services"]
    assert [row["addresses"][0] for row in found if row["name"] == "web"] == [web]


def test_what_events_say_is_told(lab: Podplane, kubectl: Kubectl) -> None:
    one = service("homeless", type="LoadBalancer", loadBalancerIP="10.1.2.3", selector={"here": "yes"})
    kubectl("create", "-f", "-", stdin=json.dumps(one))
    try:
        until(lambda: "it waits for an address: 10.1.2.3 is in no pool" in lab("services", "homeless").stdout)
    finally:
        kubectl("delete", "service", "homeless")


def test_a_new_service_with_the_address_of_an_old_one_has_no_connections(lab: Podplane, kubectl: Kubectl) -> None:
    """The old one's connections are tracked for two minutes, to the same endpoint."""
    try:
        _serve(lab, kubectl, "old", 80)
        lab("exec", "echo-node2-1", "--", "curl", "-sS", "-m", "5", "http://10.96.200.1/")
        assert "1 connection, " in lab("services", "old").stdout
        kubectl("delete", "service", "old")
        _serve(lab, kubectl, "new", 81)
        assert json.loads(lab("services", "new", "-o", "json").stdout)["connections"] == 0
        node = json.loads(kubectl("get", "--raw", "/api/v1/nodes/node2:10256/proxy/traffic"))
        assert [row["service"] for row in node if row["address"] == "10.96.200.1"] == [""], "it is tracked still"
    finally:
        kubectl("delete", "service", "old", "new", "--ignore-not-found")


def _serve(lab: Podplane, kubectl: Kubectl, name: str, port: int) -> None:
    one = service(name, clusterIP="10.96.200.1", selector={"run": "echo"})
    one["spec"]["ports"][0]["port"] = port
    kubectl("create", "-f", "-", stdin=json.dumps(one))
    until(lambda: f"node1, node2, node3   {port} → 6 endpoints" in lab("services", name).stdout)


@pytest.mark.parametrize(
    ("node", "why"),
    [
        ("", "say on which node, before the option: podplane fault --name {name} NODE --restart-agent"),
        ("node9", "there is no node 'node9': this lab has node1, node2, node3"),
    ],
)
def test_a_fault_of_no_node_is_refused_in_one_line(lab: Podplane, node: str, why: str) -> None:
    assert lab("fault", node, "--restart-agent", code=2).stderr == f"podplane: {why.format(name=lab.name)}\n"


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


def test_a_pod_sees_a_nodes_health_and_nothing_more_without_a_login(lab: Podplane, kubectl: Kubectl) -> None:
    asks = "curl -sS -m 5 -o /dev/null -w '%{{http_code}} ' {} http://192.168.1.10:10256/{}"
    token = kubectl("create", "token", "default").strip()
    login = f"-H 'authorization: Bearer {token}'"
    command = ";".join(
        asks.format(*what)
        for what in (("", "healthz"), ("", "traffic"), ("-H 'authorization: Bearer x'", "traffic"), (login, "traffic"))
    )
    assert lab("exec", "echo-node2-1", "--", "sh", "-c", command).stdout.split() == ["200", "401", "401", "200"]


def test_a_node_says_on_its_localhost_alone_how_it_serves_services(lab: Podplane) -> None:
    said = [lab.on_node("node2", f"curl -s -m 5 http://{host}:10249/proxyMode") for host in ("localhost", "127.0.0.1", "[::1]")]
    assert said == ["nftables"] * 3
    refused = 7
    lab("exec", "echo-node2-1", "--", "sh", "-c", "curl -sS -m 5 http://192.168.1.11:10249/proxyMode", code=refused)


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
