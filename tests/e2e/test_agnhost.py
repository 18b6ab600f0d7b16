"""agnhost as Kubernetes' network and node tests use it: pods of its image on a lab, and what they say, by kubectl."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Kubectl

pytestmark = pytest.mark.e2e
IMAGE = "registry.k8s.io/e2e-test-images/agnhost:2.53"


def pod(name: str, *args: str, command: list[str] | None = None, **container: Any) -> dict[str, Any]:
    """A pod of agnhost's image that is not started again."""
    main = {"name": "main", "image": IMAGE, "args": list(args), **({"command": command} if command else {}), **container}
    spec = {"restartPolicy": "Never", "containers": [main], "terminationGracePeriodSeconds": 0}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}


def ended(kubectl: Kubectl, name: str, phase: str = "Succeeded") -> str:
    """What a pod said that has ended."""
    kubectl("wait", f"--for=jsonpath={{.status.phase}}={phase}", "--timeout=20s", f"pod/{name}")
    return kubectl("logs", name)


@pytest.fixture(scope="module")
def server(kubectl: Kubectl) -> str:
    """A pod that runs netexec."""
    kubectl("create", "-f", "-", stdin=json.dumps(pod("server", "netexec")))
    kubectl("wait", "--for=condition=Ready", "--timeout=20s", "pod/server")
    return "server"


def test_an_entry_point_sees_its_own_words(kubectl: Kubectl) -> None:
    words = {"defaults": ([], ["entrypoint-tester"]), "both": (["/agnhost-2", "entrypoint-tester"], ["a b"])}
    for name, (command, args) in words.items():
        kubectl("create", "-f", "-", stdin=json.dumps(pod(name, *args, command=command)))
    assert ended(kubectl, "defaults") == "[/agnhost entrypoint-tester]\n"
    assert ended(kubectl, "both") == "[/agnhost-2 entrypoint-tester a b]\n"


def test_agnhost_is_a_program_for_an_exec_and_for_a_shell(kubectl: Kubectl, server: str) -> None:
    assert kubectl("exec", server, "--", "/agnhost", "connect", "127.0.0.1:8080") == ""
    said = kubectl("exec", server, "--", "/bin/sh", "-x", "-c", "/agnhost connect --timeout=3s 127.0.0.1:1", code=1)
    assert "REFUSED" in said
    assert "unknown command" in kubectl("exec", server, "--", "/agnhost", "nonsense", code=1)
    assert kubectl("exec", server, "--", "sh", "-c", "head -1 /localhost.crt") == "-----BEGIN CERTIFICATE-----\n"
    moved = "mv /localhost.crt /tmp/ && ! [ -e /localhost.crt ] && mv /tmp/localhost.crt / && echo back"
    assert kubectl("exec", server, "--", "sh", "-c", moved) == "back\n", "tests of StatefulSets break a probe so"


def test_processes_are_seen_as_themselves(kubectl: Kubectl, server: str) -> None:
    assert kubectl("exec", server, "--", "cat", "/proc/1/comm") == "agnhost\n"
    assert kubectl("exec", server, "--", "cat", "/proc/1/cmdline") == "/agnhost\0netexec\0"
    assert "HOSTNAME=server\0" in kubectl("exec", server, "--", "cat", "/proc/1/environ")


@pytest.mark.parametrize(("protocol", "port"), [("http", 8080), ("udp", 8081)])
def test_serverport_in_dial(kubectl: Kubectl, server: str, protocol: str, port: int) -> None:
    target = f"http://127.0.0.1:8080/dial?request=serverport&protocol={protocol}&host=127.0.0.1&port={port}&tries=1"
    assert json.loads(kubectl("exec", server, "--", "curl", "-gs", target)) == {"responses": [str(port)]}


def test_the_files_of_etc_are_the_pods(kubectl: Kubectl, server: str) -> None:
    assert kubectl("exec", server, "--", "cat", "/etc/hostname") == "server\n"
    hosts = kubectl("exec", server, "--", "/agnhost", "etc-hosts")
    assert hosts.startswith("# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n")
    assert "\tserver\n" in hosts


def test_the_files_of_etc_in_the_nodes_network(kubectl: Kubectl) -> None:
    one = pod("on-node")
    one["spec"] |= {"hostNetwork": True, "nodeName": "node2", "hostAliases": [{"ip": "192.0.2.7", "hostnames": ["a", "b"]}]}
    kubectl("create", "-f", "-", stdin=json.dumps(one))
    kubectl("wait", "--for=condition=Ready", "--timeout=20s", "pod/on-node")
    assert kubectl("exec", "on-node", "--", "cat", "/etc/hostname") == "node2\n"
    hosts = kubectl("exec", "on-node", "--", "cat", "/etc/hosts")
    assert hosts.startswith("# Kubernetes-managed hosts file (host network).\n" + Path("/etc/hosts").read_text())
    assert hosts.endswith("# Entries added by HostAliases.\n192.0.2.7\ta\tb\n")


