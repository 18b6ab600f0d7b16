"""Host ports in a lab, with real connections: from outside, from nodes and pods, by each address of the node."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import UP_OPTIONS, Kubectl, Podplane, until
from tests.e2e.test_services import ASK, UDP, ask, eventually

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("host-ports")]
NODE1 = "192.168.1.10"
"""The address of node1, where the pod `web` runs."""
BRIDGE = "10.244.1.1"
"""The address of its bridge, at which other nodes ask its name server."""
ASKING = (Path(__file__).parent / "asking.py").read_text()
CLIENTS = {"outside": ("outside", True), "at-node1": ("node1", True), "at-node2": ("node2", True)}
CLIENTS |= {"beside": ("node1", False), "far": ("node2", False)}
"""Clients: the machine that each runs on, and whether it uses that machine's own network."""


@pytest.fixture(scope="module")
def web(kubectl: Kubectl) -> Iterator[None]:
    """`web` on node1, with the same port for TCP and UDP, and one on 127.0.0.1 only; and clients."""
    ports = [
        {"containerPort": 8080, "hostPort": 8099},
        {"containerPort": 8080, "hostPort": 8099, "protocol": "UDP"},
        {"containerPort": 8080, "hostPort": 8098, "hostIP": "127.0.0.1"},
        *({"containerPort": 8080, "hostPort": 53, "protocol": one} for one in ("TCP", "UDP")),
        {"containerPort": 8080, "hostPort": 53, "protocol": "UDP", "hostIP": BRIDGE},
    ]
    main = {"name": "main", "image": "podplane/echo", "ports": ports}
    pods = [_pod("web", {"nodeName": "node1", "containers": [main]})]
    for name, (node, host) in CLIENTS.items():
        client = {"name": "main", "image": "podplane/client"}
        if name == "at-node1":  # it shows the node's tables, too
            client = client | {"securityContext": {"privileged": True}}
        pods.append(_pod(name, {"nodeName": node, "hostNetwork": host, "containers": [client]}))
    try:
        kubectl("create", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": pods}))
        kubectl("wait", "--for=condition=Ready", "pod/web", *(f"pod/{name}" for name in CLIENTS), "--timeout=30s")
        yield
    finally:
        kubectl("delete", "pod", "--ignore-not-found", "--now", "web", *CLIENTS)


def _pod(name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}


@pytest.mark.parametrize("client", CLIENTS)
def test_every_client_reaches_the_pod_by_the_addresses_of_its_node(web: None, kubectl: Kubectl, client: str) -> None:
    status = json.loads(kubectl("get", "pod", "web", "-o", "json"))["status"]
    addresses = [one["ip"] for one in status["hostIPs"]]
    assert len(addresses) == 2 and addresses[0] == NODE1
    for address in addresses:
        host = f"[{address}]" if ":" in address else address
        answer = json.loads(kubectl("exec", client, "--", "python3", "-c", ASK, f"http://{host}:8099/", "1"))
        assert answer.get("name") == "web", answer
        if client != "at-node1":
            own = json.loads(kubectl("get", "pod", client, "-o", "json"))["status"]["podIPs"]
            assert answer["source"] in [one["ip"] for one in own], "the client keeps its address"
    assert kubectl("exec", client, "--", "python3", "-c", UDP, NODE1, "8099")


def test_the_pod_reaches_itself(web: None, kubectl: Kubectl) -> None:
    url = f"http://{NODE1}:8099/"
    script = f"import urllib.request; print(urllib.request.urlopen('{url}', timeout=5).read().decode())"
    assert json.loads(kubectl("exec", "web", "--", "python3", "-c", script))["name"] == "web"


@pytest.mark.parametrize("port", [8099, 8098])
def test_the_node_reaches_it_by_its_loopback_address(web: None, kubectl: Kubectl, port: int) -> None:
    (answer,) = ask(kubectl, "at-node1", f"127.0.0.1:{port}")
    assert answer.get("name") == "web", answer


@pytest.mark.parametrize("client", CLIENTS)
def test_a_port_of_the_loopback_address_is_the_node_s_alone(web: None, kubectl: Kubectl, client: str) -> None:
    (answer,) = ask(kubectl, client, f"{NODE1}:8098")
    assert "refused" in answer["error"]


@pytest.mark.parametrize("client", ["at-node1", "at-node2", "beside", "far"])
def test_a_pod_with_port_53_takes_the_node_s_address_and_not_that_of_its_name_server(
    web: None, kubectl: Kubectl, client: str
) -> None:
    (answer,) = ask(kubectl, client, f"{NODE1}:53")
    assert answer.get("name") == "web", answer
    assert kubectl("exec", client, "--", "python3", "-c", UDP, NODE1, "53").startswith("web ")
    name = "kubernetes.default.svc.cluster.local"
    said = json.loads(kubectl("exec", client, "--", "python3", "-c", ASKING, BRIDGE, "once", name))
    assert said == {"rcode": 0, "addresses": 1, "over TCP": 1}


def test_who_names_the_bridge_s_address_is_told_that_it_is_not_served(web: None, kubectl: Kubectl) -> None:
    why = f"host port 53/udp is not served: hostIP {BRIDGE} is in 10.244.1.0/24, where addresses are those of pods or Services"
    fields = "involvedObject.name=web,reason=NotApplied"
    until(lambda: why in kubectl("get", "events", "--field-selector", fields), 10)


def test_other_nodes_have_no_such_port(web: None, kubectl: Kubectl) -> None:
    (answer,) = ask(kubectl, "beside", "192.168.1.11:8099")
    assert "refused" in answer["error"]


def test_a_port_goes_with_its_pod_and_comes_with_the_next_one(web: None, kubectl: Kubectl) -> None:
    main = {"name": "main", "image": "podplane/echo", "ports": [{"containerPort": 8080, "hostPort": 8097}]}
    for name in ("before", "after"):
        kubectl("create", "-f", "-", stdin=json.dumps(_pod(name, {"nodeName": "node1", "containers": [main]})))
        kubectl("wait", "--for=condition=Ready", f"pod/{name}", "--timeout=30s")
        assert eventually(kubectl, "far", f"{NODE1}:8097").get("name") == name
        kubectl("delete", "pod", name, "--now")
        (answer,) = ask(kubectl, "far", f"{NODE1}:8097")
        assert "refused" in answer["error"]


def test_the_agent_that_starts_again_leaves_it_as_it_is(web: None, kubectl: Kubectl, lab: Podplane) -> None:
    assert lab.has_processes or UP_OPTIONS
    listing = "nft list table inet podplane-hostports; sysctl net.ipv4.conf.cbr0.route_localnet"
    before = lab.on_node("node1", listing)
    assert "8099" in before and "pod/default/web" in before and "route_localnet = 1" in before
    assert "wrote nothing to the kernel" in lab("fault", "node1", "--restart-agent").stdout
    assert ask(kubectl, "far", f"{NODE1}:8099")[0].get("name") == "web"
