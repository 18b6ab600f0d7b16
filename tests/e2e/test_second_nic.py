"""Nodes with two network interfaces: the InternalIP is on eth0, the default route and the ExternalIP are on eth1.

What users of other networks suffered from: the wrong interface is taken, answers leave by another one than questions came in by, and a
strict filter of reverse paths drops packets (cloudnativelabs/kube-router#549, kubernetes/kubernetes#101910, cilium/cilium#13130).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.conftest import Podplane, running, until

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("second-nic")]
INTERNAL, EXTERNAL = ("192.168.1.10", "fd00:192:168:1::a"), ("172.30.0.10", "fd00:172:30::a")
"""Of node1."""
FAR_EXTERNAL = "172.30.0.11"
"""Of node2."""
CIDRS = "192.168.1.0/24,fd00:192:168:1::/64,172.30.0.0/22,fd00:172:30::/64"
PORT = 30080
COUNT = f"""
nft -f - <<END
table inet strict
delete table inet strict
table inet strict {{
  chain in {{
    type filter hook prerouting priority raw
    iifname eth* meta nfproto ipv4 fib saddr . iif oif missing counter drop comment "wrong"
    iifname eth* meta nfproto ipv6 ip6 saddr != fe80::/10 fib saddr . iif oif missing counter drop comment "wrong"
  }}
  chain out {{
    type filter hook postrouting priority 300
    oifname eth0 tcp sport {PORT} counter comment "eth0"
    oifname eth1 tcp sport {PORT} counter comment "eth1"
  }}
}}
END
"""
"""A strict filter of reverse paths, as rp_filter 1 and for IPv6, too; and by which interface answers of node ports leave. All at 0."""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Podplane]:
    """With agents that find the interface themselves, and a node port of the pod on node2."""
    options = ("--second-nic", "--node-port-addresses", CIDRS, "--agents", "processes")
    with running(tmp_path_factory, "--nodes", "2", "--pods-per-node", "1", *options) as started:
        ports = [{"port": 80, "targetPort": 8080, "nodePort": PORT}]
        started.api.patch("pods", "default", "echo-node2-1", {"metadata": {"labels": {"is": "far"}}})
        spec: dict[str, Any] = {
            "type": "NodePort",
            "selector": {"is": "far"},
            "ports": ports,
            "ipFamilyPolicy": "PreferDualStack",
        }
        body = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": spec}
        started.api.create("services", "default", body)
        yield started


def answers(lab: Podplane, client: str, ip: str) -> bool:
    """Does the node port at this address answer a machine?"""
    host = f"[{ip}]" if ":" in ip else ip
    return "echo-node2-1" in lab.on_node(client, f"curl -s --max-time 1 http://{host}:{PORT}/ || true")


def counted(lab: Podplane, node: str) -> dict[str, int]:
    """Packets since the last question: answers by each interface, and those that came in by the wrong one."""
    found = {"eth0": 0, "eth1": 0, "wrong": 0}
    listing = lab.on_node(node, "nft list table inet strict" + COUNT)
    for count, what in re.findall(r'counter packets (\d+) .*comment "(\w+)"', listing):
        found[what] += int(count)
    return found


def test_all_promises_are_kept_and_outside_sees_the_external_ip(lab: Podplane) -> None:
    """Among them: node ports answer outside at all addresses of each node."""
    assert "promises are kept: " in lab("check").stdout
    addresses = lab.api.get("nodes", "", "node1")["status"]["addresses"]
    assert [one["address"] for one in addresses if one["type"] == "InternalIP"] == list(INTERNAL)
    assert [one["address"] for one in addresses if one["type"] == "ExternalIP"] == list(EXTERNAL)


@pytest.mark.parametrize("backend", ["host-gw", "vxlan"])
def test_routes_and_tunnels_take_the_interface_of_the_internal_ip(lab: Podplane, backend: str) -> None:
    lab("backend", "set", backend)
    for family, outside in (("-4", "203.0.113.10"), ("-6", "2001:db8:113::a")):
        assert " dev eth1 " in lab.on_node("node1", f"ip {family} route get {outside}")
    if backend == "host-gw":
        ways = [one for one in lab.on_node("node1", "ip -4 route; ip -6 route").splitlines() if " via " in one]
        assert {one.split(" dev ")[1].split()[0] for one in ways if "default" not in one} == {"eth0"} and len(ways) == 4
    else:
        links = json.loads(lab.on_node("node1", "ip -d -j link show type vxlan"))
        data = [one["linkinfo"]["info_data"] for one in links]
        assert [one["link"] for one in data] == ["eth0", "eth0"]
        assert {one.get("local") or one["local6"] for one in data} == set(INTERNAL)


def test_a_node_port_answers_by_the_interface_that_was_asked_and_a_strict_filter_drops_none_of_it(lab: Podplane) -> None:
    lab("backend", "set", "host-gw")
    until(lambda: answers(lab, "outside", EXTERNAL[0]) and answers(lab, "outside", EXTERNAL[1]))
    for node in ("node1", "node2"):
        lab.on_node(node, COUNT)
    for client, ips, asked, other in (("outside", EXTERNAL, "eth1", "eth0"), ("node2", INTERNAL, "eth0", "eth1")):
        assert all(answers(lab, client, ip) for ip in ips), client
        found = counted(lab, "node1")
        assert found[asked] > 0 and not found[other] and not found["wrong"], (client, found)
    assert answers(lab, "node2", EXTERNAL[0]) and counted(lab, "node1")["eth1"] > 0
    assert counted(lab, "node2")["wrong"] == 0, "from node to node by the interface of the InternalIP"
    assert not answers(lab, "outside", INTERNAL[0]) and counted(lab, "node1")["wrong"] > 0, "the router is on both networks"
    for node in ("node1", "node2"):
        lab.on_node(node, "nft delete table inet strict")
    assert answers(lab, "outside", INTERNAL[0])


def test_an_isolated_node_is_reached_by_no_interface_of_another_node(lab: Podplane) -> None:
    assert answers(lab, "node1", FAR_EXTERNAL)
    lab("fault", "node2", "--isolate")
    assert not answers(lab, "node1", FAR_EXTERNAL) and answers(lab, "outside", FAR_EXTERNAL)
    lab("fault", "node2", "--clear")
    until(lambda: answers(lab, "node1", FAR_EXTERNAL))


def test_a_second_interface_that_was_down_has_its_route_again(lab: Podplane) -> None:
    lab.on_node("node1", "ip link set eth1 down")
    assert "default" not in lab.on_node("node1", "ip route") and answers(lab, "node2", INTERNAL[0])
    lab.on_node("node1", "ip link set eth1 up")
    until(lambda: answers(lab, "outside", EXTERNAL[0]) and answers(lab, "outside", EXTERNAL[1]))
