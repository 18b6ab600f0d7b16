"""Where sockets to other servers are opened."""

from __future__ import annotations

import socket


class HostOpener:
    """In the network namespace of this process."""

    def open(self, ip: str, kind: socket.SocketKind) -> socket.socket:
        """A socket that does not block. OSError when there can be none."""
        opened = socket.socket(socket.AF_INET6 if ":" in ip else socket.AF_INET, kind)
        opened.setblocking(False)
        return opened
