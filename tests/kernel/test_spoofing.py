"""What root in a pod can't do to its neighbours, and to its node, by frames of its own; and what it still can."""

from __future__ import annotations

import itertools
import socket
import struct
import subprocess
import time

import pytest

from podplane.state.mac import mac_of
from podplane.state.value import IPAddress
from tests.fake_cluster import ip, node_ip, pod_ip
from tests.kernel import frames as f
from tests.kernel.frames import BROADCAST, Wire, frame, icmp6, link_local, packet, tagged, udp
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


def test_policies_judge_what_a_pod_sends_to_everybody_on_the_bridge() -> None:
    """Broadcasts and multicasts are confirmed connections at the node's own input, and what is confirmed passes."""
    net = Net()
    wide = {4: ip("255.255.255.255"), 6: ip("ff02::1")}
    for to in (BROADCAST, "33:33:00:00:00:01", "01:00:5e:00:00:01", "01:80:c2:00:00:02"):
        for version in BOTH:
            sent = [
                frame(to, OWN_MAC, ETHERTYPE[version], udp(OWN[version], at, (PORT, PORT)))
                for at in (wide[version], GATEWAY[version])
            ]
            assert net.reach_node(version, *sent) == [], (to, version)
        assert net.reach_victim(*datagrams(OWN_MAC, to, OWN, ITS)) == [], to


def test_the_mac_of_another_port_leads_nowhere() -> None:
    """Nor does a packet to it have what follows pass as of a connection that the kernel confirmed."""
    net = Net()
    ports = [line.split("link/ether ")[1].split()[0] for line in _run("ip", "-o", "link", "show", "master", "cbr0")]
    assert len(ports) >= 2
    to = [ITS, FOREIGN["another pod's link"], {4: ip("255.255.255.255"), 6: ip("ff02::1")}]
    for mac in (*ports, VICTIM_MAC, OTHER_MAC):
        for sources, at in itertools.product((OWN, NOWHERE, FOREIGN["a pod of another node"]), to):
            if (sources, at) != (OWN, ITS):
                first, then = (datagrams(OWN_MAC, by, sources, at) for by in (mac, GATEWAY_MAC))
                assert net.reach_victim(*first, *then) == [], (mac, sources, at)
        for version in BOTH:
            datagram = udp(NOWHERE[version], GATEWAY[version], (PORT, PORT))
            sent = [frame(by, OWN_MAC, ETHERTYPE[version], datagram) for by in (mac, GATEWAY_MAC)]
            assert net.reach_node(version, *sent) == [], mac


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


FOREIGN = {
    "another pod of the node": ITS,
    "a pod of another node": {version: pod_ip(*REMOTE, version) for version in BOTH},
    "the node": {version: node_ip(1, version) for version in BOTH},
    "another node": {version: node_ip(2, version) for version in BOTH},
    "the gateway": GATEWAY,
    "a Service": {4: ip("10.96.0.10"), 6: ip("fd00:10:96::10")},
    "the pods' network, of no pod": {4: ip("10.244.1.77"), 6: ip("fd00:10:244:1::77")},
    "outside": NOWHERE,
    "nobody": {4: ip("0.0.0.0"), 6: ip("::")},
    "the loopback": {4: ip("127.0.0.1"), 6: ip("::1")},
    "another pod's link": {4: ip("169.254.0.9"), 6: link_local(VICTIM_MAC)},
}


def ways(version: int, source: IPAddress, to: IPAddress) -> list[bytes]:
    """Packets from an address that is not one's own, as some filters let them pass."""
    datagram = udp(source, to, (PORT, PORT))
    content = datagram[40 if version == 6 else 20 :]
    if version == 4:
        options = {
            "record route": b"\x07\x07\x04" + bytes(4) + b"\x01",
            "source route": b"\x83\x07\x04" + ITS[4].packed + b"\x01",
        }
        inner = packet(source, to, 4, datagram)
        return [
            datagram,
            *(packet(source, to, f.UDP, content, options=o) for o in options.values()),
            inner,
            fragment4(datagram),
        ]
    headers = {0: b"\x11\x00\x01\x04" + bytes(4), 60: b"\x11\x00\x01\x04" + bytes(4), 43: b"\x11\x00\x04\x00" + bytes(4)}
    atomic_fragment = b"\x11\x00\x00\x00\x00\x00\x00\x01"
    extended = [
        packet(source, to, number, content, options=header) for number, header in {**headers, 44: atomic_fragment}.items()
    ]
    return [datagram, *extended, packet(source, to, 41, datagram)]


