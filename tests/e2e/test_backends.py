"""How packets get from node to node: each backend keeps all promises, and changes under running traffic without a loss."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import live_stream
from podplane.kernel import link_kinds
from podplane.routes import gre
from tests.e2e.conftest import Podplane, running, until

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("backends")]
HAS_GRE = not link_kinds.missing(gre.KINDS.values())
STREAM = Path(live_stream.__file__).read_text()


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Podplane]:
    with running(tmp_path_factory, "--nodes", "2", "--pods-per-node", "1", "--backend", "vxlan") as started:
        yield started


def ips_of(lab: Podplane, pod: str) -> list[str]:
    """A pod's addresses."""
    return [one["ip"] for one in lab.api.get("pods", "default", pod)["status"]["podIPs"]]


def stream(lab: Podplane, peer: str, seconds: float, size: int) -> subprocess.Popen[str]:
    """100 pings of so many bytes a second to a pod's address, and lines of 2,000 over one connection; they are on their way."""
    words = [*lab.command, "exec", "echo-node1-1", "--", "python3", "-c", STREAM, peer, str(seconds), str(size)]
    begun = subprocess.Popen(words, env=lab.environment, stdout=subprocess.PIPE, text=True)
    assert begun.stdout is not None and begun.stdout.readline() == "begun\n"
    return begun


def test_all_promises_are_kept_through_a_tunnel(lab: Podplane) -> None:
    said = lab("check").stdout
    assert "promises are kept: " in said
    assert "mtu 1450" in lab("exec", "echo-node1-1", "--", "ip", "-o", "link", "show", "eth0").stdout
    links = json.loads(lab.on_node("node1", "ip -d -j link show type vxlan"))
    assert {link["ifname"]: link["linkinfo"]["info_data"]["port"] for link in links} == {
        "podplane-vxlan4": 4789,
        "podplane-vxlan6": 4789,
    }


def test_no_packet_of_pods_is_on_the_network_between_nodes_but_within_udp(lab: Podplane) -> None:
    peer = ips_of(lab, "echo-node2-1")[0]
    before = counters(lab)
    lab("exec", "echo-node1-1", "--", "curl", "-s", f"http://{peer}:8080/")
    lab.on_node("node1", f"curl -s http://{peer}:8080/")
    after = counters(lab)
    assert after["tunnel"] >= before["tunnel"] + 10 and after["bare"] == 0


def test_routes_name_who_asked_for_them_and_the_tunnel_that_they_lead_through(lab: Podplane) -> None:
    rows = [line.split() for line in lab("routes", "--node", "node1").stdout.splitlines()]
    assert rows[0] == ["NODE", "DESTINATION", "VIA", "LINK", "THROUGH", "WANTED-BY", "STATE"]
    assert [row[:2] + row[3:] for row in rows[1:]] == [
        ["node1", destination, "podplane-vxlan4", "192.168.1.11", "node/node2", "done"]
        for destination in ("10.244.2.0/24", "fd00:10:244:2::/64")
    ]
    assert rows[1][2] == "10.244.2.1" and rows[2][2].startswith("fe80::")
    every = json.loads(lab("routes", "-A", "-o", "json").stdout)["routes"]
    assert {"pod/default/echo-node2-1"} <= {key for one in every["node2"] for key in one["wanted_by"]}
    counts = [line.split() for line in lab("routes", "--stats").stdout.splitlines()[1:]]
    assert counts == [[node, "podplane-vxlan4", "done", "2", "2"] for node in ("node1", "node2")]
    said = json.loads(lab("routes", "--stats", "-o", "json", "--node", "node2").stdout)
    assert said == {
        "counts": {"node2": [{"link": "podplane-vxlan4", "state": "done", "routes": 2, "blocks": 2}]},
        "errors": {},
        "unreached": {},
    }
    assert "there is no node 'node9'" in lab("routes", "--node", "node9", code=2).stderr


COUNT = """
nft list table inet seen >/dev/null 2>&1 || nft -f - <<END
table inet seen {
  counter tunnel {}
  counter bare {}
  chain in {
    type filter hook prerouting priority -400
    iifname eth0 udp dport 4789 counter name tunnel
    iifname eth0 ip saddr 10.244.0.0/16 counter name bare
    iifname eth0 ip6 saddr fd00:10:244::/48 counter name bare
  }
}
END
nft -j list counters table inet seen
"""


