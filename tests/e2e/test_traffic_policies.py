"""Which endpoint takes a connection, asked with connections: policies, zones, endpoints that end, affinity, and connections that stand.

One pod a node, `one`, `two` and `three`, and clients: `client` on node1, `visitor` outside.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.conftest import Kubectl, Podplane, until
from tests.e2e.test_load_balancer import ips, patch, service
from tests.e2e.test_services import ask

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("traffic-policies")]
PODS = {"one": "node1", "two": "node2", "three": "node3"}
TALK = """
import socket, sys
kind = getattr(socket, sys.argv[1])
s = socket.socket(socket.AF_INET, kind); s.settimeout(3); s.connect((sys.argv[2], 80))
for line in sys.stdin:
    try:
        s.send(line.encode())
        print(s.recv(2000).decode().strip(), flush=True)
    except OSError:
        print("error", flush=True)
"""
"""One connection, that sends a line when it is told one, and tells what is answered."""


@pytest.fixture(scope="module")
def pods(kubectl: Kubectl) -> Iterator[None]:
    """The pods; each ends only some time after it was deleted, and serves until then."""
    try:
        kubectl("create", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": [*map(_pod, PODS)]}))
        for name, node, host in (("client", "node1", False), ("visitor", "outside", True)):
            spec = {"nodeName": node, "hostNetwork": host, "containers": [{"name": "main", "image": "podplane/client"}]}
            body = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}
            kubectl("create", "-f", "-", stdin=json.dumps(body))
        kubectl("wait", "--for=condition=Ready", "pod", *PODS, "client", "visitor", "--timeout=30s")
        yield
    finally:
        kubectl("delete", "pod", "--ignore-not-found", "--now", *PODS, "client", "visitor")


def _pod(name: str) -> dict[str, Any]:
    main = {"name": "main", "image": "podplane/echo", "lifecycle": {"preStop": {"sleep": {"seconds": 60}}}}
    metadata = {"name": name, "labels": {"app": "web", "pod": name}}
    spec = {"nodeName": PODS[name], "terminationGracePeriodSeconds": 60, "containers": [main]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


@pytest.fixture
def make(pods: None, kubectl: Kubectl) -> Iterator[Any]:
    """Makes a Service in front of the pods, that goes with the test; its cluster IP."""
    made: list[str] = []

    def one(name: str, **spec: Any) -> str:
        made.append(name)
        kubectl("create", "-f", "-", stdin=json.dumps(service(name, **spec)))
        ip: str = json.loads(kubectl("get", "service", name, "-o", "json"))["spec"]["clusterIP"]
        return ip

    yield one
    kubectl("delete", "service", *made)


def who(kubectl: Kubectl, client: str, address: str, count: int = 30) -> set[str]:
    """Whom connections from there reach; `error` for one that failed."""
    return {answer.get("name", "error") for answer in ask(kubectl, client, address, count)}


def test_internal_traffic_policy_local_is_for_the_pods_of_the_node(make: Any, kubectl: Kubectl) -> None:
    ip = make("inner", internalTrafficPolicy="Local")
    until(lambda: who(kubectl, "client", ip) == {"one"})
    kubectl("label", "pod", "one", "app-")
    try:
        until(lambda: who(kubectl, "client", ip, 3) == {"error"})
    finally:
        kubectl("label", "pod", "one", "app=web")
    until(lambda: who(kubectl, "client", ip) == {"one"})


def test_external_traffic_policy_local_makes_no_exception_for_pods_at_the_ports_of_other_nodes(
    make: Any, kubectl: Kubectl, lab: Podplane
) -> None:
    make("outer", type="NodePort", externalTrafficPolicy="Local", selector={"pod": "two"})
    found = json.loads(kubectl("get", "service", "outer", "-o", "json"))
    port = found["spec"]["ports"][0]["nodePort"]
    of = {name: json.loads(kubectl("get", "node", name, "-o", "json"))["status"]["addresses"] for name in PODS.values()}
    at = {name: f"{addresses[0]['address']}:{port}" for name, addresses in of.items()}
    until(lambda: who(kubectl, "client", at["node2"], 3) == {"two"})
    until(lambda: who(kubectl, "client", at["node1"], 3) == {"two"})  # its own node
    assert who(kubectl, "client", at["node3"], 3) == {"error"}, "node3 has no endpoint"
    assert who(kubectl, "visitor", at["node3"], 3) == who(kubectl, "visitor", at["node1"], 3) == {"error"}


@pytest.mark.parametrize("label", ["service.kubernetes.io/service-proxy-name", "service.kubernetes.io/headless"])
def test_a_slice_that_is_labelled_for_others_is_not_served(make: Any, kubectl: Kubectl, label: str) -> None:
    ip = make("labelled", selector=None)
    (address,) = {kubectl("get", "pod", "one", "-o", "jsonpath={.status.podIP}")}
    own = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "labelled-1", "labels": {"kubernetes.io/service-name": "labelled"}},
        "addressType": "IPv4",
        "ports": [{"port": 8080}],
        "endpoints": [{"addresses": [address]}],
    }
    kubectl("create", "-f", "-", stdin=json.dumps(own))
    try:
        until(lambda: who(kubectl, "client", ip, 3) == {"one"})
        kubectl("label", "endpointslice", "labelled-1", f"{label}=other")
        until(lambda: who(kubectl, "client", ip, 3) == {"error"})
        kubectl("label", "endpointslice", "labelled-1", f"{label}-")
        until(lambda: who(kubectl, "client", ip, 3) == {"one"})
    finally:
        kubectl("delete", "endpointslice", "labelled-1")


def test_who_is_near_is_preferred_and_when_nobody_is_all_are(make: Any, kubectl: Kubectl) -> None:
    for node, zone in (("node1", "a"), ("node2", "a"), ("node3", "b")):
        kubectl("label", "node", node, f"topology.kubernetes.io/zone={zone}")
    try:
        ip = make("near", trafficDistribution="PreferSameZone")
        until(lambda: who(kubectl, "client", ip) == {"one", "two"})
        kubectl("label", "pod", "one", "two", "app-")
        until(lambda: who(kubectl, "client", ip) == {"three"})
        kubectl("label", "pod", "one", "two", "app=web")
        until(lambda: who(kubectl, "client", ip) == {"one", "two"})
        patch(kubectl, "service/near", {"spec": {"trafficDistribution": "PreferSameNode"}})
        until(lambda: who(kubectl, "client", ip) == {"one"})
    finally:
        kubectl("label", "node", *PODS.values(), "topology.kubernetes.io/zone-")


def test_a_client_keeps_its_pod_through_restarts_and_changes_and_moves_when_it_goes(
    make: Any, kubectl: Kubectl, lab: Podplane
) -> None:
    ip = make("keeps", sessionAffinity="ClientIP")
    until(lambda: "error" not in who(kubectl, "client", ip, 1))
    (first,) = who(kubectl, "client", ip)
    lab("fault", "node1", "--restart-agent")
    others = sorted(PODS.keys() - {first})
    for other in others:
        kubectl("label", "pod", other, "app-")
        assert who(kubectl, "client", ip) == {first}
        kubectl("label", "pod", other, "app=web")
        assert who(kubectl, "client", ip) == {first}
    kubectl("label", "pod", first, "app-")
    try:
        until(lambda: who(kubectl, "client", ip, 1) <= set(others))
        (second,) = who(kubectl, "client", ip)
        assert second in others
    finally:
        kubectl("label", "pod", first, "app=web")
    assert who(kubectl, "client", ip) == {second}


@pytest.fixture
def talk(kubectl: Kubectl) -> Iterator[Any]:
    """Opens a connection from the client, that stands until the test is over; sending a line gives who answered."""
    open_: list[subprocess.Popen[str]] = []

    def connect(kind: str, ip: str) -> Any:
        process = kubectl.start("exec", "-i", "client", "--", "python3", "-c", TALK, kind, ip)
        open_.append(process)
        stdin, stdout = process.stdin, process.stdout
        assert stdin is not None and stdout is not None

        def say() -> str:
            stdin.write("hello\n")
            stdin.flush()
            return stdout.readline().split()[0]

        return say

    yield connect
    for process in open_:
        process.communicate(timeout=10)


def test_a_connection_that_stands_goes_on_when_its_endpoint_is_none_any_more(make: Any, talk: Any, kubectl: Kubectl) -> None:
    ip = make("stands")
    until(lambda: who(kubectl, "client", ip) == set(PODS))
    say = talk("SOCK_STREAM", ip)
    first = say()
    kubectl("label", "pod", first, "app-")
    try:
        until(lambda: first not in who(kubectl, "client", ip))
        assert say() == first, "new connections go elsewhere, this one stays"
    finally:
        kubectl("label", "pod", first, "app=web")


def test_a_udp_client_that_goes_on_sending_moves(make: Any, talk: Any, kubectl: Kubectl) -> None:
    port = {"port": 80, "targetPort": 8080, "protocol": "UDP"}
    ip = make("datagrams", ports=[port])
    say = talk("SOCK_DGRAM", ip)
    until(lambda: say() != "error")
    first = say()
    assert {say() for _ in range(10)} == {first}
    kubectl("label", "pod", first, "app-")
    try:
        until(lambda: say() not in (first, "error"))
    finally:
        kubectl("label", "pod", first, "app=web")


def test_those_that_end_serve_while_there_is_no_other(make: Any, kubectl: Kubectl) -> None:
    """The last test: afterwards the pods are gone. With policy Local a node uses its own, though health checks fail there already."""
    ip = make("last", type="LoadBalancer", externalTrafficPolicy="Local")
    until(lambda: bool(ips(kubectl, "last")))
    outside = ips(kubectl, "last")[0]
    health = json.loads(kubectl("get", "service", "last", "-o", "json"))["spec"]["healthCheckNodePort"]
    check = f"/api/v1/nodes/node1:{health}/proxy/"
    until(lambda: '"localEndpoints":1' in kubectl("get", "--raw", check, code=None))
    until(lambda: len(who(kubectl, "visitor", outside, 5)) == 1)
    kubectl("delete", "pod", "two", "three", "--wait=false")
    until(lambda: who(kubectl, "client", ip) == {"one"})
    kubectl("delete", "pod", "one", "--wait=false")
    until(lambda: who(kubectl, "client", ip) == set(PODS))
    assert "unable to handle the request" in kubectl("get", "--raw", check, code=1)
    assert who(kubectl, "visitor", "192.168.1.11:" + _node_port(kubectl)) == {"two"}, "Local: the node's own"
    kubectl("delete", "pod", *PODS, "--now")
    until(lambda: who(kubectl, "client", ip, 1) == {"error"})


def _node_port(kubectl: Kubectl) -> str:
    return str(json.loads(kubectl("get", "service", "last", "-o", "json"))["spec"]["ports"][0]["nodePort"])
