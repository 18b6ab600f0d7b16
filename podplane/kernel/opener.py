"""Opens the parts of the real kernel for the door: sockets and descriptors in a network namespace (`parts.Opener`)."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping

from podplane.kernel import netlink, syscalls
from podplane.kernel.announce import LinkSocket
from podplane.kernel.conntrack import NETLINK_NETFILTER, Conntrack
from podplane.kernel.echo import Echo as EchoSockets
from podplane.kernel.errors import Denied, KernelError, Retry, from_errno
from podplane.kernel.ethtool import Ethtool
from podplane.kernel.keepalives import KeepAlives
from podplane.kernel.namespace import Namespace, NetworkNamespace
from podplane.kernel.nft import KernelTables, Nft
from podplane.kernel.packet_log import PacketLog as NflogReader
from podplane.kernel.parts import (
    Announcer,
    Echo,
    LinkFeatures,
    Monitor,
    NetworkPart,
    NftPart,
    NodeSysctlPart,
    PacketLog,
    PodNamespace,
    PodPart,
    Probes,
    Sockets,
    SysctlPart,
    Tracked,
)
from podplane.kernel.passed import Passed
from podplane.kernel.rtnl import Rtnl, encode, reading
from podplane.kernel.rtnl.monitor import Monitor as RtnlMonitor
from podplane.kernel.rtnl.monitor import open_socket
from podplane.kernel.sock_diag import NETLINK_SOCK_DIAG
from podplane.kernel.sock_diag import Sockets as SocketDiag
from podplane.kernel.sysctl import NodeSysctls, Sysctls, set_here
from podplane.state.ownership import Ownership

NETLINK_ROUTE = 0


def passed_of(namespace: Namespace) -> Passed | None:
    """What was opened in it by somebody else. ValueError when it was closed."""
    passed = namespace.passed if isinstance(namespace, NetworkNamespace) and namespace.fd >= 0 else None
    return passed if isinstance(passed, Passed) else None


def has_link(namespace: Namespace, name: str) -> bool:
    """Is there a link of this name? OSError when the namespace can't be looked at.

    rtnetlink is asked: if_nametoindex(3) of a name that is not there makes the kernel look for a module of that name (dev_load).
    """
    passed = passed_of(namespace)
    with namespace.run(netlink.Socket, NETLINK_ROUTE) if passed is None else passed.route as one:
        return reading.has_link(one, name)


def remove_link(namespace: Namespace, name: str) -> None:
    """Remove the link of this name, if there is one; it takes some 20 ms. OSError or KernelError when that can't be."""
    passed = passed_of(namespace)
    with namespace.run(netlink.Socket, NETLINK_ROUTE) if passed is None else passed.route as one:
        if index := reading.link_index(one, name):
            for refused in one.request([encode.delete_link(index, name)]):
                raise from_errno(f"delete link {name}", refused.errno, refused.text)


def leads_into(own: Namespace, link: str, other: Namespace) -> bool | None:
    """Is the far end of a veth pair of `own` in `other`? None when there is no such link with a far end elsewhere. Nobody enters `other`;
    OSError when that is no network namespace."""
    with own.run(netlink.Socket, NETLINK_ROUTE) as one:
        far = reading.peer_namespace_id(one, link)
        there = reading.namespace_id(one, other.fd)
    return None if far is None else far == there


