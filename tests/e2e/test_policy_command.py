"""`podplane policy` in a lab: who may talk to whom, from the objects that kubectl made."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e.conftest import COMMAND, Kubectl, Podplane, until

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("policy-command")]
EXAMPLES = Path(__file__).parents[2] / "examples" / "policies"
CLIENT, WEB, DB = "echo-node1-1", "echo-node2-1", "echo-node3-1"


def policy(name: str, **spec: Any) -> dict[str, Any]:
    return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": name}, "spec": spec}


POLICIES = [
    policy(
        "web",
        podSelector={"matchLabels": {"role": "web"}},
        ingress=[{"from": [{"podSelector": {"matchLabels": {"role": "client"}}}], "ports": [{"port": 8080}]}],
    ),
    policy("deny-all", podSelector={"matchLabels": {"role": "db"}}, policyTypes=["Ingress", "Egress"]),
]


@pytest.fixture(scope="module", autouse=True)
def policies(lab: Podplane, kubectl: Kubectl) -> Iterator[None]:
    """Three of the echo pods have roles, a Service leads to one of them, and two policies are about two of them."""
    try:
        for pod, role in ((CLIENT, "client"), (WEB, "web"), (DB, "db")):
            kubectl("label", "pod", pod, f"role={role}")
        kubectl("create", "-f", "-", stdin="---\n".join(map(yaml.safe_dump, POLICIES)))
        kubectl("expose", "pod", WEB, "--name", "web", "--port", "80", "--target-port", "8080", "--selector", "role=web")
        yield
    finally:
        kubectl("delete", "networkpolicies,services", "--all", "--ignore-not-found")


def test_kubectl_shows_them_as_with_kubernetes(kubectl: Kubectl) -> None:
    rows = [line.split() for line in kubectl("get", "netpol").splitlines()]
    assert [row[:2] for row in rows] == [["NAME", "POD-SELECTOR"], ["deny-all", "role=db"], ["web", "role=web"]]
    assert rows[0] == ["NAME", "POD-SELECTOR", "AGE"]
    described = kubectl("describe", "netpol", "web")
    for line in ("PodSelector:     role=web", "To Port: 8080/TCP", "PodSelector: role=client", "Not affecting egress traffic"):
        assert line in described


def test_what_kubernetes_refuses_is_refused(kubectl: Kubectl) -> None:
    block = {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["11.0.0.0/16"]}}
    bad = policy("bad", podSelector={}, ingress=[{"from": [block], "ports": [{"port": 9, "endPort": 8}]}])
    said = kubectl("create", "-f", "-", stdin=yaml.safe_dump(bad), code=1)
    assert "spec.ingress[0].ports[0].endPort: Invalid value: 8: must be greater than or equal to `port`" in said
    assert 'except[0]: Invalid value: "11.0.0.0/16": must be a strict subset of `cidr`' in said


@pytest.mark.parametrize(
    ("source", "destination", "code", "said"),
    [
        (CLIENT, f"{WEB}:8080", 0, "allowed: default/web ingress rule 1"),
        (CLIENT, f"{WEB}:80", 1, "default/web ingress rule 1 allows TCP 8080 from it"),
        (CLIENT, "svc/web", 0, "Service default/web: allowed (1 endpoint)"),
        (CLIENT, WEB, 0, "TCP 8080 is allowed, all else denied"),
        (DB, f"{WEB}:8080", 1, "denied: default deny by default/deny-all"),
        (DB, "kube-system/kube-dns:53/udp", 1, "the cluster's DNS, UDP 53: denied"),
        ("node/node2", f"{WEB}:8080", 0, "a node reaches its own pods"),
        ("node/node1", f"{WEB}:8080", 1, "default deny by default/web"),
        ("203.0.113.7", f"{CLIENT}:443", 0, "no policy selects it for ingress"),
    ],
)
def test_verdicts(lab: Podplane, source: str, destination: str, code: int, said: str) -> None:
    assert said in lab("policy", "verdict", source, destination, code=code).stdout


def test_what_is_not_there_is_said_in_one_line(lab: Podplane) -> None:
    for words in (
        ("verdict", CLIENT, "nobody:80"),
        ("verdict", f"{CLIENT}:80", WEB),
        ("list", "nobody"),
        ("matrix", "--port", "x"),
        ("matrix", "-n", "nowhere"),
        ("list", "-n", "nowhere"),
        ("lint", "-n", "nowhere"),
        ("denied", "-n", "nowhere"),
        ("verdict", CLIENT, "fe80::1"),
    ):
        done = lab("policy", *words, code=2)
        assert done.stderr.startswith("podplane: ")
        assert done.stderr.count("\n") == 1
        assert not done.stdout


def test_programs_get_json_and_yaml(lab: Podplane) -> None:
    found = json.loads(lab("policy", "verdict", CLIENT, f"{WEB}:80", "-o", "json", code=1).stdout)
    assert not found["allowed"]
    assert {flow["ingress"]["by"] for flow in found["flows"]} == {"default deny by default/web"}
    listed = yaml.safe_load(lab("policy", "list", "-o", "yaml").stdout)["policies"]
    assert [(one["name"], one["pods"]) for one in listed] == [("deny-all", 1), ("web", 1)]
    of_pod = json.loads(lab("policy", "list", WEB, "-o", "json").stdout)
    assert of_pod["isolated"] == {"egress": False, "ingress": True}
    (table,) = json.loads(lab("policy", "matrix", "--port", "8080", "-o", "json").stdout)["tables"]
    places = {pod: number for number, group in enumerate(table["groups"]) for pod in group}
    reach = {
        (one, other): table["reach"][places[f"default/{one}"]][places[f"default/{other}"]]
        for one in (CLIENT, WEB, DB)
        for other in (CLIENT, WEB, DB)
        if one != other
    }
    assert {pair for pair, cell in reach.items() if cell == "everything"} == {(CLIENT, WEB), (WEB, CLIENT)}


def test_policies_and_tables_for_people(lab: Podplane) -> None:
    assert [line.split()[1] for line in lab("policy", "list").stdout.splitlines()] == ["NAME", "deny-all", "web"]
    assert lab("policy", "list", "-n", "kube-system").stdout == "There is no policy in namespace kube-system.\n"
    assert "TCP 8080 from pods with role=client" in lab("policy", "list", WEB).stdout
    text = lab("policy", "matrix").stdout
    assert f"default/{DB}" in text
    assert "o some ports are" in text


def test_a_dry_run_warns_of_the_flows_that_it_changes_and_first_of_those_that_nodes_saw(
    lab: Podplane, kubectl: Kubectl
) -> None:
    opened = policy("web", podSelector=POLICIES[0]["spec"]["podSelector"], ingress=[{"from": [{"podSelector": {}}]}])
    said = kubectl.warned("replace", "--dry-run=server", "-f", "-", stdin=yaml.safe_dump(opened))[0]
    assert re.match(
        rf"\d+ flows would be allowed that were denied.*: default/{CLIENT} → default/{WEB} \(all but TCP 8080\)", said
    )
    lab(
        "exec",
        CLIENT,
        "--",
        "sh",
        "-c",
        f"curl -s -m 0.3 http://{lab.api.get('pods', 'default', DB)['status']['podIP']}:8080/; true",
    )
    tried = rf"\d+ flows would be allowed .*, \d+ of them tried in the last 10 min: .*default/{CLIENT} → default/{DB} \(tried "
    until(lambda: re.match(tried, kubectl.warned("delete", "networkpolicy", "deny-all", "--dry-run=server")[0]))
    flow = rf"default/{CLIENT} → default/{WEB}:8080"
    said = kubectl.warned("label", "pod", CLIENT, "role-", "--dry-run=server")[0]
    assert re.fullmatch(
        rf"1 flow would be denied that was allowed(: {flow}|, and seen in the last hour: {flow} \(seen .*\))", said
    )
    lab("exec", CLIENT, "--", "sh", "-c", "curl -s http://web/")
    said = f"1 flow would be denied that was allowed, and seen in the last hour: {flow} (seen in the last 2 min)"
    until(lambda: kubectl.warned("label", "pod", CLIENT, "role-", "--dry-run=server") == [said])
    assert kubectl.warned("label", "pod", CLIENT, "other=x", "--dry-run=server") == []
    assert kubectl("get", "pod", CLIENT, "-o", "jsonpath={.metadata.labels.role}") == "client"


def test_mistakes_are_named_when_a_policy_is_applied_and_by_lint(lab: Podplane, kubectl: Kubectl) -> None:
    rule = {"from": [{"namespaceSelector": {"matchLabels": {"name": "kube-system"}}}], "ports": [{"port": 80}]}
    bad = yaml.safe_dump(policy("bad", podSelector={"matchLabels": {"role": "web"}}, ingress=[rule]))
    wrong = [
        "no namespace has name=kube-system; the label kubernetes.io/metadata.name=kube-system selects the namespace of that name",
        "TCP 80 is the port of Service default/web; policies are about the port of its pods, 8080",
    ]
    assert lab("policy", "lint", "-f", "-", stdin=bad, code=1).stdout.splitlines() == [
        f"default/bad ingress rule 1: {text}" for text in wrong
    ]
    try:
        said = kubectl.warned("create", "-f", "-", stdin=bad)
        assert said == [f"NetworkPolicy default/bad: ingress rule 1: {text}" for text in wrong]
        found = json.loads(lab("policy", "lint", "-o", "json", code=1).stdout)["findings"]
        assert [(one["name"], one["mistake"]) for one in found] == [
            ("bad", "no such namespace"),
            ("bad", "port not served"),
            ("deny-all", "no DNS"),
        ]
    finally:
        kubectl("delete", "networkpolicy", "bad", "--ignore-not-found")
    assert (
        lab("policy", "lint", "-n", "kube-system").stdout
        == "No mistake is found in the policies of namespace kube-system, and of the cluster.\n"
    )


RECIPES = ("from-one-application", "from-pods-of-a-namespace")
"""Of the examples those whose packets are tried; the verdicts of all are in tests/unit/cli."""
FLOW = re.compile(r"#   (\w+)/(\w+) → (\w+/\w+):8080: (allowed|denied)")


@pytest.fixture(scope="module")
def addresses(kubectl: Kubectl) -> Iterator[dict[str, str]]:
    """Of the pods that the examples are about, by path."""
    kubectl("apply", "-f", str(EXAMPLES / "pods.yaml"))
    try:
        kubectl("wait", "--for=condition=Ready", "pod", "--all", "-A", "--timeout=30s")
        pods = json.loads(kubectl("get", "pods", "-A", "-o", "json"))["items"]
        yield {f"{one['metadata']['namespace']}/{one['metadata']['name']}": one["status"]["podIP"] for one in pods}
    finally:
        kubectl("delete", "namespace", "shop", "ops", "--ignore-not-found")


@pytest.mark.parametrize("name", RECIPES)
def test_packets_fare_as_examples_say(lab: Podplane, kubectl: Kubectl, addresses: dict[str, str], name: str) -> None:
    file = EXAMPLES / f"{name}.yaml"
    flows = FLOW.findall(file.read_text())
    said = {(f"{namespace}/{pod}", to): word == "allowed" for namespace, pod, to, word in flows}
    assert set(said.values()) == {True, False}

    def found() -> dict[tuple[str, str], bool]:
        results: dict[tuple[str, str], bool] = {}
        for namespace, pod in {(namespace, pod) for namespace, pod, _, _ in flows}:
            asked = [to for source, to in said if source == f"{namespace}/{pod}"]
            curls = (f"{{ curl -s -o /dev/null -m 0.5 http://{addresses[to]}:8080/ && echo {to}; }} &" for to in asked)
            answered = lab("exec", "-n", namespace, pod, "--", "sh", "-c", f"{' '.join(curls)} wait").stdout.split()
            results |= {(f"{namespace}/{pod}", to): to in answered for to in asked}
        return results

    kubectl("apply", "-f", str(file))
    try:
        until(lambda: found() == said)
    finally:
        kubectl("delete", "-f", str(file))


def test_a_diff_shows_all_flows_that_a_file_changes(lab: Podplane) -> None:
    opened = policy("web", podSelector=POLICIES[0]["spec"]["podSelector"], ingress=[{"from": [{"podSelector": {}}]}])
    said = lab("policy", "diff", "-f", "-", stdin=yaml.safe_dump(opened), code=1).stdout
    assert re.match(r"\d+ flows would be allowed that were denied", said)
    assert f"  default/{CLIENT} → default/{WEB} (all but TCP 8080)" in said
    each = lab("policy", "diff", "--each", "-f", "-", stdin=yaml.safe_dump(opened), code=1).stdout
    assert len(each.splitlines()) >= len(said.splitlines())
    same = lab("policy", "diff", "-f", "-", stdin=yaml.safe_dump(POLICIES[0])).stdout
    assert same == "No flow would be denied that is allowed, nor allowed that is denied.\n"
    gone = lab("policy", "diff", "-f", "-", "--delete", "-o", "json", stdin=yaml.safe_dump(POLICIES[1]), code=1).stdout
    flow = {"from": f"default/{CLIENT}", "to": f"default/{DB}"}
    assert any(flow.items() <= one.items() for one in json.loads(gone)["allowed"])
    refused = lab("policy", "diff", "-f", "-", stdin="kind: x", code=2).stderr
    assert refused == "podplane: <stdin>: document 1 is no object: one has a kind, and metadata with a name\n"


SEND = """
import socket, sys
address, port, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
sender = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
for _ in range(count):
    sender.sendto(b"x", (address, port))
