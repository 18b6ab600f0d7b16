"""A lab whose agents are processes of their own, as on real machines: `podplane up --agents processes`."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from podplane.machine import rbac
from tests.e2e import test_further_networks as further
from tests.e2e.conftest import Kubectl, Podplane, name_servers, registered_again, running, stream, until

AGENT = "system:serviceaccount:kube-system:podplane-agent"
pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("agent-processes")]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Podplane]:
    with running(tmp_path_factory, "--agents", "processes", "--nodes", "2", "--pods-per-node", "1") as started:
        yield started


def test_all_promises_are_kept(lab: Podplane) -> None:
    assert "promises are kept: " in lab("check").stdout
    assert "everything is as wanted" in lab("status", "--node", "node2").stdout


def test_agents_reach_the_api_over_the_network_of_the_nodes_with_an_identity_of_their_own(lab: Podplane) -> None:
    entries = [json.loads(line) for line in lab.folder.audit.read_text().splitlines()]
    own = [one for one in entries if one["user"]["username"] == AGENT]
    assert {tuple(one["sourceIPs"]) for one in own} == {("192.168.1.10",), ("192.168.1.11",)}
    watched = {one["objectRef"]["resource"] for one in own if one["verb"] == "watch"}
    assert {"nodes", "services", "endpointslices", "pods", "networkpolicies"} <= watched


DROPS = """
nft list set arp podplane-announced addresses | grep -q '{ip}' || exit
nft list set arp podplane-announced alive | grep -q elements || echo dropped
"""


MUTE = """nft -f - <<.
table inet mute { chain pings { type filter hook input priority -300
    icmp type echo-request drop; icmpv6 type echo-request drop
}; }
."""
"""A node that answers no pings: others say that they do not reach it."""
UNSEEN = {
    ("discovery.k8s.io", "endpointslices", "delete"): "of a node that has an IP version no longer",
    ("discovery.k8s.io", "endpointslices", "get"): "where the watch lags behind what the agent wrote",
    ("", "events", "patch"): "of what happens again after a minute",
}
"""What an agent needs, and has no reason for in this lab."""


def test_an_agent_asks_for_all_that_its_roles_allow_and_for_nothing_else(lab: Podplane, tmp_path: Path) -> None:
    kubectl = Kubectl(lab, tmp_path)
    further.create(kubectl, further.KIND)
    kubectl("wait", "--for=condition=Established", f"crd/{further.DEFINITIONS}", "--timeout=10s")
    further.create(kubectl, further.definition("blue", subnets=["10.20.0.0/24"]), further.pod("further", "blue"))
    kubectl("wait", "--for=condition=Ready", "pod/further", "--timeout=30s")
    kubectl("delete", "pod", "further", "--now")
    kubectl("expose", "pod", "echo-node1-1", "--port", "80", "--target-port", "8080", "--type", "LoadBalancer", "--name", "lb")
    until(lambda: "announced by" in kubectl("describe", "service", "lb"))
    (holder,) = {node for node in ("node1", "node2") if f"announced by {node}" in kubectl("describe", "service", "lb")}
    lab("fault", holder, "--stop-agent")  # the other one asks for its heartbeat
    other = {"node1": "node2", "node2": "node1"}[holder]
    until(lambda: f"announced by {other}" in kubectl("describe", "service", "lb"))
    ip = kubectl("get", "service", "lb", "-o", "jsonpath={.status.loadBalancer.ingress[0].ip}")
    assert "dropped" in lab.on_node(holder, DROPS.format(ip=ip)), "the kernel of the one that is stopped answers no more"
    lab("fault", holder, "--clear")
    lab("fault", other, "--change-sysctl")
    until(lambda: "Repaired" in kubectl("describe", "node", other))
    lab("fault", other, "--restart-agent")
    lab("fault", other, "--change-sysctl")  # the event is there
    lab("status", "--node", other)
    lab.on_node(other, MUTE)
    lab("backend", "set", "vxlan")
    lab("backend", "set", "host-gw")
    lab("fault", other, "--stop-name-server")
    kubectl("delete", "-n", "kube-system", "endpointslices", "-l", "kubernetes.io/service-name=kube-dns")
    needed = {(rule.group, one, verb) for rule in rbac.RULES for one in rule.resources for verb in rule.verbs} - UNSEEN.keys()
    # An event that an agent before it wrote is got: what is changed while an agent still starts is no repair.
    missing = set(needed)

    def is_all() -> bool:
        lab("fault", other, "--change-sysctl")
        missing.intersection_update(needed - asked_for(lab))
        return not missing

    with contextlib.suppress(AssertionError):
        until(is_all, 60)
    assert not missing
    lab("fault", other, "--clear")
    lab.on_node(other, "nft delete table inet mute")
    kubectl("delete", "service", "lb")
    assert asked_for(lab, beyond_roles=True) == set()


def asked_for(lab: Podplane, *, beyond_roles: bool = False) -> set[tuple[str, str, str]]:
    """(group, resource, verb) of the agents' requests, or of those that no rule allows."""
    found = set()
    for entry in map(json.loads, lab.folder.audit.read_text().splitlines()):
        reference = entry.get("objectRef", {})
        if entry["user"]["username"] == AGENT:
            resource = "/".join(filter(None, (reference["resource"], reference.get("subresource", ""))))
            right = (reference.get("apiGroup", ""), resource, entry["verb"])
            if not (beyond_roles and (right in rbac.EVERYBODYS or rbac.allows(*right, reference.get("namespace", "")))):
                found.add(right)
    return found


