"""The machines that a packet may pass: namespaces with their values, veth pairs, and networks that join several machines.

A namespace is named as `netns` names it; the worlds of several nodes are joined under names of their own (`node1`, `node1/pod/uid`).
"""

from __future__ import annotations

import functools
import hashlib
import ipaddress
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

import msgspec

from podplane.state.network import Fdb, Link, Peer, Sysctl
from podplane.state.value import IPAddress, Value
from podplane.trace.packet import NO_MAC
from podplane.trace.program import BaseChain, opaque_tables, programs
from podplane.trace.routing import Routing


class End(NamedTuple):
    """A link of a namespace, where a cable ends."""

    netns: str
    link: str


class Namespace:
    """One network namespace: its values, indexed. Its parts are made when they are first asked for."""

    def __init__(self, name: str, values: Iterable[Value]) -> None:
        self.name = name
        self.values = tuple(values)
        self.links: dict[str, Link] = {value.name: value for value in self.values if isinstance(value, Link)}
        self.links.setdefault("lo", Link(name="lo", up=False))
        self.sysctls = {value.name: value.value for value in self.values if isinstance(value, Sysctl)}

    @functools.cached_property
    def routing(self) -> Routing:
        """Routes, addresses, neighbours."""
        return Routing(self.links, self.values)

    @functools.cached_property
    def hooks(self) -> Mapping[tuple[int | str, str], list[BaseChain]]:
        """Base chains by family and hook."""
        return programs(self.name, self.values)

    @functools.cached_property
    def opaque(self) -> Mapping[str, Value]:
        """Families of nf_tables of which not all is known, with what is not."""
        return opaque_tables(self.values)

    @functools.cached_property
    def ports(self) -> Mapping[str, list[Link]]:
        """Each bridge's ports."""
        found: dict[str, list[Link]] = {}
        for link in self.links.values():
            if link.master:
                found.setdefault(link.master, []).append(link)
        return found

    @functools.cached_property
    def fdb(self) -> Mapping[str, Fdb]:
        """Static forwarding entries of bridge ports, by MAC."""
        return {value.mac: value for value in self.values if isinstance(value, Fdb) and value.master}

    def is_set(self, name: str) -> bool:
        """Is a sysctl other than 0? One that no value names is 0."""
        return self.sysctls.get(name, "0") != "0"

    def forwards(self, version: int, link: str) -> bool:
        """Are packets that came by a link forwarded? IPv4 asks the link, which has the namespace's value where none of its own is known
        (IN_DEV_FORWARD); IPv6 asks the namespace (ip6_forward)."""
        if version == 4:
            own = f"net.ipv4.conf.{link}.forwarding"
            return self.is_set(own if own in self.sysctls else "net.ipv4.ip_forward")
        return self.is_set("net.ipv6.conf.all.forwarding")

    def routes_localnet(self, link: str) -> bool:
        """May packets from and to 127.0.0.0/8 pass a link (route_localnet)?"""
        return any(self.is_set(f"net.ipv4.conf.{name}.route_localnet") for name in ("all", link))

    def filters_bridged(self, version: int) -> bool:
        """Do packets between ports of a bridge pass the hooks of IP (br_netfilter)?"""
        return self.is_set(f"net.bridge.bridge-nf-call-{'iptables' if version == 4 else 'ip6tables'}")


