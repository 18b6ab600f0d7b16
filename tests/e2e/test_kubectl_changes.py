"""Changes of objects with an unmodified kubectl: what it patches, applies and selects becomes what it becomes on Kubernetes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.conftest import Kubectl

pytestmark = pytest.mark.e2e

SERVICE = """
apiVersion: v1
kind: Service
metadata: {name: changing}
spec:
  type: NodePort
  selector: {app: none}
  ports: %s
"""
DEPLOYMENT = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: changing}
spec:
  replicas: 0
  selector: {matchLabels: {app: changing}}
  template:
    metadata: {labels: {app: changing}}
    spec:
      containers: %s
"""
UDP, TCP = {"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "dns-tcp", "port": 53, "protocol": "TCP"}


def service(*ports: Any) -> str:
    return SERVICE % json.dumps(ports)


@pytest.fixture(autouse=True)
def swept(kubectl: Kubectl) -> Iterator[None]:
    """Nothing of a test is left to the next one."""
    yield
    kubectl("delete", "services,deployments", "changing", "--ignore-not-found", "--now", "--wait=false")


def spec(kubectl: Kubectl, kind: str = "service") -> Any:
    return json.loads(kubectl("get", kind, "changing", "-o", "json"))["spec"]


def test_two_node_ports_change_and_change_places_at_once(kubectl: Kubectl) -> None:
    for first, second in ((30111, 30112), (30113, 30114), (30114, 30113)):
        ports = ({"name": "a", "port": 80, "nodePort": first}, {"name": "b", "port": 81, "nodePort": second})
        kubectl("apply", "-f", "-", stdin=service(*ports))
        assert [port["nodePort"] for port in spec(kubectl)["ports"]] == [first, second]


def test_a_second_protocol_on_one_port_is_the_trap_that_kubernetes_has(kubectl: Kubectl) -> None:
    """`port` alone is the merge key, so `apply` merges both into one, and says nothing; `replace` has what its file says."""
    kubectl("apply", "-f", "-", stdin=service(UDP))
    assert "configured" in kubectl("apply", "-f", "-", stdin=service(UDP, TCP))
    assert [port["name"] for port in spec(kubectl)["ports"]] == ["dns"]
    kubectl("replace", "-f", "-", stdin=service(UDP, TCP))
    assert [port["name"] for port in spec(kubectl)["ports"]] == ["dns", "dns-tcp"]


def test_affinity_and_type_go_on_and_off(kubectl: Kubectl) -> None:
    kubectl("apply", "-f", "-", stdin=service({"name": "a", "port": 80}))
    kubectl("patch", "service", "changing", "-p", '{"spec": {"sessionAffinity": "ClientIP", "externalTrafficPolicy": "Local"}}')
    kubectl("patch", "service", "changing", "-p", '{"spec": {"sessionAffinity": "None", "type": "ClusterIP"}}')
    found = spec(kubectl)
    assert found["sessionAffinity"] == "None"
    assert not {"sessionAffinityConfig", "externalTrafficPolicy"} & found.keys()
    assert "nodePort" not in found["ports"][0]


def test_a_new_container_comes_first(kubectl: Kubectl) -> None:
    kubectl("apply", "-f", "-", stdin=DEPLOYMENT % '[{"name": "old", "image": "podplane/echo"}]')
    patch = {"spec": {"template": {"spec": {"containers": [{"name": "new", "image": "podplane/client"}]}}}}
    kubectl("patch", "deployment", "changing", "-p", json.dumps(patch))
    assert [one["name"] for one in spec(kubectl, "deployment")["template"]["spec"]["containers"]] == ["new", "old"]


def test_fields_that_are_absent_are_selected_by_their_defaults(kubectl: Kubectl) -> None:
    everyone = kubectl("get", "nodes", "-o", "name").split()
    assert kubectl("get", "nodes", "-o", "name", "--field-selector", "spec.unschedulable=false").split() == everyone
    kubectl("cordon", everyone[0])
    try:
        assert kubectl("get", "nodes", "-o", "name", "--field-selector", "spec.unschedulable=true").split() == everyone[:1]
    finally:
        kubectl("uncordon", everyone[0])
    pods = kubectl("get", "pods", "-A", "-o", "name").split()
    assert kubectl("get", "pods", "-A", "-o", "name", "--field-selector", "spec.hostNetwork=false").split() == pods
    refused = kubectl("get", "pods", "--field-selector", "spec.colour=red", code=1)
    assert "field label not supported: spec.colour" in refused


def test_a_status_is_edited_alone(kubectl: Kubectl) -> None:
    kubectl("apply", "-f", "-", stdin=DEPLOYMENT % '[{"name": "old", "image": "podplane/echo"}]')
    before = spec(kubectl, "deployment")
    patch = '{"spec": {"replicas": 7, "template": null}, "status": {"collisionCount": 3}}'
    kubectl("patch", "deployment", "changing", "--subresource=status", "--type=merge", "-p", patch)
    found = json.loads(kubectl("get", "deployment", "changing", "-o", "json"))
    assert (found["spec"], found["status"]["collisionCount"]) == (before, 3)


def test_health_and_version_take_a_slash(kubectl: Kubectl) -> None:
    assert kubectl("get", "--raw", "/readyz/") == kubectl("get", "--raw", "/livez/ping") == "ok"
    assert json.loads(kubectl("get", "--raw", "/version/"))["major"] == "1"