def fragment4(datagram: bytes) -> bytes:
    """The first fragment of it, of which no other follows."""
    changed = bytearray(datagram[:28])
    changed[2:4], changed[6:8], changed[10:12] = (28).to_bytes(2, "big"), b"\x20\x00", bytes(2)
    changed[10:12] = f.checksum(bytes(changed[:20])).to_bytes(2, "big")
    return bytes(changed) + f.MARK[:0]


def test_a_pod_sends_by_no_other_address_than_its_own() -> None:
    net = Net()
    before = net.neighbours()
    assert {
        len(net.reach_node(v, frame(GATEWAY_MAC, OWN_MAC, ETHERTYPE[v], udp(OWN[v], GATEWAY[v], (PORT, PORT))))) for v in BOTH
    } == {1}
    for whose, sources in FOREIGN.items():
        for version in BOTH:
            for at in (ITS, FOREIGN["a pod of another node"]):
                sent = [
                    frame(mac, OWN_MAC, ETHERTYPE[version], one)
                    for one in ways(version, sources[version], at[version])
                    for mac in (GATEWAY_MAC, VICTIM_MAC)
                ]
                assert net.reach_victim(*sent) == [], whose
            for at in (GATEWAY[version], node_ip(1, version)):
                to_node = [frame(GATEWAY_MAC, OWN_MAC, ETHERTYPE[version], one) for one in ways(version, sources[version], at)]
                assert net.reach_node(version, *to_node) == [], whose
    assert net.neighbours() == before


def no_valid(datagram: bytes) -> bytes:
    """The packet with a wrong checksum of UDP, which connection tracking takes for one of no connection."""
    at = datagram.index(f.MARK) - 1
    return datagram[:at] + bytes((datagram[at] ^ 1,)) + datagram[at + 1 :]


def answered(version: int, source: IPAddress) -> list[bytes]:
    """Packets that a router answers with an error, which quotes them (RFC 792, RFC 4443)."""
    remote = pod_ip(*REMOTE, version)
    found = [udp(source, at, (PORT, PORT), ttl=ttl) for at in (remote, NOWHERE[version]) for ttl in (0, 1)]
    if version == 6:
        unknown_option = b"\x11\x00\xbe\x04" + bytes(4)
        found.append(packet(source, remote, 0, udp(source, remote, (PORT, PORT))[40:], options=unknown_option))
        found.append(udp(source, link_local(OTHER_MAC), (PORT, PORT)))
        unused = FOREIGN["the pods' network, of no pod"][
            6
        ]  # connection tracking has nothing to do with these, nor has a checksum
        found += [icmp6(source, unused, kind, bytes(20) + f.MARK) for kind in (130, 135, 143)]
        found.append(packet(source, unused, 59, f.MARK))
    else:
        broken_option = b"\x07\xc8\x04\0"
        found.append(packet(source, remote, f.UDP, udp(source, remote, (PORT, PORT))[20:], options=broken_option))
    return [*found, *map(no_valid, found)]


def test_the_node_sends_no_errors_to_whose_address_a_pod_borrows() -> None:
    """They would carry what a pod sends past all policies: to another pod of the node, or out of the cluster."""
    net = Net()
    other_node = Wire(net.cluster.namespaces["node2"])
    for version in BOTH:
        for whose in ("another pod of the node", "a pod of another node", "another node"):
            forged = answered(version, FOREIGN[whose][version])
            assert net.reach_victim(*(frame(GATEWAY_MAC, OWN_MAC, ETHERTYPE[version], one) for one in forged)) == [], whose
    last = b"the last one to another node"
    net.wire.send(frame(GATEWAY_MAC, OWN_MAC, f.IPV4, udp(OWN[4], pod_ip(*REMOTE), (PORT, PORT), last)))
    assert [one for one in other_node.until(last) if f.MARK in one] == []


