"""Which ports of a node one pod can't have twice, with the place and the words of Kubernetes."""

from __future__ import annotations

from typing import Any

from podplane.apiserver.kinds.pods import check_pod_spec


def container(name: str, *ports: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "image": "x", "ports": [{"containerPort": 80, "protocol": "TCP", **port} for port in ports]}


def test_a_port_of_the_node_leads_to_one_port_of_a_pod() -> None:
    first = container(
        "a", {"hostPort": 80}, {"hostPort": 80, "protocol": "UDP"}, {"hostPort": 80, "hostIP": "127.0.0.1"}, {}, {}
    )
    second = container("b", {"hostPort": 81}, {"hostPort": 80, "containerPort": 82})
    causes = list(check_pod_spec({"containers": [first, second]}, "spec"))
    assert [(one.field, one.message) for one in causes] == [
        ("spec.containers[1].ports[1].hostPort", 'Duplicate value: "TCP//80"')
    ]
    one_by_one = {"initContainers": [container("i", {"hostPort": 80})], "containers": [container("a", {"hostPort": 80})]}
    assert not list(check_pod_spec(one_by_one, "spec"))
