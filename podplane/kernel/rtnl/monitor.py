"""What changes in the rtnetlink state of a network namespace while podplane looks on (rtnetlink(7), groups RTNLGRP_*).

The kernel's notifications become observations of single objects, and names of links on which things must be read again, since
the kernel does not announce everything:

- when a link goes down, the IPv4 routes on it vanish without a notification;
- when the last IPv4 address of a link is deleted, so do they (fib_disable_ip);
- when one end of a veth pair goes down, the other one loses its carrier only;
- proxies (pneigh) are never announced.

Podplane's own changes are filtered out by their port id (see `filter`), except those of links, whose notifications do not say who
asked. A notification of a link may show a state that a batch of ours has passed already: read `changes` when no batch is under way.
"""

from __future__ import annotations

import errno
import socket
import sys
from collections.abc import Callable, Iterable
from typing import NamedTuple

from podplane.kernel.netlink import ATTRIBUTE, NLM_F_REPLACE, find_attribute, messages, parse_attributes
from podplane.kernel.rtnl import constants as c
from podplane.kernel.rtnl import decode, filter, traffic_control
from podplane.kernel.rtnl.reading import has_protocol
from podplane.state.network import Link, Neighbour, Redirect, Route, Rule
from podplane.state.operations import Changes, LinkEvent, Observation
from podplane.state.ownership import Ownership
from podplane.state.value import Identity, Value

NETLINK_ROUTE = 0
GROUPS = (1, 3, 4, 5, 7, 8, 9, 11, 19, 24, 25)
"""RTNLGRP_ LINK, NEIGH, TC, IPV4_IFADDR, IPV4_ROUTE, IPV4_RULE, IPV6_IFADDR, IPV6_ROUTE, IPV6_RULE, IPV4_NETCONF, IPV6_NETCONF."""
TRAFFIC_CONTROL = frozenset((c.RTM_NEWQDISC, c.RTM_DELQDISC, c.RTM_NEWTFILTER, c.RTM_DELTFILTER))
BUFFER_BYTES = 4 << 20
"""Wanted receive buffer; without privileges on the machine it is net.core.rmem_max."""
DATAGRAM_BYTES = 32 * 1024
MOST_DATAGRAMS = 400
"""Read in one call: some 10 ms of work. The descriptor stays readable when there is more."""
SO_RCVBUFFORCE = 33


def open_socket() -> socket.socket:
    """A socket in the calling thread's network namespace that nothing is subscribed to yet."""
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, NETLINK_ROUTE)
    try:
        sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER_BYTES)
    except OSError:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
    return sock


class _State(NamedTuple):
    """What of a link decides whether what lies on it is still there."""

    name: str
    is_up: bool
    has_carrier: bool
    mtu: int
    """In bytes; 0 of a link that may be the owner's, which is not looked at."""


