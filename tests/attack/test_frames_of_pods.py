"""Frames that root in a pod of a lab may write: policies hold for all of them, and nothing of them reaches whom these keep it from."""

from __future__ import annotations

import ipaddress
import itertools
import json
from collections.abc import Iterator
from typing import Any

import pytest

from podplane.state.mac import link_local_of, mac_of
from podplane.state.value import IPAddress
from tests.e2e.conftest import Kubectl, Podplane, running, until
from tests.kernel import frames as f

pytestmark = pytest.mark.e2e
PORT, ETHERTYPE, VERSIONS = 9999, {4: f.IPV4, 6: f.IPV6}, (4, 6)
LISTEN = """
import select, socket
own = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)); own.bind(("eth0", 3))
while True:
    content, (_, _, direction, *_) = own.recvfrom(4000)
    if b"<<" in content and direction != socket.PACKET_OUTGOING:
        print(content.split(b"<<")[1].split(b">>")[0].decode(), flush=True)
"""
SEND = """
import socket, sys, time
own = socket.socket(socket.AF_PACKET, socket.SOCK_RAW); own.bind(("eth0", 0))
for number, line in enumerate(sys.stdin):
    own.send(bytes.fromhex(line)); time.sleep(number % 20 == 0 and 0.01)
"""
SAY = """
import socket, sys
for ip in sys.argv[2:]:
    family = socket.AF_INET6 if ":" in ip else socket.AF_INET
    socket.socket(family, socket.SOCK_DGRAM).sendto(f"<<{sys.argv[1]}>>".encode(), (ip, 9999))
"""
NODES = {"attacker": "node1", "victim": "node1", "friend": "node1", "far": "node2"}
"""Pods; one keeps all but `friend` from the two that it may talk to, and `attacker` from everybody."""


def policy(name: str, pods: dict[str, Any], **spec: Any) -> dict[str, Any]:
    api = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": name}}
    return api | {"spec": {"podSelector": pods, **spec}}


POLICIES = [
    policy("nothing-out", {"matchLabels": {"run": "attacker"}}, policyTypes=["Egress"]),
    policy(
        "friends-in",
        {"matchExpressions": [{"key": "run", "operator": "In", "values": ["victim", "far"]}]},
        ingress=[{"from": [{"podSelector": {"matchLabels": {"run": "friend"}}}]}],
    ),
]


class Net:
    """A lab with these pods, the policies, and a Service of both families without endpoints."""

    def __init__(self, lab: Podplane, kubectl: Kubectl) -> None:
        self.lab, self._kubectl = lab, kubectl
        for name, node in NODES.items():
            container = {"name": "main", "image": "host/python3", "command": ["python3", "-uc", LISTEN]}
            metadata = {"name": name, "labels": {"run": name}}
            lab.api.create("pods", "default", {"metadata": metadata, "spec": {"nodeName": node, "containers": [container]}})
        for _ in lab.api.poll("pods", "default", lambda pods: all(one["status"].get("phase") == "Running" for one in pods), 10):
            pass
        for one in POLICIES:
            lab.api.create("networkpolicies.networking.k8s.io", "default", one)
        spec = {"ipFamilyPolicy": "PreferDualStack", "selector": {"run": "nobody"}, "ports": [{"port": 80, "protocol": "UDP"}]}
        empty = lab.api.create("services", "default", {"metadata": {"name": "empty"}, "spec": spec})
        self.service = {address.version: address for address in map(ipaddress.ip_address, empty["spec"]["clusterIPs"])}
        self.ips = {name: self._ips(name) for name in NODES}
        self.ports = lab.on_node("node1", "cat /sys/class/net/*/address").split()

    def _ips(self, pod: str) -> dict[int, IPAddress]:
        status = self.lab.api.get("pods", "default", pod)["status"]
        return {address.version: address for address in (ipaddress.ip_address(one["ip"]) for one in status["podIPs"])}

    def heard(self, pod: str) -> list[str]:
        """What it has been sent, by what is in it."""
        return self._kubectl("logs", pod).split("\n")

    def say(self, sender: str, text: str, *to: str) -> None:
        """Send a datagram to pods as programs do."""
        ips = [str(ip) for pod in to for ip in self.ips[pod].values()]
        self.lab("exec", sender, "--", "python3", "-c", SAY, text, *ips)


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Net]:
    with running(tmp_path_factory, "--nodes", "2") as lab:
        yield Net(lab, Kubectl(lab, tmp_path_factory.mktemp("home")))


def frames(net: Net) -> Iterator[tuple[str, bytes]]:
    """Each with what it says: first to some MAC, then the same packet again to the gateway's, as if the first had begun a connection."""
    own, gateway = mac_of(net.ips["attacker"][4]), mac_of(ipaddress.ip_address("10.244.1.1"))
    macs = {"gateway": gateway, "victim": mac_of(net.ips["victim"][4]), "nobody": "0a:58:de:ad:be:ef", "all": f.BROADCAST}
    macs |= {f"port{n}": mac for n, mac in enumerate(net.ports)}
    outside: dict[int, IPAddress] = {4: ipaddress.ip_address("203.0.113.9"), 6: ipaddress.ip_address("2001:db8::9")}
    sources = {**{name: net.ips[name] for name in NODES}, "outside": outside}
    to = {"victim": net.ips["victim"], "far": net.ips["far"], "service": net.service}
    to["link"] = {4: net.ips["victim"][4], 6: link_local_of(macs["victim"])}
    for number, (mac, source, at) in enumerate(itertools.product(macs, sources, to)):
        for version, ttl in itertools.product(VERSIONS, (64, 1)):
            ports = 20000 + 2 * number + (ttl == 1), 80 if at == "service" else PORT
            text = f"{source} to {at}, by the MAC of {mac}, TTL {ttl}, IPv{version}"
            packet = f.udp(sources[source][version], to[at][version], ports, f"<<{text}>>".encode(), ttl=ttl)
            yield text, f.frame(macs[mac], own, ETHERTYPE[version], packet)
            yield text, f.frame(gateway, own, ETHERTYPE[version], packet)


def test_no_frame_of_a_pod_goes_past_policies(net: Net) -> None:
    for victim in ("victim", "far"):
        net.say("attacker", "plainly", victim)
        net.say("friend", "before", victim)
    lines = "".join(f"{content.hex()}\n" for _, content in frames(net))
    net.lab("exec", "-i", "attacker", "--", "python3", "-c", SEND, stdin=lines)
    for victim in ("victim", "far"):
        net.say("friend", "after", victim)
        until(lambda victim=victim: net.heard(victim).count("after") == len(VERSIONS))  # type: ignore[misc]  # bound now
        assert set(net.heard(victim)) <= {"before", "after", ""}
        assert net.heard(victim).count("before") == len(VERSIONS)
    assert set(net.heard("friend")) <= {"before", "after", ""}, "nor errors about what its address was borrowed for"

    until(lambda: {"attacker", "victim"} <= set(denied(net)))


def denied(net: Net) -> Iterator[str]:
    """The pods from whose addresses something was tried, as users are told."""
    for line in net.lab("policy", "denied", "-o", "json").stdout.splitlines():
        yield json.loads(line)["from"].get("pod", "").rpartition("/")[2]