"""


def send(lab: Podplane, pod: str, address: str, port: int, count: int = 1) -> None:
    """Datagrams, which nobody answers."""
    lab("exec", pod, "--", "python3", "-c", SEND, address, str(port), str(count))


def ips(kubectl: Kubectl, pod: str) -> list[str]:
    return [one["ip"] for one in json.loads(kubectl("get", "pod", pod, "-o", "json"))["status"]["podIPs"]]


def test_denied_packets_are_told_with_the_names_of_their_ends(lab: Podplane, kubectl: Kubectl) -> None:
    v4, v6 = ips(kubectl, WEB)
    send(lab, CLIENT, v4, 9001, 3)
    send(lab, CLIENT, v6, 9002)
    send(lab, DB, "203.0.113.7", 9003)
    said = lab("policy", "denied").stdout
    assert f"default/{CLIENT} → default/{WEB}, UDP 9001: ingress: default deny by default/web (3 packets)\n" in said
    assert f"default/{CLIENT} → default/{WEB}, UDP 9002: ingress: default deny by default/web\n" in said
    assert f"default/{DB} → 203.0.113.7, UDP 9003: egress: default deny by default/deny-all\n" in said
    assert "9003" not in lab("policy", "denied", "--node", "node2").stdout
    assert (
        lab("policy", "denied", "-n", "kube-public").stdout
        == "Nothing was denied in namespace kube-public in the last 10 minutes.\n"
    )
    rows = [json.loads(line) for line in lab("policy", "denied", "-o", "json").stdout.splitlines()]
    (row,) = (one for one in rows if one["port"] == 9001)
    assert row["from"] == {"address": ips(kubectl, CLIENT)[0], "pod": f"default/{CLIENT}"}
    assert (row["node"], row["direction"], row["policies"], row["packets"]) == ("node2", "ingress", ["default/web"], 3)


def test_denied_packets_are_told_as_they_come(lab: Podplane, kubectl: Kubectl) -> None:
    address = ips(kubectl, WEB)[0]
    with subprocess.Popen(
        [*COMMAND, "policy", "denied", "-f"], env=lab.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as following:
        try:
            assert following.stdout is not None
            send(lab, CLIENT, address, 9010)
            assert "UDP 9010" in next(line for line in following.stdout if "9010" in line)
            send(lab, CLIENT, address, 9011, 5000)
            assert "more packets" in next(line for line in following.stdout if line.startswith("… and"))
        finally:
            following.terminate()


def test_a_node_that_is_not_there_denies_nothing(lab: Podplane) -> None:
    assert lab("policy", "denied", "--node", "node9", code=2).stderr.startswith("podplane: there is no node 'node9'")


def test_what_rules_decided_is_counted_and_outlives_a_change_of_the_policy(lab: Podplane, kubectl: Kubectl) -> None:
    address = ips(kubectl, WEB)[0]

    def counts() -> tuple[int, int]:
        found = json.loads(lab("policy", "list", WEB, "-o", "json").stdout)
        (web,) = (one for one in found["policies"] if one["name"] == "web")
        return web["allowedConnections"]["ingress"][-1], found["deniedPackets"]["ingress"]

    allowed, denied = counts()
    send(lab, CLIENT, address, 9020, 4)
    for _ in range(3):
        lab("exec", CLIENT, "--", "curl", "-s", "-m", "5", f"http://{address}:8080/")
    assert counts() == (allowed + 3, denied + 4)
    changed = {"from": [{"podSelector": {"matchLabels": {"role": "nobody"}}}]}
    patch = json.dumps({"spec": {"ingress": [changed, *POLICIES[0]["spec"]["ingress"]]}})
    kubectl("patch", "networkpolicy", "web", "--type=merge", "-p", patch)
    try:
        send(lab, CLIENT, address, 9020)
        lab("exec", CLIENT, "--", "curl", "-s", "-m", "5", f"http://{address}:8080/")
        assert counts() == (allowed + 4, denied + 5)
        lab("fault", "node2", "--restart-agent")
        assert counts() == (allowed + 4, denied + 5)
    finally:
        kubectl(
            "patch",
            "networkpolicy",
            "web",
            "--type=merge",
            "-p",
            json.dumps({"spec": {"ingress": POLICIES[0]["spec"]["ingress"]}}),
        )
    figures = kubectl("get", "--raw", "/api/v1/nodes/node2:10256/proxy/metrics")
    wanted = 'podplane_policy_allowed_connections_total{direction="ingress",namespace="default",policy="web",rule="1"}'
    assert f"{wanted} {allowed + 4}.0" in figures
    assert f'podplane_policy_denied_packets_total{{direction="ingress",policies="default/web"}} {denied + 5}.0' in figures
