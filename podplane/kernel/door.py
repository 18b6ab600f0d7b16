"""The door to one node's kernel state: operations in, a report out, whatever part of the kernel they are for.

A node's values live in its own network namespace (netns "") and in those of its pods, which the agent names by `attach`.
Order makes a change work at once, and keeps traffic flowing while it is made: sysctls first, as new links inherit
them; then links and what lies on them on the node; then what lies in the pods, whose links came with the node's; then
nf_tables. Sysctls of links are set behind the links of their namespace. Values of a namespace that was detached are gone with it:
deleting them is done.

The parts are opened by an `Opener`, so that the fakes share this code with the real kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Protocol

from podplane.kernel import netlink, syscalls
from podplane.kernel.announce import LinkSocket
from podplane.kernel.conntrack import Conntrack
from podplane.kernel.errors import KernelError, NotFound
from podplane.kernel.namespace import Namespace
from podplane.kernel.nft import Nft
from podplane.kernel.rtnl import Rtnl, matches
from podplane.kernel.sysctl import Sysctls, set_here
from podplane.services import tables
from podplane.services.flows import Ways
from podplane.services.report import Flow
from podplane.state.network import Sysctl
from podplane.state.nft import NftValue
from podplane.state.operations import Failure, Operation, Report
from podplane.state.ownership import Ownership
from podplane.state.value import Identity, IPAddress, Value

NETLINK_ROUTE, NETLINK_NETFILTER = 0, 12
HOST = ""


class Part(Protocol):
    """One part of the kernel in one namespace."""

    def apply(self, operations: Sequence[Operation]) -> Report:
        """Carry out the operations."""

    def read(self, owner: Ownership) -> dict[Identity, Value]:
        """What it holds of this owner."""

    def close(self) -> None:
        """Let go of the socket."""


class NftPart(Part, Protocol):
    """nf_tables of one namespace."""

    def has_foreign_commit(self) -> bool:
        """Did anybody else commit a change since this was asked last?"""

    def has_family(self, family: str) -> bool:
        """Does it have tables of this family?"""


class Tracked(Protocol):
    """The tracked connections of one namespace."""

    def forget(self, ways: Ways) -> int:
        """Delete the connections to these frontends that do not go where they may; how many those were."""

    def translated(self) -> list[Flow]:
        """The connections that were translated to another destination."""

    def close(self) -> None:
        """Let go of the socket."""


class Announcer(Protocol):
    """One link, out of which it is said where addresses are."""

    def announce(self, ips: Iterable[IPAddress]) -> None:
        """Say that these addresses are here; then it is closed."""


class SysctlPart(Protocol):
    """The sysctls of one namespace."""

    def set(self, values: Mapping[str, str]) -> Mapping[str, KernelError]:
        """Set each and read it back; the refused ones with the reason."""

    def read(self, names: Iterable[str]) -> dict[str, str]:
        """The values of those that exist."""


PodNamespace = tuple[Namespace, Mapping[str, str]]
"""A namespace, and sysctls to set there."""


class Opener(Protocol):
    """Opens the parts of the kernel in a namespace."""

    def rtnl(self, namespace: Namespace, namespace_fd: Callable[[str], int]) -> Part:
        """rtnetlink; `namespace_fd` finds the namespaces that veth peers are put in."""

    def pod_namespaces(
        self, wanted: Mapping[str, PodNamespace], namespace_fd: Callable[[str], int]
    ) -> Mapping[str, tuple[Part, Mapping[str, KernelError]]]:
        """rtnetlink of pods' namespaces after sysctls were set there, and which of those were refused: one job for all."""

    def nft(self, namespace: Namespace) -> NftPart:
        """nf_tables."""

    def conntrack(self, namespace: Namespace) -> Tracked:
        """Its connection tracking."""

    def announcer(self, namespace: Namespace, link: str) -> Announcer:
        """One of its links."""

    def sysctls(self, namespace: Namespace) -> SysctlPart:
        """Its sysctls."""


