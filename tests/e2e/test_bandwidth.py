"""Limits of bandwidth in a lab: what a limited pod receives and sends takes as long as it should, and nothing else does."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.conftest import Kubectl, until

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("bandwidth")]
INGRESS, EGRESS = "kubernetes.io/ingress-bandwidth", "kubernetes.io/egress-bandwidth"
RATE = 8_000_000
BYTES = 600_000
"""What is sent: 0.6 s at this rate, of which a burst of 10 ms passes at once."""
SERVER = """
import socket, threading, time
def serve(c):
    with c:
        asked = c.recv(1).decode()
        began = time.monotonic()
        if asked == "r":
            while c.recv(65536): pass
            c.sendall(f"{time.monotonic() - began}".encode())
        else:
            c.sendall(bytes(BYTES))
s = socket.create_server(("::", 5001), family=socket.AF_INET6, dualstack_ipv6=True)
while True:
    threading.Thread(target=serve, args=(s.accept()[0],)).start()
"""
CLIENT = """
import socket, sys, time
for ip in sys.argv[2:]:
    began = time.monotonic()
    with socket.create_connection((ip, 5001), 20) as c:
        if sys.argv[1] == "send":
            c.sendall(b"r" + bytes(BYTES))
            c.shutdown(socket.SHUT_WR)
            print(c.recv(100).decode())
        else:
            c.sendall(b"s")
            got = 0
            while data := c.recv(65536): got += len(data)
            assert got == BYTES, got
            print(time.monotonic() - began)
"""


def pod(name: str, node: str, command: list[str] | None = None, annotations: dict[str, str] | None = None) -> dict[str, Any]:
    main: dict[str, Any] = {"name": "main", "image": "podplane/client"}
    main |= {"image": "host/python3", "command": command} if command else {}
    spec = {"nodeName": node, "containers": [main]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "annotations": annotations or {}}, "spec": spec}


@pytest.fixture(scope="module")
def pods(kubectl: Kubectl) -> Iterator[None]:
    server = ["python3", "-c", SERVER.replace("BYTES", str(BYTES))]
    slow = pod("slow", "node1", server, {INGRESS: str(RATE), EGRESS: str(RATE)})
    bad = pod("bad", "node1", annotations={EGRESS: "fast"})
    on_host = pod("root", "node1", annotations={INGRESS: "1M"})
    on_host["spec"] |= {"hostNetwork": True}
    on_host["spec"]["containers"][0]["securityContext"] = {"privileged": True}
    items = [slow, bad, on_host, pod("free", "node1", server), pod("far", "node2")]
    ready = [one["metadata"]["name"] for one in items if one is not bad]
    try:
        kubectl("create", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))
        kubectl("wait", "--for=condition=Ready", *(f"pod/{name}" for name in ready), "--timeout=30s")
        yield
    finally:
        kubectl("delete", "pod", "--ignore-not-found", "--now", "bad", *ready)


def seconds(kubectl: Kubectl, what: str, to: str) -> list[float]:
    """How long it takes to send to a pod, or to receive from it, by each of its addresses."""
    status = json.loads(kubectl("get", "pod", to, "-o", "json"))["status"]
    ips = [one["ip"] for one in status["podIPs"]]
    assert len(ips) == 2
    program = CLIENT.replace("BYTES", str(BYTES))
    return [float(line) for line in kubectl("exec", "far", "--", "python3", "-c", program, what, *ips).split()]


@pytest.mark.parametrize("what", ["send", "receive"])
def test_a_limited_pod_is_as_slow_as_its_annotations_say(pods: None, kubectl: Kubectl, what: str) -> None:
    least = 0.95 * (BYTES * 8 / RATE - 0.01)
    assert min(seconds(kubectl, what, "slow")) > least
    assert min(seconds(kubectl, what, "free")) < least, "a pod without limits is not"


def test_the_shapers_are_on_the_node_and_come_back_when_somebody_deletes_them(pods: None, kubectl: Kubectl) -> None:
    def shown() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(kubectl("exec", "root", "--", "tc", "-j", "qdisc", "show"))
        return [one for one in found if one["kind"] in ("tbf", "clsact")]

    before = shown()
    assert sorted(one["kind"] for one in before) == ["clsact", "tbf", "tbf"]
    assert {one["options"]["rate"] for one in before if one["kind"] == "tbf"} == {RATE // 8}
    veth = next(one["dev"] for one in before if one["kind"] == "clsact")
    kubectl("exec", "root", "--", "tc", "qdisc", "delete", "dev", veth, "root")
    kubectl("exec", "root", "--", "tc", "qdisc", "delete", "dev", veth, "clsact")
    kubectl("exec", "root", "--", "ip", "link", "delete", f"{veth}i")
    until(lambda: sorted(map(str, shown())) == sorted(map(str, before)))
    until(lambda: "Repaired" in kubectl("get", "events", "--field-selector=involvedObject.name=node1", "-A", "-o", "json"))


def test_annotations_that_make_no_difference_are_told(pods: None, kubectl: Kubectl) -> None:
    def said(name: str) -> str:
        return kubectl("get", "events", f"--field-selector=involvedObject.name={name}", "-o", "json")

    until(lambda: f"annotation {EGRESS}: 'fast' is no quantity, such as 10M" in said("bad"))
    until(lambda: f"annotation {INGRESS} is not applied: the pod is in the node's own network" in said("root"))
