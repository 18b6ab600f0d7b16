"""Every command of the README, on a running lab."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import time
from collections.abc import Iterator

import pytest
import yaml

from podplane.lab.manifests import pod
from tests.e2e.conftest import COMMAND, Podplane

pytestmark = pytest.mark.e2e


@pytest.fixture
def web(lab: Podplane) -> Iterator[str]:
    """A pod `web` on node2."""
    lab("run", "web", "--node", "node2")
    yield "web"
    lab("delete", "pod", "web", code=None)


def test_addresses_are_those_of_the_plan(lab: Podplane) -> None:
    out = lab("get", "pods", "-o", "wide").stdout
    assert "10.244.1.2,fd00:10:244:1::2" in out
    assert "10.244.3.3,fd00:10:244:3::3" in out
    nodes = lab("get", "nodes", "-o", "wide").stdout
    assert "192.168.1.10,fd00:192:168:1::a" in nodes
    assert nodes.count("Ready") == 3


def test_get_json_and_yaml_are_kubernetes_objects(lab: Podplane) -> None:
    pods = json.loads(lab("get", "pods", "-o", "json").stdout)
    assert pods["kind"] == "List"
    assert {p["status"]["phase"] for p in pods["items"]} == {"Running"}
    node = yaml.safe_load(lab("get", "node", "node1", "-o", "yaml").stdout)
    assert (node["kind"], node["spec"]["podCIDR"]) == ("Node", "10.244.1.0/24")


def test_run_puts_a_pod_where_it_was_asked_for(lab: Podplane, web: str) -> None:
    pod = json.loads(lab("get", "pod", web, "-o", "json").stdout)
    assert pod["spec"]["nodeName"] == "node2"
    assert pod["status"]["podIP"].startswith("10.244.2.")


def test_the_host_outside_runs_pods_of_its_own_network(lab: Podplane, web: str) -> None:
    lab("run", "visitor", "--node", "outside", "--", "sleep", "infinity")
    assert "203.0.113.10" in lab("exec", "visitor", "--", "ip", "addr").stdout
    assert "default via 203.0.113.1" in lab("exec", "visitor", "--", "ip", "route").stdout
    lab("delete", "pod", "visitor", "--now")


def test_a_pod_outside_needs_the_hosts_network(lab: Podplane) -> None:
    pod = {
        "metadata": {"name": "lost"},
        "spec": {"nodeName": "outside", "containers": [{"name": "c", "image": "podplane/echo"}]},
    }
    lab.api.create("pods", "default", {"apiVersion": "v1", "kind": "Pod", **pod})
    messages: list[str] = []
    for events in lab.api.poll("events", "default", lambda es: any("hostNetwork: true" in e["message"] for e in es), 10):
        messages = [e["message"] for e in events]
    lab("delete", "pod", "lost", "--now")
    assert any("the host outside is no node and has no pod network" in message for message in messages)


def test_replicas_are_spread(lab: Podplane) -> None:
    out = lab("run", "many", "--replicas", "3").stdout
    assert [line.split()[0] for line in out.splitlines()] == ["many-0", "many-1", "many-2"]
    assert {line.split()[3] for line in out.splitlines()} == {"node1", "node2", "node3"}
    lab("delete", "pod", "many-0", "many-1", "many-2")
    assert "many" not in lab("get", "pods").stdout


def test_the_echo_server_answers_tcp_udp_and_http_with_the_source_it_saw(lab: Podplane, web: str) -> None:
    ip = json.loads(lab("get", "pod", web, "-o", "json").stdout)["status"]["podIP"]
    client = f"""
