"""What somebody who may enter a network namespace opened in it for one who may not: the CNI plugin for the agent (`cni.wire`).

    route   a socket of NETLINK_ROUTE       links, addresses, routes and neighbours
    diag    one of NETLINK_SOCK_DIAG        ends of connections that policies take back
    ipv6    /proc/sys/net/ipv6              sysctls; a folder of it shows the namespace of the thread that opened it, and files are found
                                            below it from everywhere (proc_sys_lookup)

Whoever has CAP_NET_ADMIN may work over them, as the one who opened them has it, too (__netlink_ns_capable, net_ctl_permissions), while
setns(2) needs CAP_SYS_ADMIN. Nobody enters anything, so no thread is needed for it either.
"""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import MutableMapping

from podplane.kernel import netlink
from podplane.kernel.namespace import cookie_of
from podplane.kernel.sysctl import SysctlFolder

ROUTE, DIAG, IPV6 = "route", "diag", "ipv6"
PROTOCOLS = {ROUTE: 0, DIAG: 4}
SIOCGSKNS = 0x894C
"""linux/sockios.h: a descriptor of the network namespace of a socket; for who has CAP_NET_ADMIN there."""
FOLDER, PREFIX = "/sys/net/ipv6", "net.ipv6."


class Lent(netlink.Socket):
    """A socket that one after another works over: it stays open when they close it, until its `end`."""

    def close(self) -> None:
        """Nothing: somebody else needs it again."""

    def end(self) -> None:
        """Close it."""
        super().close()


class Passed:
    """What was opened in one network namespace; it is used by one thread at a time, but `diag` by another one than the rest."""

    def __init__(self, route: Lent, diag: Lent | None, sysctls: SysctlFolder | None, cookie: int) -> None:
        """`cookie` is the kernel's number of the namespace (`NetworkNamespace.cookie`)."""
        self.route, self.diag, self.sysctls, self.cookie = route, diag, sysctls, cookie

    @classmethod
    def take(cls, netns: int, descriptors: MutableMapping[str, int]) -> Passed | None:
        """Take out of `descriptors` what was opened in the network namespace `netns`; None where there is no socket of NETLINK_ROUTE.
        ValueError when one is not what it is said to be. Those that are left in the mapping are the caller's to close."""
        if ROUTE not in descriptors:
            return None
        sockets: dict[str, Lent] = {}
        try:
            opened = _socket(ROUTE, netns, descriptors)
            sockets[ROUTE], cookie = Lent(PROTOCOLS[ROUTE], opened), cookie_of(opened)
            if DIAG in descriptors:
                sockets[DIAG] = Lent(PROTOCOLS[DIAG], _socket(DIAG, netns, descriptors))
            return cls(sockets[ROUTE], sockets.get(DIAG), _folder(descriptors), cookie)
        except (OSError, ValueError) as error:
            for one in sockets.values():
                one.end()
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise ValueError(f"what was opened in the network namespace can't be used: {reason}") from None

    @property
    def descriptors(self) -> list[int]:
        """All of it, for somebody else to keep (`take`)."""
        parts = (self.route, self.diag, self.sysctls)
        return [one.fileno() for one in parts if one is not None]

    def close(self) -> None:
        """Let go of all of it; idempotent."""
        for one in (self.route, self.diag):
            if one is not None:
                one.end()
        if self.sysctls is not None:
            self.sysctls.close()


def _socket(name: str, netns: int, descriptors: MutableMapping[str, int]) -> socket.socket:
    """A socket that was passed, if it is of this protocol and of this namespace."""
    opened = socket.socket(fileno=descriptors[name])
    del descriptors[name]
    is_netlink = opened.family == socket.AF_NETLINK and opened.proto == PROTOCOLS[name]
    if not is_netlink or not _is_in(opened, netns):
        opened.close()
        raise ValueError(f"{name} is no netlink socket of that kind from there")
    return opened


def _is_in(opened: socket.socket, netns: int) -> bool:
    place = fcntl.ioctl(opened.fileno(), SIOCGSKNS)
    try:
        return os.path.sameopenfile(place, netns)
    finally:
        os.close(place)


def _folder(descriptors: MutableMapping[str, int]) -> SysctlFolder | None:
    """The folder of sysctls that was passed."""
    if IPV6 not in descriptors:
        return None
    if not os.readlink(f"/proc/self/fd/{descriptors[IPV6]}").endswith(FOLDER):
        raise ValueError(f"{IPV6} is not /proc{FOLDER}")
    return SysctlFolder(descriptors.pop(IPV6), PREFIX)