def has_settled(lab: Podplane) -> bool:
    """Are the former backend's devices gone, and do all name servers answer?"""
    links = "".join(lab.on_node(name, "ip -o link") for name in ("node1", "node2"))
    return "podplane-vxlan" not in links and len(set(name_servers(lab))) == 2


def test_an_agent_that_starts_again_writes_nothing(lab: Podplane) -> None:
    until(lambda: has_settled(lab))
    said = lab("fault", "node1", "--restart-agent").stdout
    assert "and wrote nothing to the kernel.\n" in said
    assert "promises are kept: " in lab("check").stdout


def starts(lab: Podplane, node: str) -> list[int]:
    """How much the node's agents changed in the kernel with each start after the first one."""
    log = (lab.folder.path / "lab.log").read_text()
    return [int(changes) for changes in re.findall(rf"agent of {node} pid=\d+ is ready changes=(\d+)", log)]


PACKETS = """
import select, socket, sys, time
patience, service, *ips = sys.argv[1:]
udp = []
for ip in ips:
    one = socket.socket(socket.AF_INET6 if ":" in ip else socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    one.connect((ip, 8080))
    udp.append(one)
sent = heard = connected = failed = 0
print("begun", flush=True)
def hear(seconds):
    global heard
    for one in select.select(udp, [], [], seconds)[0]:
        one.recv(2000)
        heard += 1
while not select.select([sys.stdin], [], [], 0.002)[0]:
    for one in udp:
        one.send(b"x")
        sent += 1
    try:
        socket.create_connection((service, 80), 5).close()
        connected += 1
    except OSError:
        failed += 1
    hear(0.003)
end = time.monotonic() + float(patience)
while heard < sent and time.monotonic() < end:
    hear(0.1)
print(sent, heard, connected, failed)
"""
"""Until its input ends: datagrams to these addresses, each of which is answered, and new connections to a Service."""


def test_no_packet_is_lost_while_agents_are_killed_and_start_again(lab: Podplane, tmp_path: Path) -> None:
    kubectl = Kubectl(lab, tmp_path)
    kubectl("expose", "pod", "echo-node2-1", "--port", "80", "--target-port", "8080", "--name", "killed")
    found = json.loads(kubectl("get", "pod", "echo-node2-1", "-o", "json"))
    service = kubectl("get", "service", "killed", "-o", "jsonpath={.spec.clusterIP}")
    ips = [one["ip"] for one in found["status"]["podIPs"]]
    until(lambda: lab("exec", "echo-node1-1", "--", "curl", "-sS", "-m", "1", f"http://{service}/", code=None).returncode == 0)
    load = kubectl.start("exec", "-i", "echo-node1-1", "--", "python3", "-c", PACKETS, "5", service, *ips)
    assert load.stdout is not None and load.stdout.readline() == "begun\n"
    for node in ("node1", "node2"):
        before = len(starts(lab, node))
        lab("fault", node, "--kill-agent")
        until(lambda node=node, before=before: len(starts(lab, node)) > before)  # type: ignore[misc]
        assert starts(lab, node)[-1] == 0
    out, _ = load.communicate(timeout=60)
    sent, heard, connected, failed = map(int, out.split())
    assert (sent - heard, failed) == (0, 0) and sent > 100 and connected > 50, out
    kubectl("delete", "service", "killed")


