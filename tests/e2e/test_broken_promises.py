"""Each promise of the network model is broken on purpose, with the kernel's own means, and `check` names it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.e2e.conftest import Podplane, running, until

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(not shutil.which("ip") or not shutil.which("nft"), reason="breaking a network takes `ip` and `nft`"),
]
OnNode = Callable[[str, str], str]
DROP = "nft add table inet broken; nft add chain inet broken {hook} '{{ type filter hook {hook} priority -300; }}'; "
POSTROUTING = "nft add table inet broken; nft add chain inet broken post '{ type nat hook postrouting priority 90; }'"


def broken(podplane: Podplane) -> dict[str, list[str]]:
    """Promise → failures, of those that a check finds broken."""
    result = json.loads(podplane("check", "--json", code=1).stdout)
    assert not result["ok"]
    return {row["promise"]: row["failures"] for row in result["promises"] if not row["ok"]}


SMALL = ("--nodes", "2", "--pods-per-node", "2", "--cluster-cidr", "10.244.0.0/16")
"""Two nodes with two pods each, IPv4 only: a check of it is quick even when nobody answers."""


@pytest.fixture
def small(podplane: Podplane) -> Podplane:
    """A lab to be broken for good."""
    podplane("up", *SMALL)
    return podplane


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Podplane]:
    """A lab of which each test puts right what it broke."""
    with running(tmp_path_factory, *SMALL) as started:
        yield started


@pytest.fixture
def on_node(shared: Podplane) -> Iterator[OnNode]:
    """Runs a shell command in a node's own network; a table `broken` that it makes goes in the end."""
    nodes: set[str] = set()

    def run(node: str, command: str) -> str:
        nodes.add(node)
        return shared.on_node(node, command)

    yield run
    for node in nodes:
        shared.on_node(node, "nft delete table inet broken")


def test_a_pod_without_a_route(small: Podplane) -> None:
    small.change_network("echo-node1-1", "ip route del default")
    found = broken(small)
    assert "pod-to-pod" in found
    assert any("echo-node1-1 → echo-node2-1 10.244.2.2 icmp: expected an answer, got" in f for f in found["pod-to-pod"])
    assert not any(f.startswith("echo-node1-2 → echo-node2-1") for f in found["pod-to-pod"])


def test_a_node_that_translates_addresses_between_pods(shared: Podplane, on_node: OnNode) -> None:
    chain = "nft add chain inet broken post '{ type nat hook postrouting priority 90; }'"
    on_node(
        "node1",
        f"nft add table inet broken; {chain}; nft add rule inet broken post ip saddr 10.244.1.0/24 oifname eth0 masquerade",
    )
    found = broken(shared)
    wanted = "echo-node1-1 → echo-node2-1 10.244.2.2 tcp: expected source 10.244.1.2, echo-node2-1 saw 192.168.1.10"
    assert wanted in found["no-nat"]
    assert "pod-to-pod" not in found


def test_a_pod_that_lost_its_address(small: Podplane) -> None:
    small.change_network("echo-node2-1", "ip addr add 10.244.2.99/24 dev eth0; ip addr del 10.244.2.2/32 dev eth0")
    found = broken(small)
    assert any("echo-node2-1: expected address 10.244.2.2 on its interfaces" in f for f in found["unique-addresses"])


def test_an_address_given_twice(small: Podplane) -> None:
    import http.client

    access = small.folder.access()
    connection = http.client.HTTPSConnection(access.host, access.port, context=access.context())
    status: dict[str, Any] = {"status": {"podIP": "10.244.1.2", "podIPs": [{"ip": "10.244.1.2"}]}}
    headers = {"authorization": f"Bearer {access.token}", "content-type": "application/merge-patch+json"}
    path = "/api/v1/namespaces/default/pods/echo-node1-2/status"
    connection.request("PATCH", path, json.dumps(status), headers)
    assert connection.getresponse().status == 200
    found = broken(small)
    assert found["unique-addresses"] == [
        f"{name}: address 10.244.1.2 belongs to echo-node1-1, echo-node1-2" for name in ("echo-node1-1", "echo-node1-2")
    ]


