"""What connection tracking calls invalid it does not translate: it disturbs no connection, and arrives nowhere as it is."""

from __future__ import annotations

import contextlib
import itertools
import socket
import struct
from collections.abc import Iterator
from typing import NamedTuple

import msgspec
import pytest

from podplane.kernel.namespace import Namespace
from podplane.model.service import Ingress, LoadBalancerStatus, ServicePort, ServiceStatus
from podplane.trace.packet import checksum
from tests.fake_cluster import endpoints, node_ip, outside_ip, pod_ip, service
from tests.kernel.cluster import ACK, FIN, PUSH, RESET, SYN, RealCluster, Talk, seen, send_raw

pytestmark = pytest.mark.kernel
FAR = 1 << 30
VIP = {4: "10.96.0.10", 6: "fd00:10:96::10"}
BALANCER = {4: "192.0.2.8", 6: "2001:db8::8"}
SERVING, OTHER = 8080, 8081
UNREACHABLE = {4: bytes((3, 3)), 6: bytes((1, 4))}
"""Type and code of ICMP: nobody is at this port."""
CASES = [*itertools.product((4, 6), (False, True))]
"""IP version; does the client send it?"""


class Way(NamedTuple):
    """A client, an address of the Service ("" for the pod's own), and the endpoint."""

    client: str
    address: str
    pod: tuple[int, int]


WAYS = [
    Way("node1-pod1", "cluster IP", (2, 1)),
    Way("node1-pod1", "cluster IP", (1, 2)),
    Way("node1", "cluster IP", (2, 1)),
    Way("outside", "node port", (2, 1)),
    Way("outside", "node port", (1, 1)),
    Way("outside", "load balancer", (2, 1)),
    Way("outside", "load balancer", (1, 1)),
    Way("node1-pod1", "node port", (2, 1)),
]
DIRECT = [Way("node1-pod1", "", (2, 1)), Way("node1-pod1", "", (1, 2)), Way("node1", "", (2, 1))]
each_way = pytest.mark.parametrize("way", WAYS, ids=str)
each_direct_way = pytest.mark.parametrize("way", DIRECT, ids=str)


def cluster(pod: tuple[int, int]) -> RealCluster:
    """With one Service in front of one pod."""
    status = ServiceStatus(LoadBalancerStatus(tuple(map(Ingress, BALANCER.values()))))
    own = msgspec.structs.replace(service(ports=(ServicePort(80, node_port=30080),)), status=status)
    return RealCluster([own], endpoints("web", pod))


@contextlib.contextmanager
def talking(rig: RealCluster, way: Way, version: int, port: int = SERVING) -> Iterator[Talk]:
    """A connection by this way."""
    own = (str(pod_ip(*way.pod, version)), port)
    at = {
        "": own,
        "cluster IP": (VIP[version], 80),
        "node port": (str(node_ip(1, version)), 30080),
        "load balancer": (BALANCER[version], 80),
    }[way.address]
    talk = Talk(rig.namespaces[way.client], at, rig.namespaces["node{}-pod{}".format(*way.pod)], own)
    try:
        yield talk
    finally:
        talk.close()


class Eyes:
    """What comes to the client and to the endpoint. On a node itself nothing is seen: packets that it drops are seen, too."""

    def __init__(self, rig: RealCluster, way: Way, version: int) -> None:
        self._rig, self._way = rig, way
        self._pod = str(pod_ip(*way.pod, version))
        self.at_client: list[tuple[str, str, bytes]] = []
        self.at_server: list[tuple[str, str, bytes]] = []

    def __enter__(self) -> Eyes:
        self._stack = contextlib.ExitStack()
        if self._way.client != "node1":
            self.at_client = self._stack.enter_context(seen(self._rig.namespaces[self._way.client]))
        self.at_server = self._stack.enter_context(seen(self._rig.namespaces["node{}-pod{}".format(*self._way.pod)]))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def untranslated(self) -> list[tuple[str, str, bytes]]:
        """What the client got with the endpoint's own address."""
        return [one for one in self.at_client if one[0] == self._pod]

    def flags(self, talk: Talk) -> list[int]:
        """The flags of the segments of the connection that the endpoint got."""
        port: int = talk.server.getpeername()[1]
        return [
            content[13] for _, _, content in self.at_server if content[:2] == port.to_bytes(2, "big") and len(content) >= 20
        ]


@each_way
def test_a_segment_outside_of_the_window_ends_no_connection_through_a_service(way: Way) -> None:
    rig = cluster(way.pod)
    for version, by_client in CASES:
        with talking(rig, way, version) as talk:
            with Eyes(rig, way, version) as eyes:
                talk.disturb(PUSH | ACK, FAR, by_client=by_client, data=b"far")
                talk.exchange()
            assert not eyes.untranslated()
            assert RESET not in eyes.flags(talk)


@each_way
def test_what_no_connection_can_contain_arrives_nowhere(way: Way) -> None:
    """No flags; flags that exclude each other; a reset from long ago."""
    rig = cluster(way.pod)
    for version, by_client in CASES:
        with talking(rig, way, version) as talk:
            with Eyes(rig, way, version) as eyes:
                for flags, offset in ((0, 0), (SYN | FIN, 0), (RESET, -FAR)):
                    talk.disturb(flags, offset, by_client=by_client)
                    talk.exchange()
            assert not eyes.untranslated()
            assert not {0, SYN | FIN, RESET} & set(eyes.flags(talk))


