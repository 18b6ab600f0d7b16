"""NetworkPolicies in a lab, with real connections: kubectl applies them, and they are in force before its next line."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.conftest import Kubectl, Podplane, until

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("policies")]
PORT = 8080
"""Where the lab's echo pods listen."""
CONNECT = """
import selectors, socket, sys, time
port, addresses, waiting, reached = int(sys.argv[1]), sys.argv[2:], selectors.DefaultSelector(), []
for address in addresses:
    one = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    one.setblocking(False)
    one.connect_ex((address, port))
    waiting.register(one, selectors.EVENT_WRITE, address)
end = time.monotonic() + 0.4
while waiting.get_map() and time.monotonic() < end:
    for key, _ in waiting.select(max(0, end - time.monotonic())):
        waiting.unregister(key.fileobj)
        if not key.fileobj.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            reached.append(key.data)
print(*sorted(reached))
"""
"""Which of these addresses take a connection?"""
PODS = [f"echo-node{node}-{number}" for node in (1, 2) for number in (1, 2)]
WEB, BESIDE, FAR, OTHER = PODS


@pytest.fixture(scope="module")
def ips(kubectl: Kubectl) -> dict[str, list[str]]:
    """The addresses of each pod."""
    items = json.loads(kubectl("get", "pods", "-o", "json"))["items"]
    return {pod["metadata"]["name"]: [ip["ip"] for ip in pod["status"]["podIPs"]] for pod in items}


@pytest.fixture(autouse=True)
def clean(kubectl: Kubectl) -> Iterator[None]:
    """No policies, and no labels, after a test."""
    yield
    kubectl("delete", "networkpolicy", "--all")
    kubectl("label", "pods", "--all", "app-", "role-")


def reached(lab: Podplane, pod: str, to: list[str], port: int = PORT) -> list[str]:
    return lab("exec", pod, "--", "python3", "-c", CONNECT, str(port), *to).stdout.split()


def apply(kubectl: Kubectl, name: str, pods: dict[str, Any], **sides: list[Any]) -> None:
    """Apply a policy with `ingress` or `egress` rules, or both."""
    types = [side.capitalize() for side in sides]
    spec = {"podSelector": {"matchLabels": pods}, "policyTypes": types, **sides}
    body = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": name}, "spec": spec}
    kubectl("apply", "-f", "-", stdin=json.dumps(body))


def test_a_policy_lets_in_whom_it_names_in_both_families_and_from_all_nodes(
    lab: Podplane, kubectl: Kubectl, ips: dict[str, list[str]]
) -> None:
    web = sorted(ips[WEB])
    kubectl("label", "pod", WEB, "app=web")
    kubectl("label", "pod", BESIDE, FAR, "role=client")
    assert len(web) == 2 and reached(lab, OTHER, web) == web
    peers = {"podSelector": {"matchLabels": {"role": "client"}}}
    apply(kubectl, "web", {"app": "web"}, ingress=[{"from": [peers], "ports": [{"port": PORT}]}])
    assert reached(lab, OTHER, web) == []
    assert reached(lab, FAR, web) == reached(lab, BESIDE, web) == reached(lab, WEB, web) == web
    assert reached(lab, OTHER, sorted(ips[FAR])) == sorted(ips[FAR]), "no policy selects this one"
    kubectl("label", "pod", OTHER, "role=client")
    kubectl("label", "pod", FAR, "role-")
    assert reached(lab, OTHER, web) == web and reached(lab, FAR, web) == []
    kubectl("delete", "networkpolicy", "web")
    assert reached(lab, FAR, web) == web