def test_ports_that_are_blocked(shared: Podplane, on_node: OnNode) -> None:
    for node in ("node1", "node2"):
        for hook in ("prerouting", "output"):
            on_node(node, DROP.format(hook=hook) + f"nft add rule inet broken {hook} tcp dport 8079 drop")
    found = broken(shared)
    assert any("serves port 8079, but no probe reached it" in f for f in found["same-port"])


def test_a_pod_without_loopback(small: Podplane) -> None:
    containers = [{"name": n, "image": "host/sleep", "command": ["sleep", "infinity"]} for n in ("a", "b")]
    body = {"metadata": {"name": "pair"}, "spec": {"containers": containers}}
    small.api.create("pods", "default", body)
    small("get", "pod", "pair")
    for _ in small.api.poll("pods", "default", lambda ps: all(p["status"]["phase"] == "Running" for p in ps), 10):
        pass
    small.change_network("pair", "ip link set lo down")
    found = broken(small)
    assert any(f.startswith("pair:b → pair 127.0.0.1 tcp: expected an answer, got") for f in found["localhost"])


def test_a_node_that_does_not_reach_its_pods(small: Podplane) -> None:
    small.on_node("node1", DROP.format(hook="output") + "nft add rule inet broken output ip daddr 10.244.0.0/16 drop")
    found = broken(small)
    assert any(f.startswith("node1 → echo-node1-1 10.244.1.2 icmp") for f in found["node-to-pod"])
    assert any(f.startswith("node1 → echo-node2-1") for f in found["node-to-pod"])
    assert not any(f.startswith("node2 → ") for f in found["node-to-pod"])


def test_a_node_that_pods_cannot_reach(shared: Podplane, on_node: OnNode) -> None:
    on_node("node2", DROP.format(hook="input") + "nft add rule inet broken input ip saddr 10.244.0.0/16 tcp dport 8079 drop")
    found = broken(shared)
    assert any(f.startswith("echo-node1-1 → node2 192.168.1.11 tcp") for f in found["pod-to-node"])
    assert set(found) == {"pod-to-node"}


def test_no_masquerade_towards_outside(shared: Podplane, on_node: OnNode) -> None:
    itself = "ip saddr 10.244.1.2 ip daddr 203.0.113.0/24 snat ip to 10.244.1.2"
    on_node("node1", f"{POSTROUTING}; nft add rule inet broken post {itself}")
    found = broken(shared)
    assert set(found) == {"outside"}
    assert any(f.startswith("echo-node1-1 → outside 203.0.113.10") for f in found["outside"])
    assert not any(f.startswith("echo-node2-1") for f in found["outside"])


def test_a_way_that_carries_less_than_nodes_know(shared: Podplane) -> None:
    shared("fault", "node1", "--mtu", "1400", "--unseen")
    found = broken(shared)
    assert set(found) == {"full-size"}
    said = [failure.partition(" (")[0] for failure in found["full-size"]]
    passes = "packets of 1500 bytes do not pass, 1400 bytes pass"
    assert f"node2 → node1: {passes}" in said and {one.partition(":")[0] for one in said} <= {"node2 → node1", "node1 → node2"}
    shared("fault", "node1", "--clear")


def test_an_uplink_that_carries_less_is_followed_by_pods_and_breaks_no_promise(shared: Podplane) -> None:
    shared.on_node("node1", "ip link set eth0 mtu 1400")
    until(lambda: "mtu 1400 " in shared("exec", "echo-node1-1", "--", "ip", "-o", "link", "show", "eth0").stdout)
    until(lambda: "mtu 1400" in shared.on_node("node2", "ip route show 10.244.1.0/24"))
    shared("check")
    shared.on_node("node1", "ip link set eth0 mtu 1500")
    until(lambda: "mtu 1500 " in shared("exec", "echo-node1-1", "--", "ip", "-o", "link", "show", "eth0").stdout)
    until(lambda: "mtu" not in shared.on_node("node2", "ip route show 10.244.1.0/24"))


