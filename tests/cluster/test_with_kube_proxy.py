"""podplane beside a real kube-proxy, to which it leaves Services; and what becomes of that one's tables when it has gone."""

from __future__ import annotations

import itertools
import json
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from podplane.cni.install import BIN_DIR, CONF_DIR
from podplane.cni.networks import CONFLIST
from podplane.model.config import AGENT_PORT, AGENT_PORT_SAID, BESIDE_PORT
from tests.cluster.podplane import PORT, Installed
from tests.engines.machine import Machine, Program
from tools import manifests

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.xdist_group("cluster"),
    pytest.mark.skipif(
        shutil.which("kube-proxy") is None, reason="not on the PATH: kube-proxy (Kubernetes' source, cmd/kube-proxy)"
    ),
]
NODE_PORT = 30080
SERVERS, CLIENTS = ("server-w1", "server-w2"), ("client-w1", "client-w2")
TABLES = "table ip kube-proxy"
FLUSHES = 20
CHAINED = f"""#!{sys.executable} -IS
import json, os, sys
if os.environ["CNI_COMMAND"] == "VERSION":
    print(json.dumps({{"cniVersion": "1.0.0", "supportedVersions": ["0.3.1", "0.4.0", "1.0.0"]}}))
elif os.environ["CNI_COMMAND"] == "ADD":
    result = json.load(sys.stdin)["prevResult"]
    with open("/run/chained", "a") as file:
        print(os.environ["CNI_ARGS"], result["ips"][0]["address"], file=file)
    print(json.dumps(result))
"""
"""A plugin that notes each ADD, and passes on the result before it."""


def with_settings(**settings: Any) -> list[Any]:
    """deploy/podplane.yaml with other settings of agents, and a port that fits."""
    found = [one for one in yaml.safe_load_all(manifests.DEPLOY.read_text()) if one]
    by_name = {(one["kind"], one["metadata"]["name"]): one for one in found}
    data = by_name["ConfigMap", "podplane-agent"]["data"]
    data["config"] = yaml.safe_dump(yaml.safe_load(data["config"]) | settings)
    template = by_name["DaemonSet", "podplane-agent"]["spec"]["template"]
    template["metadata"]["annotations"]["checksum/config"] = str(hash(data["config"]))
    (port,) = template["spec"]["containers"][0]["ports"]
    port["containerPort"] = port["hostPort"] = BESIDE_PORT
    return found


