"""The door to one node's kernel state: operations in, a report out, whatever part of the kernel they are for.

A node's values live in its own network namespace (netns "") and in those of its pods, which the agent names by `attach`.
Order makes a change work at once, and keeps traffic flowing while it is made: sysctls first, as new links inherit
them; then links and what lies on them on the node; then what lies in the pods, whose links came with the node's; then
what tunnels leave to others; then nf_tables; last, sysctls that were not there at first. Sysctls of podplane's own links are
set behind the links of their namespace, and are removed together with them. Values of a namespace that was detached are gone
with it: deleting them is done.

The parts are opened by an `Opener`, so that the fakes share this code with the real kernel.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Collection, Generator, Iterable, Iterator, Mapping, Sequence

import msgspec

from podplane.kernel import link_features
from podplane.kernel.errors import Denied, KernelError, NotFound, Retry
from podplane.kernel.kept import Kept
from podplane.kernel.namespace import Namespace, is_within_reach
from podplane.kernel.netlink import DumpInterrupted
from podplane.kernel.parts import (
    Echo,
    Monitor,
    NetworkPart,
    NftPart,
    Opener,
    PacketLog,
    PodPart,
    SysctlPart,
    SysctlWatch,
)
from podplane.kernel.rtnl import matches
from podplane.kernel.slices import result, slices
from podplane.kernel.sysctl import FormerSysctls
from podplane.state.conntrack import Allowed, Connection, Revoked, Sent, TrackedFlow
from podplane.state.network import Address, Fdb, Link, Neighbour, Proxy, Qdisc, Redirect, Route, Rule, SoftwareChecksum, Sysctl
from podplane.state.nft import Chain, Element, NamedCounter, OpaqueElement, OpaqueObject, Set, Table
from podplane.state.nft_members import Members
from podplane.state.operations import Failure, Operation, Report
from podplane.state.ownership import Ownership
from podplane.state.value import Identity, IPAddress, Value

HOST = ""
SYSCTL, RTNL, NFT, FEATURE = "sysctl", "rtnl", "nft", "feature"
PARTS: Mapping[type[Value], str] = {
    Sysctl: SYSCTL,
    Link: RTNL,
    Address: RTNL,
    Neighbour: RTNL,
    Proxy: RTNL,
    Fdb: RTNL,
    Qdisc: RTNL,
    Redirect: RTNL,
    Route: RTNL,
    Rule: RTNL,
    SoftwareChecksum: FEATURE,
    Table: NFT,
    Chain: NFT,
    Set: NFT,
    Element: NFT,
    Members: NFT,
    NamedCounter: NFT,
    OpaqueElement: NFT,
    OpaqueObject: NFT,
}
"""The part of the kernel that holds values of each type."""


class Unreachable:
    """A `Part` of a namespace that can't be entered: nothing can be made there, and what was there is gone."""

    def __init__(self, error: KernelError) -> None:
        self._error = error

    def apply(self, operations: Sequence[Operation]) -> Report:
        """Refuse what is to be made."""
        gone = [operation for operation in operations if operation.new is None]
        return Report(gone, [Failure(operation, self._error) for operation in operations if operation.new is not None])

    def read(self, owner: Ownership) -> dict[Identity, Value]:
        """Nothing."""
        return {}

    def not_local(self, ips: Iterable[IPAddress]) -> list[IPAddress]:
        """None: what can't be entered is not waited for."""
        return []

    def close(self) -> None:
        """Nothing."""


REACHED_AGAIN = "the plugin's next CHECK or ADD of it passes what was opened in it"


def _not_entered(name: str, error: Exception) -> KernelError:
    """Why nothing can be done in a pod's namespace."""
    number = error.errno if isinstance(error, OSError) and error.errno else 0
    if number in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
        return Retry(f"network namespace {name}", str(error), number)
    if isinstance(error, PermissionError):
        return Denied(f"network namespace {name}", "it can't be entered without CAP_SYS_ADMIN", number, REACHED_AGAIN)
    return KernelError(f"network namespace {name}", str(error), number)