def test_a_policy_that_allows_nothing_leaves_probes_of_the_node_and_services_of_others(
    lab: Podplane, kubectl: Kubectl, ips: dict[str, list[str]]
) -> None:
    web = sorted(ips[WEB])
    apply(kubectl, "none", {}, ingress=[], egress=[])
    assert [reached(lab, pod, web) for pod in (WEB, BESIDE, FAR)] == [web, [], []]
    checked = lab("check").stdout
    said = re.search(
        r"✓ policies let pass what they allow, and nothing else  \(\d+ of \d+: (\d+) pass, (\d+) are stopped\)", checked
    )
    assert said and int(said[1]) > 0 and int(said[2]) > 0 and "All 22 promises are kept" in checked
    assert "– policies stop all of them" in checked
    assert re.search(r"every node reaches every pod  \(\d+ of \d+; \d+ not tried: default deny by default/none\)", checked)
    of_checks = lab("policy", "denied").stdout.splitlines()
    assert re.fullmatch(r"… and \d+ lines of what was sent while `podplane check` ran \(--checks shows what\)", of_checks[-1])
    assert len(lab("policy", "denied", "--checks").stdout.splitlines()) >= len(of_checks)
    rows = [json.loads(line) for line in lab("policy", "denied", "-o", "json").stdout.splitlines()]
    assert any(row["check"] for row in rows)
    host = f"[{ips[WEB][1]}]"
    ask = f"curl -s -m 3 -o /dev/null -w '%{{http_code}} ' http://$ip:{PORT}/"
    asked = lab.on_node("node1", f"for ip in {ips[WEB][0]} '{host}'; do {ask}; done")
    assert asked.split() == ["200", "200"], "the node reaches its own pods"


def test_probes_of_the_own_node_pass_where_nothing_else_does(lab: Podplane, kubectl: Kubectl) -> None:
    """N13 (kube-network-policies#65, kube-router#1017): in the family that the kubelet probes by, and not from another node."""
    apply(kubectl, "none", {}, ingress=[], egress=[])
    probes = {"livenessProbe": {"tcpSocket": {"port": PORT}}, "readinessProbe": {"httpGet": {"path": "/", "port": PORT}}}
    often = {"periodSeconds": 1, "failureThreshold": 1}
    container = {"name": "main", "image": "podplane/echo", **{name: {**probe, **often} for name, probe in probes.items()}}
    body = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "probed"},
        "spec": {"nodeName": "node1", "containers": [container]},
    }
    try:
        kubectl("create", "-f", "-", stdin=json.dumps(body))
        kubectl("wait", "--for=condition=Ready", "pod/probed", "--timeout=20s")
        pod = json.loads(kubectl("get", "pod", "probed", "-o", "json"))
        hosts = [f"[{one['ip']}]" if ":" in one["ip"] else one["ip"] for one in pod["status"]["podIPs"]]
        ask = (
            f"for ip in {' '.join(map(repr, hosts))}; do curl -s -m 0.5 -o /dev/null http://$ip:{PORT}/ && echo yes; done; true"
        )
        assert lab.on_node("node1", ask).split() == ["yes", "yes"] and lab.on_node("node2", ask).split() == []
        assert json.loads(kubectl("get", "pod", "probed", "-o", "json"))["status"]["containerStatuses"][0]["restartCount"] == 0
    finally:
        kubectl("delete", "pod", "probed", "--ignore-not-found", "--now")


def test_a_check_knows_that_policies_are_about_its_own_pods_too(lab: Podplane, kubectl: Kubectl) -> None:
    apply(kubectl, "inside", {}, ingress=[{"from": [{"namespaceSelector": {}}]}])
    assert "✓ policies let pass what they allow, and nothing else" in lab("check").stdout


ELSEWHERE = """
nft add table ip elsewhere; nft add chain ip elsewhere before '{{ type nat hook prerouting priority -110; }}'
nft add rule ip elsewhere before ip daddr {web} tcp dport 8079 dnat to {other}
"""
"""Connections to a pod come to another one, which may have them."""


@pytest.mark.skipif(not shutil.which("nft"), reason="a table of somebody else is made by `nft`")
def test_a_check_tells_what_is_denied_and_passes(lab: Podplane, kubectl: Kubectl, ips: dict[str, list[str]]) -> None:
    kubectl("label", "pod", WEB, "app=web")
    apply(kubectl, "none", {"app": "web"}, ingress=[])
    lab.on_node("node1", ELSEWHERE.format(web=ips[WEB][0], other=ips[BESIDE][0]))
    try:
        found = json.loads(lab("check", "--json", code=1).stdout)["promises"]
    finally:
        lab.on_node("node1", "nft delete table ip elsewhere")
    (row,) = (one for one in found if not one["ok"])
    assert row["promise"] == "policies"
    assert f"{FAR} → {WEB} {ips[WEB][0]}:8079: it is denied (default deny by default/none), and passed" in row["failures"]