def install(cluster: Installed, objects: list[Any]) -> None:
    """Agents as these say; all of them run when this returns."""
    cluster.kubectl("apply", "--filename=-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))
    cluster.rolled_out()


def answered(cluster: Installed, node: str, port: int) -> str:
    """Who answers at a port of a node's localhost, in the header of the answer."""
    return cluster.rig.nodes[node]("curl", "-sI", "-m", "5", f"http://localhost:{port}/healthz", code=None).lower()


@pytest.fixture(scope="module")
def proxies(cluster: Installed) -> Iterator[dict[str, Program]]:
    """A kube-proxy on each node, and podplane that leaves Services to it; pods and a Service. Afterwards all is as by default."""
    running = {node: cluster.rig.start_proxy(node) for node in cluster.rig.nodes}
    install(cluster, with_settings(services={"enabled": False}))
    for node in cluster.rig.nodes:
        cluster.run(f"server-{node}", node, "serve", str(PORT), labels={"role": "server"})
        cluster.run(f"client-{node}", node, "pause")
    cluster.ready(*SERVERS, *CLIENTS)
    port = {"port": 80, "targetPort": PORT, "nodePort": NODE_PORT}
    spec = {"type": "NodePort", "selector": {"role": "server"}, "ports": [port]}
    own = {"selector": {"app": SERVERS[0]}, "ports": [{"port": 80, "targetPort": PORT}]}
    for name, one in (("servers", spec), ("own", own)):
        cluster.apply({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": one})
    yield running
    for one in running.values():
        one.end(signal.SIGTERM)
    cluster.kubectl("delete", "services", "servers", "own", "--ignore-not-found")
    cluster.kubectl("delete", "pods", "--all", "--wait")
    cluster.install()


def service(cluster: Installed, name: str) -> str:
    """Its address."""
    found: str = cluster.rig.get("service", name)["spec"]["clusterIP"]
    return found


def test_services_are_left_to_kube_proxy_wholly(cluster: Installed, proxies: dict[str, Program]) -> None:
    for node, machine in cluster.rig.nodes.items():
        tables = machine("nft", "list", "tables")
        assert TABLES in tables and "podplane-services" not in tables and "podplane-policy" in tables
        assert "server: podplane" in answered(cluster, node, BESIDE_PORT)
        assert "200" in answered(cluster, node, AGENT_PORT) and "podplane" not in answered(cluster, node, AGENT_PORT)
        assert cluster.rig.get("node", node)["metadata"]["annotations"][AGENT_PORT_SAID] == str(BESIDE_PORT)
    cluster.rig.until(lambda: all(cluster.ask(client, service(cluster, "servers"), 80) for client in CLIENTS))
    for client in CLIENTS:
        assert {cluster.ask(client, service(cluster, "servers"), 80) for _ in range(4)} == {cluster.ip(client)}
    assert cluster.ask(SERVERS[0], service(cluster, "own"), 80), "a pod reaches itself"
    assert cluster.ask(CLIENTS[0], "192.168.100.12", NODE_PORT)


def test_policies_see_endpoints_behind_kube_proxy_s_translation(cluster: Installed, proxies: dict[str, Program]) -> None:
    allowed = [{"to": [{"podSelector": {"matchLabels": {"app": SERVERS[1]}}}]}]
    spec = {"podSelector": {"matchLabels": {"app": CLIENTS[0]}}, "policyTypes": ["Egress"], "egress": allowed}
    cluster.apply({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "one"}, "spec": spec})
    cluster.rig.until(lambda: cluster.ask(CLIENTS[0], cluster.ip(SERVERS[0]), seconds=1) == "")
    assert cluster.ask(CLIENTS[0], service(cluster, "own"), 80, seconds=1) == ""
    assert cluster.ask(CLIENTS[1], service(cluster, "own"), 80) == cluster.ip(CLIENTS[1])
    found = {cluster.ask(CLIENTS[0], service(cluster, "servers"), 80, seconds=1) for _ in range(12)}
    assert found == {"", cluster.ip(CLIENTS[0])}, "one of both endpoints is allowed"
    cluster.kubectl("delete", "networkpolicy", "one")


@pytest.fixture
def firewall(cluster: Installed) -> Iterator[str]:
    """A node whose firewall drops what it forwards, until the test is over."""
    if shutil.which("iptables-nft") is None:
        pytest.skip("iptables is not installed")
    machine = cluster.rig.nodes["w2"]
    machine("iptables-nft", "--policy", "FORWARD", "DROP")
    yield "w2"
    machine("nft", "delete", "table", "ip", "filter")


def test_a_firewall_that_drops_packets_of_pods_is_told_by_an_event_of_the_node(
    cluster: Installed, proxies: dict[str, Program], firewall: str
) -> None:
    cluster.kubectl("--namespace=kube-system", "delete", "pod", cluster.agents()[firewall], "--wait=false")
    assert cluster.ask(CLIENTS[1], cluster.ip(SERVERS[0]), seconds=1) == "", "it does"
    wanted = (
        "chain FORWARD of table ip filter (policy drop) drops packets between pods of this node, to pods of other nodes, from"
    )
    selected = ("--namespace=default", f"--field-selector=involvedObject.name={firewall}")
    cluster.rig.until(lambda: any(wanted in one.get("message", "") for one in cluster.rig.get("events", *selected)["items"]))
    cluster.rolled_out()


def test_what_kube_proxy_left_goes_when_it_has_gone_and_not_before(cluster: Installed, proxies: dict[str, Program]) -> None:
    clean = ("exec", "--container=agent", "--namespace=kube-system")
    program = ("/opt/podplane/bin/podplane", "agent", "clean-kube-proxy")
    install(cluster, with_settings(network={"agent_port": BESIDE_PORT}))
    agents = cluster.agents()
    for node in cluster.rig.nodes:
        said = cluster.kubectl(*clean, agents[node], "--", *program, code=None)
        assert "removed" not in said and TABLES in cluster.rig.nodes[node]("nft", "list", "tables")
    cluster.rig.until(lambda: all(cluster.ask(client, service(cluster, "servers"), 80) for client in CLIENTS))
    for node in cluster.rig.nodes:
        proxies.pop(node).end(signal.SIGTERM)
        cluster.rig.until(lambda node=node: "server: podplane" in answered(cluster, node, AGENT_PORT))
        assert f"removed {TABLES}" in cluster.kubectl(*clean, agents[node], "--", *program)
        tables = cluster.rig.nodes[node]("nft", "list", "tables")
        assert "kube-proxy" not in tables and "podplane-services" in tables
    for client in CLIENTS:
        assert {cluster.ask(client, service(cluster, "servers"), 80) for _ in range(4)} == {cluster.ip(client)}


def own_chains(machine: Machine) -> set[tuple[str, str]]:
    """podplane's chains of nf_tables on a machine: the names of their tables, and their own."""
    found, table = set[tuple[str, str]](), ""
    for line in machine("nft", "list", "chains").splitlines():
        kind, *words = line.split() or [""]
        table = words[1] if kind == "table" else table
        if kind == "chain" and table.startswith("podplane-"):
            found.add((table, words[0]))
    return found


def test_what_is_flushed_with_all_tables_comes_back_each_time(cluster: Installed, proxies: dict[str, Program]) -> None:
    """As the restart of a service `nftables` does it, or a firewall's reload."""
    spec = {"podSelector": {"matchLabels": {"app": SERVERS[0]}}, "policyTypes": ["Ingress"]}
    allowed = [{"from": [{"podSelector": {"matchLabels": {"app": CLIENTS[0]}}}]}]
    policy = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "one"}}
    cluster.apply({**policy, "spec": {**spec, "ingress": allowed}})
    server, own, machine = cluster.ip(SERVERS[0]), service(cluster, "own"), cluster.rig.nodes["w1"]
    cluster.rig.until(lambda: cluster.ask(CLIENTS[1], server, seconds=1) == "")
    before = own_chains(machine)
    assert {"podplane-nodes", "podplane-policy", "podplane-services"} <= {name for name, _ in before}
    for _ in range(FLUSHES):
        machine("nft", "flush", "ruleset")
        cluster.rig.until(lambda: own_chains(machine) == before)
    assert cluster.ask(CLIENTS[1], server, seconds=1) == ""
    assert cluster.ask(CLIENTS[0], own, 80) == cluster.ip(CLIENTS[0])
    cluster.kubectl("delete", "networkpolicy", "one")