def halves(source: IPAddress, to: IPAddress) -> list[bytes]:
    """Two fragments of a datagram (RFC 791, RFC 8200)."""
    whole = udp(source, to, (PORT, PORT), f.MARK * 4)[40 if to.version == 6 else 20 :]
    found = []
    for part, place in ((whole[:24], 1 if to.version == 6 else 0x2000), (whole[24:], 24 if to.version == 6 else 3)):
        if to.version == 6:
            header = struct.pack(">BBHI", f.UDP, 0, place, 4711)
            found.append(packet(source, to, 44, part, options=header))
        else:
            one = bytearray(packet(source, to, f.UDP, part))
            one[6:8], one[10:12] = struct.pack(">H", place), bytes(2)
            one[10:12] = f.checksum(bytes(one[:20])).to_bytes(2, "big")
            found.append(bytes(one))
    return found


def test_a_fragment_of_one_pod_is_put_together_with_none_of_another() -> None:
    """The kernel does that before anybody looks at who sent them, and the first one alone has a sender then."""
    net = Net()
    for version in BOTH:
        first, second = halves(ITS[version], GATEWAY[version])
        for whose, completes in ((net.wire, False), (net.tap, True)):
            mac = OWN_MAC if whose is net.wire else VICTIM_MAC
            with f.receiver(net.node, FAMILY[version], PORT) as own:
                net.tap.send(frame(GATEWAY_MAC, VICTIM_MAC, ETHERTYPE[version], first))
                whose.send(frame(GATEWAY_MAC, mac, ETHERTYPE[version], second))
                last = udp(OWN[version], GATEWAY[version], (PORT, PORT), b"last")
                net.wire.send(frame(GATEWAY_MAC, OWN_MAC, ETHERTYPE[version], last))
                assert own.recv(100) == (f.MARK * 4 if completes else b"last"), version


def test_the_node_tells_nobody_of_fragments_that_a_pod_sent_by_a_borrowed_address() -> None:
    net = Net()
    for name in ("net.ipv4.ipfrag_time", "net.ipv6.ip6frag_time"):
        net.node.run(_run, "sysctl", "-qw", f"{name}=1")
    sent = [halves(ITS[version], GATEWAY[version])[0] for version in BOTH]
    net.wire.send(*(frame(GATEWAY_MAC, OWN_MAC, ETHERTYPE[v], one) for v, one in zip(BOTH, sent, strict=True)))
    time.sleep(1.5)
    assert net.reach_victim() == []


def test_a_pod_makes_no_path_of_the_node_narrow() -> None:
    """ICMP errors about an answer of the node, which it never sent, need no socket there to be believed (icmp_err)."""
    net = Net()
    peers = {version: node_ip(2, version) for version in BOTH}
    paths = {version: _run("ip", "route", "get", str(peers[version])) for version in BOTH}
    for version, kind, answer in ((4, b"\x03\x04", b"\0\0"), (6, b"\x02\0", b"\x81\0")):
        quoted = packet(
            node_ip(1, version), peers[version], 1 if version == 4 else f.ICMP6, answer + bytes(2) + b"\0\x4d\0\1" + f.MARK
        )
        mtu = struct.pack(">HH", 0, 576) if version == 4 else struct.pack(">I", 1280)
        for to in (node_ip(1, version), GATEWAY[version]):
            if version == 6:
                error = icmp6(OWN[6], to, 2, mtu + quoted, ttl=64)
            else:
                message = kind + bytes(2) + mtu + quoted
                error = packet(
                    OWN[4], to, 1, kind + f.checksum(message + bytes(len(message) % 2)).to_bytes(2, "big") + mtu + quoted
                )
            net.wire.send(frame(GATEWAY_MAC, OWN_MAC, ETHERTYPE[version], error))
        assert net.reach_node(version) == []
    for version in BOTH:
        path = _run("ip", "route", "get", str(peers[version]))
        assert path == paths[version] and "mtu" not in " ".join(path), path