def _of_peer(operation: Operation) -> list[Operation]:
    """A veth whose MTU changes: its peer gets the new one, too. What made the MTU of the peer another one meanwhile counts no more."""
    old, new = operation.old, operation.new
    if not (isinstance(old, Link) and isinstance(new, Link) and new.peer and new.peer.netns and old.mtu not in (0, new.mtu)):
        return []
    former = Link(netns=new.peer.netns, name=new.peer.name, mtu=old.mtu)
    return [Operation(former, msgspec.structs.replace(former, mtu=new.peer.mtu))]


SORTED_AT_ONCE = 2_000
"""So many operations are sorted in one slice: some 5 ms."""
PODS_AT_ONCE = 16
"""The namespaces of so many pods are opened in one slice."""


class Work(msgspec.Struct):
    """Operations by the part of the kernel that they are for, and by the name of their namespace: the node's own comes first.

    `link_sysctls` are those of podplane's own links; `features` are what links of the node do; `near_ends` are links whose peers are in a
    namespace.
    """

    sysctls: dict[str, list[Operation]] = msgspec.field(default_factory=dict)
    link_sysctls: dict[str, list[Operation]] = msgspec.field(default_factory=dict)
    network: dict[str, list[Operation]] = msgspec.field(default_factory=lambda: {HOST: []})
    features: list[Operation] = msgspec.field(default_factory=list)
    nft: list[Operation] = msgspec.field(default_factory=list)
    near_ends: dict[str, list[str]] = msgspec.field(default_factory=dict)


