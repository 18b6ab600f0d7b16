"""What one namespace of the fake kernel holds, and who is told when that changes."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from podplane.kernel.fakes.monitor import FakeMonitor
from podplane.kernel.text import ip, nft
from podplane.state.network import PORT_MODES, Address, Link, Neighbour, Qdisc, Redirect, Route, SoftwareChecksum, Sysctl
from podplane.state.operations import LinkEvent
from podplane.state.ownership import Ownership
from podplane.state.packet_log import LoggedPacket
from podplane.state.value import Identity, Value


@dataclass(slots=True)
class Objects:
    """One network namespace: rtnetlink's and nf_tables' objects by identity, and sysctls that were set.

    `commits` counts our own changes of nf_tables, `foreign_commits` those that somebody else made. `nft_families` are those that it has.
    `counts` is what named counters counted, `logged` what rules logged, for one of `log_readers`.
    `drivers` and `macs` are those of links, by their names, and `software_checksums` the links with those.
    """

    network: dict[Identity, Value] = field(default_factory=dict)
    nft: dict[Identity, Value] = field(default_factory=dict)
    sysctls: dict[str, str] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    logged: list[LoggedPacket] = field(default_factory=list)
    log_readers: set[int] = field(default_factory=set)
    can_log: bool = True
    drivers: dict[str, str] = field(default_factory=dict)
    macs: dict[str, str] = field(default_factory=dict)
    software_checksums: set[str] = field(default_factory=set)
    commits: int = 0
    foreign_commits: int = 0
    nft_families: frozenset[str] = frozenset({"arp", "inet", "ip", "ip6", "bridge"})
    prolonged: dict[tuple[str, str, str, bytes], int] = field(default_factory=dict)
    """Elements of sets with timeouts, and for how long they are there, in milliseconds."""
    peers: dict[str, tuple[Objects, str]] = field(default_factory=dict)
    monitors: list[FakeMonitor] = field(default_factory=list)

    def __post_init__(self) -> None:
        loopback = Link(name="lo", up=False)
        self.network[loopback.identity] = loopback

    def links(self) -> list[Link]:
        """All links."""
        return [value for value in tuple(self.network.values()) if isinstance(value, Link)]

    def own_links(self, owner: Ownership) -> set[str]:
        """The names of the links that are this owner's."""
        return {link.name for link in self.links() if owner.owns_link(link.name, link.alias)}

    def monitor(self, owner: Ownership) -> FakeMonitor:
        """A new subscription."""
        made = FakeMonitor(owner, lambda: self.own_links(owner), self._mtu_of)
        self.monitors.append(made)
        return made

    def _mtu_of(self, name: str) -> int:
        link = self.network.get(Link(name=name).identity)
        return link.mtu if isinstance(link, Link) else 0

    def announce(self, value: Value, *, is_there: bool) -> None:
        """Tell that an object came, changed or went."""
        for monitor in self.monitors:
            monitor.observe(value, is_there)

    def put_link(self, link: Link) -> None:
        """A link came or changed; one that goes down loses what the kernel deletes then, and its peer the carrier."""
        before = self.network.get(link.identity)
        self.network[link.identity] = link
        was_up = isinstance(before, Link) and before.up
        if was_up and not link.up:
            self._lose([v for v in self._on_link(link.name) if _goes_with_the_link_state(v)])
        self.announce(link, is_there=True)
        if before is None or was_up != link.up:
            self._report(
                link.name,
                LinkEvent(True, link.up, was_up and not link.up, before is None or link.up > was_up, lost_carrier=was_up),
            )
            there, far = self.peers.get(link.name, (self, ""))
            peer = there.network.get(Link(name=far).identity)
            there._report(far, LinkEvent(True, isinstance(peer, Link) and peer.up, lost_carrier=was_up))
        elif isinstance(before, Link) and link.mtu > before.mtu:
            for monitor in self.monitors:
                monitor.report_wider(link)

    def delete_link(self, name: str) -> None:
        """Delete a link, what lies on it, its sysctls, and the other end of a veth pair; its ports lose it."""
        self._lose(self._on_link(name))
        self.software_checksums.discard(name)
        for sysctl in [sysctl for sysctl in tuple(self.sysctls) if f".{name.replace('.', '/')}." in sysctl]:
            self.sysctls.pop(sysctl, None)  # a thread that removes the link, too, may have been quicker
        for redirect in [v for v in tuple(self.network.values()) if isinstance(v, Redirect) and v.to == name]:
            self.network[redirect.identity] = msgspec.structs.replace(redirect, to="")  # mirred_device_event, which is silent
        link = self.network.pop(Link(name=name).identity)
        self.announce(link, is_there=False)
        self._report(name, LinkEvent(False, may_have_lost=True))
        for port in (link for link in self.links() if link.master == name):
            self.put_link(msgspec.structs.replace(port, master="", **PORT_MODES))
        there, far = self.peers.pop(name, (None, ""))
        if there is not None and there.peers.pop(far, None) is not None:
            there.delete_link(far)

    def delete(self, value: Value) -> None:
        """Delete what is no link. With the last IPv4 address of a link go its IPv4 routes and neighbours (fib_disable_ip)."""
        del self.network[value.identity]
        if not isinstance(value, Address) or value.ip.version == 6:
            return
        on_link = self._on_link(value.link)
        if not any(isinstance(v, Address) and v.ip.version == 4 for v in on_link):
            self._lose([v for v in on_link if isinstance(v, Route | Neighbour) and _version(v) == 4])

    def report_address_loss(self, value: Value) -> None:
        """Somebody deleted an address: an IPv4 one may have taken routes with it."""
        if isinstance(value, Address) and value.ip.version == 4:
            link = self.network.get(Link(name=value.link).identity)
            self._report(value.link, LinkEvent(True, isinstance(link, Link) and link.up, may_have_lost=True))

    def _report(self, name: str, event: LinkEvent) -> None:
        for monitor in self.monitors if name else ():
            monitor.report_link(name, event)

    def _on_link(self, name: str) -> list[Value]:
        """What lies on a link: addresses, routes, neighbours, proxies, forwarding entries."""
        return [value for value in tuple(self.network.values()) if getattr(value, "link", "") == name]

    def _lose(self, values: list[Value]) -> None:
        """These go with their link, or its state. The kernel is silent about IPv4 routes (fib_sync_down_dev)."""
        for value in values:
            if not (isinstance(value, Qdisc | Redirect) or (isinstance(value, Route) and value.destination.version == 4)):
                self.announce(value, is_there=False)
            del self.network[value.identity]

    def dump(self) -> str:
        """Everything, in the syntax of `ip` and `nft list`; what rtnetlink's objects are lines, the tables follow."""
        sysctls = [Sysctl(name=name, value=value) for name, value in self.sysctls.items()]
        features = [SoftwareChecksum(link=name) for name in self.software_checksums]
        lines = ip.lines([*self.network.values(), *sysctls, *features])
        ordered = sorted(self.nft.values(), key=lambda value: str(value.identity))
        return "".join(f"{line}\n" for line in lines) + nft.tables(ordered)


def _version(value: Route | Neighbour) -> int:
    return value.destination.version if isinstance(value, Route) else value.ip.version


def _goes_with_the_link_state(value: Value) -> bool:
    """Is it deleted when its link is set down? Routes, neighbours, and IPv6 addresses (addrconf_ifdown)."""
    return isinstance(value, Route | Neighbour) or (isinstance(value, Address) and value.ip.version == 6)