class KernelOpener:
    """Opens the real kernel: sockets are opened in the namespace, and may be used from anywhere."""

    def rtnl(self, namespace: Namespace, namespace_fd: Callable[[str], int]) -> Part:
        """rtnetlink (NETLINK_ROUTE)."""
        return Rtnl(namespace.run(netlink.Socket, NETLINK_ROUTE), namespace_fd)

    def pod_namespaces(
        self, wanted: Mapping[str, PodNamespace], namespace_fd: Callable[[str], int]
    ) -> Mapping[str, tuple[Part, Mapping[str, KernelError]]]:
        """rtnetlink of pods' namespaces after sysctls were set there, and which of those were refused: one job for all."""

        def visit_all() -> dict[str, tuple[Mapping[str, KernelError], netlink.Socket]]:
            done: dict[str, tuple[Mapping[str, KernelError], netlink.Socket]] = {}
            try:
                for name, (place, sysctls) in wanted.items():
                    done[name] = visit(place.fd, sysctls)
            except BaseException:
                for _, socket in done.values():
                    socket.close()
                raise
            return done

        def visit(fd: int, sysctls: Mapping[str, str]) -> tuple[Mapping[str, KernelError], netlink.Socket]:
            syscalls.setns(fd, syscalls.CLONE_NEWNET)
            return set_here(sysctls), netlink.Socket(NETLINK_ROUTE)

        first, _ = next(iter(wanted.values()))
        opened = first.run(visit_all)
        return {name: (Rtnl(socket, namespace_fd), refused) for name, (refused, socket) in opened.items()}

    def nft(self, namespace: Namespace) -> NftPart:
        """nf_tables (NETLINK_NETFILTER)."""
        return Nft(namespace.run(netlink.Socket, NETLINK_NETFILTER), tables.RANK)

    def conntrack(self, namespace: Namespace) -> Tracked:
        """Connection tracking (ctnetlink)."""
        return Conntrack(namespace.run(netlink.Socket, NETLINK_NETFILTER))

    def announcer(self, namespace: Namespace, link: str) -> Announcer:
        """A packet socket."""
        return namespace.run(LinkSocket, link)

    def sysctls(self, namespace: Namespace) -> SysctlPart:
        """/proc/sys/net as seen from the namespace."""
        return Sysctls(namespace)


