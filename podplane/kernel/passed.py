"""What somebody who may enter a network namespace opened in it for one who may not: the CNI plugin for the agent (`cni.wire`).

    route   a socket of NETLINK_ROUTE       links, addresses, routes and neighbours
    diag    one of NETLINK_SOCK_DIAG        ends of connections that policies take back
    ipv6    /proc/sys/net/ipv6              sysctls; a folder of it shows the namespace of the thread that opened it, and files are found
                                            below it from everywhere (proc_sys_lookup)

Whoever has CAP_NET_ADMIN may work over them, as the one who opened them has it, too (__netlink_ns_capable, net_ctl_permissions), while
setns(2) needs CAP_SYS_ADMIN. Nobody enters anything, so no thread is needed for it either.
"""

from __future__ import annotations

import contextlib
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
    """A socket that one after another works over: it stays open when they close it, until whoever opened it does."""

    def close(self) -> None:
        """Nothing: somebody else needs it again."""


class Passed:
    """What was opened in one network namespace; it is used by one thread at a time, but `diag` by another one than the rest."""

    def __init__(self, route: socket.socket, diag: socket.socket | None, sysctls: SysctlFolder | None) -> None:
        self.route, self.sysctls = Lent(PROTOCOLS[ROUTE], route), sysctls
        self.cookie = cookie_of(route)
        """The kernel's number of the namespace (`NetworkNamespace.cookie`)."""
        self._opened = [one for one in (route, diag) if one is not None]
        self._diag: Lent | None = None

    @classmethod
    def take(cls, netns: int, descriptors: MutableMapping[str, int]) -> Passed | None:
        """Take out of `descriptors` what was opened in the network namespace `netns`; None where there is no socket of NETLINK_ROUTE.
        ValueError when one is not what it is said to be. Those that are left in the mapping are the caller's to close."""
        if ROUTE not in descriptors:
            return None
        opened: list[socket.socket] = []
        try:
            for name in (one for one in PROTOCOLS if one in descriptors):
                opened.append(socket.socket(fileno=descriptors[name]))
                del descriptors[name]
                _check(opened[-1], name, netns)
            return cls(opened[0], opened[1] if len(opened) > 1 else None, _folder(descriptors))
        except (OSError, ValueError) as error:
            for one in opened:
                one.close()
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise ValueError(f"what was opened in the network namespace can't be used: {reason}") from None

    @property
    def diag(self) -> Lent | None:
        """The socket of NETLINK_SOCK_DIAG, if there is one."""
        if self._diag is None and len(self._opened) > 1:
            self._diag = Lent(PROTOCOLS[DIAG], self._opened[1])
        return self._diag

    @property
    def descriptors(self) -> list[int]:
        """All of it, for somebody else to keep (`take`)."""
        parts = (*self._opened, *(() if self.sysctls is None else (self.sysctls,)))
        return [one.fileno() for one in parts]

    def close(self) -> None:
        """Let go of all of it; idempotent."""
        for one in (*self._opened, self.sysctls):
            if one is not None:
                one.close()


def _check(opened: socket.socket, name: str, netns: int) -> None:
    """ValueError unless a socket is of this protocol and of this namespace."""
    if opened.family != socket.AF_NETLINK or opened.proto != PROTOCOLS[name] or not _is_in(opened, netns):
        raise ValueError(f"{name} is no netlink socket of that kind from there")


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
    if _is_own(descriptors[IPV6]):
        raise ValueError(f"{IPV6} is that of the node")
    return SysctlFolder(descriptors.pop(IPV6), PREFIX)


def _is_own(folder: int) -> bool:
    """Is it what this process finds at that path, and so of its own namespace? As long as it is open, looking it up gives the same inode
    (proc_sys_compare), where it was opened through the same mount of /proc; of another one nothing can be said."""
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(folder), os.stat(f"/proc{FOLDER}"))
    return False