def test_services_of_a_node_that_all_lead_to_one_pod(shared: Podplane, on_node: OnNode) -> None:
    chain = "nft add chain inet broken pre '{ type nat hook prerouting priority -110; }'"
    rule = "ip daddr 10.96.0.0/16 tcp dport 80 dnat ip to 10.244.2.2:8079"
    on_node("node1", f"nft add table inet broken; {chain}; nft add rule inet broken pre {rule}")
    found = broken(shared)
    assert set(found) == {"service-spread", "service-hairpin", "service-refused"}
    (why,) = found["service-spread"]
    assert "expected about 30 of 120 connections for each endpoint" in why and "echo-node2-1 120" in why
    assert any("expected to be refused, got a connection" in f for f in found["service-refused"])


def test_a_service_that_hides_its_clients(shared: Podplane, on_node: OnNode) -> None:
    on_node("node1", f"{POSTROUTING}; nft add rule inet broken post ct status dnat masquerade")
    found = broken(shared)
    assert {"service-source"} <= set(found) <= {"service-source", "service-from-outside"}
    assert any("expected source 10.244.1." in f for f in found["service-source"])


def test_node_ports_that_a_firewall_drops(shared: Podplane, on_node: OnNode) -> None:
    # Only first packets: a reply from outside may go to any port, which masquerade chose.
    syn = "tcp dport 30000-32767 'tcp flags & (syn | ack) == syn' drop"
    on_node("node2", DROP.format(hook="prerouting") + f"nft add rule inet broken prerouting {syn}")
    found = broken(shared)
    assert set(found) == {"service-from-outside"}
    assert all(f.startswith("outside → Service") and "192.168.1.11" in f for f in found["service-from-outside"])


def test_a_service_address_that_a_firewall_drops(shared: Podplane, on_node: OnNode) -> None:
    spec = {"selector": {"run": "echo"}, "ports": [{"port": 8080}]}
    shared.api.create("services", "default", {"metadata": {"name": "mine"}, "spec": spec})
    ip = shared.api.get("services", "default", "mine")["spec"]["clusterIP"]
    on_node("node1", DROP.format(hook="prerouting") + f"nft add rule inet broken prerouting ip daddr {ip} drop")
    try:
        found = broken(shared)
    finally:
        shared.api.delete("services", "default", "mine")
    assert set(found) == {"services"}
    assert f"echo-node1-1 → Service default/mine {ip} open: expected an answer, got no answer" in found["services"]


def test_a_name_that_leads_elsewhere(small: Podplane) -> None:
    wrong = "hosts: {192.0.2.7: [kubernetes.default.svc.cluster.local]}"
    small.api.patch("configmaps", "kube-system", "podplane-dns", {"data": {"config.yaml": wrong}})
    found = broken(small)
    assert found.keys() == {"service-names"}
    (failure,) = found["service-names"]
    assert failure.endswith(
        " → kubernetes.default.svc.cluster.local. A over UDP at 10.96.0.10: expected 10.96.0.1, got 192.0.2.7"
    )


def test_questions_that_a_firewall_drops(small: Podplane) -> None:
    """The check ends soon all the same, and says who got no answer, to which question. What the node asks itself is answered: an agent that
    is a process would lead its pods to the name server of another node."""
    small.on_node("node1", DROP.format(hook="input") + "nft add rule inet broken input iifname cbr0 udp dport 53 drop")
    found = broken(small)
    assert found.keys() == {"service-names", "headless-names", "missing-names", "names-of-addresses", "names-outside"}
    whole = "spread.podplane-check.svc.cluster.local. A over UDP at 10.96.0.10"
    (failure,) = (f for f in found["service-names"] if f.startswith(f"echo-node1-1 → {whole}: expected 10.96."))
    assert failure.endswith("got no answer")
    failures = [f for own in found.values() for f in own]
    assert all(" over UDP at " in f for f in failures), "connections are let through"
    assert not any(f.startswith(("node2", "echo-node2")) for f in failures)