def test_the_node_tells_a_pod_of_errors_of_its_own_packets() -> None:
    net = Net()
    own = Wire(net.attacker)
    for version in BOTH:
        for datagram in (expired := udp(OWN[version], pod_ip(*REMOTE, version), (PORT, PORT), ttl=1), no_valid(expired)):
            net.wire.send(frame(GATEWAY_MAC, OWN_MAC, ETHERTYPE[version], datagram))
            own.until(f.MARK)


def neighbour_messages(source: IPAddress, to: IPAddress) -> list[bytes]:
    """Of RFC 4861, each as if the attacker's MAC had the addresses of others."""
    own = f.mac_bytes(OWN_MAC)
    target = [(GATEWAY[6].packed), ITS[6].packed, link_local(VICTIM_MAC).packed]
    answers = [icmp6(source, to, 136, b"\x60\0\0\0" + one + b"\x02\x01" + own + f.MARK) for one in target]
    asks = [icmp6(source, to, 135, bytes(4) + one + b"\x01\x01" + own + f.MARK) for one in target]
    router = icmp6(source, to, 134, b"\x40\0\x07\x08" + bytes(8) + b"\x01\x01" + own + f.MARK)
    redirect = icmp6(source, to, 137, bytes(4) + GATEWAY[6].packed + NOWHERE[6].packed + f.MARK)
    behind = [packet(source, to, 60, b"", options=b"\x3a\x00\x01\x04" + bytes(4) + router[40:], ttl=255)]
    return [*answers, *asks, router, redirect, *behind]


def test_a_pod_says_nothing_about_who_has_an_address() -> None:
    net = Net()
    neighbours, entries, routes = net.neighbours(), net.entries(), _run("ip", "-6", "route", "show")
    sources = [OWN[6], link_local(OWN_MAC), ITS[6], GATEWAY[6], link_local(GATEWAY_MAC), link_local(VICTIM_MAC), ip("::")]
    for source in sources:
        for to, macs in (
            (ip("ff02::1"), ("33:33:00:00:00:01", VICTIM_MAC)),
            (ITS[6], (VICTIM_MAC, GATEWAY_MAC)),
            (GATEWAY[6], (GATEWAY_MAC,)),
        ):
            sent = [frame(mac, OWN_MAC, f.IPV6, one) for mac in macs for one in neighbour_messages(source, to)]
            assert net.reach_victim(*sent) == [], (source, to)
    flood = [
        icmp6(ip(f"fe80::{n:x}"), GATEWAY[6], 135, bytes(4) + GATEWAY[6].packed + b"\x01\x01" + f.mac_bytes(OWN_MAC))
        for n in range(1, 300)
    ]
    listeners = [
        icmp6(link_local(OWN_MAC), ip("ff02::16"), 143, b"\0\0\0\x01\x04\0\0\0" + ip(f"ff05::{n:x}").packed, ttl=1)
        for n in range(1, 100)
    ]
    groups = [
        packet(OWN[4], ip(f"239.0.0.{n}"), 2, b"\x16\x00\x00\x00" + ip(f"239.0.0.{n}").packed, ttl=1) for n in range(1, 100)
    ]
    net.reach_victim(*(frame(GATEWAY_MAC, OWN_MAC, f.IPV6, one) for one in flood))
    net.reach_victim(*(frame("33:33:00:00:00:16", OWN_MAC, f.IPV6, one) for one in listeners))
    net.reach_victim(*(frame("01:00:5e:00:00:16", OWN_MAC, f.IPV4, one) for one in groups))
    assert (net.neighbours(), net.entries(), _run("ip", "-6", "route", "show")) == (neighbours, entries, routes)
    assert not [line for line in _run("ip", "-6", "address", "show", "dev", "cbr0") if "dynamic" in line]


