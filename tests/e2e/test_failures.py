"""Nodes, cables and the API fail, and are back: what keeps working, what is told, what is withdrawn, and that everything is reached again.

Each failure is made by `podplane fault`. What takes the API 40 seconds to notice, it is told at once.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.conftest import Podplane, running, until
from tests.e2e.test_probes import kinds, say_unknown, within

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("failures")]
NODES = "node1", "node2", "node3"
SECONDS = 30
"""For what takes two or three on a machine that is not busy."""
ROUTES = "ip route show proto 80; ip -6 route show proto 80"
"""Of podplane, on a node."""
IMPOSTOR = (
    "ip link add link eth0 name impostor address {mac} type macvlan mode bridge && ip address add {ip}/32 dev impostor"
    " && ip link set impostor up && ip route del {ip} table local; ip route add local {ip} dev impostor table local"
)
"""A machine answers for the address, and the MAC, of another one."""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Podplane]:
    with running(tmp_path_factory, "--nodes", "3", "--pods-per-node", "1", "--backend", "vxlan") as started:
        yield started


@pytest.fixture
def failing(lab: Podplane) -> Iterator[Podplane]:
    """The lab; what fails in a test is well after it."""
    yield lab
    lab("fault", "clear", code=None)


def pod_ip(lab: Podplane, node: str) -> str:
    ip: str = lab.api.get("pods", "default", f"echo-{node}-1")["status"]["podIP"]
    return ip


def reaches(lab: Podplane, source: str, *targets: str) -> bool:
    """Does a pod of one node get answers of those of others?"""
    command = " && ".join(f"curl -sS -m 1 http://{pod_ip(lab, target)}:8080/" for target in targets)
    return lab("exec", f"echo-{source}-1", "--", "sh", "-c", command, code=None).returncode == 0


def all_reach(lab: Podplane) -> bool:
    """Do pods of all nodes reach those of all others?"""
    return all(reaches(lab, source, *(target for target in NODES if target != source)) for source in NODES)


def states(lab: Podplane, peer: str) -> dict[str, str]:
    """How node1 finds each way to a peer, by its address."""
    found = json.loads(lab("status", "--node", "node1", "-o", "json", code=None).stdout)["peers"]
    return {one["ip"]: one["state"] for one in found if one["peer"] == peer}


def ready(lab: Podplane, node: str) -> bool:
    """Does its pod run again?"""
    status = lab.api.get("pods", "default", f"echo-{node}-1")["status"]
    return any((one["type"], one["status"]) == ("Ready", "True") for one in status["conditions"])


def test_what_a_node_sends_is_lost_and_nothing_is_withdrawn_as_it_is_ready(failing: Podplane) -> None:
    lab = failing
    lab("fault", "node2", "--loss", "100%", "--one-way")
    assert within(SECONDS, lambda: "node2" in paths(lab))
    assert not reaches(lab, "node1", "node2") and not reaches(lab, "node2", "node1") and reaches(lab, "node1", "node3")
    lab("fault", "node1", "--restart-agent")
    assert kinds(lab, "node2") == {"unicast"}
    lab("fault", "clear")
    until(lambda: all_reach(lab), SECONDS)
    assert within(SECONDS, lambda: not paths(lab))


def paths(lab: Podplane) -> str:
    """What `status` says of ways that are lost."""
    return next((line for line in lab("status").stdout.splitlines() if line.startswith("  paths ")), "")


def test_a_node_whose_address_answers_and_whose_pods_do_not_is_dead_when_the_api_says_so_too(failing: Podplane) -> None:
    """Its kernel answers yet; of its tunnel and its kubelet nothing is heard. When it is back, its routes are."""
    lab = failing
    lab("fault", "node2", "--cut-api")
    lab("fault", "node2", "--block-port", "4789/udp")
    say_unknown(lab, "node2")
    assert within(SECONDS, lambda: kinds(lab, "node2") == {"unreachable"})
    assert within(
        SECONDS, lambda: (states(lab, "node2")["192.168.1.11"], states(lab, "node2")["10.244.2.1"]) == ("reached", "lost")
    )
    lab("fault", "clear")
    assert within(SECONDS, lambda: kinds(lab, "node2") == {"unicast"})
    until(lambda: all_reach(lab), SECONDS)


def test_both_sides_of_a_parted_network_go_on_and_find_each_other_again(failing: Podplane) -> None:
    """The side without the API changes nothing."""
    lab = failing
    before = lab.on_node("node2", ROUTES)
    lab("fault", "node2", "--isolate")
    lab("fault", "node2", "--cut-api")
    say_unknown(lab, "node2")
    assert within(SECONDS, lambda: kinds(lab, "node2") == {"unreachable"})
    assert reaches(lab, "node1", "node3") and reaches(lab, "node3", "node1")
    assert lab.on_node("node2", ROUTES) == before and "10.244.1.0/24 via" in before
    lab("fault", "clear")
    assert within(SECONDS, lambda: kinds(lab, "node2") == {"unicast"})
    until(lambda: all_reach(lab), SECONDS)


def test_the_network_stays_as_it_is_while_no_node_reaches_the_api(failing: Podplane) -> None:
    """Whatever the API says meanwhile, and though a node does not answer any more: it is withdrawn when the API is heard again."""
    lab = failing
    before = lab.on_node("node1", ROUTES)
    lab("fault", "node2", "--cut-api")
    lab("fault", "node2", "--isolate")
    assert within(SECONDS, lambda: states(lab, "node2")["10.244.2.1"] == "lost")
    for node in ("node1", "node3"):
        lab("fault", node, "--cut-api")
    for node in ("node2", "node3"):
        say_unknown(lab, node)
    for _ in range(3):
        assert reaches(lab, "node1", "node3") and reaches(lab, "node3", "node1")
    assert lab.on_node("node1", ROUTES) == before and "10.244.2.0/24 via" in before
    for node in ("node1", "node3"):
        lab("fault", node, "--clear")
    assert within(SECONDS, lambda: kinds(lab, "node2") == {"unreachable"}) and kinds(lab, "node3") == {"unicast"}
    lab("fault", "clear")
    assert within(SECONDS, lambda: kinds(lab, "node2") == {"unicast"})
    until(lambda: all_reach(lab), SECONDS)


def test_a_node_that_boots_with_another_card_or_address_is_reached_by_all(failing: Podplane) -> None:
    """And its pods are the same, with the same addresses."""
    lab = failing
    before = lab.api.get("pods", "default", "echo-node2-1")
    for number, flags in enumerate((("--new-mac",), ("--new-mac", "--new-ip")), 1):
        lab("fault", "node2", "--power-off", *flags)
        assert not reaches(lab, "node1", "node2")
        assert "node2 has booted, at 192.168.1.1" in lab("fault", "node2", "--clear").stdout
        until(lambda: ready(lab, "node2") and all_reach(lab), SECONDS)
        now = lab.api.get("pods", "default", "echo-node2-1")
        assert now["metadata"]["uid"] == before["metadata"]["uid"] and now["status"]["podIPs"] == before["status"]["podIPs"]
        restarts = before["status"]["containerStatuses"][0]["restartCount"] + number
        assert now["status"]["containerStatuses"][0]["restartCount"] == restarts
    node = lab.api.get("nodes", "", "node2")
    address = next(one["address"] for one in node["status"]["addresses"] if one["type"] == "InternalIP")
    assert address not in ("192.168.1.10", "192.168.1.11", "192.168.1.12")
    link = json.loads(lab.on_node("node2", "ip -j link show eth0"))[0]
    assert link["address"] == node["metadata"]["annotations"]["podplane.dev/underlay-mac"]


def test_a_node_without_power_is_withdrawn_though_another_machine_answers_at_its_address(failing: Podplane) -> None:
    lab = failing
    node: dict[str, Any] = lab.api.get("nodes", "", "node2")
    ip = next(one["address"] for one in node["status"]["addresses"] if one["type"] == "InternalIP" and "." in one["address"])
    lab("fault", "node2", "--power-off")
    lab.on_node("node3", IMPOSTOR.format(ip=ip, mac=node["metadata"]["annotations"]["podplane.dev/underlay-mac"]))
    say_unknown(lab, "node2")
    assert within(SECONDS, lambda: kinds(lab, "node2") == {"unreachable"})
    assert within(SECONDS, lambda: states(lab, "node2")[ip] == "reached")
    lab.on_node("node3", "ip link del impostor")
    lab("fault", "node2", "--clear")
    until(lambda: ready(lab, "node2") and all_reach(lab), SECONDS)


def test_a_node_that_comes_back_with_another_block_is_reached_there(failing: Podplane) -> None:
    """Its Node was deleted while it was dead, and its block is another node's now."""
    lab = failing
    former = lab.api.get("nodes", "", "node2")["spec"]["podCIDRs"]
    lab("fault", "node2", "--power-off")
    lab.api.delete("nodes", "", "node2")
    lab.api.create(
        "nodes", "", {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "other"}, "spec": {"podCIDRs": former}}
    )
    assert "node2 has booted" in lab("fault", "node2", "--clear").stdout
    blocks = lab.api.get("nodes", "", "node2")["spec"]["podCIDRs"]
    assert set(blocks).isdisjoint(former)
    until(
        lambda: ready(lab, "node2") and ipaddress.ip_address(pod_ip(lab, "node2")) in ipaddress.ip_network(blocks[0]), SECONDS
    )
    until(lambda: all_reach(lab), SECONDS)
    lab.api.delete("nodes", "", "other")


def test_no_address_of_a_pod_is_lost_when_a_node_loses_its_power(podplane: Podplane) -> None:
    """A block of sixteen addresses has room for its ten pods once."""
    podplane("up", "--nodes", "1", "--pods-per-node", "10", "--cluster-cidr", "10.244.0.0/28")

    def addresses() -> list[str]:
        pods = podplane.api.objects("pods", "default")
        running = [pod for pod in pods if all(one["ready"] for one in pod["status"]["containerStatuses"])]
        return sorted(pod["status"]["podIP"] for pod in running)

    before = addresses()
    assert len(before) == 10
    for _ in range(3):
        podplane("fault", "node1", "--power-off")
        podplane("fault", "node1", "--clear")
        until(lambda: addresses() == before, SECONDS)
    podplane("run", "web")  # three are free
    assert not podplane("status", "--node", "node1").stderr
