"""`podplane fault`: what goes wrong is seen, repaired where podplane can, and undone with --clear."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.conftest import Kubectl, Podplane, running, until
from tests.e2e.test_load_balancer import service
from tests.e2e.test_probes import kinds

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("faults")]
SECONDS = 60
NOT_READY_SECONDS = 60
GRACE = "10"
"""Seconds of silence after which a node is NotReady."""
"""For a node to count as not ready, 40 seconds after its last heartbeat."""
NETWORK = "ip -o route; ip -o -6 route; ip -o address show eth0; ip -o address show cbr0; ip -o neighbour show nud permanent"


ASK = """
import socket, sys
one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
one.setsockopt(socket.IPPROTO_IP, 10, 2)  # IP_MTU_DISCOVER: IP_PMTUDISC_DO
one.settimeout(0.5)
one.connect((sys.argv[1], 8080))
one.send(bytes(int(sys.argv[2]) - 28))
try:
    one.recv(2000)
    print("answered")
except TimeoutError:
    print("lost")
"""
"""Ask an echo server for something, in a packet of so many bytes that nobody may fragment."""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Podplane]:
    with running(tmp_path_factory, "--pods-per-node", "2", "--node-monitor-grace-period", GRACE) as started:
        yield started


def network(lab: Podplane, node: str) -> list[str]:
    """Routes, addresses and permanent neighbours of a node, without link-local ones, and whether links have a carrier yet."""
    lines = lab.on_node(node, NETWORK).splitlines()
    return sorted(re.sub(r"^\d+: | (expires|metric) \S+| linkdown", "", line).strip() for line in lines if "fe80" not in line)


def node_of(kubectl: Kubectl, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(kubectl("get", "node", name, "-o", "json"))
    return found


def repairs(kubectl: Kubectl, node: str) -> str:
    """The events about repairs on a node."""
    selector = f"--field-selector=involvedObject.name={node},reason=Repaired"
    return kubectl("get", "events", selector, "-o", "jsonpath={.items[*].message}")


@pytest.mark.parametrize(
    ("option", "done", "kind"),
    [
        (("--delete-route", "10.244.3.0/24"), "the route to 10.244.3.0/24 was deleted", r"repaired: 1 route"),
        (("--delete-link", "echo-node2-1"), "of pod default/echo-node2-1 was deleted", r"repaired: .*\d links?"),
        (("--delete-neighbour", "10.244.2.2"), "the neighbour 10.244.2.2 on cbr0 was deleted", r"repaired: 1 neighbour"),
        (("--delete-address",), "of cbr0 was deleted", r"repaired: 1 address"),
        (("--change-sysctl", "net.ipv4.ip_forward"), "net.ipv4.ip_forward was changed from 1 to 0", r"repaired: 3 sysctls"),
    ],
)
def test_what_a_foreign_hand_does_is_repaired(
    lab: Podplane, kubectl: Kubectl, option: tuple[str, ...], done: str, kind: str
) -> None:
    before = network(lab, "node2")
    said = lab("fault", "node2", *option).stdout
    assert said.startswith("On node2, ") and done in said and "kubectl describe node node2" in said
    until(lambda: re.search(kind, repairs(kubectl, "node2")), SECONDS)
    until(lambda: network(lab, "node2") == before, SECONDS)
    assert lab.on_node("node2", "cat /proc/sys/net/ipv4/ip_forward").strip() == "1"
    peer = kubectl("get", "pod", "echo-node3-1", "-o", "jsonpath={.status.podIP}")
    until(
        lambda: lab("exec", "echo-node2-1", "--", "curl", "-sS", "-m", "2", f"http://{peer}:8080/", code=None).stdout, SECONDS
    )


@pytest.mark.parametrize(
    ("option", "refused", "done", "kind"),
    [
        ("--flush-nftables", "all nf_tables were flushed but podplane-", "all nf_tables were flushed.", r"\d nft tables"),
        ("--add-rule", "the kernel refused a rule with a quota in", "a rule with a quota was appended to", r": 1 nft chain"),
    ],
)
def test_tables_are_nobodys_else_to_change_or_are_repaired(
    lab: Podplane, kubectl: Kubectl, option: str, refused: str, done: str, kind: str
) -> None:
    """The kernel refuses it since Linux 6.9."""
    before = lab.on_node("node3", "nft list ruleset | grep -A1 ^table")
    said = lab("fault", "node3", option).stdout
    if "flags owner" in before:
        assert refused in said and lab.on_node("node3", "nft list ruleset | grep -A1 ^table") == before
    else:
        assert done in said
        until(lambda: re.search(kind, repairs(kubectl, "node3")), SECONDS)
    peer = kubectl("get", "pod", "echo-node2-1", "-o", "jsonpath={.status.podIP}")
    until(
        lambda: lab("exec", "echo-node3-1", "--", "curl", "-sS", "-m", "2", f"http://{peer}:8080/", code=None).stdout, SECONDS
    )


def test_the_uplink_goes_down_and_comes_up(lab: Podplane) -> None:
    before = network(lab, "node1")
    assert "eth0 was set down" in lab("fault", "node1", "--uplink-down").stdout
    assert "Active on node1: uplink-down since " in lab("fault", "node1").stdout
    assert lab("fault", "node1", "--uplink-down", code=2).stderr == (
        "podplane: uplink-down is active on node1 already: clear it first\n"
    )
    assert (
        lab("fault", "node1", "--uplink-remade", code=2).stderr == "podplane: uplink-down is active on node1: clear it first\n"
    )
    assert not any("dev eth0" in line and "via" in line for line in network(lab, "node1"))
    assert "eth0 was set up" in lab("fault", "node1", "--clear").stdout
    until(lambda: network(lab, "node1") == before, SECONDS)
    assert "refused" not in lab("status").stdout, "the routes came with the addresses, and did not wait for a next try"
    assert "Active on node1: none." in lab("fault", "node1").stdout
    lab("check")


def test_what_goes_wrong_between_nodes_is_in_force_until_it_is_cleared(lab: Podplane, kubectl: Kubectl) -> None:
    """Whatever becomes of the agent, whom nothing on its node tells of it."""
    peer = kubectl("get", "pod", "echo-node2-1", "-o", "jsonpath={.status.podIP}")

    def lost(size: int = 100) -> bool:
        """A packet of so many bytes, which nobody may fragment, or the answer to it."""
        said = lab("exec", "echo-node1-1", "--", "python3", "-c", ASK, peer, str(size)).stdout
        assert said in ("lost\n", "answered\n")
        return said == "lost\n"

    done = "No packet passes between node2 and other nodes; it reaches the API and the world outside."
    assert lab("fault", "node2", "--isolate").stdout.startswith(f"{done}\nSee: ")
    assert lost()
    lab("fault", "node2", "--restart-agent")
    assert lost()
    assert lab("fault", "node3", "--loss", "100%", "--one-way").stdout.startswith(
        "100% of the packets that node3 sends are lost.\n"
    )
    assert "Active on node3: loss 100% --one-way since " in lab("fault", "node3").stdout
    assert re.search(
        r"fault +node2: isolate \(`.*\n +fault +node3: loss 100% --one-way \(`podplane fault", lab("status").stdout
    )
    cleared = lab("fault", "clear").stdout.splitlines()
    assert cleared == ["On the cable of node2, isolate is over.", "On the cable of node3, loss is over."]
    until(lambda: not lost(), SECONDS)
    assert "was set to 1400" in lab("fault", "node2", "--mtu", "1400", "--unseen").stdout
    until(lambda: not lost(1200), SECONDS)
    assert lost(1401)
    assert lab("fault", "node2", "--uplink-remade", code=2).stderr == "podplane: mtu is active on node2: clear it first\n"
    lab("fault", "node2", "--clear")
    before = network(lab, "node2")
    lab("fault", "node2", "--mtu", "1000")
    assert "mtu 1000 " in lab.on_node("node2", "ip -o link show eth0")
    lab("fault", "node2", "--clear")
    assert "mtu 1500 " in lab.on_node("node2", "ip -o link show eth0")
    until(lambda: network(lab, "node2") == before, SECONDS)
    assert lab("fault", "clear").stdout == "No fault is active.\n"


def test_a_node_whose_uplink_somebody_sets_down_loses_its_load_balancers_and_has_its_network_back_when_it_is_up(
    lab: Podplane, kubectl: Kubectl
) -> None:
    before = {name: network(lab, name) for name in ("node1", "node2", "node3")}
    body = service("front", selector={"run": "echo"}, type="LoadBalancer")
    kubectl("create", "-f", "-", stdin=json.dumps(body))

    def holder() -> str:
        return kubectl("get", "lease", "load-balancer-front", "-o", "jsonpath={.spec.holderIdentity}", code=None)

    def reaches(condition: str, seconds: int) -> None:
        kubectl("wait", f"--for=condition={condition}", f"node/{node}", f"--timeout={seconds}s")

    try:
        until(lambda: holder().startswith("node"), SECONDS)
        node = holder()
        lab.on_node(node, "ip link set eth0 down")
        reaches("NetworkUnavailable=True", SECONDS)
        until(lambda: holder() not in ("", node), SECONDS)
        assert f"{node} can't be asked: it does not answer: no answer within 2 s (eth0 is down)." in lab("check", code=1).stderr
        reaches("Ready=Unknown", NOT_READY_SECONDS)
        watcher = next(name for name in before if name != node)
        until(lambda: kinds(lab, node, watcher) == {"unreachable"}, SECONDS)
        lab.on_node(node, "ip link set eth0 up")
        reaches("Ready=True", SECONDS)
        reaches("NetworkUnavailable=False", SECONDS)
    finally:
        kubectl("delete", "service", "front")
    until(lambda: network(lab, node) == before[node], SECONDS)
    lab("check")


def test_addresses_of_the_uplink_that_somebody_takes_away_come_back(lab: Podplane) -> None:
    before = network(lab, "node1")
    for command in (
        "ip addr flush dev eth0 || true",  # it says that the flush remains incomplete, as quickly as addresses come back
        "ip -6 addr flush dev eth0 scope global || true",
        "ip link set eth0 down; ip link set eth0 up",
    ):
        lab.on_node("node1", command)
        until(lambda: network(lab, "node1") == before, SECONDS)
    lab("check")


def test_the_uplink_is_another_interface(lab: Podplane) -> None:
    before, index = network(lab, "node1"), lab.on_node("node1", "ip -o link show eth0").partition(":")[0]
    assert "eth0 was deleted and made again" in lab("fault", "node1", "--uplink-remade").stdout
    until(lambda: network(lab, "node1") == before, SECONDS)
    assert lab.on_node("node1", "ip -o link show eth0").partition(":")[0] != index
    lab("check")


def test_a_node_that_is_cut_from_the_api_learns_what_changed_when_it_is_back(lab: Podplane, kubectl: Kubectl) -> None:
    """Its tables and its pods stay as they were; the other nodes go on."""
    lab.on_node("node3", "true")  # the pod that this is asked from starts before
    assert lab("fault", "node3", "--cut-api").stdout.startswith("node3 can't reach the API, until `--clear`.")
    try:
        refused = lab("fault", "node3", "--restart-agent", code=2).stderr
        assert refused == "podplane: cut-api is active on node3: clear it first\n"
        kubectl("create", "-f", "-", stdin=json.dumps(service("late", selector={"run": "echo"})))
        kubectl("run", "late", "--image=host/sleep", "--overrides", json.dumps(on("node3")), "--command", "--", "sleep", "100")
        address = kubectl("get", "service", "late", "-o", "jsonpath={.spec.clusterIP}")

        def serves(node: str) -> bool:
            """Does the node know the Service?"""
            return "echo-node" in lab.on_node(node, f"curl -sS -m 2 http://{address}/ 2>&1 || true")

        until(lambda: serves("node1") and serves("node2"), SECONDS)
        assert not serves("node3")
        assert re.search(r"fault +node3: cut-api .*podplane fault .*node3 --clear", lab("status").stdout)
        assert json.loads(kubectl("get", "pod", "late", "-o", "json"))["status"]["phase"] == "Pending"
        peer = kubectl("get", "pod", "echo-node3-1", "-o", "jsonpath={.status.podIP}")
        assert lab("exec", "echo-node1-1", "--", "curl", "-sS", "-m", "5", f"http://{peer}:8080/").stdout
        assert lab("fault", "node3", "--clear").stdout == "node3 reaches the API again.\n"
        until(lambda: serves("node3"), SECONDS)
        kubectl("wait", "--for=condition=Ready", "pod/late", f"--timeout={SECONDS - 5}s")
    finally:
        lab("fault", "node3", "--clear")
        kubectl("delete", "service,pod", "late", "--ignore-not-found", "--now")


def on(node: str) -> dict[str, Any]:
    """What makes `kubectl run` run a pod on a node."""
    return {"spec": {"nodeName": node}}


def test_faults_are_listed_and_wrong_ones_refused_in_one_line(lab: Podplane) -> None:
    said = lab("fault", "node1").stdout
    assert "--cut-api [DURATION]" in said and "--uplink-remade" in said
    for words, why in (
        (("node1", "--uplink-down", "--clear"), "one thing at a time: write one option"),
        (("clear", "--isolate"), "one thing at a time: write one option"),
        (("node1", "--isolate", "--one-way"), "--isolate does not go with '--one-way': write --isolate"),
        (("node1", "--loss", "10"), "'10' is no share of packets: write 10%, 0.5% or 100%"),
        (("node1", "--block-port", "http"), "'http' is no port: write 4789, 4789/udp or gre"),
        (("node1", "--mtu", "0"), "'0' is no MTU: write a number of bytes from 68 to 65535"),
        (("node1", "--cut-api", "soon"), "'soon' is no duration: write 90s, 2m or 1h, after the name of the node"),
        (("node9", "--cut-api"), "there is no node 'node9': this lab has node1, node2, node3"),
        (("node1", "--delete-link", "nobody"), "node1 has no link of pod default/nobody: there is default/echo-node1-"),
    ):
        *waiting, said = lab("fault", *words, code=2).stderr.splitlines()
        assert said.startswith(f"podplane: {why}") and all(line.startswith("Waiting for ") for line in waiting)
    assert lab("fault", "node1", "--clear").stdout == "No fault is active on node1.\n"


def test_pods_that_go_are_no_foreign_changes(lab: Podplane, kubectl: Kubectl) -> None:
    before = repairs(kubectl, "node1")
    for name in ("goes-1", "goes-2"):
        lab("run", name, "--node", "node1")
        lab("delete", "pod", name)
    lab("fault", "node1", "--change-sysctl")  # whatever there is to tell comes in order
    until(lambda: re.search(r"[0-9] sysctl", repairs(kubectl, "node1")) is not None, SECONDS)
    assert re.findall(r"repaired: .*link", repairs(kubectl, "node1")) == re.findall(r"repaired: .*link", before)
