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