class Monitor:
    """A subscription; `fileno` becomes readable when there are changes. Used from one thread at a time."""

    def __init__(
        self,
        sock: socket.socket,
        list_links: Callable[[], Iterable[bytes]],
        owner: Ownership,
        port: Callable[[], int],
    ) -> None:
        """`sock` is from `open_socket`; `list_links` dumps the links; `port` is the port id of the socket of our own requests."""
        self._socket, self._list_links, self._owner, self._port = sock, list_links, owner, port
        self._filtered_port = port()
        filter.attach(sock, owner.route_protocol, self._filtered_port)
        sock.bind((0, sum(1 << (group - 1) for group in GROUPS)))
        self._names: dict[int, str] = {}
        self._states: dict[int, _State] = {}
        self._mtus: dict[str, int] = {}
        self._links: dict[int, Link] = {}
        self._own: dict[int, str] = {}
        self._changed_links: dict[int, bytes] = {}
        self._changed_ports: dict[int, bytes] = {}
        """What was said last of a link, and of it as a port since then: a new port is announced eight times, and the last one counts."""
        self._reported: dict[str, LinkEvent] = {}
        self._observed: dict[Identity, Value | None] = {}
        self._is_lost = self._has_settings = False
        self._begin()

    def fileno(self) -> int:
        """The descriptor to wait on."""
        return self._socket.fileno()

    def close(self) -> None:
        """End the subscription; idempotent."""
        self._socket.close()

    def mtu_of(self, name: str) -> int:
        """The MTU of a link of others, in bytes, as it was said up to now; 0 when there is no such link."""
        return self._mtus.get(name, 0)

    def changes(self) -> Changes:
        """What changed since the last call; returns at once. When something was lost, everything must be read again."""
        port = self._port()
        if port != self._filtered_port:
            filter.attach(self._socket, self._owner.route_protocol, port)
            self._filtered_port = port
        try:
            self._take_datagrams()
        except BaseException:
            self._is_lost = True  # what was in them is not known; until the links are known again, the loss is not forgotten
            raise
        lost = self._is_lost
        if lost:
            self._begin()
            self._is_lost = False
        self._observe_links()
        observations = [Observation(identity, value) for identity, value in self._observed.items()]
        changes = Changes([] if lost else observations, {} if lost else self._reported, lost, self._has_settings)
        self._observed, self._reported, self._has_settings = {}, {}, False
        return changes

    def _take_datagrams(self) -> None:
        for _ in range(MOST_DATAGRAMS):
            try:
                data = self._socket.recv(DATAGRAM_BYTES)
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                self._is_lost = True
                continue
            for kind, flags, _, payload in messages(data):
                self._take(kind, flags, payload)

    def _begin(self) -> None:
        """Know the links as they are."""
        self._names.clear()
        self._states.clear()
        self._mtus.clear()
        self._links.clear()
        self._own.clear()
        self._changed_links.clear()
        self._changed_ports.clear()
        for payload in self._list_links():
            self._take_link(payload)
        self._observe_links()
        self._observed, self._reported = {}, {}

    def _take(self, kind: int, flags: int, payload: bytes) -> None:
        if kind == c.RTM_NEWLINK:
            self._take_link(payload)
        elif kind == c.RTM_DELLINK:
            self._lose_link(payload)
        elif kind in (c.RTM_NEWADDR, c.RTM_DELADDR):
            self._take_address(payload, kind == c.RTM_NEWADDR)
        elif kind in (c.RTM_NEWROUTE, c.RTM_DELROUTE):
            self._take_route(flags, payload, kind == c.RTM_NEWROUTE)
        elif kind in (c.RTM_NEWNEIGH, c.RTM_DELNEIGH):
            self._take_neighbour(payload, kind == c.RTM_NEWNEIGH)
        elif kind in (c.RTM_NEWRULE, c.RTM_DELRULE):
            self._observe_marked(decode.rule(payload), kind == c.RTM_NEWRULE)
        elif kind == c.RTM_NEWNETCONF:
            self._has_settings = True
        elif kind in TRAFFIC_CONTROL:
            self._know_port(traffic_control.link_index(payload))
            self._take_traffic_control(kind, payload)

    def _take_traffic_control(self, kind: int, payload: bytes) -> None:
        """A filter that goes is said without what it did; all filters go with their qdisc, and nothing is said of them."""
        own = self._own.get(traffic_control.link_index(payload))
        if own is None:
            return
        if kind in (c.RTM_NEWQDISC, c.RTM_DELQDISC):
            if kind == c.RTM_DELQDISC and traffic_control.is_clsact(payload):
                self._observe(Redirect(link=own, to=""), False)
            self._observe(traffic_control.decode_qdisc(payload, self._own), kind == c.RTM_NEWQDISC)
        elif kind == c.RTM_NEWTFILTER:
            self._observe(traffic_control.decode_redirect(payload, self._names), True)
        elif traffic_control.is_ours(payload):
            self._observe(Redirect(link=own, to=""), False)

    def _observe(self, value: Value | None, is_there: bool) -> None:
        if value is not None:
            self._observed.pop(value.identity, None)
            self._observed[value.identity] = value if is_there else None

    def _observe_marked(self, value: Route | Neighbour | Rule | None, is_there: bool) -> None:
        """Of others' objects only what is there counts: it may be in the place of one of ours."""
        if value is not None and (is_there or has_protocol(value, self._owner.route_protocol)):
            self._observe(value, is_there)

    def _take_address(self, payload: bytes, is_there: bool) -> None:
        family, _, _, _, index = c.ADDRESS.unpack_from(payload)
        self._know_port(index)
        if index in self._names and (index not in self._own or (family == c.AF_INET and not is_there)):
            event = LinkEvent(True, self._is_up(index), may_have_lost=not is_there, has_address=is_there)
            self._report(self._names[index], event)
        self._observe(decode.address(payload, self._own), is_there)

    def _is_up(self, index: int) -> bool:
        state = self._states.get(index)
        return state is not None and state.is_up

    def _take_route(self, flags: int, payload: bytes, is_there: bool) -> None:
        route = decode.any_route(payload, self._names)
        if route is None:
            return
        is_foreign = not has_protocol(route, self._owner.route_protocol)
        if (
            is_there
            and is_foreign
            and route.link
            and route.gateway is None
            and not find_attribute(payload, c.RTA_VIA, c.ROUTE.size)
        ):
            index = int.from_bytes(find_attribute(payload, c.RTA_OIF, c.ROUTE.size), sys.byteorder)
            self._report(route.link, LinkEvent(True, self._is_up(index), has_network=True))
        if not is_foreign or flags & NLM_F_REPLACE:
            self._observe_marked(route, is_there)

    def _take_neighbour(self, payload: bytes, is_there: bool) -> None:
        family, index, state, flags, _ = c.NEIGHBOUR.unpack_from(payload)
        self._know_port(index)
        if family == c.AF_BRIDGE:
            self._observe(decode.fdb(payload, self._own), is_there)
        elif not flags & c.NTF_PROXY:
            self._observe_marked(decode.any_neighbour(payload, self._names), is_there and bool(state & c.NUD_PERMANENT))

    def _take_link(self, payload: bytes) -> None:
        family, _, index, flags, _ = c.LINK.unpack_from(payload)
        if family == c.AF_BRIDGE:
            self._take_port(index, payload)
            return
        name = _name(payload)
        may_be_own = self._owner.may_name(name)
        state = _State(name, bool(flags & c.IFF_UP), bool(flags & c.IFF_LOWER_UP), 0 if may_be_own else _mtu(payload))
        before = self._states.get(index)
        if state != before:
            self._states[index], self._names[index], self._mtus[name] = state, name, state.mtu
            is_new = before is None or before.name != name
            was_up = before is not None and not is_new and before.is_up
            lost_carrier = before is not None and before.has_carrier and not state.has_carrier
            is_wider = before is not None and state.mtu > before.mtu
            came = is_new or state.is_up > was_up or is_wider
            event = LinkEvent(True, state.is_up, was_up and not state.is_up, came, lost_carrier)
            self._report(name, event)
            if before is not None and before.name != name:
                self._remove(index, before.name)
        if may_be_own:
            self._changed_links[index] = payload
            self._changed_ports.pop(index, None)

    def _take_port(self, index: int, payload: bytes) -> None:
        """A bridge says how one of its ports is (br_ifinfo_notify); `bridge link set` announces nothing else."""
        if index in self._changed_links or index in self._links:
            self._changed_ports[index] = payload

    def _know_port(self, index: int) -> None:
        """Before what lies on a port is taken: is it a link of ours?"""
        if index in self._changed_ports:
            self._observe_link(index)

    def _lose_link(self, payload: bytes) -> None:
        family, _, index, _, _ = c.LINK.unpack_from(payload)
        if family == c.AF_BRIDGE:
            return  # a bridge lost a port, and the port's own notification says that, too
        state = self._states.pop(index, None)
        name = state.name if state is not None else _name(payload)
        self._names.pop(index, None)
        self._remove(index, name)

    def _remove(self, index: int, name: str) -> None:
        """There is no link of this name and index any more."""
        self._report(name, LinkEvent(False, may_have_lost=True))
        self._mtus.pop(name, None)
        self._changed_links.pop(index, None)
        self._changed_ports.pop(index, None)
        self._own.pop(index, None)
        self._links.pop(index, None)
        if self._owner.may_name(name):
            self._observe(Link(name=name), False)

    def _report(self, name: str, event: LinkEvent) -> None:
        self._reported[name] = event.after(self._reported.get(name))

    def _observe_links(self) -> None:
        for index in dict.fromkeys((*self._changed_links, *self._changed_ports)):
            self._observe_link(index)

    def _observe_link(self, index: int) -> None:
        """What was said of this link up to now."""
        changed, port = self._changed_links.pop(index, None), self._changed_ports.pop(index, None)
        link = self._links.get(index) if changed is None else decode.link(changed, self._names)
        if link is None:
            return
        info = {} if port is None else parse_attributes(find_attribute(port, c.IFLA_PROTINFO, c.LINK.size))
        self._set_link(index, decode.with_port_modes(link, info) if c.IFLA_BRPORT_MODE in info else link)

    def _set_link(self, index: int, link: Link) -> None:
        if self._links.get(index) == link:
            return
        self._links[index] = link
        if self._owner.owns_link(link.name, link.alias):
            self._own[index] = link.name
        else:
            self._own.pop(index, None)
        self._observe(link, True)


def _name(payload: bytes) -> str:
    """IFLA_IFNAME is the first attribute (rtnl_fill_ifinfo), and most notifications need no other one."""
    start = c.LINK.size
    length, kind = ATTRIBUTE.unpack_from(payload, start)
    if kind == c.IFLA_IFNAME:
        return payload[start + 4 : start + length - 1].decode(errors="replace")
    return decode.link_name(payload)[1]


def _mtu(payload: bytes) -> int:
    return int.from_bytes(find_attribute(payload, c.IFLA_MTU, c.LINK.size), sys.byteorder)