def test_a_plugin_that_others_chain_is_run_and_stays_when_an_agent_starts(
    cluster: Installed, proxies: dict[str, Program]
) -> None:
    """As a service mesh adds its own to the file of the first network."""
    machine = cluster.rig.nodes["w1"]
    program, path, noted = (Path(machine.path(one)) for one in (f"{BIN_DIR}/chained", f"{CONF_DIR}/{CONFLIST}", "/run/chained"))
    before = path.read_text()
    program.write_text(CHAINED)
    program.chmod(0o755)
    network = json.loads(before)
    network["plugins"].append({"type": "chained"})
    path.with_suffix(".new").write_text(json.dumps(network))
    path.with_suffix(".new").rename(path)
    try:
        cluster.kubectl("--namespace=kube-system", "delete", "pod", cluster.agents()["w1"], "--wait")
        cluster.rolled_out()
        numbers = itertools.count()

        def is_run() -> bool:
            name = f"chained-{next(numbers)}"
            cluster.run(name, "w1", "pause", labels={"chained": "yes"})
            cluster.ready(name)
            return noted.exists() and f"K8S_POD_NAME={name};" in noted.read_text() and cluster.ip(name) in noted.read_text()

        cluster.rig.until(is_run)
        assert json.loads(path.read_text()) == network
    finally:
        cluster.kubectl("delete", "pods", "--selector=chained=yes", "--wait")
        program.unlink()
        path.with_suffix(".new").write_text(before)
        path.with_suffix(".new").rename(path)