class KernelOpener:
    """Opens the real kernel: sockets are opened in the namespace, and may be used from anywhere."""

    def __init__(self, *, protects_tables: bool = False) -> None:
        """`protects_tables`: what is made by a door belongs to it as long as that is open, where the kernel can do so."""
        self._has_packet_log = False
        self._protects_tables = protects_tables

    def rtnl(self, namespace: Namespace, namespace_fd: Callable[[str], int]) -> NetworkPart:
        """rtnetlink (NETLINK_ROUTE)."""
        passed = passed_of(namespace)
        return Rtnl(namespace.run(netlink.Socket, NETLINK_ROUTE) if passed is None else passed.route, namespace_fd)

    def monitor(self, namespace: Namespace, owner: Ownership, port: Callable[[], int]) -> Monitor:
        """Subscribed to the RTNLGRP_* groups."""

        def links() -> list[bytes]:
            with namespace.run(netlink.Socket, NETLINK_ROUTE) as one:
                return reading.list_links(one)

        return RtnlMonitor(namespace.run(open_socket), links, owner, port)

    def pod_namespaces(
        self, wanted: Mapping[str, PodNamespace], namespace_fd: Callable[[str], int]
    ) -> Mapping[str, tuple[PodPart, Mapping[str, KernelError]]]:
        """rtnetlink of pods' namespaces after sysctls were set there, and which of those were refused: one job for all that are entered."""
        found: dict[str, tuple[PodPart, Mapping[str, KernelError]]] = {}
        entered: dict[str, PodNamespace] = {}
        for name, (place, sysctls) in wanted.items():
            passed = passed_of(place)
            if passed is None or (sysctls and passed.sysctls is None):
                entered[name] = place, sysctls
            else:
                refused = {} if passed.sysctls is None else passed.sysctls.set(sysctls)
                found[name] = Rtnl(passed.route, namespace_fd), refused
        return found | self._entered(entered, namespace_fd)

    @staticmethod
    def _entered(
        wanted: Mapping[str, PodNamespace], namespace_fd: Callable[[str], int]
    ) -> dict[str, tuple[PodPart, Mapping[str, KernelError]]]:
        if not wanted:
            return {}

        def open_all() -> dict[str, tuple[Mapping[str, KernelError], netlink.Socket]]:
            done: dict[str, tuple[Mapping[str, KernelError], netlink.Socket]] = {}
            try:
                for name, (place, sysctls) in wanted.items():
                    done[name] = open_one(place.fd, sysctls)
            except BaseException:
                for _, opened in done.values():
                    opened.close()
                raise
            return done

        def open_one(fd: int, sysctls: Mapping[str, str]) -> tuple[Mapping[str, KernelError], netlink.Socket]:
            syscalls.setns(fd, syscalls.CLONE_NEWNET)
            return set_here(sysctls), netlink.Socket(NETLINK_ROUTE)

        first, _ = next(iter(wanted.values()))
        opened = first.run(open_all)
        return {name: (Rtnl(one, namespace_fd), refused) for name, (refused, one) in opened.items()}

    def nft(self, namespace: Namespace) -> NftPart:
        """nf_tables (NETLINK_NETFILTER). A kernel that protects none is not asked again: to refuse that takes it 13 ms."""
        tables = KernelTables(lambda: namespace.run(netlink.Socket, NETLINK_NETFILTER))
        self._protects_tables = self._protects_tables and tables.protect()
        return Nft(tables)

    def conntrack(self, namespace: Namespace) -> Tracked:
        """Connection tracking (ctnetlink)."""
        return Conntrack(namespace.run(netlink.Socket, NETLINK_NETFILTER))

    def sockets(self, namespace: Namespace) -> Sockets:
        """The sockets of a namespace (sock_diag)."""
        passed = passed_of(namespace)
        if passed is None or passed.diag is None:
            return SocketDiag(namespace.run(netlink.Socket, NETLINK_SOCK_DIAG))
        return SocketDiag(passed.diag)

    def keepalives(self, namespace: Namespace) -> Probes:
        """Raw sockets."""
        return namespace.run(KeepAlives)

    def echo(self, namespace: Namespace) -> Echo:
        """Raw sockets."""
        return namespace.run(EchoSockets)

    def packet_log(self, namespace: Namespace, group: int) -> PacketLog:
        """NFLOG (NFNL_SUBSYS_ULOG)."""
        return NflogReader(namespace.run(netlink.Socket, NETLINK_NETFILTER), group)

    def check_packet_log(self, namespace: Namespace, group: int) -> None:
        """Tried once for all namespaces: the kernel waits for its readers when such a socket is closed, which takes 13 ms."""
        if self._has_packet_log:
            return
        with contextlib.suppress(Denied, Retry):  # another one reads it (EPERM, and EBUSY while it begins; nfulnl_recv_config)
            self.packet_log(namespace, group).close()
        self._has_packet_log = True

    def announcer(self, namespace: Namespace, link: str) -> Announcer:
        """A packet socket."""
        return namespace.run(LinkSocket, link)

    def features(self, namespace: Namespace) -> LinkFeatures:
        """Ethtool's ioctl."""
        return namespace.run(Ethtool)

    def release(self) -> str:
        """That of the running kernel."""
        return os.uname().release

    def sysctls(self, namespace: Namespace) -> SysctlPart:
        """/proc/sys/net as seen from the namespace."""
        passed = passed_of(namespace)
        return Sysctls(namespace) if passed is None or passed.sysctls is None else passed.sysctls

    def node_sysctls(self, namespace: Namespace) -> NodeSysctlPart:
        """The same, with what is open of it."""
        return NodeSysctls(namespace)
