"""What an agent needs of the kernel door (`kernel.door`, and its fake)."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Protocol

from podplane.kernel.namespace import Namespace
from podplane.state.conntrack import Allowed, Connection, TrackedFlow
from podplane.state.nft import Table
from podplane.state.operations import Changes, Operation, Report
from podplane.state.ownership import Ownership
from podplane.state.packet_log import LoggedPacket
from podplane.state.value import Identity, IPAddress, Value


class Monitor(Protocol):
    """A subscription to the rtnetlink notifications of a node's own namespace."""

    def fileno(self) -> int:
        """Readable when there are notifications; negative when it can't be polled."""

    def changes(self) -> Changes:
        """What was notified since this was asked last."""

    def mtu_of(self, name: str) -> int:
        """The MTU of a link that is not podplane's, in bytes, as it was notified up to now; 0 when there is no such link."""

    def close(self) -> None:
        """End the subscription."""


class PacketLog(Protocol):
    """The packets that rules of the node log to a group."""

    def fileno(self) -> int:
        """Readable when there are packets; negative when it can't be polled."""

    def packets(self) -> list[LoggedPacket]:
        """Some of those that wait; returns at once."""

    def close(self) -> None:
        """End; nothing is logged any more."""


class EchoAnswer(Protocol):
    """To an echo request."""

    @property
    def ip(self) -> str:
        """Who answered."""

    @property
    def sequence(self) -> int:
        """Which request."""

    @property
    def seconds(self) -> float:
        """How long after it was sent."""


class Echo(Protocol):
    """ICMP echo requests from the node's own namespace; none of its methods waits."""

    def send(self, ip: str, sequence: int) -> bool:
        """Send a request; False when that can't be: nothing leads there, say."""

    def receive(self) -> Iterable[EchoAnswer]:
        """The answers that wait."""

    def close(self) -> None:
        """Send and receive no more."""


class SysctlWatch(Protocol):
    """Sysctls of a node's own namespace whose files stay open."""

    @property
    def unwatched(self) -> frozenset[str]:
        """Those that do not exist, or do not any more."""

    def changed(self, expected: Mapping[str, str]) -> Mapping[str, str]:
        """The values of those that are not as expected."""

    def close(self) -> None:
        """Close the files."""


class Kernel(Protocol):
    """The door to one node's kernel state."""

    def attach(self, name: str, namespace: Namespace) -> None:
        """Give a network namespace the name by which values speak of it."""

    def detach(self, name: str) -> None:
        """Forget a namespace: what was in it counts as gone."""

    def apply(self, operations: Sequence[Operation]) -> Report:
        """Carry out operations at once; each is in the report."""

    def steps(self, operations: Sequence[Operation]) -> Iterator[Report]:
        """Carry out the operations in slices of some milliseconds; each is in one report."""

    def make_anew(self, tables: Sequence[Table], values: Sequence[Value]) -> bool:
        """Put these values in the place of all that the tables have, at once; False when that can't be, and nothing is changed. It may be
        called in a thread while nobody else applies anything."""

    def remove_links(self, operations: Sequence[Operation]) -> Report:
        """Remove links of the node's own namespace; may be called in another thread than all else."""

    def read(self, owner: Ownership, sysctls: Iterable[str] = ()) -> dict[Identity, Value]:
        """What the kernel holds of this owner in the node's own namespace, and the values of these sysctls."""

    def read_proxies(self, owner: Ownership) -> dict[Identity, Value]:
        """The proxies of this owner in the node's own namespace."""

    def listening(self) -> frozenset[tuple[str, int, IPAddress]]:
        """Protocol, port and address of the node's sockets that wait for clients; may be called in another thread than all else."""

    def takes_packets(self, name: str) -> bool:
        """Are packets taken for all addresses of an attached namespace? Some milliseconds after they were added they are."""

    def read_namespace(self, name: str) -> dict[Identity, Value]:
        """The links, addresses, routes and neighbours in an attached namespace."""

    def monitor(self, owner: Ownership) -> Monitor:
        """Subscribe to changes of links, addresses, routes, neighbours and rules in the node's own namespace."""

    def sysctl_watch(self, names: Iterable[str]) -> SysctlWatch:
        """These sysctls of the node's own namespace, cheap to read again and again."""

    def foreign_commit(self) -> bool:
        """Did anybody else commit a change of the node's nf_tables since this was asked last?"""

    def counts(self, family: str, table: str, names: Iterable[str] | None = None) -> dict[str, int]:
        """How many packets each named counter of a table of the node counted, or those of these names. May be called in any thread."""

    def has_bridge_family(self) -> bool:
        """Does the kernel have nf_tables of the bridge family?"""

    def has_arp_family(self) -> bool:
        """Does the kernel have nf_tables of the ARP family?"""

    def driver(self, link: str) -> str:
        """The name of the driver of a link of the node, whosever it is; "" where there is no such link, or it has none."""

    def mac(self, link: str) -> str:
        """The MAC of a link of the node, whosever it is; "" where there is no such link, or it has none."""

    def release(self) -> str:
        """That of the kernel (uname(2))."""

    def prolong(self, family: str, table: str, name: str, key: bytes, milliseconds: int) -> None:
        """Have a set with timeouts the element with this key for so long from now on. KernelError when it can't."""

    def packet_log(self, group: int) -> PacketLog:
        """The packets that rules of the node log to a group from now on. KernelError when the kernel can't tell, or tells somebody else."""

    def echo(self) -> Echo:
        """ICMP echo requests, from the node. OSError when this process may not send any."""

    def check_packet_log(self, group: int) -> None:
        """KernelError when the kernel can't log packets to a group."""

    def announce(self, link: str, ips: Iterable[IPAddress]) -> None:
        """Tell the neighbours on a link that these addresses are here. OSError when that can't be."""

    def flush_conntrack(self, allowed: Allowed) -> int:
        """Delete the tracked connections to these frontends that go elsewhere than allowed; how many those were."""

    def judge_again(self, ips: Collection[IPAddress]) -> int:
        """Have the tracked connections from and to these addresses judged again; how many those are."""

    def end_revoked(self, namespaces: Mapping[IPAddress, str]) -> int:
        """End TCP connections that were let pass and are no more, at the sockets of those servers that are in these namespaces."""

    def forget_connections(self, ips: Collection[IPAddress]) -> int:
        """Delete the tracked connections from and to these addresses; how many those were."""

    def flows(self, ips: Collection[IPAddress]) -> set[TrackedFlow]:
        """Who is connected from and to these addresses, or was a moment ago; may be called in any thread."""

    def connections(self) -> list[Connection]:
        """The tracked connections that were translated to another destination."""

    def matches(self, wanted: Value, found: Value) -> bool:
        """Does what was found fulfil what is wanted (fields left to the kernel may have any value)?"""