class Kernel:
    """One node's kernel state. Methods block for as long as the kernel works, and are called from one thread at a time."""

    def __init__(self, namespace: Namespace, opener: Opener, former: FormerSysctls | None = None) -> None:
        """`former`: what sysctls were before podplane came, by a door before this one."""
        self._opener = opener
        self._namespaces: dict[str, Namespace] = {HOST: namespace}
        self._probed: set[Sent] = set()
        self._rtnl = opener.rtnl(namespace, self._fd)
        self._polled: NetworkPart | None = None
        self._remover: NetworkPart | None = None
        self._late: dict[str, tuple[PodPart, list[IPAddress]]] = {}
        """By namespace: IPv6 addresses for which packets were not taken yet when they were added, and the part that is asked for them."""
        self._nft: NftPart | None = None
        self._tracked = Kept(lambda: opener.conntrack(namespace))
        self._former = FormerSysctls() if former is None else former
        self._sysctls = opener.node_sysctls(namespace)

    def attach(self, name: str, namespace: Namespace) -> None:
        """Give a network namespace the name by which values speak of it."""
        self._namespaces[name] = namespace

    def detach(self, name: str) -> None:
        """Forget a namespace: what was in it counts as gone."""
        self._namespaces.pop(name, None)
        self._close_late(name)

    def monitor(self, owner: Ownership) -> Monitor:
        """A subscription to what others change in the rtnetlink state of the node's own namespace."""
        return self._opener.monitor(self._namespaces[HOST], owner, lambda: self._rtnl.port)

    def read_namespace(self, name: str) -> dict[Identity, Value]:
        """The rtnetlink state of an attached namespace: all but what the kernel made itself. NotFound when it is not attached."""
        self._fd(name)
        try:
            part = self._opener.rtnl(self._namespaces[name], self._fd)
        except PermissionError as error:
            raise _not_entered(name, error) from None
        try:
            found = part.read_all()
        finally:
            part.close()
        values = (msgspec.structs.replace(value, netns=name) for value in found.values())
        return {value.identity: value for value in values}

    def read_proxies(self, owner: Ownership) -> dict[Identity, Value]:
        """The proxies of this owner in the node's own namespace: cheap enough to be polled.

        May be called while another thread applies changes: it reads over a socket of its own.
        """
        if self._polled is None:
            self._polled = self._opener.rtnl(self._namespaces[HOST], self._fd)
        return self._polled.read_proxies(owner)

    def remove_links(self, operations: Sequence[Operation]) -> Report:
        """Remove links of the node's own namespace, together: the kernel waits once for its readers.

        May be called while another thread applies changes, over a socket of its own.
        """
        if self._remover is None:
            self._remover = self._opener.rtnl(self._namespaces[HOST], self._fd)
        return self._remover.apply(operations)

    def sysctl_watch(self, names: Iterable[str]) -> SysctlWatch:
        """A watch of sysctls of the node's own namespace."""
        return self._sysctls.watch(names)

    def close(self) -> None:
        """Let go of the sockets; what the kernel holds stays."""
        self._rtnl.close()
        for name in list(self._late):
            self._close_late(name)
        for part in (self._polled, self._remover):
            if part is not None:
                part.close()
        if self._nft is not None:
            self._nft.close()
        self._tracked.close()
        self._sysctls.close()

    def _fd(self, name: str) -> int:
        if name not in self._namespaces:
            raise NotFound(f"network namespace {name}", "it is not attached")
        try:
            return self._namespaces[name].fd
        except (OSError, ValueError) as error:
            raise _not_entered(name, error) from None

    def apply(self, operations: Sequence[Operation]) -> Report:
        """Carry out the operations; each is in the report."""
        report = Report()
        for step in self.steps(operations):
            report.merge(step)
        return report

    def steps(self, operations: Sequence[Operation]) -> Iterator[Report]:
        """The same in slices of some milliseconds, each with a report of what it did, which may be nothing; removing links takes longer.

        The data path is correct between any two. A caller that stops in between leaves the rest undone.
        """
        work = Work()
        for start in range(0, len(operations), SORTED_AT_ONCE):
            report = Report()
            self._sort(operations[start : start + SORTED_AT_ONCE], work, report)
            if len(operations) > SORTED_AT_ONCE or report.applied or report.failed:
                yield report
        late: dict[str, list[Operation]] = {}
        opened: dict[str, PodPart] = {}
        try:
            yield from self._open_pods(work, late, opened)
            yield from self._sysctl_steps(work.sysctls, late)
            for name, own in work.network.items():
                part = self._rtnl if name == HOST else opened[name]
                for done in map(part.apply, slices(own)):
                    if name != HOST:
                        self._rtnl.activate(work.near_ends.get(name, ()))
                        self._note_late(name, opened[name], done)
                    yield done
                yield from self._sysctl_steps({name: work.link_sysctls.pop(name, [])}, None)
        finally:
            asked = {id(part) for part, _ in self._late.values()}
            for part in opened.values():
                if id(part) not in asked:
                    part.close()
        yield from self._sysctl_steps(work.link_sysctls, None)
        if work.features:
            yield self._apply_features(work.features)
        if work.nft:
            yield from self._nft_part().steps(work.nft)
        yield from self._sysctl_steps(late, None)

    def _note_late(self, name: str, part: PodPart, done: Report) -> None:
        """Remember the IPv6 addresses that `takes_packets` has to ask for again."""
        added = [o.new.ip for o in done.applied if isinstance(o.new, Address) and o.new.ip.version == 6]
        if late := part.not_local(added):
            former, known = self._late.get(name, (part, []))
            if former is not part:
                former.close()
            self._late[name] = part, [*known, *late]

    def takes_packets(self, name: str) -> bool:
        """Are packets taken for all addresses of an attached namespace? For an IPv6 address that is some milliseconds after it was added:
        its local route comes with the end of duplicate address detection, which the kernel does later even where it does none
        (net/ipv6/addrconf.c, addrconf_dad_work)."""
        if name not in self._late:
            return True
        part, late = self._late[name]
        if still := part.not_local(late):
            self._late[name] = part, still
        else:
            self._close_late(name)
        return not still

    def _close_late(self, name: str) -> None:
        part, _ = self._late.pop(name, (None, ()))
        if part is not None:
            part.close()

    def _sort(self, operations: Sequence[Operation], work: Work, report: Report) -> None:
        for operation in operations:
            value = operation.value
            if value.netns not in self._namespaces:
                self._nowhere(operation, report)
                continue
            part = PARTS[type(value)]
            if part == NFT:
                work.nft.append(operation)
            elif part == FEATURE:
                work.features.append(operation)
            elif isinstance(value, Sysctl) and value.link:
                if operation.new is None:
                    report.applied.append(operation)  # it is removed together with its link
                else:
                    work.link_sysctls.setdefault(value.netns, []).append(operation)
            else:
                (work.sysctls if part == SYSCTL else work.network).setdefault(value.netns, []).append(operation)
            if isinstance(operation.new, Link) and operation.new.peer is not None:
                work.near_ends.setdefault(operation.new.peer.netns, []).append(operation.new.name)
                self._sort(_of_peer(operation), work, report)

    def _open_pods(self, work: Work, late: dict[str, list[Operation]], opened: dict[str, PodPart]) -> Iterator[Report]:
        """Open rtnetlink of the pods' namespaces, and set their sysctls before their links come."""
        names = [name for name in work.network if name != HOST]
        for start in range(0, len(names), PODS_AT_ONCE):
            report = Report()
            opened.update(self._open_namespaces(names[start : start + PODS_AT_ONCE], work.sysctls, late, report))
            yield report

    def _sysctl_steps(
        self, by_namespace: Mapping[str, list[Operation]], late: dict[str, list[Operation]] | None
    ) -> Iterator[Report]:
        for name, own in by_namespace.items():
            if not own:
                continue
            report = Report()
            self._apply_sysctls(name, own, late, report)
            yield report

    def _nowhere(self, operation: Operation, report: Report) -> None:
        if operation.new is None:
            report.applied.append(operation)
        else:
            error = NotFound(f"network namespace {operation.value.netns}", "it is not attached")
            report.failed.append(Failure(operation, error))

    def _open_namespaces(
        self, names: Collection[str], sysctls: dict[str, list[Operation]], late: dict[str, list[Operation]], report: Report
    ) -> dict[str, PodPart]:
        """rtnetlink of these pods' namespaces, with their sysctls set and taken out of `sysctls`."""
        operations = {name: sysctls.pop(name, []) for name in names}
        wanted = {
            name: {o.value.name: o.value.value for o in own if isinstance(o.value, Sysctl) and o.new is not None}
            for name, own in operations.items()
        }
        if not wanted:
            return {}
        opened = self._open(wanted)
        for name, (_, refused) in opened.items():
            self._report_sysctls(name, operations[name], refused, late, report)
        return {name: part for name, (part, _) in opened.items()}

    def _open(self, wanted: Mapping[str, Mapping[str, str]]) -> dict[str, tuple[PodPart, Mapping[str, KernelError]]]:
        """All in one job, which is quick; one by one when that fails, so that a namespace that can't be entered harms no other one."""
        try:
            return dict(self._opener.pod_namespaces({n: (self._namespaces[n], own) for n, own in wanted.items()}, self._fd))
        except (OSError, ValueError) as error:
            if len(wanted) > 1:
                return {n: part for name, own in wanted.items() for n, part in self._open({name: own}).items()}
            ((name, own),) = wanted.items()
            why = _not_entered(name, error)
            return {name: (Unreachable(why), dict.fromkeys(own, why))}

    def _apply_features(self, operations: Sequence[Operation]) -> Report:
        with contextlib.closing(self._opener.features(self._namespaces[HOST])) as features:
            return link_features.apply(features, operations)

    def driver(self, link: str) -> str:
        """The name of the driver of a link of the node, whosever it is; "" where there is no such link, or it has none."""
        with contextlib.closing(self._opener.features(self._namespaces[HOST])) as features:
            return features.driver(link)

    def mac(self, link: str) -> str:
        """The MAC of a link of the node, whosever it is; "" where there is no such link, or it has none."""
        with contextlib.closing(self._opener.features(self._namespaces[HOST])) as features:
            return features.mac(link)

    def release(self) -> str:
        """That of the kernel (uname(2))."""
        return self._opener.release()

    def _apply_sysctls(
        self, name: str, operations: list[Operation], late: dict[str, list[Operation]] | None, report: Report
    ) -> None:
        part = self._sysctls if name == HOST else self._opener.sysctls(self._namespaces[name])
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
            if error is None or (isinstance(error, NotFound) and operation.new is None):
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
        own = [(o, v) for o, v in sysctls if o.new is not None and not v.netns and not v.link]
        fresh = [(o, v) for o, v in own if v.name not in self._former.values]
        known = {v.name: o.old.value for o, v in fresh if isinstance(o.old, Sysctl)}
        known |= part.read(unknown) if (unknown := [v.name for _, v in fresh if v.name not in known]) else {}
        for _, value in fresh:
            if value.name in known:
                self._former.note(value.name, known[value.name], value.value)
        return {v.name: v.value if o.new is not None else self._former.take(v.name, v.value) for o, v in sysctls}

    def foreign_commit(self) -> bool:
        """Did anybody else change the node's nf_tables since this was asked last? A poll of the generation: see `kernel.nft.table`."""
        return self._nft_part().foreign_commit()

    def counts(self, family: str, table: str, names: Iterable[str] | None = None) -> dict[str, int]:
        """How many packets each named counter of a table of the node counted, or those of these names; none when there is no such table.

        May be called in a thread while another one applies changes: it reads over a socket of its own.
        """
        return self._nft_part().counts(family, table, names)

    def has_bridge_family(self) -> bool:
        """Does the kernel have nf_tables of the bridge family (CONFIG_NF_TABLES_BRIDGE)?"""
        return self._nft_part().has_family("bridge")

    def has_arp_family(self) -> bool:
        """Does the kernel have nf_tables of the ARP family (CONFIG_NF_TABLES_ARP)?"""
        return self._nft_part().has_family("arp")

    def prolong(self, family: str, table: str, name: str, key: bytes, milliseconds: int) -> None:
        """Have a set with timeouts the element with this key for so long from now on; may be called in any thread. KernelError when it
        can't."""
        self._nft_part().prolong(family, table, name, key, milliseconds)

    def flush_conntrack(self, allowed: Allowed) -> int:
        """Delete the node's connections to these frontends that do not go where they may; how many those were."""
        with self._tracked.use() as tracked:
            return tracked.flush(allowed)

    def judge_again(self, ips: Collection[IPAddress]) -> int:
        """Have the node's connections from and to these addresses judged again by its tables; how many those are."""
        with self._tracked.use() as tracked:
            return tracked.judge_again(ips)

    def end_revoked(self, namespaces: Mapping[IPAddress, str]) -> int:
        """End the TCP connections that were let pass and are no more at the sockets of their servers, as far as these are in attached
        namespaces, which are named by the address of each; how many those were. KernelError when the kernel can't do it.

        So are those of clients there that were translated, as of one to a Service: the kernel translates no reset for a packet that came
        by a bridge (nf_send_reset). Servers elsewhere are asked for their connections with clients there, once each: what they answer is
        denied. So are those that are here, in namespaces that can't be entered."""
        with self._tracked.use() as tracked:
            found = tracked.revoked()
        by_name: dict[str, list[Revoked]] = {}
        for one in found:
            if name := namespaces.get(one.server, HOST):
                by_name.setdefault(name, []).append(one)
            if one.sent and one.sent[2:] != one[:2] and (name := namespaces.get(one.sent.source, HOST)):
                by_name.setdefault(name, []).append(Revoked(*one.sent))  # its own end first, as of a server
        unreached = {name for name in by_name if not is_within_reach(self._namespaces.get(name, self._namespaces[HOST]))}

        def is_asked(one: Revoked, sent: Sent) -> bool:
            server = namespaces.get(one.server)
            return server in unreached or (server is None and sent.source in namespaces)

        self._probe({one.sent for one in found if one.sent and is_asked(one, one.sent)})
        return sum(self._end_at_servers(name, own) for name, own in by_name.items() if name not in unreached)

    def _probe(self, connections: set[Sent]) -> None:
        new, self._probed = connections - self._probed, connections
        if new:
            with contextlib.closing(self._opener.keepalives(self._namespaces[HOST])) as probes:
                probes.probe(new)

    def _end_at_servers(self, name: str, connections: Sequence[Revoked]) -> int:
        namespace = self._namespaces.get(name)
        try:
            sockets = self._opener.sockets(namespace) if namespace is not None else None
        except (OSError, ValueError):  # it is gone, and its sockets are
            return 0
        if sockets is None:
            return 0
        try:
            return sockets.end_at_server(connections)
        finally:
            sockets.close()

    def listening(self) -> frozenset[tuple[str, int, IPAddress]]:
        """Protocol, port and address of the node's sockets that wait for clients; nothing where the kernel does not tell. May be called in
        another thread than all else."""
        try:
            sockets = self._opener.sockets(self._namespaces[HOST])
        except (OSError, ValueError):
            return frozenset()
        try:
            return frozenset(sockets.listening())
        except (OSError, DumpInterrupted):
            return frozenset()
        finally:
            sockets.close()

    def forget_connections(self, ips: Collection[IPAddress]) -> int:
        """Delete the node's connections from and to these addresses; how many those were."""
        with self._tracked.use() as tracked:
            return tracked.forget(ips)

    def flows(self, ips: Collection[IPAddress]) -> set[TrackedFlow]:
        """Who is connected from and to these addresses, or was a moment ago."""
        with self._tracked.use() as tracked:
            return tracked.flows(ips)

    def connections(self) -> list[Connection]:
        """The node's tracked connections that were translated to another destination."""
        with self._tracked.use() as tracked:
            return tracked.translated()

    def echo(self) -> Echo:
        """ICMP echo requests, from the node. OSError when this process may not send any."""
        return self._opener.echo(self._namespaces[HOST])

    def packet_log(self, group: int) -> PacketLog:
        """The packets that rules of the node log to a group from now on. KernelError when the kernel can't tell, or tells somebody else."""
        return self._opener.packet_log(self._namespaces[HOST], group)

    def check_packet_log(self, group: int) -> None:
        """KernelError when the kernel can't log packets to a group; that another one reads it is none."""
        self._opener.check_packet_log(self._namespaces[HOST], group)

    def announce(self, link: str, ips: Iterable[IPAddress]) -> None:
        """Tell the neighbours on a link of the node that these addresses are here. OSError when that can't be."""
        self._opener.announcer(self._namespaces[HOST], link).announce(ips)

    def make_anew(self, tables: Sequence[Table], values: Sequence[Value]) -> bool:
        """Put these values in the place of all that the tables have: each packet finds the former ones or these. False when the kernel does
        not take that in one transaction, and nothing is changed."""
        return self._nft_part().make_anew(tables, values)

    def _nft_part(self) -> NftPart:
        if self._nft is None:
            self._nft = self._opener.nft(self._namespaces[HOST])
        return self._nft

    def read(self, owner: Ownership, sysctls: Iterable[str] = ()) -> dict[Identity, Value]:
        """What the node's own namespace holds of this owner, and the values of these sysctls.

        May be called in a thread while another one applies changes: it reads over sockets of its own.
        """
        return result(self.read_steps(owner, sysctls))

    def read_steps(self, owner: Ownership, sysctls: Iterable[str] = ()) -> Generator[None, None, dict[Identity, Value]]:
        """The same in slices of some milliseconds, as the generator's value.

        What is applied in between may be in it or not. A set that changes meanwhile is read again; UnreadElements stand for
        one that always does.
        """
        found = yield from self._nft_part().read_steps(owner)
        yield
        part = self._opener.rtnl(self._namespaces[HOST], self._fd)
        try:
            found.update(part.read(owner))
        finally:
            part.close()
        found.update(self._read_features(found.values()))
        yield
        names = list(sysctls)
        values = self._sysctls.read(names) if names else {}
        for name, value in values.items():
            sysctl = Sysctl(name=name, value=value)
            found[sysctl.identity] = sysctl
        return found

    def _read_features(self, found: Iterable[Value]) -> dict[Identity, Value]:
        tunnels = link_features.tunnels(found)
        if not tunnels:
            return {}
        with contextlib.closing(self._opener.features(self._namespaces[HOST])) as features:
            return link_features.read(features, tunnels)

    @staticmethod
    def matches(wanted: Value, found: Value) -> bool:
        """Does what was found fulfil what is wanted?"""
        return matches(wanted, found)