import socket, urllib.request
print(urllib.request.urlopen("http://{ip}:8080/").read().decode())
s = socket.create_connection(("{ip}", 8080)); s.sendall(b"hello\\n"); print(s.recv(200).decode())
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.settimeout(5); u.sendto(b"datagram", ("{ip}", 8080)); print(u.recv(200).decode())
"""
    out = lab("exec", "-i", "echo-node1-1", "--", "python3", "-", stdin=client).stdout
    http, tcp, udp = [line for line in out.splitlines() if line]
    assert json.loads(http)["name"] == "web"
    assert json.loads(http)["source"] == "10.244.1.2"
    assert tcp.startswith("web 10.244.1.2 ")
    assert tcp.endswith(" hello")
    assert udp.startswith("web 10.244.1.2 ")
    assert udp.endswith(" datagram")


def test_exec_has_the_pods_name_processes_and_exit_status(lab: Podplane) -> None:
    assert lab("exec", "echo-node1-1", "--", "hostname").stdout == "echo-node1-1\n"
    assert lab("exec", "echo-node1-1", "--", "sh", "-c", "echo out; echo err >&2; exit 7", code=7).stderr == "err\n"
    pids = lab("exec", "echo-node1-1", "--", "sh", "-c", "echo /proc/[0-9]*").stdout.split()
    assert len(pids) == 2  # the echo server and the shell
    assert lab("exec", "default/echo-node1-1", "--", "hostname").stdout == "echo-node1-1\n"
    assert (
        "pod echo-node1-1 in namespace shop: there is default/echo-node1-1\n"
        in lab("exec", "shop/echo-node1-1", "--", "true", code=2).stderr
    )
    both = lab("exec", "-n", "shop", "default/echo-node1-1", "--", "true", code=2).stderr
    assert (
        both == "podplane: 'default/echo-node1-1' is of namespace default, and --namespace says shop: leave one of them out\n"
    )
    assert (
        lab("get", "pods", "default/echo-node1-1", "-o", "json").stdout
        == lab("get", "pods", "echo-node1-1", "-o", "json").stdout
    )
    assert "no such command" in lab("exec", "echo-node1-1", "--", "nonexistent-command", code=127).stderr


def test_exec_passes_input_and_much_output(lab: Podplane) -> None:
    text = "x" * 99 + "\n"
    assert lab("exec", "-i", "echo-node2-1", "--", "cat", stdin=text * 5000).stdout == text * 5000
    assert lab("exec", "-i", "echo-node2-1", "--", "wc", "-l", stdin="").stdout.strip() == "0"


def test_exec_gives_a_terminal(lab: Podplane) -> None:
    ours, theirs = pty.openpty()
    words = ["exec", "-it", "echo-node1-1", "--", "sh", "-c", "test -t 0 && test -t 1 && stty size"]
    done = subprocess.Popen([*COMMAND, *words], env=lab.environment, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    assert done.wait(30) == 0
    assert os.read(ours, 1000).decode().split() == ["0", "0"]  # the size of our terminal went along
    os.close(ours)


def test_a_pod_that_cannot_start_says_why(lab: Podplane) -> None:
    done = lab("run", "wrong", "--", "nonexistent-command", code=2)
    assert "nonexistent-command: no such command on this machine" in done.stderr
    lab("delete", "pod", "wrong")


def test_a_command_that_ends_is_restarted(lab: Podplane) -> None:
    lab("run", "short", "--", "sh", "-c", "sleep 0.2; exit 3", code=None)
    for pods in lab.api.poll("pods", "default", lambda ps: _restarts(ps, "short") >= 1, 10):
        seen = _restarts(pods, "short")
    lab("delete", "pod", "short")
    assert seen >= 1


def _restarts(pods: list[dict], name: str) -> int:  # type: ignore[type-arg]  # JSON
    found = [p for p in pods if p["metadata"]["name"] == name]
    return sum(c["restartCount"] for p in found for c in p.get("status", {}).get("containerStatuses", ()))


def test_check_keeps_all_promises_and_cleans_up(lab: Podplane) -> None:
    result = json.loads(lab("check", "--json").stdout)
    assert result["ok"]
    assert [row["promise"] for row in result["promises"]] == [
        "pod-to-pod", "no-nat", "unique-addresses", "same-port", "localhost", "node-to-pod", "pod-to-node", "outside", "full-size",
        "services", "service-spread", "service-affinity", "service-source", "service-hairpin", "service-refused",
        "service-from-outside", "service-names", "headless-names", "missing-names", "names-of-addresses",
        "names-outside",
    ]  # fmt: skip
    assert all(row["probes"] > 0 for row in result["promises"])
    assert "podplane-check" not in lab("get", "pods", "-A").stdout
    text = lab("check", "--all").stdout
    assert "All 21 promises are kept" in text
    assert "echo-node3-2" in text


def test_status_of_the_agents(lab: Podplane) -> None:
    text = lab("status", "--node", "node1").stdout
    assert text.startswith("Node node1: everything is as wanted\n") and "API         answered" in text
    nodes = json.loads(lab("status", "--node", "all", "-o", "json").stdout)["nodes"]
    assert [node["node"] for node in nodes] == ["node1", "node2", "node3"]
    assert all({"agent", "election", "health"} <= {task["name"] for task in node["tasks"]} for node in nodes)
    assert "there is no node 'node9'" in lab("status", "--node", "node9", code=2).stderr
    assert "say which node" in lab("status", "-o", "json", code=2).stderr


def test_status_says_what_can_not_be_had(podplane: Podplane) -> None:
    podplane("up", "--nodes", "2")
    port = {"port": 80, "protocol": "TCP"}
    for name in ("first", "second"):
        spec = {"ports": [port], "externalIPs": ["192.0.2.9"]}
        body = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}
        podplane.api.create("services", "default", body)
    end = time.monotonic() + 20
    while podplane("status").stdout.count("1 blocked") < 2 and time.monotonic() < end:
        time.sleep(0.1)
    said = next(line for line in podplane("status").stdout.splitlines() if "agents" in line)
    assert "node1: 1 blocked (service/default/" in said and "; node2: 1 blocked (service/default/" in said
    assert "192.0.2.9" in said and ": `podplane status --name" in said
    text = podplane("status", "--node", "node2", code=1).stdout
    assert text.startswith("Node node2: 1 blocked\n  blocked  service/default/") and "192.0.2.9" in text


def test_a_lab_is_a_cluster_for_those_who_have_its_kubeconfig(lab: Podplane) -> None:
    file = lab("kubeconfig").stdout.strip()
    found = json.loads(lab("cluster", "status", "--kubeconfig", file, "-o", "json").stdout)
    assert found["problems"] == [] and found["summary"]["answered"] == 3
    assert {one["node"]: (one["agent"], one["status"]["refused"]) for one in found["nodes"]} == {
        f"node{n}": ("answers", 0) for n in (1, 2, 3)
    }
    screen = lab("cluster", "status", "--kubeconfig", file).stdout
    assert screen.startswith("3 nodes, 3 of them ready: all is well\n") and screen.count("10.244.") == 3
    for words in (("routes",), ("services", "-A"), ("policy", "list", "-A")):
        assert lab(*words, "--kubeconfig", file).stdout == lab(*words).stdout
    of_node = [lab("status", "--node", "node2", *words).stdout for words in ((), ("--kubeconfig", file))]
    assert {one.partition("\n")[0] for one in of_node} == {"Node node2: everything is as wanted"}, of_node
    refused = lab("status", "--kubeconfig", file, code=2).stderr
    assert refused == (
        f"podplane: say which node, or all, by --node; of the whole cluster: `podplane cluster status --kubeconfig {file}`\n"
    )
    assert "leave one of them out" in lab("routes", "--name", lab.name, "--kubeconfig", file, code=2).stderr
    gone = lab("cluster", "status", "--kubeconfig", f"{file}.gone", code=2).stderr
    assert gone.startswith(f"podplane: the kubeconfig {file}.gone can't be read") and len(gone.splitlines()) == 1


def test_figures_for_prometheus(lab: Podplane) -> None:
    text = lab.api.of_node_raw("node1", 10256, "metrics").decode()
    assert 'podplane_objects{feature="services",status="done"}' in text and "podplane_reconcile_duration_seconds_bucket" in text


def test_up_again_changes_nothing_and_status_tells(lab: Podplane) -> None:
    before = lab("get", "pods", "-o", "wide").stdout.count("Running")
    assert "runs already" in lab("up").stdout
    assert lab("get", "pods", "-o", "wide").stdout.count("Running") == before
    status = lab("status").stdout
    assert "nodes   3" in status
    assert "https://127.0.0.1:" in status


def test_the_api_wants_the_token(lab: Podplane) -> None:
    access = lab.folder.access()
    import urllib.error
    import urllib.request

    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"https://{access.address}/api/v1/pods", timeout=5, context=access.context())
    assert refused.value.code == 401
    assert f"`{lab.folder.command('kubeconfig')}` has one" in json.loads(refused.value.read())["message"]
    secret = [lab.folder.path / "run.json", lab.folder.kubeconfig, lab.folder.audit, *lab.folder.pki.iterdir()]
    assert [path.name for path in secret if path.stat().st_mode & 0o077] == []


@pytest.mark.parametrize("cidr", ["10.50.0.0/16", "fd00:50::/48", "fd00:50::/48,10.50.0.0/16"])
def test_other_families_than_the_usual(podplane: Podplane, cidr: str) -> None:
    podplane("up", "--nodes", "2", "--pods-per-node", "2", "--cluster-cidr", cidr)
    assert json.loads(podplane("check", "--json").stdout)["ok"]


def test_sandbox_only(podplane: Podplane) -> None:
    podplane("up", "--nodes", "2", "--pods-per-node", "2", "--sandbox-only")
    assert "10.244.1.2" in podplane("exec", "echo-node1-1", "--", "cat", "/proc/net/fib_trie").stdout
    assert json.loads(podplane("check", "--json").stdout)["ok"]


def test_state_survives_a_stop(podplane: Podplane) -> None:
    podplane("up", "--nodes", "2", "--pods-per-node", "1")
    podplane("run", "web", "--replicas", "2")
    podplane("delete", "pod", "web-0")
    once = _done(podplane)
    before = json.loads(podplane("get", "pods", "-o", "json").stdout)["items"]
    podplane("down")
    assert "not running" in podplane("status", code=3).stdout
    podplane("up")
    after = json.loads(podplane("get", "pods", "-o", "json").stdout)["items"]
    assert [_facts(pod) for pod in after] == [_facts(pod) for pod in before]
    assert json.loads(podplane("check", "--json").stdout)["ok"]
    assert podplane.api.get("pods", "default", "once") == once, "what was done is not done again"
    podplane("delete", "pod", "once")


def _done(podplane: Podplane) -> dict:  # type: ignore[type-arg]  # JSON
    """A pod that has ended for good."""
    manifest = pod("once", command=["true"])
    manifest["spec"]["restartPolicy"] = "Never"
    podplane.api.create("pods", "default", manifest)

    def is_done(pods: list[dict]) -> bool:  # type: ignore[type-arg]  # likewise
        return any(one["metadata"]["name"] == "once" and one["status"]["phase"] == "Succeeded" for one in pods)

    for _ in podplane.api.poll("pods", "default", is_done, 20):
        pass
    return podplane.api.get("pods", "default", "once")


def _facts(pod: dict) -> tuple:  # type: ignore[type-arg]  # JSON
    return pod["metadata"]["name"], pod["metadata"]["uid"], pod["spec"]["nodeName"], pod["status"]["podIPs"]


def test_labs_run_side_by_side(podplane: Podplane) -> None:
    podplane("up", "--nodes", "1", "--name", "one")
    podplane("up", "--nodes", "1", "--name", "two")
    podplane("run", "web", "--name", "one")
    assert "web" in podplane("get", "pods", "--name", "one").stdout
    assert "web" not in podplane("get", "pods", "--name", "two").stdout
    assert podplane("down", "--all").stdout.count("stopped") == 2