class Kernel:
    """One node's kernel state. Methods block for as long as the kernel works, and are called from one thread at a time."""

    def __init__(self, namespace: Namespace, opener: Opener) -> None:
        self._opener = opener
        self._namespaces: dict[str, Namespace] = {HOST: namespace}
        self._rtnl = opener.rtnl(namespace, self._fd)
        self._nft: NftPart | None = None
        self._former_sysctls: dict[Identity, str] = {}

    def attach(self, name: str, namespace: Namespace) -> None:
        """Give a network namespace the name by which values speak of it."""
        self._namespaces[name] = namespace

    def detach(self, name: str) -> None:
        """Forget a namespace: what was in it counts as gone."""
        self._namespaces.pop(name, None)

    def close(self) -> None:
        """Let go of the sockets; what the kernel holds stays."""
        self._rtnl.close()
        if self._nft is not None:
            self._nft.close()

    def _fd(self, name: str) -> int:
        if name not in self._namespaces:
            raise NotFound(f"network namespace {name}", "it is not attached")
        return self._namespaces[name].fd

    def apply(self, operations: Sequence[Operation]) -> Report:
        """Carry out the operations; each is in the report."""
        report = Report()
        sysctls: dict[str, list[Operation]] = {}
        links: dict[str, list[Operation]] = {HOST: []}
        nft: list[Operation] = []
        late: dict[str, list[Operation]] = {}
        for operation in operations:
            value = operation.value
            if value.netns not in self._namespaces:
                self._nowhere(operation, report)
            elif isinstance(value, Sysctl) and value.link:
                if operation.new is None:
                    report.applied.append(operation)  # it is removed together with its link
                else:
                    late.setdefault(value.netns, []).append(operation)
            elif isinstance(value, Sysctl):
                sysctls.setdefault(value.netns, []).append(operation)
            elif isinstance(value, NftValue):
                nft.append(operation)
            else:
                links.setdefault(value.netns, []).append(operation)
        pod_namespaces = self._visit(links.keys() - {HOST}, sysctls, late, report)
        for name, part in sysctls.items():
            self._apply_sysctls(name, part, late, report)
        try:
            for name, part in links.items():
                if part:
                    report.merge((self._rtnl if name == HOST else pod_namespaces[name]).apply(part))
                if name in late:
                    self._apply_sysctls(name, late.pop(name), None, report)
        finally:
            for guest in pod_namespaces.values():
                guest.close()
        if nft:
            report.merge(self._nft_part().apply(nft))
        for name, part in late.items():
            self._apply_sysctls(name, part, None, report)
        return report

    def _nowhere(self, operation: Operation, report: Report) -> None:
        if operation.new is None:
            report.applied.append(operation)
        else:
            error = NotFound(f"network namespace {operation.value.netns}", "it is not attached")
            report.failed.append(Failure(operation, error))

    def _visit(
        self, names: Collection[str], sysctls: dict[str, list[Operation]], late: dict[str, list[Operation]], report: Report
    ) -> dict[str, Part]:
        """rtnetlink of these pods' namespaces, with their sysctls set and taken out of `sysctls`."""
        operations = {name: sysctls.pop(name, []) for name in names}
        wanted = {
            name: {o.value.name: o.value.value for o in own if isinstance(o.value, Sysctl) and o.new is not None}
            for name, own in operations.items()
        }
        if not wanted:
            return {}
        opened = self._opener.pod_namespaces({name: (self._namespaces[name], own) for name, own in wanted.items()}, self._fd)
        for name, (_, refused) in opened.items():
            self._report_sysctls(name, operations[name], refused, late, report)
        return {name: guest for name, (guest, _) in opened.items()}

    def _apply_sysctls(
        self, name: str, operations: list[Operation], late: dict[str, list[Operation]] | None, report: Report
    ) -> None:
        part = self._opener.sysctls(self._namespaces[name])
        self._report_sysctls(name, operations, part.set(self._wanted(part, operations)), late, report)

    @staticmethod
    def _report_sysctls(
        name: str,
        operations: list[Operation],
        refused: Mapping[str, KernelError],
        late: dict[str, list[Operation]] | None,
        report: Report,
    ) -> None:
        """Each is applied or failed; those of links that are not there yet go to `late`, to be set when the links are."""
        for operation in operations:
            error = refused.get(getattr(operation.value, "name", ""))
            if error is None:
                report.applied.append(operation)
            elif isinstance(error, NotFound) and late is not None and operation.new is not None:
                late.setdefault(name, []).append(operation)
            else:
                report.failed.append(Failure(operation, error))

    def _wanted(self, part: SysctlPart, operations: list[Operation]) -> dict[str, str]:
        """Name → value: the wanted one, or, where none is wanted any more, the one that was there before podplane came.

        Those of pods and of podplane's own links are not remembered: they are removed together with the pod or the link.
        """
        sysctls = [(o, o.value) for o in operations if isinstance(o.value, Sysctl)]
        own = [v for o, v in sysctls if o.old is None and not v.netns and not v.link]
        fresh = [v for v in own if v.identity not in self._former_sysctls]
        found = part.read([v.name for v in fresh]) if fresh else {}
        self._former_sysctls.update({v.identity: found[v.name] for v in fresh if v.name in found})
        return {v.name: v.value if o.new is not None else self._former_sysctls.pop(v.identity, v.value) for o, v in sysctls}

    def has_foreign_commit(self) -> bool:
        """Did anybody else change the node's nf_tables since this was asked last?"""
        return self._nft_part().has_foreign_commit()

    def has_bridge_family(self) -> bool:
        """Does the kernel have nf_tables of the bridge family (CONFIG_NF_TABLES_BRIDGE)?"""
        return self._nft_part().has_family("bridge")

    def forget(self, ways: Ways) -> int:
        """Delete the node's connections to these frontends that do not go where they may; how many those were."""
        tracked = self._opener.conntrack(self._namespaces[HOST])
        try:
            return tracked.forget(ways)
        finally:
            tracked.close()

    def connections(self) -> list[Flow]:
        """The node's tracked connections that were translated to another destination."""
        tracked = self._opener.conntrack(self._namespaces[HOST])
        try:
            return tracked.translated()
        finally:
            tracked.close()

    def announce(self, link: str, ips: Iterable[IPAddress]) -> None:
        """Tell the neighbours on a link of the node that these addresses are here. OSError when that can't be."""
        self._opener.announcer(self._namespaces[HOST], link).announce(ips)

    def _nft_part(self) -> NftPart:
        if self._nft is None:
            self._nft = self._opener.nft(self._namespaces[HOST])
        return self._nft

    def read(self, owner: Ownership, sysctls: Iterable[str] = ()) -> dict[Identity, Value]:
        """What the node's own namespace holds of this owner, and the values of these sysctls."""
        found = self._rtnl.read(owner)
        found.update(self._nft_part().read(owner))
        names = list(sysctls)
        values = self._opener.sysctls(self._namespaces[HOST]).read(names) if names else {}
        for name, value in values.items():
            sysctl = Sysctl(name=name, value=value)
            found[sysctl.identity] = sysctl
        return found

    @staticmethod
    def matches(wanted: Value, found: Value) -> bool:
        """Does what was found fulfil what is wanted?"""
        return matches(wanted, found)
