"""What root in a pod can't do to its neighbours, and to its node, by frames of its own; and what it still can."""

from __future__ import annotations

import itertools
import socket
import subprocess

import pytest

from podplane.state.mac import mac_of
from podplane.state.value import IPAddress
from tests.fake_cluster import ip, pod_ip
from tests.kernel import frames as f
from tests.kernel.frames import BROADCAST, Wire, frame, udp
from tests.kernel.test_policies import RealPoliced
from tests.policed import name_of

pytestmark = pytest.mark.kernel
BOTH = (4, 6)
ATTACKER, VICTIM, REMOTE = (1, 1), (1, 2), (2, 1)
PORT = 9999
GATEWAY = {4: ip("10.244.1.1"), 6: ip("fd00:10:244:1::1")}
GATEWAY_MAC = mac_of(GATEWAY[4])
OWN_MAC, VICTIM_MAC = (mac_of(pod_ip(*pod)) for pod in (ATTACKER, VICTIM))
ETHERTYPE = {4: f.IPV4, 6: f.IPV6}
FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}
OTHER_MAC = "0a:58:de:ad:be:ef"
NOWHERE = {4: ip("203.0.113.9"), 6: ip("2001:db8::9")}
OWN = {version: pod_ip(*ATTACKER, version) for version in BOTH}
ITS = {version: pod_ip(*VICTIM, version) for version in BOTH}


class Net:
    """A node with an attacker and a victim, and wires of both."""

    def __init__(self) -> None:
        self.cluster = RealPoliced()
        spaces = self.cluster.namespaces
        self.node, self.attacker, self.victim = spaces["node1"], spaces[name_of(*ATTACKER)], spaces[name_of(*VICTIM)]
        self.wire, self.tap = Wire(self.attacker), Wire(self.victim)
        self._last = itertools.count()

    def reach_victim(self, *sent: bytes) -> list[bytes]:
        """Those frames of the attacker, or like them but for their destination, that come to the victim."""
        last = f"the last one {next(self._last)}".encode()
        self.wire.send(*sent, frame(GATEWAY_MAC, OWN_MAC, f.IPV4, udp(OWN[4], ITS[4], (PORT, PORT), last)))
        return [one for one in self.tap.until(last) if f.MARK in one]

    def reach_node(self, version: int, *sent: bytes) -> list[str]:
        """The source addresses of datagrams to PORT that come to sockets of the node."""
        with f.receiver(self.node, FAMILY[version], PORT) as own:
            last = f"the last one {next(self._last)}".encode()
            self.wire.send(*sent)
            self.wire.send(
                frame(GATEWAY_MAC, OWN_MAC, ETHERTYPE[version], udp(OWN[version], GATEWAY[version], (PORT, PORT), last))
            )
            found = []
            while (came := own.recvfrom(100))[0] != last:
                found.append(came[1][0])
            return found

    def neighbours(self) -> set[str]:
        """Addresses in the node's neighbour tables on its pods' bridge, or on ports of it."""
        lines = _run("ip", "-4", "neigh", "show") + _run("ip", "-6", "neigh", "show")
        return {line.split()[0] for line in lines if " eth0 " not in line and not line.startswith("ff")}

    def entries(self) -> set[str]:
        """Of the bridge: who is where, who listens to what."""
        return {
            *_run("bridge", "fdb", "show", "br", "cbr0"),
            *_run("bridge", "mdb", "show", "dev", "cbr0"),
        }


def _run(*words: str) -> list[str]:
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()


def datagrams(source_mac: str, to_mac: str, sources: dict[int, IPAddress], to: dict[int, IPAddress]) -> list[bytes]:
    """One of each family."""
    return [frame(to_mac, source_mac, ETHERTYPE[v], udp(sources[v], to[v], (PORT, PORT))) for v in BOTH]


def test_a_pod_sends_by_no_other_mac_than_its_own() -> None:
    net = Net()
    before = net.entries()
    assert len(net.reach_victim(*datagrams(OWN_MAC, VICTIM_MAC, OWN, ITS))) == 2
    for mac in (VICTIM_MAC, OTHER_MAC, GATEWAY_MAC, BROADCAST):
        sent = [*datagrams(mac, VICTIM_MAC, OWN, ITS), *datagrams(mac, GATEWAY_MAC, OWN, ITS)]
        assert net.reach_victim(*sent) == [], mac
        for version in BOTH:
            to_node = udp(OWN[version], GATEWAY[version], (PORT, PORT))
            assert net.reach_node(version, frame(GATEWAY_MAC, mac, ETHERTYPE[version], to_node)) == [], mac
    flood = [frame(BROADCAST, f"0a:00:00:00:00:{n:02x}", f.IPV4, udp(OWN[4], ITS[4], (PORT, PORT))) for n in range(200)]
    assert net.reach_victim(*flood) == [] and net.entries() == before


def test_broadcasts_and_multicasts_of_a_pod_reach_no_other() -> None:
    net = Net()
    targets = [BROADCAST, "33:33:00:00:00:01", "01:00:5e:00:00:01", *(f"01:80:c2:00:00:{n:02x}" for n in range(16))]
    all_hosts = ({4: ip("255.255.255.255"), 6: ip("ff02::1")}, {4: ip("224.0.0.1"), 6: ip("ff02::16")})
    for to in targets:
        sent = [one for ips in all_hosts for one in datagrams(OWN_MAC, to, OWN, ips)]
        assert net.reach_victim(*sent, frame(to, OWN_MAC, f.ARP, f.MARK * 4)) == [], to


def test_frames_to_addresses_that_bridges_leave_alone_pass_the_same_rules() -> None:
    net = Net()
    before = net.neighbours()
    for number in range(16):
        to = f"01:80:c2:00:00:{number:02x}"
        forged = [frame(to, OTHER_MAC, ETHERTYPE[v], udp(NOWHERE[v], GATEWAY[v], (PORT, PORT))) for v in BOTH]
        for version in BOTH:
            assert net.reach_node(version, *forged) == [], to
        net.wire.send(frame(to, OTHER_MAC, f.ARP, f.arp(1, OTHER_MAC, ip("10.244.1.77"), BROADCAST, GATEWAY[4])))
    assert net.reach_victim() == [] and net.neighbours() == before
