"""What serves the sockets that questions come by, of all nodes of the process."""

from __future__ import annotations

import functools
import resource
import socket

from podplane.kernel import socket_filter
from podplane.kernel.datagrams import Datagrams, Outgoing
from podplane.nameserver import control
from podplane.nameserver.answers import Answers
from podplane.servers.dns import UdpServer
from podplane.servers.dns_counts import Counts
from podplane.servers.dns_tcp import CONNECTIONS, Connections, TcpServer

VERSIONS = {socket.AF_INET: 4, socket.AF_INET6: 6}


class Sockets:
    """Makes servers of bound sockets. To be made and used on an event loop."""

    def __init__(self, answers: Answers, counts: Counts) -> None:
        self._answers = answers
        self._counts = counts
        self._datagrams = {version: Datagrams(version) for version in VERSIONS.values()}
        self._outgoing = Outgoing()
        total = connections_within(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
        self._connections = Connections(total=total, is_inside=lambda ip: answers.client(ip) is not None)

    def datagrams(self, node: str, bound: socket.socket) -> UdpServer:
        """Answer datagrams of this socket from now on."""
        version = VERSIONS[bound.family]
        respond = functools.partial(self._answers.respond, node=node)
        lane = self._counts.lane(node, control.UDP, version)
        send, limit = self._outgoing.send, socket_filter.limit
        return UdpServer(bound, self._datagrams[version], send, limit, self._answers, respond, self._counts, lane)

    def connections(self, node: str, bound: socket.socket) -> TcpServer:
        """Answer connections to this socket from now on."""
        lane = self._counts.lane(node, control.TCP, VERSIONS[bound.family])
        respond = functools.partial(self._answers.respond, node=node, tcp=True)
        return TcpServer(bound, respond, self._counts, lane, self._connections)


def connections_within(descriptors: int) -> int:
    """How many connections there may be at most, so that half of the process's descriptors are for all else."""
    return CONNECTIONS if descriptors == resource.RLIM_INFINITY else min(CONNECTIONS, descriptors // 2)