def test_names_need_the_usual_rule_once_egress_is_under_policies(lab: Podplane, kubectl: Kubectl) -> None:
    """“To the pods k8s-app=kube-dns of kube-system, port 53”: every recipe has it, though no pod stands behind the cluster's DNS."""

    def resolves(name: str = "kubernetes.default") -> bool:
        command = f"timeout 1 getent hosts {name}"
        return lab("exec", WEB, "--", "sh", "-c", command, code=None).returncode == 0

    assert resolves()
    apply(kubectl, "none", {}, egress=[])
    assert not resolves()
    where = {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}}
    servers = {"namespaceSelector": where, "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}}}
    ports = [{"port": 53, "protocol": protocol} for protocol in ("UDP", "TCP")]
    apply(kubectl, "names", {}, egress=[{"to": [servers], "ports": ports}])
    assert resolves() and resolves("kubernetes.default.svc.cluster.local")
    lab("fault", "node1", "--stop-name-server")
    until(resolves)  # those of other nodes answer
    lab("fault", "node1", "--clear")


ATTEMPTS = """
import socket, sys, time
end, connected = time.monotonic() + 0.3, 0
while time.monotonic() < end:
    for address in sys.argv[1:]:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            one = socket.socket(family, kind)
            one.settimeout(0.01)
            try:
                one.connect((address, 8080))
                one.send(b"x")
                connected += bool(one.recv(1))
            except OSError:
                pass
            one.close()
sys.exit(connected)
"""
"""Connects again and again; the exit status is how often it did."""


def test_a_pod_is_under_its_policies_before_its_first_instruction(
    lab: Podplane, kubectl: Kubectl, ips: dict[str, list[str]]
) -> None:
    """N1: init containers, too (k3s-io/k3s#947, cloudnativelabs/kube-router#873)."""
    apply(kubectl, "caged", {"role": "caged"}, egress=[])
    container = {"image": "host/python3", "command": ["python3", "-c", ATTEMPTS, *ips[FAR]]}
    pod = {
        "restartPolicy": "Never",
        "initContainers": [{"name": "init", **container}],
        "containers": [{"name": "main", **container}],
    }
    template = {"metadata": {"labels": {"role": "caged"}}, "spec": pod}
    job = {"completions": 6, "parallelism": 6, "backoffLimit": 0, "template": template}
    body = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "caged"}, "spec": job}
    kubectl("create", "-f", "-", stdin=json.dumps(body))
    try:
        kubectl("wait", "--for=condition=Complete", "job/caged", "--timeout=60s")
    finally:
        kubectl("delete", "job", "caged", "--now")


READS = """
import socket, threading
listener = socket.create_server(("::", 9000), family=socket.AF_INET6, dualstack_ipv6=True)
def read(one):
    try:
        while data := one.recv(9):
            print(data.decode(), flush=True)
    except OSError as error:
        print("ended", flush=True)
while True:
    threading.Thread(target=read, args=(listener.accept()[0],)).start()
"""
SENDS = """
import socket, sys, time
ends = [socket.create_connection((address, 9000), 3) for address in sys.argv[1:]]
for one in ends:
    one.send(b"begun")
while ends:
    time.sleep(0.1)
    for one in list(ends):
        try:
            one.send(b".")
        except OSError:
            print("ended", flush=True)
            ends.remove(one)
time.sleep(1000)
"""


def test_a_connection_through_a_service_that_policies_take_back_ends_for_its_client_and_a_server_on_another_node(
    lab: Podplane, kubectl: Kubectl
) -> None:
    try:
        lab("run", "reads", "--node", "node2", "--", "python3", "-c", READS)
        service = {"ipFamilyPolicy": "PreferDualStack", "selector": {"run": "reads"}, "ports": [{"port": 9000}]}
        ips = lab.api.create("services", "default", {"metadata": {"name": "reads"}, "spec": service})["spec"]["clusterIPs"]
        kubectl("wait", "--for=condition=Ready", "pod/reads", "--timeout=20s")
        until(lambda: lab.api.get("endpoints", "default", "reads").get("subsets"))
        lab("run", "sends", "--node", "node1", "--", "python3", "-c", SENDS, *ips)
        until(lambda: kubectl("logs", "reads").count("begun") == len(ips))
        apply(kubectl, "nothing-out", {"run": "sends"}, egress=[])
        for pod in ("sends", "reads"):
            until(lambda pod=pod: kubectl("logs", pod).count("ended") == len(ips))  # type: ignore[misc]  # bound now
    finally:
        kubectl("delete", "pod,service", "reads", "sends", "--ignore-not-found", "--grace-period=1")
