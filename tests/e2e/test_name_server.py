"""The name server of a node under accidents: questions have answers, packets pass untracked, and what somebody breaks is repaired."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import COMMAND, Kubectl, Podplane, until

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("name server")]
SECONDS = 30
DNS = {4: "10.96.0.10", 6: "fd00:10:96::a"}
NAME = "kubernetes.default.svc.cluster.local"
OF_DNS = "k8s-app=kube-dns"
ASKER = (Path(__file__).parent / "asker.py").read_text()
TRACKED = f"""
import ipaddress
from podplane.kernel.conntrack import *
found = [bytes(content) for _, content in Socket(NETLINK_NETFILTER).dump(GET, GENERIC.pack(AF_UNSPEC, 0, 0))]
print(sum(any(ipaddress.ip_address(ip).packed in one for ip in {list(DNS.values())}) for one in found))
"""
"""Counts tracked connections from or to the addresses of the cluster's DNS."""


def asker(lab: Podplane, pod: str, server: str, pairs: int, rate: int, attempts: int = 2) -> subprocess.Popen[str]:
    """Begin to ask from a pod."""
    words = [sys.executable, "-c", ASKER, server, NAME, str(pairs), str(rate), "5", str(attempts)]
    return subprocess.Popen(
        [*COMMAND, "exec", pod, "--", *words], env=lab.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def result(one: subprocess.Popen[str]) -> dict[str, int]:
    out, err = one.communicate(timeout=60)
    assert one.returncode == 0, err
    found: dict[str, int] = json.loads(out)
    return found


def tracked(lab: Podplane, node: str) -> int:
    """Tracked connections of name service on a node."""
    return int(lab.on_node(node, shlex.join([sys.executable, "-c", TRACKED])))


def addresses(lab: Podplane, node: str) -> list[str]:
    """Those of the cluster's DNS that the node has."""
    words = lab.on_node(node, "ip -o address show cbr0").replace("/", " ").split()
    return [ip for ip in DNS.values() if ip in words]


def conditions(kubectl: Kubectl, node: str) -> list[bool]:
    """Whether a node offers its name server, by its slices."""
    items: list[dict[str, Any]] = json.loads(
        kubectl("-n", "kube-system", "get", "service,endpointslices", "-l", OF_DNS, "-o", "json")
    )["items"]
    assert [one["metadata"]["name"] for one in items if one["kind"] == "Service"] == ["kube-dns"]
    endpoints = [one["endpoints"][0] for one in items if one["kind"] == "EndpointSlice"]
    return [one["conditions"]["ready"] for one in endpoints if one["nodeName"] == node]


@pytest.fixture
def stopped(lab: Podplane) -> Iterator[Podplane]:
    """The lab while node1 has no name server."""
    lab("fault", "node1", "--stop-name-server")
    yield lab
    lab("fault", "node1", "--clear")


@pytest.mark.parametrize("version", [4, 6])
def test_pairs_of_questions_from_one_socket_are_all_answered_and_none_is_tracked(lab: Podplane, version: int) -> None:
    """kubernetes/kubernetes#56903: with connection tracking, two questions at once race, and one of them is lost."""
    pods = ("echo-node1-1", "echo-node1-2", "echo-node2-1", "at-node1")
    lab.on_node("node1", "true")
    with ThreadPoolExecutor() as pool:
        found = list(pool.map(lambda pod: result(asker(lab, pod, DNS[version], 250, 250, attempts=1)), pods))
    assert found == [{"asked": 500, "unanswered": 0, "wrong": 0, "again": 0}] * len(pods)
    assert (tracked(lab, "node1"), tracked(lab, "node2")) == (0, 0)


def test_a_process_that_is_killed_leaves_no_question_without_an_answer(lab: Podplane) -> None:
    """To resolvers that ask again after 5 s, as they usually do; what was asked meanwhile waits in the sockets."""
    askers = [asker(lab, pod, DNS[4], 600, 250) for pod in ("echo-node1-1", "echo-node2-1")]
    assert "was killed" in lab("fault", "node1", "--kill-name-server").stdout
    for one in askers:
        found = result(one)
        assert (found["asked"], found["unanswered"], found["wrong"]) == (1200, 0, 0)
    assert (tracked(lab, "node1"), tracked(lab, "node2")) == (0, 0), "no other node had to answer"


def test_an_agent_that_restarts_stops_no_name_server_and_writes_nothing(lab: Podplane, kubectl: Kubectl) -> None:
    versions = "-o=jsonpath={.items[*].metadata.resourceVersion}"
    until(lambda: conditions(kubectl, "node1") == [True, True], SECONDS)
    before = kubectl("-n", "kube-system", "get", "endpointslices", versions)
    one = asker(lab, "echo-node1-1", DNS[4], 300, 100, attempts=1)
    assert "wrote nothing to the kernel" in lab("fault", "node1", "--restart-agent").stdout
    assert result(one) == {"asked": 600, "unanswered": 0, "wrong": 0, "again": 0}
    assert kubectl("-n", "kube-system", "get", "endpointslices", versions) == before


def test_a_node_without_a_server_is_answered_by_others(stopped: Podplane, kubectl: Kubectl) -> None:
    """By the Service: the address and the exemption from tracking go from the node, and come back."""
    until(lambda: conditions(kubectl, "node1") == [False, False], SECONDS)
    assert conditions(kubectl, "node2") == [True, True]
    until(lambda: addresses(stopped, "node1") == [], SECONDS)
    for pod, ip in (("echo-node1-1", DNS[4]), ("echo-node1-1", DNS[6]), ("at-node1", DNS[6])):
        found = result(asker(stopped, pod, ip, 20, 20))
        assert (found["asked"], found["unanswered"], found["wrong"]) == (40, 0, 0)
    assert tracked(stopped, "node1"), "they were translated"
    stopped("fault", "node1", "--clear")
    until(lambda: addresses(stopped, "node1") == [*DNS.values()], SECONDS)
    until(lambda: conditions(kubectl, "node1") == [True, True], SECONDS)
    assert result(asker(stopped, "echo-node1-1", DNS[4], 20, 20, attempts=1))["unanswered"] == 0


def test_no_question_is_lost_while_a_server_stops_and_comes_back(lab: Podplane) -> None:
    """Not even for clients that ask once, and go on to use one socket."""
    pairs = 2000 if lab.has_processes else 750  # where agents find out by themselves, a stop takes longer
    one = asker(lab, "echo-node1-1", DNS[4], pairs, 250, attempts=1)
    lab("fault", "node1", "--stop-name-server")
    lab("fault", "node1", "--clear")
    assert result(one) == {"asked": 2 * pairs, "unanswered": 0, "wrong": 0, "again": 0}


def test_while_no_node_has_a_server_the_address_stays(lab: Podplane) -> None:
    for node in ("node1", "node2", "node3"):
        lab("fault", node, "--stop-name-server")
    try:
        until(lambda: addresses(lab, "node3") and addresses(lab, "node1"), SECONDS)
    finally:
        for node in ("node1", "node2", "node3"):
            lab("fault", node, "--clear")
    until(lambda: result(asker(lab, "echo-node3-1", DNS[4], 1, 10))["unanswered"] == 0, SECONDS)


@pytest.mark.parametrize("fault", [("--flush-nftables",), ("--delete-address", DNS[6])])
def test_what_another_program_breaks_is_repaired(lab: Podplane, fault: tuple[str, ...]) -> None:
    def is_whole() -> bool:
        rules = lab.on_node("node2", "nft list table inet podplane-dns || true").count("notrack")  # it may be away just now
        return rules == 16 and addresses(lab, "node2") == [*DNS.values()]

    lab.on_node("node2", "true")
    assert is_whole()
    lab("fault", "node2", *fault)
    until(is_whole, SECONDS)
    assert result(asker(lab, "echo-node2-1", DNS[6], 20, 20, attempts=1))["unanswered"] == 0


def test_the_service_comes_back_when_somebody_deletes_it(lab: Podplane, kubectl: Kubectl) -> None:
    where = ("-n", "kube-system", "get", "service", "kube-dns", "-o=jsonpath={.spec.clusterIPs}{.metadata.uid}")
    before = kubectl(*where)
    kubectl("-n", "kube-system", "delete", "service", "kube-dns", "--wait=false")
    until(lambda: lab("exec", "echo-node1-1", "--", "getent", "hosts", "kubernetes.default", code=None).stdout, SECONDS)
    after = kubectl(*where)
    assert before != after and before.split("]")[0] == after.split("]")[0]
    assert conditions(kubectl, "node1") == [True, True]


def test_a_slice_that_somebody_changes_or_deletes_is_put_right(lab: Podplane, kubectl: Kubectl) -> None:
    name = "kube-dns-node3-ipv4"
    kubectl("-n", "kube-system", "patch", "endpointslice", name, "--type=merge", '-p={"endpoints": []}')
    until(lambda: conditions(kubectl, "node3") == [True, True], SECONDS)
    kubectl("-n", "kube-system", "delete", "endpointslice", name)
    until(lambda: name in kubectl("-n", "kube-system", "get", "endpointslices", "-o", "name"), SECONDS)


def test_the_slices_of_a_node_go_with_it_and_come_back(lab: Podplane, kubectl: Kubectl) -> None:
    def owners() -> list[str]:
        where = ("-o=jsonpath={range .items[*]}{.metadata.ownerReferences[0].name}/{.metadata.ownerReferences[0].uid} {end}",)
        found = kubectl("-n", "kube-system", "get", "endpointslices", *where).split()
        return [one.split("/")[1] for one in found if one.startswith("node3/")]

    before = owners()
    kubectl("delete", "node", "node3")
    until(lambda: len(owners()) == 2 and set(owners()).isdisjoint(before), SECONDS)
    until(lambda: "default" in lab("exec", "echo-node3-1", "--", "ip", "route").stdout, SECONDS)  # its pods are planned again
    assert result(asker(lab, "echo-node3-1", DNS[4], 5, 20))["unanswered"] == 0


def test_names_of_the_host_outside_are_found_in_its_own_zone(lab: Podplane) -> None:
    """From its own server and from the cluster's; a long answer comes over TCP (RFC 7766)."""
    query = "import socket; print(*sorted({one[4][0] for one in socket.getaddrinfo(%r, 80)}))"

    def found(pod: str, name: str) -> list[str]:
        return lab("exec", pod, "--", sys.executable, "-c", query % name).stdout.split()

    assert found("echo-node1-1", "alias.example.test") == ["2001:db8:113::a", "203.0.113.10"]
    many = found("echo-node2-1", "many.example.test")
    assert len(many) == 40 and {f"203.0.113.{n}" for n in range(101, 121)} < set(many)
    done = lab("exec", "echo-node1-1", "--", "getent", "hosts", "nowhere.example.test", code=None)
    assert (done.returncode, done.stdout) == (2, "")
