"""An agent's process on a machine: what it opens again after a crash, and what it does without an API, which is nothing."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from podplane.cni.network import Attachment
from podplane.kernel.namespace import NetworkNamespace, Workers
from podplane.machine.host import MachineHost
from podplane.machine.journal import Journal

pytestmark = pytest.mark.kernel
IPS = ("10.244.1.2",)


def attachment(name: str, namespace: NetworkNamespace, path: str) -> Attachment:
    return Attachment(name, f"uid-{name}", "default", name, namespace, netns_path=path)


def test_what_is_attached_is_found_again_by_its_namespace(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    workers, journal = Workers(1), Journal(tmp_path / "journal")
    host = MachineHost(journal, workers)
    kept, gone, another = (NetworkNamespace.create(workers) for _ in range(3))
    for name, one in (("kept", kept), ("gone", gone), ("another", another)):
        host.attaching(attachment(name, one, f"/proc/self/fd/{one.fd}"), IPS)
    host.attaching(attachment("nowhere", kept, "/run/netns/none"), IPS)
    gone.close()
    number = another.fd
    with NetworkNamespace.create(workers) as other:
        os.dup2(other.fd, number)
    found = MachineHost(Journal(tmp_path / "journal"), workers)
    assert [(request.name, ips) for request, ips in found.attached()] == [("kept", IPS)]
    ((request, _),) = found.attached()
    assert request.netns is found.found["kept", "eth0"] and found.found["kept", "eth0"].cookie == kept.cookie
    assert list(Journal(tmp_path / "journal").attachments) == [("kept", "eth0")], "what is gone is detached"
    assert "is another namespace by now" in caplog.text and "none: No such file" in caplog.text


def shown(*words: str) -> str:
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout


STRANGERS = """
ip link set lo up && ip link add dummy0 type bridge && ip link set dummy0 up && ip addr add 10.9.9.9/24 dev dummy0
ip route add 10.244.7.0/24 via 10.9.9.8 && ip neighbour add 10.9.9.7 lladdr 02:00:00:00:00:07 dev dummy0
nft 'add table inet theirs; add chain inet theirs c { type filter hook input priority 0; }; add rule inet theirs c accept'
"""


def state() -> tuple[str, ...]:
    """All that there is, in the words of others' tools; sysctls of the namespace, too."""
    sysctls = shown(
        "sh", "-c", "cat /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv4/conf/*/* /proc/sys/net/ipv6/conf/*/forwarding"
    )
    listed = (shown("ip", what) for what in ("link", "address", "rule", "neighbour"))
    return (*listed, shown("ip", "route", "show", "table", "all"), shown("nft", "list", "ruleset"), sysctls)


def asked(path: str) -> tuple[int, str]:
    """The status and the body of an answer over HTTP."""
    connection = http.client.HTTPConnection("127.0.0.1", 10256, timeout=30)
    connection.request("GET", f"/{path}")
    answer = connection.getresponse()
    return answer.status, answer.read().decode()


def test_without_an_api_it_waits_and_says_so_and_nothing_is_changed(tmp_path: Path) -> None:
    subprocess.run(["sh", "-ec", STRANGERS], check=True)
    before = state()
    server = {"server": "https://127.0.0.1:1"}
    kubeconfig = {
        "clusters": [{"name": "c", "cluster": server}],
        "users": [{"name": "u", "user": {"token": "t"}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    (tmp_path / "kubeconfig").write_text(json.dumps(kubeconfig))
    (tmp_path / "config").write_text(json.dumps({"network": {"cluster_cidrs": ["10.244.0.0/16"]}}))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "n"))
        manager.settimeout(60)
        words = ["agent", "--kubeconfig", str(tmp_path / "kubeconfig"), "--config", str(tmp_path / "config")]
        words += ["--node-name", "worker-1", "--run-dir", str(tmp_path / "run")]
        environment = os.environ | {"NOTIFY_SOCKET": str(tmp_path / "n")}
        agent = subprocess.Popen([sys.executable, "-m", "podplane", *words], env=environment, stderr=subprocess.PIPE, text=True)
        try:
            assert manager.recv(1000).startswith(b"STATUS=waiting for the API: the API at 127.0.0.1:1 does not answer")
            assert [asked(path)[0] for path in ("livez", "healthz", "readyz", "status")] == [200, 503, 503, 404]
            assert "waiting for the API" in asked("readyz")[1]
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
                caller.connect(str(tmp_path / "run" / "cni.sock"))
                request = b'CNI_COMMAND=STATUS\0\0{"cniVersion": "1.1.0", "name": "n", "type": "podplane-cni"}'
                caller.sendall(len(request).to_bytes(4, "big") + request)
                answer = caller.makefile("rb").read()
            assert answer[:1] == b"\1" and json.loads(answer[1:])["code"] == 50
        finally:
            agent.send_signal(signal.SIGTERM)
            _, said = agent.communicate(timeout=60)
        assert agent.returncode == 0, said
        assert manager.recv(1000) == b"STOPPING=1"
    assert "waiting for the API" in said and "Traceback" not in said
    assert state() == before
