"""What links do with packets beyond sending them, who drives them, and their MACs: by ioctl (SIOCETHTOOL, netdevice(7)).

A question about a link that is not there, or is none of this kind, is an OSError (ENODEV, EOPNOTSUPP). Changes need CAP_NET_ADMIN.
Sources: include/uapi/linux/ethtool.h, net/ethtool/ioctl.c (ethtool_set_one_feature).
"""

from __future__ import annotations

import ctypes
import fcntl
import socket
import struct

SIOCETHTOOL, SIOCGIFHWADDR = 0x8946, 0x8927
ETHTOOL_GDRVINFO, ETHTOOL_GTXCSUM, ETHTOOL_STXCSUM = 0x03, 0x16, 0x17
DRIVER_INFO_BYTES = 196
"""Of struct ethtool_drvinfo: the request, then names of 32 bytes, that of the driver first."""
VALUE = struct.Struct("=II")
"""struct ethtool_value: the request, and what is said."""
REQUEST = struct.Struct("16sP16x")
"""struct ifreq: the name of a link, and where the request is."""
HARDWARE = struct.Struct("=16sH6s16x")
"""struct ifreq: the name of a link, and the type (ARPHRD_…) and bytes of its hardware address."""
ARPHRD_ETHER = 1
KINDS = frozenset(("vxlan", "gre", "ip6gre"))
"""Types of links that may have checksums in software: tunnels, which hand on to others what they do not do."""


class Ethtool:
    """`parts.LinkFeatures` of the namespace in which it is made."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def driver(self, link: str) -> str:
        """The name of its driver; "" where there is no such link, or it has none."""
        try:
            answer = self._ask(link, struct.pack("=I", ETHTOOL_GDRVINFO).ljust(DRIVER_INFO_BYTES, b"\0"))
        except OSError:
            return ""
        return answer[4:36].split(b"\0")[0].decode(errors="replace")

    def mac(self, link: str) -> str:
        """Its MAC; "" where there is no such link, or it has none."""
        try:
            answer = fcntl.ioctl(self._socket, SIOCGIFHWADDR, HARDWARE.pack(link.encode(), 0, b""))
        except OSError:
            return ""
        _, kind, address = HARDWARE.unpack(answer)
        return str(address.hex(":")) if kind == ARPHRD_ETHER else ""

    def has_software_checksum(self, link: str) -> bool:
        """Are checksums of what it sends computed before? Of a link that is not there they are not."""
        try:
            _, on = VALUE.unpack(self._ask(link, VALUE.pack(ETHTOOL_GTXCSUM, 0)))
        except OSError:
            return False
        return not on

    def set_software_checksum(self, link: str, on: bool) -> None:
        """Have them computed before, or not. OSError when that can't be; the kernel says nothing where the link does not change."""
        self._ask(link, VALUE.pack(ETHTOOL_STXCSUM, 0 if on else 1))

    def _ask(self, link: str, request: bytes) -> bytes:
        asked = ctypes.create_string_buffer(request, len(request))
        fcntl.ioctl(self._socket, SIOCETHTOOL, REQUEST.pack(link.encode(), ctypes.addressof(asked)))
        return asked.raw