@each_way
def test_the_end_of_a_connection_that_is_forgotten_arrives_nowhere(way: Way) -> None:
    rig = cluster(way.pod)
    for version in (4, 6):
        with talking(rig, way, version) as talk:
            talk.settle()
            rig.forget_connections()
            with Eyes(rig, way, version) as eyes:
                for flags in (FIN | ACK, SYN | ACK, RESET, RESET | ACK):
                    talk.disturb(flags, 0)
                talk.disturb(FIN | ACK, 0, by_client=True)
                _ask(rig, way, version)
            assert not eyes.untranslated()
            assert not eyes.flags(talk), "neither the client's segment, nor an answer to one"


@each_way
def test_an_error_about_a_connection_that_is_forgotten_arrives_nowhere(way: Way) -> None:
    """The endpoint refuses a packet (ICMP "port unreachable"), and the client an answer, of which the node knows nothing any more."""
    rig = cluster(way.pod)
    for version in (4, 6):
        with talking(rig, way, version) as talk:
            talk.settle()
            rig.forget_connections()
            with Eyes(rig, way, version) as eyes:
                refuse(talk.ends[1], *_names(talk.server))
                refuse(talk.ends[0], *_names(talk.client))
                _ask(rig, way, version)
            assert not [text for _, _, text in (*eyes.at_client, *eyes.at_server) if text[:2] == UNREACHABLE[version]]


def test_what_a_pod_sends_out_of_the_cluster_leaves_translated_or_not_at_all() -> None:
    rig = cluster((2, 1))
    for version in (4, 6):
        own, pod = (str(outside_ip(version)), OTHER), str(pod_ip(1, 1, version))
        talk = Talk(rig.namespaces["node1-pod1"], own, rig.namespaces["outside"], own)
        with seen(rig.namespaces["outside"]) as found:
            for by_client, (flags, offset) in itertools.product((True, False), ((PUSH | ACK, FAR), (0, 0), (RESET, -FAR))):
                talk.disturb(flags, offset, by_client=by_client, data=b"x")
                talk.exchange()
        talk.close()
        assert found and not [one for one in found if one[0] == pod]


@pytest.mark.parametrize("port", [SERVING, OTHER])
@each_direct_way
def test_pods_reach_each_other_with_whatever_they_send(way: Way, port: int) -> None:
    """Nothing is dropped of traffic that is not translated, be it to a port that serves a Service."""
    rig = cluster(way.pod)
    for version, by_client in CASES:
        with talking(rig, way, version, port) as talk:
            with Eyes(rig, way, version) as eyes:
                talk.disturb(PUSH | ACK, FAR, by_client=by_client, data=b"far")
                talk.exchange()
            texts = [content[-3:] for _, _, content in (eyes.at_server if by_client else eyes.at_client)]
            assert b"far" in texts or (way.client == "node1" and not by_client)


@each_direct_way
def test_a_direct_connection_that_is_forgotten_ends_as_if_it_was_not(way: Way) -> None:
    rig = cluster(way.pod)
    for version in (4, 6):
        with talking(rig, way, version, OTHER) as talk:
            talk.settle()
            rig.forget_connections()
            talk.server.close()
            assert talk.client.recv(1) == b""


def _names(end: socket.socket) -> tuple[tuple[str, int], tuple[str, int]]:
    return end.getsockname()[:2], end.getpeername()[:2]


def refuse(namespace: Namespace, own: tuple[str, int], peer: tuple[str, int]) -> None:
    """Tell the sender of a TCP segment that nobody is at this port (RFC 792, RFC 4443)."""
    ports = struct.pack(">HHII", peer[1], own[1], 0, 0) + struct.pack(">BBHHH", 5 << 4, ACK, 502, 0, 0)
    packed = [socket.inet_pton(socket.AF_INET6 if ":" in ip else socket.AF_INET, ip) for ip, _ in (peer, own)]
    if len(packed[0]) == 4:
        header = struct.pack(">BBHHHBBH", 0x45, 0, 40, 0, 0x4000, 64, 6, 0) + b"".join(packed)
        header = header[:10] + checksum(header).to_bytes(2, "big") + header[12:]
        send_raw(namespace, own[0], peer[0], socket.IPPROTO_ICMP, UNREACHABLE[4] + bytes(6) + header + ports, checksum_at=2)
    else:
        header = struct.pack(">IHBB", 6 << 28, 20, 6, 64) + b"".join(packed)
        send_raw(namespace, own[0], peer[0], socket.IPPROTO_ICMPV6, UNREACHABLE[6] + bytes(6) + header + ports, checksum_at=2)


def _ask(rig: RealCluster, way: Way, version: int) -> None:
    """Packets each way between the two, so that those before them have arrived."""
    at = (str(node_ip(1, version)), 30080) if way.client == "outside" else (VIP[version], 80)
    Talk(
        rig.namespaces[way.client],
        at,
        rig.namespaces["node{}-pod{}".format(*way.pod)],
        (str(pod_ip(*way.pod, version)), SERVING),
    ).close()
