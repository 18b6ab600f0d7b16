"""Where sockets to other servers are opened: in the network namespace of this process, or, in a lab, in that of a node."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Sequence

from podplane.kernel.namespace import NetworkNamespace, Workers


class HostOpener:
    """In the network namespace of this process."""

    def open(self, ip: str, kind: socket.SocketKind) -> socket.socket:
        """A socket that does not block. OSError when there can be none."""
        return _open(ip, kind)


class LabOpener:
    """Servers in some networks are reached from a namespace, all others from that of this process."""

    def __init__(self, networks: Sequence[str], fd: int) -> None:
        """`networks` are CIDRs; `fd` is the namespace's descriptor, which is closed with the opener."""
        self.networks = tuple(networks)
        self._networks = [ipaddress.ip_network(cidr) for cidr in networks]
        self._workers = Workers(1)
        self._namespace = NetworkNamespace(fd, self._workers)

    def open(self, ip: str, kind: socket.SocketKind) -> socket.socket:
        """A socket that does not block. OSError when there can be none."""
        address = ipaddress.ip_address(ip)
        if any(address in network for network in self._networks):
            return self._namespace.run(_open, ip, kind)
        return _open(ip, kind)

    def close(self) -> None:
        """Open none any more."""
        self._namespace.close()
        self._workers.close()


def _open(ip: str, kind: socket.SocketKind) -> socket.socket:
    protocol = (
        socket.IPPROTO_TCP if kind == socket.SOCK_STREAM else 0
    )  # asyncio gives it TCP_NODELAY then: questions do not wait
    opened = socket.socket(socket.AF_INET6 if ":" in ip else socket.AF_INET, kind, protocol)
    opened.setblocking(False)
    return opened
