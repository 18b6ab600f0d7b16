"""podplane on a real cluster: kubelets, containerd, kube-apiserver."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from podplane.cni.install import CONF_DIR
from podplane.cni.networks import CONFLIST
from podplane.machine.capabilities import NEEDED
from tests.cluster.podplane import AGENTS, PORT, Installed
from tests.cluster.rig import KUBERNETES

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("cluster")]
CAPABILITIES = {"NET_ADMIN": 12, "NET_RAW": 13}
"""Numbers of capabilities(7)."""
SERVERS = ("server-w1", "server-w2")
CLIENTS = ("client-w1", "client-w2")


@pytest.fixture(scope="module")
def pods(cluster: Installed) -> Iterator[Installed]:
    """A server and a client on each node."""
    for node in cluster.rig.nodes:
        cluster.run(f"server-{node}", node, "serve", str(PORT), labels={"role": "server"})
        cluster.run(f"client-{node}", node, "pause")
    cluster.ready(*SERVERS, *CLIENTS)
    yield cluster
    cluster.kubectl("delete", "pods", "--all", "--wait")


def test_pods_of_all_nodes_see_each_others_addresses(pods: Installed) -> None:
    for client in CLIENTS:
        for server in SERVERS:
            assert pods.ask(client, pods.ip(server)) == pods.ip(client), (client, server)


def test_addresses_are_of_the_node_s_block(pods: Installed) -> None:
    for node in pods.rig.nodes:
        block = pods.rig.get("node", node)["spec"]["podCIDR"]
        assert pods.ip(f"client-{node}").rsplit(".", 1)[0] == block.rsplit(".", 1)[0]


@pytest.fixture(scope="module")
def service(pods: Installed) -> Iterator[str]:
    """The address of a Service of all servers, once its endpoints are known."""
    found = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "servers"}}
    pods.apply({**found, "spec": {"selector": {"role": "server"}, "ports": [{"port": 80, "targetPort": PORT}]}})
    ip = pods.rig.get("service", "servers")["spec"]["clusterIP"]
    pods.rig.until(lambda: all(pods.ask(client, ip, 80) for client in CLIENTS))
    yield ip
    pods.kubectl("delete", "service", "servers")


def test_a_service_shows_its_servers_who_asks(pods: Installed, service: str) -> None:
    for client in CLIENTS:
        assert {pods.ask(client, service, 80) for _ in range(6)} == {pods.ip(client)}


def test_pods_reach_the_api_by_its_service(pods: Installed) -> None:
    for client in CLIENTS:
        assert "HTTP request to an HTTPS server" in pods.ask(client, KUBERNETES, 443)


def test_a_policy_is_in_force_on_all_nodes(pods: Installed) -> None:
    allowed = {"from": [{"podSelector": {"matchLabels": {"app": CLIENTS[0]}}}]}
    spec = {"podSelector": {"matchLabels": {"role": "server"}}, "policyTypes": ["Ingress"], "ingress": [allowed]}
    policy = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "one"}, "spec": spec}
    pods.apply(policy)
    for server in SERVERS:
        pods.rig.until(lambda server=server: pods.ask(CLIENTS[1], pods.ip(server), seconds=1) == "")
        assert pods.ask(CLIENTS[0], pods.ip(server)) == pods.ip(CLIENTS[0])
    pods.kubectl("delete", "networkpolicy", "one")
    for server in SERVERS:
        pods.rig.until(lambda server=server: pods.ask(CLIENTS[1], pods.ip(server)) == pods.ip(CLIENTS[1]))


def test_the_agent_has_two_capabilities_and_a_filter_of_system_calls(cluster: Installed) -> None:
    for node, machine in cluster.rig.nodes.items():
        status = dict(
            line.split(":\t", 1)
            for line in Path(machine.path(f"/proc/{cluster.process(node).name}/status")).read_text().splitlines()
            if ":\t" in line
        )
        wanted = sum(1 << CAPABILITIES[name] for name in NEEDED)
        assert {int(status[name], 16) for name in ("CapEff", "CapPrm", "CapBnd")} == {wanted}
        assert (status["Seccomp"].strip(), status["NoNewPrivs"].strip()) == ("2", "1")


def test_a_node_stays_ready_without_its_agent_and_pods_end_when_it_is_back(pods: Installed) -> None:
    pods.run("short", "w1", "serve", str(PORT))
    pods.ready("short")
    block = {"spec": {"template": {"spec": {"nodeSelector": {"podplane.dev/nowhere": "yes"}}}}}
    agents = ("--namespace=kube-system", "patch", AGENTS, "--type=merge")
    pods.kubectl(*agents, f"--patch={json.dumps(block)}")
    pods.rig.until(lambda: not pods.agents())
    assert all(Path(machine.path(f"{CONF_DIR}/{CONFLIST}")).exists() for machine in pods.rig.nodes.values())
    pods.kubectl("delete", "pod", "short", "--wait=false")
    assert pods.ask(CLIENTS[1], pods.ip(SERVERS[0])) == pods.ip(CLIENTS[1])
    block["spec"]["template"]["spec"]["nodeSelector"]["podplane.dev/nowhere"] = None  # type: ignore[assignment]
    pods.kubectl(*agents, f"--patch={json.dumps(block)}")
    pods.kubectl("wait", "--for=delete", "pod/short", "--timeout=50s")
    assert all(map(pods.rig.is_ready, pods.rig.nodes))
    pods.rolled_out()
