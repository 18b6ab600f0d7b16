"""`podplane services`: what is shown of a Service, and what is said to be wrong with it."""

from __future__ import annotations

from typing import Any

from podplane.cli.services.facts import Facts
from podplane.cli.services.show import detail, overview, trouble

Object = dict[str, Any]


def service(**spec: Any) -> Object:
    spec = {"type": "ClusterIP", "clusterIPs": ["10.96.0.5"], "selector": {"app": "web"}, "ports": [{"port": 80}], **spec}
    return {"metadata": {"namespace": "default", "name": "web"}, "spec": spec, "status": {}}


def endpoint(ip: str, node: str = "node1", **conditions: bool) -> Object:
    return {
        "addresses": [ip],
        "nodeName": node,
        "conditions": conditions,
        "targetRef": {"kind": "Pod", "name": f"web-{ip[-1]}"},
    }


def slices(*endpoints: Object) -> list[Object]:
    return [{"metadata": {"name": "web-a"}, "endpoints": list(endpoints)}]


def does(*endpoints: str, group: str = "svc/default/web:80") -> Object:
    """What a node does for it."""
    frontend = {"address": "10.96.0.5", "port": 80, "protocol": "tcp", "group": group if endpoints else ""}
    return {"frontends": [frontend], "groups": {group: [[ip, 8080] for ip in endpoints]} if endpoints else {}}


def flow(endpoint: str, connections: int, octets: int, address: str = "10.96.0.5", port: int = 80) -> Object:
    return {"address": address, "port": port, "endpoint": endpoint, "connections": connections, "bytes": octets}


def test_traffic_is_the_sum_over_nodes_of_the_services_own() -> None:
    facts = Facts(
        service(),
        slices(endpoint("10.0.0.1"), endpoint("10.0.0.2", "node2")),
        {"node1": does("10.0.0.1", "10.0.0.2"), "node2": does("10.0.0.1", "10.0.0.2")},
        {
            "node1": [flow("10.0.0.1", 2, 1500), flow("10.0.0.2", 1, 10)],
            "node2": [flow("10.0.0.1", 1, 500_000), flow("10.0.0.1", 9, 9, "10.96.0.6")],
        },
    )
    text = detail(facts)
    assert "10.0.0.1   web-1   node1   ready   3 connections, 501.5 KB" in text
    assert "10.0.0.2   web-2   node2   ready   1 connection, 10 B" in text
    assert "cluster IP   10.96.0.5:80/tcp   4 connections, 501.5 KB   to all endpoints" in text
    assert "node1, node2   80 → 2 endpoints: 10.0.0.1:8080, 10.0.0.2:8080" in text
    assert "What is wrong" not in text
    assert overview([facts]).splitlines()[1].split() == ["default", "web", "ClusterIP", "10.96.0.5", "80/TCP", "2/2", "4"]


def test_an_endpoint_in_two_slices_is_one() -> None:
    facts = Facts(service(), [*slices(endpoint("10.0.0.1")), *slices(endpoint("10.0.0.1"))])
    assert [one.address for one in facts.endpoints] == ["10.0.0.1"]


def test_without_endpoints_the_reason_is_told() -> None:
    assert list(trouble(Facts(service(), []))) == ["its selector matches no pod of its namespace: connections are refused"]
    pending = {"metadata": {"name": "web-1"}, "status": {"phase": "Pending"}}
    (why,) = trouble(Facts(service(), [], pods=[pending]))
    assert why == "its selector matches 1 pods, none of which has an address: web-1 is Pending, not ready"
    (why,) = trouble(Facts(service(selector=None), []))
    assert why == "it has no selector and nobody made endpoints for it: connections are refused"


def test_endpoints_that_are_not_ready_are_trouble_and_those_that_serve_to_the_last_are_none() -> None:
    pod = {"metadata": {"name": "web-1"}, "status": {"phase": "Running"}}
    (why,) = trouble(Facts(service(), slices(endpoint("10.0.0.1", ready=False)), pods=[pod]))
    assert why == "none of its 1 endpoints is ready: web-1 is Running, not ready"
    last = slices(endpoint("10.0.0.1", ready=False, serving=True, terminating=True))
    assert list(trouble(Facts(service(), last))) == []


def test_policy_local_names_the_nodes_that_refuse() -> None:
    facts = Facts(
        service(type="NodePort", externalTrafficPolicy="Local"),
        slices(endpoint("10.0.0.1")),
        {"node1": does("10.0.0.1"), "node2": does(), "node3": does()},
    )
    assert list(trouble(facts)) == [
        "externalTrafficPolicy is Local, and node2, node3 have no ready endpoint: clients from outside are refused there"
    ]
    assert "node2, node3   refuses 80/tcp" in detail(facts)


def test_a_node_that_does_not_answer_is_named() -> None:
    facts = Facts(service(), slices(endpoint("10.0.0.1")), {"node1": does("10.0.0.1"), "node2": None})
    assert list(trouble(facts)) == ["node2 does not answer: the agent there does not run"]


def test_a_load_balancer_shows_who_announces_it_and_for_whom_it_is() -> None:
    one = service(type="LoadBalancer", loadBalancerSourceRanges=["10.0.0.0/8"], externalTrafficPolicy="Cluster")
    assert list(trouble(Facts(one, slices(endpoint("10.0.0.1"))))) == [
        "it waits for an address: `kubectl describe service` says why, `kubectl get lbpool` shows the pools"
    ]
    one["status"] = {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}
    text = detail(Facts(one, slices(endpoint("10.0.0.1")), announced_by="node2"))
    assert (
        "load balancer   192.0.2.1:80/tcp   no connections   to all endpoints, only from 10.0.0.0/8, announced by node2" in text
    )