def counters(lab: Podplane) -> dict[str, int]:
    """Packets that came to node2 by its uplink: those of tunnels, and those with a pod's address."""
    found = json.loads(lab.on_node("node2", COUNT))["nftables"]
    return {one["counter"]["name"]: one["counter"]["packets"] for one in found if "counter" in one}


@pytest.mark.parametrize("family", [0, 1])
def test_backends_change_under_running_traffic_without_a_loss(lab: Podplane, family: int) -> None:
    running_ = stream(lab, ips_of(lab, "echo-node2-1")[family], 5.0, 1380)
    for name in ("host-gw", "gre" if HAS_GRE else "vxlan", "host-gw", "vxlan"):
        assert f"All nodes are reached by {name}" in lab("backend", "set", name).stdout
    out, _ = running_.communicate(timeout=30)
    said = json.loads(out)
    assert running_.returncode == 0 and said["sent"] > 100 and said["lines"] > 10
    assert said["lost"] <= said["due"] / 50, said  # on their way while routes change, or late on a busy machine


def test_a_tunnel_comes_back_with_its_uplink_and_after_others_took_it_apart(lab: Podplane) -> None:
    lab("fault", "node1", "--uplink-remade")
    until(lambda: "promises are kept: " in lab("check", code=None).stdout)
    lab.on_node("node2", "ip link del podplane-vxlan4")
    until(lambda: {line.split()[-1] for line in lab("routes", code=None).stdout.splitlines()[1:]} == {"done"})
    until(lambda: "promises are kept: " in lab("check", code=None).stdout)


def test_a_node_with_the_address_of_another_one_is_told_of_and_harms_nobody(lab: Podplane) -> None:
    status = {"addresses": [{"type": "InternalIP", "address": "192.168.1.11"}, {"type": "InternalIP", "address": "127.0.0.1"}]}
    lab.api.create("nodes", "", {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "twin"}, "status": status})
    why = "twin: the address '127.0.0.1' is a loopback address; the address 192.168.1.11 is that of node2, too: left out"
    until(lambda: why in lab("status").stdout)
    until(lambda: why in [one["message"] for one in lab.api.objects("events") if one["involvedObject"]["name"] == "twin"])
    assert "192.168.1.11" in lab("routes", "--node", "node1").stdout
    lab.api.delete("nodes", "", "twin")
    until(lambda: "twin" not in lab("status").stdout)


def test_a_former_backend_goes_when_nobody_sends_by_it_any_more(lab: Podplane) -> None:
    lab("backend", "set", "host-gw")
    until(lambda: "vxlan" not in lab.on_node("node1", "ip -o link"))
    assert "mtu 1500" in lab("exec", "echo-node1-1", "--", "ip", "-o", "link", "show", "eth0").stdout
    assert (
        lab("backend").stdout.splitlines()[0]
        == "Nodes reach each other's pods by host-gw; there are host-gw, vxlan, gre, auto."
    )
    assert "promises are kept: " in lab("check").stdout


def test_a_config_map_that_makes_no_sense_is_named(lab: Podplane) -> None:
    lab.api.patch("configmaps", "kube-system", "podplane-network", {"data": {"vxlan-port": "many"}})
    assert "does not count, and nodes go on with what they had: data.vxlan-port: 'many'" in lab("backend").stdout
    assert "data.vxlan-port" in lab("backend", "set", "vxlan", code=2).stderr
    until(lambda: any("data.vxlan-port" in one["message"] for one in lab.api.objects("events")))
    lab.api.patch("configmaps", "kube-system", "podplane-network", {"data": {"vxlan-port": None}})


@pytest.mark.skipif(HAS_GRE, reason="this kernel has GRE")
def test_a_backend_that_the_kernel_lacks_is_refused_and_a_running_agent_goes_on_with_the_former_one(lab: Podplane) -> None:
    why = "this kernel makes no links of type gre and ip6gre, it lacks the modules ip_gre and ip6_gre"
    assert f"--backend gre: {why}" in lab("up", "--name", "other", "--backend", "gre", code=2).stderr
    both = ("host-gw", "--cross-subnet", "gre")
    for words in (("gre",), both):
        assert f"{' '.join(words)}: {why}" in lab("backend", "set", *words, code=2).stderr
    before, data = lab("backend").stdout, lab.api.get("configmaps", "kube-system", "podplane-network")["data"]
    lab.api.patch("configmaps", "kube-system", "podplane-network", {"data": {"backend": "gre"}})
    until(lambda: any("this kernel lacks the module ip_gre" in one["message"] for one in lab.api.objects("events")))
    assert "node1, node2 can't be reached by gre yet" in lab("backend").stdout
    assert {line.split()[-1] for line in lab("routes").stdout.splitlines()[1:]} == {"done"}
    lab("exec", "echo-node1-1", "--", "curl", "-sf", f"http://{ips_of(lab, 'echo-node2-1')[0]}:8080/")
    lab.api.patch("configmaps", "kube-system", "podplane-network", {"data": data})
    until(lambda: lab("backend").stdout == before)