def events(kubectl: Kubectl, name: str) -> str:
    """The messages of a pod's events."""
    return kubectl("get", "events", f"--field-selector=involvedObject.name={name}", "-o", "jsonpath={.items[*].message}")


def test_probes_over_grpc(kubectl: Kubectl) -> None:
    probe = {"grpc": {"port": 5000, "service": "shop"}, "periodSeconds": 1, "failureThreshold": 1}
    one = pod("health", "grpc-health-checking", "--service=shop", readinessProbe=probe)
    kubectl("create", "-f", "-", stdin=json.dumps(one))
    kubectl("wait", "--for=condition=Ready", "--timeout=20s", "pod/health")
    kubectl("exec", "health", "--", "curl", "-sf", "http://127.0.0.1:8080/make-not-serving")
    kubectl("wait", "--for=condition=Ready=False", "--timeout=20s", "pod/health")
    assert 'Readiness probe failed: service unhealthy (responded with "NOT_SERVING")' in events(kubectl, "health")
    kubectl("exec", "health", "--", "curl", "-sf", "http://127.0.0.1:8080/make-serving")
    kubectl("wait", "--for=condition=Ready", "--timeout=20s", "pod/health")


def test_a_grpc_probe_that_fails_restarts_the_container(kubectl: Kubectl) -> None:
    probe = {"grpc": {"port": 2333}, "periodSeconds": 1, "failureThreshold": 1}
    one = pod("ill", "grpc-health-checking", livenessProbe=probe)
    one["spec"]["restartPolicy"] = "Always"
    kubectl("create", "-f", "-", stdin=json.dumps(one))
    kubectl("wait", "--for=jsonpath={.status.containerStatuses[0].restartCount}=1", "--timeout=30s", "pod/ill")
    said = events(kubectl, "ill")
    assert "Liveness probe failed: timeout: failed to connect service" in said
    assert ':2333" within 1s: context deadline exceeded' in said


def test_a_grpc_probe_has_the_number_of_a_port(kubectl: Kubectl) -> None:
    one = pod("named", "grpc-health-checking", readinessProbe={"grpc": {"port": "grpc"}})
    assert "port" in kubectl("create", "-f", "-", stdin=json.dumps(one), code=1)


def test_redirects_of_probes(kubectl: Kubectl) -> None:
    probes = {
        "here": "/redirect?location=/echo%3Fcode%3D500%26msg%3Dill",
        "away": "/redirect?location=http%3A%2F%2F192.0.2.1%2F",
    }
    for name, path in probes.items():
        probe = {"httpGet": {"path": path, "port": 8080}, "periodSeconds": 1, "failureThreshold": 1}
        kubectl("create", "-f", "-", stdin=json.dumps(pod(name, "netexec", readinessProbe=probe)))
    kubectl("wait", "--for=condition=Ready", "--timeout=20s", "pod/away")
    assert "Readiness probe warning: Probe terminated redirects" in events(kubectl, "away")
    kubectl("wait", "--for=condition=Ready=False", "--timeout=20s", "pod/here")
    for _ in range(50):
        if "HTTP probe failed with statuscode: 500" in events(kubectl, "here"):
            return
    raise AssertionError(events(kubectl, "here"))


def test_programs_that_ask_the_api(kubectl: Kubectl) -> None:
    kubectl("create", "-f", "-", stdin=json.dumps(pod("client", "inclusterclient", "--poll-interval=1")))
    peer = pod("peer", "nettest", "--peers=1", "--service=peers")
    peer["metadata"]["labels"] = {"app": "peers"}
    kubectl("create", "-f", "-", stdin=json.dumps(peer))
    kubectl("wait", "--for=condition=Ready", "--timeout=20s", "pod/client", "pod/peer")
    kubectl("expose", "pod", "peer", "--name=peers", "--port=80", "--target-port=8080")
    script = 'for i in $(seq 40); do [ "$(curl -s localhost:8080/status)" = pass ] && exit 0; sleep 0.5; done; exit 1'
    kubectl("exec", "peer", "--", "sh", "-c", script)
    said = kubectl("logs", "client")
    assert "authz_header=" in said
    assert "status=failed" not in said


def test_the_image_has_a_certificate_for_tls(kubectl: Kubectl) -> None:
    env = [{"name": "SERVE_TLS_PORT_443", "value": "over TLS"}]
    kubectl("create", "-f", "-", stdin=json.dumps(pod("tls", "porter", env=env)))
    kubectl("wait", "--for=condition=Ready", "--timeout=20s", "pod/tls")
    assert kubectl("exec", "tls", "--", "curl", "-s", "--cacert", "/localhost.crt", "https://localhost/") == "over TLS"
