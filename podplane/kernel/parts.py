"""What the kernel door needs of each part of the kernel in one namespace, and who opens the parts: the real kernel or a fake."""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

from podplane.kernel.errors import KernelError
from podplane.kernel.namespace import Namespace
from podplane.state.conntrack import Allowed, Connection, Revoked, Sent, TrackedFlow
from podplane.state.nft import Table
from podplane.state.operations import Changes, Operation, Report
from podplane.state.ownership import Ownership
from podplane.state.packet_log import LoggedPacket
from podplane.state.value import Identity, IPAddress, Value


class Part(Protocol):
    """One part of the kernel in one namespace."""

    def apply(self, operations: Sequence[Operation]) -> Report:
        """Carry out the operations."""

    def read(self, owner: Ownership) -> dict[Identity, Value]:
        """What it holds of this owner."""

    def close(self) -> None:
        """Let go of the socket."""


class PodPart(Part, Protocol):
    """rtnetlink of a pod's namespace."""

    def not_local(self, ips: Iterable[IPAddress]) -> list[IPAddress]:
        """Those of these addresses for which packets are not taken yet, though an interface has them."""


class NetworkPart(PodPart, Protocol):
    """rtnetlink of one namespace."""

    @property
    def port(self) -> int:
        """The port id that notifications of its own changes carry."""

    def read_proxies(self, owner: Ownership) -> dict[Identity, Value]:
        """The proxies of this owner, of which the kernel notifies nothing."""

    def read_all(self) -> dict[Identity, Value]:
        """What it holds, whosever it is, but what the kernel made itself."""

    def activate(self, links: Iterable[str]) -> None:
        """Have the kernel send by these links, which got a carrier just now, before this returns."""


class Monitor(Protocol):
    """A subscription to what changes in a namespace's rtnetlink state; used from one thread at a time."""

    def fileno(self) -> int:
        """Readable when there are changes."""

    def changes(self) -> Changes:
        """What changed since the last call; returns at once."""

    def mtu_of(self, name: str) -> int:
        """The MTU of a link of others, in bytes; 0 when there is no such link."""

    def close(self) -> None:
        """End the subscription."""


class NftPart(Part, Protocol):
    """nf_tables of one namespace."""

    def steps(self, operations: Sequence[Operation]) -> Iterator[Report]:
        """Carry out the operations in slices."""

    def make_anew(self, tables: Sequence[Table], values: Sequence[Value]) -> bool:
        """Put these values in the place of all that the tables have, at once; False when that can't be, and nothing is changed."""

    def read_steps(self, owner: Ownership) -> Generator[None, None, dict[Identity, Value]]:
        """What it holds of this owner, read in slices."""

    def foreign_commit(self) -> bool:
        """Did anybody else commit a change since this was asked last?"""

    def counts(self, family: str, table: str, names: Iterable[str] | None = None) -> dict[str, int]:
        """How many packets each named counter of a table counted, or those of these names."""

    def has_family(self, family: str) -> bool:
        """Does it have tables of this family?"""

    def prolong(self, family: str, table: str, name: str, key: bytes, milliseconds: int) -> None:
        """Have a set with timeouts the element with this key for so long from now on."""


class Tracked(Protocol):
    """The tracked connections of one namespace."""

    def flush(self, allowed: Allowed) -> int:
        """Delete the connections to these frontends that do not go where they may; how many those were."""

    def judge_again(self, ips: Collection[IPAddress]) -> int:
        """Have the connections from and to these addresses judged again; how many those are."""

    def revoked(self) -> list[Revoked]:
        """The TCP connections that were let pass and are no more."""

    def forget(self, ips: Collection[IPAddress]) -> int:
        """Delete the connections from and to these addresses; how many those were."""

    def flows(self, ips: Collection[IPAddress]) -> set[TrackedFlow]:
        """Who is connected from and to these addresses, or was a moment ago."""

    def translated(self) -> list[Connection]:
        """The connections that were translated to another destination."""

    def close(self) -> None:
        """Let go of the socket."""


class PacketLog(Protocol):
    """The packets that rules of one namespace logged; used from one thread at a time."""

    def fileno(self) -> int:
        """Readable when there are packets; negative when it can't be polled."""

    def packets(self) -> list[LoggedPacket]:
        """Some of those that wait; returns at once."""

    def close(self) -> None:
        """End; nothing is logged any more."""


class Sockets(Protocol):
    """The sockets of one namespace."""

    def end_at_server(self, connections: Iterable[Revoked]) -> int:
        """End these connections at the sockets of their servers; how many those were. KernelError when the kernel can't do it."""

    def listening(self) -> Iterable[tuple[str, int, IPAddress]]:
        """Protocol (tcp, udp), port and address of the sockets that wait for clients. OSError when that can't be read."""

    def close(self) -> None:
        """Let go of the socket."""


