"""What the fake kernel holds: network namespaces by descriptor number, each with its objects; and how they are opened."""

from __future__ import annotations

import contextlib
import errno
import itertools
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, TypeVar

import msgspec

from podplane.kernel.errors import KernelError, Retry, from_errno
from podplane.kernel.fakes.nft import FakeTables
from podplane.kernel.fakes.objects import Objects
from podplane.kernel.fakes.rtnl import FakeRtnl
from podplane.kernel.fakes.sysctl import FakeSysctls
from podplane.kernel.fakes.traffic import Traffic
from podplane.kernel.namespace import Namespace
from podplane.kernel.nft import Nft
from podplane.kernel.parts import (
    Announcer,
    Answer,
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
from podplane.state.conntrack import Allowed, Connection, Revoked, Sent, TrackedFlow
from podplane.state.network import Address, Link
from podplane.state.ownership import Ownership
from podplane.state.packet_log import LoggedPacket
from podplane.state.value import IPAddress, Value, address_of
from podplane.trace.evaluator import first
from podplane.trace.packet import Packet, echo
from podplane.trace.trace import Delivered, Rejected, Trace

T = TypeVar("T")
_descriptors = itertools.count(1000)

NOTIFIED = (".ip_forward", ".forwarding", ".rp_filter")
"""Ends of the names of sysctls of whose changes the kernel tells."""


class FakeNamespace:
    """A network namespace of the fake kernel. Nothing real can run in it; packets are evaluated (`send`)."""

    def __init__(self, traffic: Traffic | None = None, name: str = "") -> None:
        self.objects = Objects()
        self._fd = next(_descriptors)
        self.name = name or f"netns-{self._fd}"
        self._traffic = traffic if traffic is not None else Traffic()
        self._traffic.namespaces[self.name] = self.objects

    def send(self, packet: Packet, choose: Callable[[int], int] = first) -> Trace:
        """Where a packet goes that this namespace sends, or that comes to it by `packet.link`. The fake kernel remembers connections."""
        return self._traffic.send(self.name, packet, choose)

    @property
    def fd(self) -> int:
        """A number that no other namespace has; no descriptor of this process."""
        return self._fd

    def run(self, function: Callable[..., T], *arguments: Any) -> T:
        """Refused: a function would run in this process' own namespace."""
        raise AssertionError(f"{function} was to run in a fake network namespace")

    def close(self) -> None:
        """Nothing."""

    # A foreign hand: what somebody else does here, which monitors are told.

    def delete(self, value: Value) -> None:
        """Somebody deletes an object of rtnetlink. KeyError when there is none."""
        if isinstance(value, Link):
            self.objects.delete_link(value.name)
        else:
            present = self.objects.network[value.identity]
            self.objects.announce(present, is_there=False)
            self.objects.delete(present)
            self.objects.report_address_loss(present)

    def put(self, value: Value) -> None:
        """Somebody makes an object of rtnetlink, or puts one in the place of another (`ip … replace`)."""
        if isinstance(value, Link):
            self.objects.put_link(value)
        else:
            self.objects.network[value.identity] = value
            self.objects.announce(value, is_there=True)

    def set_link(self, name: str, *, up: bool) -> None:
        """Somebody sets a link up or down."""
        link = self.objects.network[Link(name=name).identity]
        self.put(msgspec.structs.replace(link, up=up))

    def set_sysctl(self, name: str, value: str) -> None:
        """Somebody sets a sysctl."""
        self.objects.sysctls[name] = value
        if name.endswith(NOTIFIED):
            for monitor in self.objects.monitors:
                monitor.report_setting()

    def lose_changes(self) -> None:
        """The buffers of monitors overflow."""
        for monitor in self.objects.monitors:
            monitor.lose()


class FakeConntrack:
    """No connections."""

    def __init__(
        self,
        flushed: list[Allowed],
        judged: list[frozenset[IPAddress]],
        forgotten: list[frozenset[IPAddress]],
        revoked: list[Revoked],
        flows: set[TrackedFlow],
    ) -> None:
        self._revoked = revoked
        self._flows = flows
        self._flushed = flushed
        self._judged = judged
        self._forgotten = forgotten

    def flush(self, allowed: Allowed) -> int:
        """Remember what was asked."""
        self._flushed.append(allowed)
        return 0

    def judge_again(self, ips: Collection[IPAddress]) -> int:
        """Remember what was asked."""
        self._judged.append(frozenset(ips))
        return 0

    def forget(self, ips: Collection[IPAddress]) -> int:
        """Remember what was asked."""
        self._forgotten.append(frozenset(ips))
        return 0

    def revoked(self) -> list[Revoked]:
        """What a test put there."""
        return list(self._revoked)

    def flows(self, ips: Collection[IPAddress]) -> set[TrackedFlow]:
        """Those of a test that concern these addresses."""
        packed = {ip.packed for ip in ips}
        return {one for one in self._flows if not packed.isdisjoint((one.source, one.destination))}

    def translated(self) -> list[Connection]:
        """None."""
        return []

    def close(self) -> None:
        """Nothing."""


class FakeSockets:
    """Those of a pod's namespace."""

    def __init__(self, ended: list[Revoked], waiting: Iterable[tuple[str, int, IPAddress]]) -> None:
        self._ended, self._waiting = ended, waiting

    def listening(self) -> Iterable[tuple[str, int, IPAddress]]:
        """As a test has them."""
        return self._waiting

    def end_at_server(self, connections: Iterable[Revoked]) -> int:
        """Remember what was asked."""
        before = len(self._ended)
        self._ended += connections
        return len(self._ended) - before

    def close(self) -> None:
        """Nothing."""


class FakeKeepAlives:
    """From a node's namespace."""

    def __init__(self, probed: list[Sent]) -> None:
        self._probed = probed

    def probe(self, connections: Iterable[Sent]) -> int:
        """Remember what was asked."""
        before = len(self._probed)
        self._probed += connections
        return len(self._probed) - before

    def close(self) -> None:
        """Nothing."""


class FakeEcho:
    """Requests go where packets of the fake kernel go; who gets one answers at once."""

    def __init__(self, traffic: Traffic, netns: str) -> None:
        self._traffic, self._netns = traffic, netns
        self._answers: list[Answer] = []

    def send(self, ip: str, sequence: int) -> bool:
        """Send a request, and take the answer, where there is one."""
        to = address_of(ip)
        source = self._source(to.version)
        if source is None:
            return False
        there = self._traffic.send(self._netns, echo(source, to))
        if isinstance(there.end, Delivered) and isinstance(self._traffic.reply(there).end, Delivered):
            self._answers.append(Answer(ip, sequence, 0.001))
        return not isinstance(there.end, Rejected)

    def _source(self, version: int) -> IPAddress | None:
        values = self._traffic.namespaces[self._netns].network.values()
        return next((one.ip for one in values if isinstance(one, Address) and one.ip.version == version), None)

    def receive(self) -> list[Answer]:
        """Those that wait."""
        found, self._answers = self._answers, []
        return found

    def close(self) -> None:
        """Nothing."""


class FakePacketLog:
    """What a test put into `Objects.logged`."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects

    def fileno(self) -> int:
        """It can't be polled."""
        return -1

    def packets(self) -> list[LoggedPacket]:
        """All of it."""
        found, self._objects.logged[:] = list(self._objects.logged), []
        return found

    def close(self) -> None:
        """Another one may read it."""
        self._objects.log_readers.discard(id(self))


class FakeAnnouncer:
    """Nobody listens on its link."""

    def __init__(self, link: str, announced: list[tuple[str, IPAddress]]) -> None:
        self._link = link
        self._announced = announced

    def announce(self, ips: Iterable[IPAddress]) -> None:
        """Remember them."""
        self._announced += [(self._link, ip) for ip in ips]


class FakeFeatures:
    """Those of a namespace's links. Loopback can't do without (EOPNOTSUPP), and what is not there can do nothing (ENODEV)."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects

    def driver(self, link: str) -> str:
        """As a test has it."""
        return self._objects.drivers.get(link, "")

    def mac(self, link: str) -> str:
        """As a test has it."""
        return self._objects.macs.get(link, "")

    def has_software_checksum(self, link: str) -> bool:
        """Was it set?"""
        return link in self._objects.software_checksums

    def set_software_checksum(self, link: str, on: bool) -> None:
        """Set it, of a link that is there."""
        if Link(name=link).identity not in self._objects.network:
            raise OSError(errno.ENODEV, "No such device")
        if link == "lo":
            raise OSError(errno.EOPNOTSUPP, "Operation not supported")
        (self._objects.software_checksums.add if on else self._objects.software_checksums.discard)(link)

    def close(self) -> None:
        """Nothing."""


class FakeOpener:
    """`door.Opener` over fake namespaces; it knows those that were made with `namespace`."""

    def __init__(self) -> None:
        self._by_fd: dict[int, FakeNamespace] = {}
        self.traffic = Traffic()
        self.flushed: list[Allowed] = []
        self.judged: list[frozenset[IPAddress]] = []
        self.forgotten: list[frozenset[IPAddress]] = []
        self.revoked: list[Revoked] = []
        self.flows: set[TrackedFlow] = set()
        """The connections that policies took back, as a test has them."""
        self.ended: list[Revoked] = []
        """Those that were ended at the sockets of their servers."""
        self.probed: list[Sent] = []
        """Those whose servers were asked."""
        self.listeners: list[tuple[str, int, IPAddress]] = []
        """The sockets that wait for clients, in whatever namespace, as a test has them."""
        self.announced: list[tuple[str, IPAddress]] = []
        self.kernel_release = "6.12.0"

    def namespace(self, name: str = "") -> FakeNamespace:
        """A new, empty namespace; traces call it by this name."""
        made = FakeNamespace(self.traffic, name)
        self._by_fd[made.fd] = made
        return made

    def _objects(self, namespace: Namespace) -> Objects:
        return self._by_fd[namespace.fd].objects

    def rtnl(self, namespace: Namespace, namespace_fd: Callable[[str], int]) -> NetworkPart:
        """rtnetlink."""
        return FakeRtnl(self._objects(namespace), lambda name: self._by_fd[namespace_fd(name)].objects)

    def pod_namespaces(
        self, wanted: Mapping[str, PodNamespace], namespace_fd: Callable[[str], int]
    ) -> Mapping[str, tuple[PodPart, Mapping[str, KernelError]]]:
        """rtnetlink of several namespaces, after their sysctls."""
        return {
            name: (self.rtnl(namespace, namespace_fd), self.sysctls(namespace).set(wanted))
            for name, (namespace, wanted) in wanted.items()
        }

    def nft(self, namespace: Namespace) -> NftPart:
        """nf_tables."""
        return Nft(FakeTables(self._objects(namespace)))

    def conntrack(self, namespace: Namespace) -> Tracked:
        """Connection tracking, which only remembers what it was asked."""
        return FakeConntrack(self.flushed, self.judged, self.forgotten, self.revoked, self.flows)

    def sockets(self, namespace: Namespace) -> Sockets:
        """The sockets of a namespace, which only remember what they were asked."""
        return FakeSockets(self.ended, self.listeners)

    def keepalives(self, namespace: Namespace) -> Probes:
        """Probes, which are only remembered."""
        return FakeKeepAlives(self.probed)

    def echo(self, namespace: Namespace) -> Echo:
        """Echo requests, which are evaluated."""
        return FakeEcho(self.traffic, self._by_fd[namespace.fd].name)

    def packet_log(self, namespace: Namespace, group: int) -> PacketLog:
        """What a test says was logged; EBUSY when somebody reads it already, or the test has it so."""
        objects = self._objects(namespace)
        if objects.log_readers or not objects.can_log:
            raise from_errno(f"read packets of NFLOG group {group}", errno.EBUSY if objects.can_log else errno.EINVAL)
        made = FakePacketLog(objects)
        objects.log_readers.add(id(made))
        return made

    def check_packet_log(self, namespace: Namespace, group: int) -> None:
        """EINVAL when a test has it so."""
        with contextlib.suppress(Retry):
            self.packet_log(namespace, group).close()

    def announcer(self, namespace: Namespace, link: str) -> Announcer:
        """A link, which only remembers what was said on it."""
        return FakeAnnouncer(link, self.announced)

    def features(self, namespace: Namespace) -> LinkFeatures:
        """What links do."""
        return FakeFeatures(self._objects(namespace))

    def release(self) -> str:
        """As a test has it."""
        return self.kernel_release

    def sysctls(self, namespace: Namespace) -> SysctlPart:
        """Sysctls."""
        return self._objects_sysctls(namespace)

    def node_sysctls(self, namespace: Namespace) -> NodeSysctlPart:
        """Sysctls."""
        return self._objects_sysctls(namespace)

    def _objects_sysctls(self, namespace: Namespace) -> FakeSysctls:
        objects = self._objects(namespace)
        return FakeSysctls(objects.sysctls, lambda: {link.name for link in objects.links()})

    def monitor(self, namespace: Namespace, owner: Ownership, port: Callable[[], int]) -> Monitor:
        """A subscription to what a foreign hand does, and to what becomes of links."""
        return self._objects(namespace).monitor(owner)
