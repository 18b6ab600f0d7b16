"""The real kernel: sockets to servers of a lab are opened in a node's namespace, all others in that of the process."""

from __future__ import annotations

import fcntl
import os
import socket
import subprocess

import pytest

from podplane.kernel.namespace import NetworkNamespace, Workers
from podplane.nameserver.openers import HostOpener, LabOpener

pytestmark = pytest.mark.kernel


def inode_of_namespace_of(opened: socket.socket) -> int:
    """SIOCGSKNS (ioctl_ns(2)): the namespace that a socket is in."""
    fd = fcntl.ioctl(opened, 0x894C)
    with os.fdopen(fd) as namespace:
        return os.fstat(namespace.fileno()).st_ino


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_STREAM])
def test_the_address_decides_where_a_socket_is_opened(kind: socket.SocketKind) -> None:
    here = os.stat("/proc/self/ns/net").st_ino
    with NetworkNamespace.create(Workers()) as node:
        opener = LabOpener(("203.0.113.0/24", "fd00:10::/32"), os.dup(node.fd))
        for ip, place in (
            ("203.0.113.10", node.inode),
            ("203.0.114.10", here),
            ("127.0.0.53", here),
            ("fd00:10::1", node.inode),
            ("fd00:11::1", here),
        ):
            with opener.open(ip, kind) as opened:
                assert inode_of_namespace_of(opened) == place
                assert not opened.getblocking()
        opener.close()
        with HostOpener().open("203.0.113.10", kind) as opened:
            assert inode_of_namespace_of(opened) == here


def test_a_datagram_reaches_a_server_that_is_in_the_namespace_alone() -> None:
    def serve() -> socket.socket:
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        subprocess.run(["ip", "address", "add", "203.0.113.10/32", "dev", "lo"], check=True)
        bound = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        bound.bind(("203.0.113.10", 53))
        return bound

    with NetworkNamespace.create(Workers()) as node, node.run(serve) as server:
        opener = LabOpener(("203.0.113.0/24",), os.dup(node.fd))
        with opener.open("203.0.113.10", socket.SOCK_DGRAM) as asking:
            asking.connect(("203.0.113.10", 53))
            asking.send(b"question")
            assert server.recv(100) == b"question"
        opener.close()
