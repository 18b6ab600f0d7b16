"""`podplane services`: what is said to be wrong with a Service."""

from __future__ import annotations

import pytest

from podplane.cli.services.facts import Facts, Warned
from podplane.cli.services.trouble import trouble
from tests.unit.cli.services import balanced, does, endpoint, leads, service, slices

RUNNING = {"metadata": {"name": "web-1"}, "status": {"phase": "Running"}}


def wrong(*arguments: object, **facts: object) -> list[str]:
    return list(trouble(Facts(*arguments, **facts)))  # type: ignore[arg-type]  # as tests make them


def test_without_endpoints_the_reason_is_told() -> None:
    assert wrong(service(), []) == ["its selector matches no pod of its namespace: connections are refused"]
    assert wrong(service(clusterIPs=["None"]), []) == ["its selector matches no pod of its namespace: its name leads nowhere"]
    pending = {"metadata": {"name": "web-1"}, "status": {"phase": "Pending"}}
    (why,) = wrong(service(), [], pods=[pending])
    assert why == "its selector matches 1 pod, which has no address: web-1 is Pending, not ready"
    (why,) = wrong(service(), [], pods=[pending, pending])
    assert why.startswith("its selector matches 2 pods, none of which has an address: web-1 is Pending, not ready")
    (why,) = wrong(service(selector=None), [])
    assert why == "it has no selector and nobody made endpoints for it: connections are refused"


def test_endpoints_that_are_not_ready_are_trouble_and_those_that_serve_to_the_last_are_none() -> None:
    first, second = endpoint("10.0.0.1", ready=False), endpoint("10.0.0.2", ready=False)
    assert wrong(service(), slices(first), pods=[RUNNING]) == ["its only endpoint is not ready: web-1 is Running, not ready"]
    (why,) = wrong(service(), slices(first, second), pods=[RUNNING])
    assert why == "none of its 2 endpoints is ready: web-1 is Running, not ready"
    last = slices(endpoint("10.0.0.1", ready=False, serving=True, terminating=True))
    assert wrong(service(), last) == []


def test_policy_local_names_the_nodes_that_refuse_and_not_those_that_serve_to_the_last() -> None:
    own = slices(endpoint("10.0.0.1"), endpoint("10.0.0.2", "node2", ready=False, terminating=True, serving=True))
    nodes = {"node1": does("10.0.0.1"), "node2": does("10.0.0.2"), "node3": does()}
    assert wrong(service(type="NodePort", externalTrafficPolicy="Local"), own, nodes) == [
        "externalTrafficPolicy is Local, and node3 has no ready endpoint: clients from outside are refused there"
    ]
    assert wrong(service(internalTrafficPolicy="Local"), slices(endpoint("10.0.0.1")), nodes) == [
        "internalTrafficPolicy is Local, and node2, node3 have no ready endpoint: clients in the cluster are refused there"
    ]


def test_a_node_that_does_not_answer_is_named() -> None:
    nodes = {"node1": does("10.0.0.1"), "node2": None, "node3": None, "node4": None}
    silent = {"node2": "no answer within 3 s", "node3": "connection refused", "node4": "no answer within 3 s"}
    assert wrong(service(), slices(endpoint("10.0.0.1")), nodes, silent=silent) == [
        "node2, node4 do not answer: no answer within 3 s",
        "node3 does not answer: connection refused",
    ]


def test_a_port_by_a_name_that_pods_do_not_have() -> None:
    one = service(ports=[{"port": 80, "targetPort": "http"}])
    assert wrong(one, slices(endpoint("10.0.0.1"), ports=())) == [
        "port 80/tcp leads to the port named 'http', which no pod has: connections are refused"
    ]
    some = [*slices(endpoint("10.0.0.1")), *slices(endpoint("10.0.0.2"), ports=())]
    assert wrong(one, some) == ["port 80/tcp leads to the port named 'http', which web-2 lacks"]