class Probes(Protocol):
    """Of TCP connections, sent from one namespace."""

    def probe(self, connections: Iterable[Sent]) -> int:
        """Ask the servers of these connections whether they stand; how many were asked."""

    def close(self) -> None:
        """Let go of the sockets."""


class Answer(NamedTuple):
    """To an echo request: from whom, to which one, and how many seconds after it was sent."""

    ip: str
    sequence: int
    seconds: float


class Echo(Protocol):
    """ICMP echo requests, sent from one namespace; used from one thread at a time, and none of its methods waits."""

    def send(self, ip: str, sequence: int) -> bool:
        """Send a request; False when that can't be: nothing leads there, say."""

    def receive(self) -> Iterable[Answer]:
        """The answers that wait."""

    def close(self) -> None:
        """Let go of the sockets."""


class Announcer(Protocol):
    """One link, out of which it is said where addresses are."""

    def announce(self, ips: Iterable[IPAddress]) -> None:
        """Say that these addresses are here; then it is closed."""


class LinkFeatures(Protocol):
    """What links of one namespace do with packets beyond sending them (ethtool(8))."""

    def driver(self, link: str) -> str:
        """The name of its driver; "" where there is no such link, or it has none."""

    def mac(self, link: str) -> str:
        """Its MAC; "" where there is no such link, or it has none."""

    def has_software_checksum(self, link: str) -> bool:
        """Are checksums of what it sends computed before? Of a link that is not there they are not."""

    def set_software_checksum(self, link: str, on: bool) -> None:
        """Have them computed before, or not. OSError when that can't be."""

    def close(self) -> None:
        """Let go of the socket."""


class SysctlPart(Protocol):
    """The sysctls of one namespace."""

    def set(self, values: Mapping[str, str]) -> Mapping[str, KernelError]:
        """Set each and read it back; the refused ones with the reason."""

    def read(self, names: Iterable[str]) -> dict[str, str]:
        """The values of those that exist."""


class NodeSysctlPart(SysctlPart, Protocol):
    """The sysctls of a node's own namespace."""

    def watch(self, names: Iterable[str]) -> SysctlWatch:
        """A watch of some of them."""

    def close(self) -> None:
        """Let go of what is open."""


class SysctlWatch(Protocol):
    """Looks at some sysctls of one namespace again and again, at little cost."""

    def changed(self, expected: Mapping[str, str]) -> dict[str, str]:
        """Name → value now, of those that have another value than expected; without those that are not watched."""

    @property
    def unwatched(self) -> frozenset[str]:
        """Those that do not exist, or do not any more."""

    def close(self) -> None:
        """End the watch."""


PodNamespace = tuple[Namespace, Mapping[str, str]]
"""A namespace, and sysctls to set there."""


class Opener(Protocol):
    """Opens the parts of the kernel in a namespace."""

    def rtnl(self, namespace: Namespace, namespace_fd: Callable[[str], int]) -> NetworkPart:
        """rtnetlink; `namespace_fd` finds the namespaces that veth peers are put in."""

    def monitor(self, namespace: Namespace, owner: Ownership, port: Callable[[], int]) -> Monitor:
        """A subscription to rtnetlink; `port` says whose own changes are left out."""

    def pod_namespaces(
        self, wanted: Mapping[str, PodNamespace], namespace_fd: Callable[[str], int]
    ) -> Mapping[str, tuple[PodPart, Mapping[str, KernelError]]]:
        """rtnetlink of pods' namespaces after sysctls were set there, and which of those were refused: one job for all."""

    def nft(self, namespace: Namespace) -> NftPart:
        """nf_tables."""

    def conntrack(self, namespace: Namespace) -> Tracked:
        """Its connection tracking."""

    def sockets(self, namespace: Namespace) -> Sockets:
        """Its sockets."""

    def keepalives(self, namespace: Namespace) -> Probes:
        """Probes of connections, from there."""

    def echo(self, namespace: Namespace) -> Echo:
        """ICMP echo requests, from there. OSError when this process may not send any."""

    def packet_log(self, namespace: Namespace, group: int) -> PacketLog:
        """A group of its NFLOG. KernelError when it can't be read."""

    def check_packet_log(self, namespace: Namespace, group: int) -> None:
        """KernelError when the kernel has no NFLOG; that somebody else reads the group is none."""

    def announcer(self, namespace: Namespace, link: str) -> Announcer:
        """One of its links."""

    def features(self, namespace: Namespace) -> LinkFeatures:
        """Those of its links."""

    def release(self) -> str:
        """That of the kernel (uname(2)): "6.12.0-amd64", say."""

    def sysctls(self, namespace: Namespace) -> SysctlPart:
        """Its sysctls."""

    def node_sysctls(self, namespace: Namespace) -> NodeSysctlPart:
        """Its sysctls, to be set again and again."""