def test_a_pod_is_no_dhcp_server_of_its_neighbours() -> None:
    net = Net()
    for version, (server, client) in {4: (67, 68), 6: (547, 546)}.items():
        for ports, came in (((server, client), 0), ((server, client + 1), 1), ((server + 1, client), 1)):
            sent = frame(GATEWAY_MAC, OWN_MAC, ETHERTYPE[version], udp(OWN[version], ITS[version], ports))
            assert len(net.reach_victim(sent)) == came, ports


def test_pods_still_resolve_their_gateway() -> None:
    net = Net()
    net.attacker.run(_run, "ip", "neigh", "flush", "dev", "eth0", "nud", "all")
    assert len(net.reach_victim(*datagrams(OWN_MAC, VICTIM_MAC, OWN, ITS))) == 2
    for version in BOTH:
        own = net.attacker.run(socket.socket, FAMILY[version], socket.SOCK_DGRAM)
        with own, f.receiver(net.node, FAMILY[version], PORT) as node:
            own.sendto(f.MARK, (str(GATEWAY[version]), PORT))
            assert node.recv(100) == f.MARK
    link = net.attacker.run(socket.if_nametoindex, "eth0")
    with net.attacker.run(socket.socket, socket.AF_INET6, socket.SOCK_DGRAM) as own:
        own.sendto(f.MARK, (str(link_local(GATEWAY_MAC)), PORT, 0, link))
    net.reach_victim()
    known = net.attacker.run(_run, "ip", "-6", "neigh", "show", "dev", "eth0")
    assert [line for line in known if line.startswith(f"{link_local(GATEWAY_MAC)} lladdr {GATEWAY_MAC}")]


def test_a_pod_says_by_arp_nothing_but_its_own_address_and_to_nobody_but_its_gateway() -> None:
    net = Net()
    before = net.neighbours()
    told = [(OWN_MAC, ITS[4]), (OWN_MAC, GATEWAY[4]), (VICTIM_MAC, ITS[4]), (OTHER_MAC, OWN[4]), (OWN_MAC, ip("10.244.1.77"))]
    for operation in (1, 2):
        for mac, address in told:
            for to in (VICTIM_MAC, GATEWAY_MAC, BROADCAST):
                content = f.arp(operation, mac, address, GATEWAY_MAC, GATEWAY[4]) + f.MARK
                assert net.reach_victim(frame(to, OWN_MAC, f.ARP, content)) == [], (operation, mac, address)
    own = [f.arp(operation, OWN_MAC, OWN[4], BROADCAST, OWN[4]) + f.MARK for operation in (1, 2)]
    assert net.reach_victim(*(frame(to, OWN_MAC, f.ARP, one) for one in own for to in (VICTIM_MAC, BROADCAST))) == []
    flood = [f.arp(1, OWN_MAC, ip(f"10.{a}.{b}.9"), BROADCAST, GATEWAY[4]) for a in range(20) for b in range(20)]
    net.reach_victim(*(frame(BROADCAST, OWN_MAC, f.ARP, one) for one in flood))
    assert net.neighbours() == before


def test_nothing_but_ip_and_arp_leaves_a_pod() -> None:
    net = Net()
    plain = datagrams(OWN_MAC, VICTIM_MAC, OWN, ITS)
    assert len(net.reach_victim(*plain)) == 2
    for kind in (f.VLAN, f.QINQ):
        for vlan in (0, 1, 7, 0xE000):
            assert net.reach_victim(*(tagged(one, vlan, kind) for one in plain)) == [], (kind, vlan)
            assert net.reach_victim(*(tagged(tagged(one, vlan), vlan, kind) for one in plain)) == []
    spanning_tree, others = b"\x42\x42\x03" + f.MARK, (0x88CC, 0x8863, 0x8864, 0x8847, 0x888E, 0x8906, 0x88A2, 0x0027, 0x9000)
    for to in (VICTIM_MAC, BROADCAST, "01:80:c2:00:00:00"):
        assert net.reach_victim(*(frame(to, OWN_MAC, kind, spanning_tree) for kind in others)) == [], to