def test_a_port_that_no_slice_has() -> None:
    one = service(selector=None, ports=[{"name": "a", "port": 80}])
    assert wrong(one, slices(endpoint("10.0.0.1"))) == [
        "no EndpointSlice has port 80/tcp with the name 'a': connections are refused"
    ]


def test_endpoints_that_nodes_do_not_use() -> None:
    own = [*slices(endpoint("10.96.0.77")), *slices(endpoint("example.com"), kind="FQDN"), *slices(endpoint("10.0.0.1"))]
    facts = Facts(service(selector=None), own, service_cidrs=["10.96.0.0/16", "fd00:96::/112"])
    assert [one.state for one in facts.endpoints()] == [
        "ready",
        "not used: in the Service range",
        "not used: a name, no address",
    ]
    assert list(trouble(facts)) == [
        "10.96.0.77 is not used: it lies in the Service range, where no pod is",
        "example.com is not used: it is a name, no address",
    ]


OTHERS = pytest.mark.parametrize("label", ["service.kubernetes.io/service-proxy-name", "service.kubernetes.io/headless"])


@OTHERS
def test_endpoints_of_a_slice_that_is_left_to_others_are_not_used(label: str) -> None:
    (own,) = slices(endpoint("10.0.0.1"))
    own["metadata"]["labels"] = {label: "x"}
    assert wrong(service(selector=None), [own]) == ["10.0.0.1 is not used: the labels of its EndpointSlice leave it to others"]
    headless = service(selector=None, clusterIPs=["None"])
    assert [one.state for one in Facts(headless, [own]).endpoints()] == ["ready"]


@OTHERS
def test_a_service_that_is_left_to_others_says_so(label: str) -> None:
    one = service()
    one["metadata"]["labels"] = {label: "x"}
    assert wrong(one, slices(endpoint("10.0.0.1"))) == [f"its label {label} leaves it to others: no node serves it"]


def test_a_load_balancer_without_an_address_says_whose_it_is_to_give_one() -> None:
    own = slices(endpoint("10.0.0.1"))
    assert wrong(balanced(), own) == [
        "it waits for an address: `kubectl describe service` says why, `kubectl get lbpool` shows the pools"
    ]
    said = [Warned("NoLoadBalancerAddress", "192.0.2.9 is in no pool", 900.0)]
    assert wrong(balanced(), own, warnings=said) == ["it waits for an address: 192.0.2.9 is in no pool"]
    assert wrong(balanced("192.0.2.1"), own, warnings=said) == []
    assert wrong(balanced(loadBalancerClass="example.com/x"), own, warnings=said) == [
        "its load balancer is left to class example.com/x, which has given it no address yet"
    ]


def test_a_conflict_is_told_as_long_as_a_node_lacks_a_frontend() -> None:
    one, own = service(externalIPs=["192.0.2.7"]), slices(endpoint("10.0.0.1"))
    said = [Warned("NotApplied", "192.0.2.7 tcp 80 belongs to service/default/a: choose another one", 300.0)]
    assert wrong(one, own, {"node1": does("10.0.0.1")}, warnings=said) == [f"{said[0].message} (said 5 min ago)"]
    assert wrong(one, own, {"node1": does("10.0.0.1", frontends=(leads("192.0.2.7"),))}, warnings=said) == []


def test_what_the_kernel_refuses_is_told_while_it_is_said_again() -> None:
    nodes = {"node1": does("10.0.0.1")}
    for seconds, told in ((50.0, ["the kernel refuses it: no space (said 50 s ago)"]), (500.0, [])):
        said = [Warned("NotApplied", "the kernel refuses it: no space", seconds)]
        assert wrong(service(), slices(endpoint("10.0.0.1")), nodes, warnings=said) == told


def test_a_node_port_that_no_address_of_a_node_serves() -> None:
    one = service(type="NodePort", ports=[{"port": 80, "nodePort": 30080}])
    assert wrong(one, slices(endpoint("10.0.0.1")), {"node1": does("10.0.0.1")}) == [
        "node port 30080/tcp is served nowhere: no node has an address in --node-port-addresses"
    ]