class World:
    """All namespaces, and what joins them. Immutable; what it indexes is kept for all evaluations."""

    def __init__(
        self,
        namespaces: Mapping[str, Iterable[Value]],
        cables: Iterable[tuple[End, End]] = (),
        segments: Iterable[Collection[End]] = (),
    ) -> None:
        """`cables` are veth pairs beyond those that `Link.peer` names; a segment is a network that its ends are on, as an underlay."""
        self.namespaces = {name: Namespace(name, values) for name, values in namespaces.items()}
        self._peers: dict[End, End] = {}
        self._macs: dict[End, str] = {}
        self.known_macs: dict[End, str] = {}
        self.ports_by_mac: dict[End, dict[str, list[tuple[bool, Link]]]] = {}
        """Of each bridge that a frame crossed: behind which ports a MAC is (`bridge.learned`)."""
        self._segments = {end: tuple(segment) for segment in segments for end in segment}
        for one, other in cables:
            self._join(one, other)
        for name, namespace in list(self.namespaces.items()):
            for link in namespace.links.values():
                if link.peer is not None:
                    self._join_peer(End(name, link.name), link.peer)

    def _join(self, one: End, other: End) -> None:
        self._peers[one], self._peers[other] = other, one

    def _join_peer(self, end: End, peer: Peer) -> None:
        other = End(peer.netns, peer.name)
        self._join(end, other)
        if peer.mac:
            self._macs[other] = peer.mac
        if other.netns not in self.namespaces:
            self.namespaces[other.netns] = Namespace(other.netns, ())
        self.namespaces[other.netns].links.setdefault(peer.name, Link(netns=other.netns, name=peer.name, kind="veth", up=False))

    def peer(self, end: End) -> End | None:
        """The other end of a veth pair."""
        return self._peers.get(end)

    def segment(self, end: End) -> tuple[End, ...]:
        """All ends of the network that a link is on; none when it is on none."""
        return self._segments.get(end, ())

    def is_joined(self, end: End) -> bool:
        """Does any other namespace hear what leaves by a link or bridge? Then it is known that nobody answers."""
        ports = self.namespaces[end.netns].ports.get(end.link, ())
        return end in self._peers or end in self._segments or bool(ports) or self._is_bridge(end)

    def _is_bridge(self, end: End) -> bool:
        link = self.link(end)
        return link is not None and link.kind == "bridge"

    def link(self, end: End) -> Link | None:
        """The link of an end."""
        namespace = self.namespaces.get(end.netns)
        return namespace.links.get(end.link) if namespace is not None else None

    def mac(self, end: End) -> str:
        """The MAC of a link. Where no value says it, one that no other link has; loopback has none."""
        found = self.known_macs.get(end)
        if found is None:
            found = self.known_macs[end] = self._mac(end)
        return found

    def _mac(self, end: End) -> str:
        link = self.link(end)
        if end.link == "lo":
            return NO_MAC
        known = (link.mac if link is not None else "") or self._macs.get(end, "")
        return known.lower() or "02:" + hashlib.blake2s("\0".join(end).encode(), digest_size=5).digest().hex(":")

    def owners(self, ip: IPAddress) -> list[str]:
        """The namespaces that have this address, loopback's left out."""
        return [name for name, namespace in self.namespaces.items() if namespace.routing.is_local(ip) and not ip.is_loopback]


def of(values: Iterable[Value]) -> World:
    """The world of one node: its values by the namespace that they name."""
    found: dict[str, list[Value]] = {"": []}
    for value in values:
        found.setdefault(value.netns, []).append(value)
    return World(found)


def join(nodes: Mapping[str, Iterable[Value]], uplink: str = "eth0") -> World:
    """The world of several nodes, whose uplinks are on one network. Namespace "" of node1 becomes `node1`, others `node1/…`."""
    found: dict[str, list[Value]] = {}
    for node, values in nodes.items():
        found[node] = []
        for value in values:
            if isinstance(value, Link) and value.peer is not None:
                peer = msgspec.structs.replace(value.peer, netns=within(node, value.peer.netns))
                value = msgspec.structs.replace(value, peer=peer)
            found.setdefault(within(node, value.netns), []).append(value)
    return World(found, segments=[[End(node, uplink) for node in nodes]])


def within(node: str, netns: str) -> str:
    """The name of a node's namespace in a joined world."""
    return f"{node}/{netns}" if netns else node


def ip(text: str) -> IPAddress:
    """An address from its text."""
    return ipaddress.ip_address(text)