def test_what_there_is_not_is_refused(lab: Podplane) -> None:
    assert (
        "--cross-subnet auto: there is no tunnel 'auto'"
        in lab("backend", "set", "host-gw", "--cross-subnet", "auto", code=2).stderr
    )
    assert "it is of host-gw, and the backend is auto" in lab("backend", "set", "auto", "--cross-subnet", "gre", code=2).stderr
    assert "choose one of host-gw, vxlan, gre, auto" in lab("backend", "set", "vxlam", code=2).stderr
    assert "give host-gw or vxlan or gre or auto" in lab("up", "--name", "other", "--backend", "vxlam", code=2).stderr


def test_nodes_with_a_router_between_them_are_reached_by_auto_and_host_gw_says_why_they_are_not(podplane: Podplane) -> None:
    event = "node1 (192.168.1.10) and node2 (192.168.1.138) have a router between them"
    hint = f"`podplane backend --name {podplane.name} set auto`"
    begun = podplane("up", "--nodes", "3", "--pods-per-node", "1", "--subnets", "2").stdout
    assert event in begun and hint in begun
    routes = podplane("routes", "--node", "node1", code=1)
    assert {line.split()[-2] for line in routes.stdout.splitlines()[1:]} == {"node/node3"}
    assert routes.stderr.startswith(f"node1: {event}")
    found = json.loads(podplane("routes", "-o", "json", code=1).stdout)["unreached"]
    assert {node: [one["peers"] for one in reasons] for node, reasons in found.items()} == {
        "node1": [["node2"]],
        "node2": [["node1", "node3"]],
        "node3": [["node2"]],
    }
    assert hint in podplane("backend").stdout and hint in podplane("backend", "set", "host-gw").stdout
    until(lambda: any(event in one["message"] for one in podplane.api.objects("events")))
    assert "All nodes are reached by auto" in podplane("backend", "set", "auto").stdout
    assert "have a router between them" not in podplane("backend").stdout
    ways = {tuple(line.split()[-4:-1]) for line in podplane("routes", "--node", "node1").stdout.splitlines()[1:]}
    assert ("podplane-vxlan4", "192.168.1.138", "node/node2") in ways
    assert "promises are kept: " in podplane("check").stdout
    words = "host-gw, and by vxlan those of other subnets"
    assert f"All nodes are reached by {words}" in podplane("backend", "set", "host-gw", "--cross-subnet", "vxlan").stdout
    said = podplane("backend").stdout
    assert f"Nodes reach each other's pods by {words};" in said
    assert "between node1 (192.168.1.10, fd00:192:168:1::a) and node2 (192.168.1.138" in said and "through vxlan" in said
    assert {tuple(line.split()[-4:-1]) for line in podplane("routes", "--node", "node1").stdout.splitlines()[1:]} == ways


def test_a_node_whose_kernel_refuses_the_new_backend_keeps_the_former_one(podplane: Podplane) -> None:
    podplane("up", "--nodes", "2", "--pods-per-node", "1")
    podplane.on_node("node1", "ip link add theirs type vxlan id 1 dstport 4789 local 192.168.1.10 dev eth0")
    changing = podplane.start("backend", "set", "vxlan", stderr=subprocess.PIPE)
    assert changing.stderr is not None
    assert changing.stderr.readline() == "Waiting for node1 …\n"
    assert "VNI 1 at UDP port 4789 is taken by the link theirs" in changing.stderr.readline()
    assert "eth0" in podplane("routes", "--node", "node1").stdout
    assert "eth0" in podplane("routes", "--node", "node2").stdout, "so its peers do"
    assert "theirs" in podplane.on_node("node1", "ip -o link")
    podplane.on_node("node1", "ip link del theirs")
    assert changing.wait(60) == 0
    until(lambda: "eth0" not in podplane("routes").stdout)
    assert "promises are kept: " in podplane("check").stdout