def test_policies_stay_in_force_while_an_agent_that_is_killed_does_not_reach_the_api(lab: Podplane, tmp_path: Path) -> None:
    kubectl = Kubectl(lab, tmp_path)
    kubectl("expose", "pod", "echo-node2-1", "--port", "80", "--target-port", "8080", "--name", "away")
    spec = {"podSelector": {}, "ingress": [{"ports": [{"port": 8080}]}]}
    body = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "tcp"}, "spec": spec}
    kubectl("apply", "-f", "-", stdin=json.dumps(body))
    found = json.loads(kubectl("get", "pod", "echo-node2-1", "-o", "json"))
    service = kubectl("get", "service", "away", "-o", "jsonpath={.spec.clusterIP}")
    until(lambda: lab("exec", "echo-node1-1", "--", "curl", "-sS", "-m", "1", f"http://{service}/", code=None).returncode == 0)
    ips = [one["ip"] for one in found["status"]["podIPs"]]
    load = kubectl.start("exec", "-i", "echo-node1-1", "--", "python3", "-c", PACKETS, "0.5", service, *ips)
    assert load.stdout is not None and load.stdout.readline() == "begun\n"
    before = len(starts(lab, "node2"))
    try:
        lab("fault", "node2", "--cut-api")
        lab("fault", "node2", "--kill-agent")
        lab("run", "meanwhile", "--node", "node1")
        assert len(starts(lab, "node2")) == before, "it waits for the API"
    finally:
        lab("fault", "node2", "--clear")
    until(lambda: len(starts(lab, "node2")) > before, 30)
    out, _ = load.communicate(timeout=60)
    sent, heard, connected, failed = map(int, out.split())
    assert (heard, failed) == (0, 0) and sent > 100 and connected > 50, out
    assert starts(lab, "node2")[-1] == 0
    kubectl("delete", "service/away", "networkpolicy/tcp", "pod/meanwhile", "--now")


def test_connections_of_pods_go_on_while_their_node_is_deleted_and_registered_again(lab: Podplane, tmp_path: Path) -> None:
    kubectl = Kubectl(lab, tmp_path)
    with stream(kubectl, "echo-node2-1", "echo-node1-1"):
        lab("fault", "node2", "--stop-agent")  # it hears of both at once
        registered_again(lab, "node2")
        lab("fault", "node2", "--clear")
        registered_again(lab, "node2")
        until(lambda: "everything is as wanted" in lab("status", "--node", "node2", code=None).stdout)
    assert "node=node2 was deleted: 1 pod: default/echo-node2-1" in (lab.folder.path / "lab.log").read_text()


def test_no_packet_is_lost_while_no_node_reaches_the_api_and_agents_start_again(lab: Podplane, tmp_path: Path) -> None:
    """flannel-io/flannel#636. They go on with what was known."""
    kubectl, nodes = Kubectl(lab, tmp_path), ("node1", "node2")
    kubectl("expose", "pod", "echo-node2-1", "--port", "80", "--target-port", "8080", "--name", "known")
    ips = [one["ip"] for one in lab.api.get("pods", "default", "echo-node2-1")["status"]["podIPs"]]
    service = lab.api.get("services", "default", "known")["spec"]["clusterIP"]
    until(lambda: lab("exec", "echo-node1-1", "--", "curl", "-sS", "-m", "1", f"http://{service}/", code=None).returncode == 0)
    load = kubectl.start("exec", "-i", "echo-node1-1", "--", "python3", "-c", PACKETS, "5", service, *ips)
    assert load.stdout is not None and load.stdout.readline() == "begun\n"
    before = [len(starts(lab, node)) for node in nodes]
    try:
        for node in nodes:
            lab("fault", node, "--cut-api")
        for node in nodes:
            lab("fault", node, "--kill-agent")
        until(lambda: all(len(starts(lab, node)) > count for node, count in zip(nodes, before, strict=True)), 60)
        assert [starts(lab, node)[-1] for node in nodes] == [0, 0]
    finally:
        lab("fault", "clear")
    out, _ = load.communicate(timeout=60)
    sent, heard, connected, failed = map(int, out.split())
    assert (sent - heard, failed) == (0, 0) and sent > 100 and connected > 50, out
    lab("run", "missed", "--node", "node1")
    kubectl("delete", "service/known", "pod/missed", "--now")


def test_packets_pass_while_an_agent_is_stopped_and_pods_wait_for_it(lab: Podplane) -> None:
    assert "is stopped, until `--clear`" in lab("fault", "node2", "--stop-agent").stdout
    started = lab.start("run", "waits", "--node", "node2", stderr=subprocess.PIPE)
    assert "agents  node2 does not answer" in lab("status").stdout
    assert started.stderr is not None and started.stderr.readline() == "Waiting for waits to run …\n"
    assert started.stderr.readline().startswith("  the agent of node2 has not given it a network for 5 s")
    ips = {pod["metadata"]["name"]: pod["status"]["podIP"] for pod in lab.api.objects("pods") if "podIP" in pod["status"]}
    assert "waits" not in ips
    for pod, other in (("echo-node1-1", "echo-node2-1"), ("echo-node2-1", "echo-node1-1")):
        assert other in lab("exec", pod, "--", "curl", "-sS", "-m", "5", f"http://{ips[other]}:8080/").stdout
    assert "goes on" in lab("fault", "node2", "--clear").stdout
    assert started.wait(30) == 0
    lab("delete", "pod", "waits")


def test_the_setting_is_kept(lab: Podplane) -> None:
    assert json.loads(lab.folder.spec.read_text())["agents"] == "processes"
    assert "runs with --agents processes:" in lab("up", "--agents", "in-process", code=2).stderr
