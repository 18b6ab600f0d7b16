"""The host ports of one pod interface on one node: which ports it claims, and where each of them leads. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterator, Mapping, Sequence

import msgspec

from podplane.model.config import AGENT_PORT, NAME_SERVER_PORT, NetworkConfig
from podplane.model.objects import Node
from podplane.model.view import HostPort, Sandbox
from podplane.state.conntrack import Target
from podplane.state.nft import label
from podplane.state.nft_nat import PROTOCOLS
from podplane.state.value import IPAddress, IPNetwork

Listener = tuple[str, int, IPAddress]
"""A socket of the node that waits for clients: protocol, port, address."""
NONE_RESERVED: Mapping[tuple[str, int], str] = {}
LOOPBACK6 = ipaddress.ip_address("::1")
CONNECTIONLESS = ("udp", "sctp")
"""Protocols whose tracked connections outlive the pod: their end is not seen, or seen late."""


class HostPortClaim(msgspec.Struct, frozen=True):
    """A port of the node that only one pod can have. Without `ip` it is the port of all the node's addresses of an IP version.

    A claim of one address and a claim of all addresses don't exclude each other: the one address leads to the pod that names it.
    """

    version: int
    protocol: str
    port: int
    ip: IPAddress | None = None

    def __str__(self) -> str:
        return f"host port {self.port}/{self.protocol} of {self.ip or f'all IPv{self.version} addresses'}"


class HostPortTable(msgspec.Struct, frozen=True):
    """What one pod interface has: where each of its ports leads. `name` is for comments.

    `unserved` says in words what the pod asks for in vain, `doubts` what may be in vain.
    """

    name: str = ""
    targets: Mapping[HostPortClaim, Target] = {}
    unserved: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()


def others(node: Node, config: NetworkConfig) -> tuple[IPNetwork, ...]:
    """Networks whose addresses are not the node's own, though it may have some of them on the pods' bridge: of its pods and of Services."""
    return tuple(map(ipaddress.ip_network, (*node.spec.pod_cidrs, *config.service_cidrs)))


def reserved(config: NetworkConfig) -> Mapping[tuple[str, int], str]:
    """Ports of the node's own addresses without which there is no network of pods: (protocol, port) → whose. The port of VXLAN is whatever
    the backend is, which may be another one later."""
    return {
        ("tcp", AGENT_PORT): "health checks of the node's proxy come to it",
        ("tcp", config.agent_port): "the node's agent listens on it",
        ("tcp", NAME_SERVER_PORT): "the node's name server listens on it",
        ("udp", config.vxlan_port): "packets of pods come to it from other nodes (VXLAN)",
    }


def resolve(
    sandbox: Sandbox,
    versions: tuple[int, ...],
    inner: Sequence[IPNetwork] = (),
    own: Collection[IPAddress] = (),
    reserved: Mapping[tuple[str, int], str] = NONE_RESERVED,
) -> HostPortTable:
    """The host ports of a pod interface on a node with these IP versions. Of two equal ports of one pod the first counts.

    `inner` are the networks of pods and Services, in which there are no host ports. `own` are addresses of the node: where there are any,
    another one is doubted. What is `reserved` is served to no pod.
    """
    ips: dict[int, IPAddress] = {}
    for ip in map(ipaddress.ip_address, sandbox.ips):
        if ip.version in versions:
            ips.setdefault(ip.version, ip)
    targets: dict[HostPortClaim, Target] = {}
    unserved, doubts = list[str](), list[str]()
    for port in sandbox.host_ports:
        try:
            if why := reserved.get((port.protocol.lower(), port.host_port)):
                raise ValueError(why)
            claims = list(_claims(port, ips, inner))
        except ValueError as error:
            unserved.append(f"host port {port.host_port}/{port.protocol.lower()} is not served: {error}")
            continue
        for claim in claims:
            targets.setdefault(claim, Target(ips[claim.version], port.container_port))
            doubts += _doubts(port, claim.ip, own)
    return HostPortTable(label(*sandbox.reference), targets, tuple(unserved), tuple(doubts))


def _doubts(port: HostPort, ip: IPAddress | None, own: Collection[IPAddress]) -> Iterator[str]:
    """Who does not reach a port: a machine may have addresses that its Node does not name, and no packet comes to a pod from ::1."""
    what = f"host port {port.host_port}/{port.protocol.lower()}: hostIP {ip}"
    if ip == LOOPBACK6:
        yield f"{what} is reached only from another address of the node: the kernel has no route_localnet for IPv6"
    elif own and ip is not None and ip not in own and not ip.is_loopback:
        known = ", ".join(map(str, own))
        yield f"{what} is no address of the Node ({known}): it leads to the pod only if the machine has it"


def switched_off(sandbox: Sandbox) -> HostPortTable:
    """What a pod interface has where host ports are not enabled: nothing, and it is told so."""
    asked = ", ".join(f"{port.host_port}/{port.protocol.lower()}" for port in sandbox.host_ports)
    return HostPortTable(unserved=(f"host ports are switched off in the settings of this network: {asked}",) if asked else ())


def _claims(port: HostPort, ips: Mapping[int, IPAddress], inner: Sequence[IPNetwork]) -> Iterator[HostPortClaim]:
    """A claim for each IP version in which the port is served. ValueError when it can't be served at all."""
    protocol = port.protocol.lower()
    if protocol not in PROTOCOLS:
        raise ValueError(f"{port.protocol} is none of TCP, UDP, SCTP")
    if not port.host_ip:
        yield from (HostPortClaim(version, protocol, port.host_port) for version in ips)
        return
    ip = _address(port.host_ip)
    if ip.version not in ips:
        raise ValueError(f"hostIP is {ip}, and the pod has no IPv{ip.version} address")
    if network := next((network for network in inner if ip in network), None):
        raise ValueError(f"hostIP {ip} is in {network}, where addresses are those of pods or Services")
    yield HostPortClaim(ip.version, protocol, port.host_port, None if ip.is_unspecified else ip)


def _address(text: str) -> IPAddress:
    try:
        ip = ipaddress.ip_address(text)
    except ValueError:
        raise ValueError(f"hostIP {text!r} is no IP address") from None
    if ip.version == 6 and ip.is_link_local:
        raise ValueError(f"hostIP is {ip}, which is good on one interface only: the kernel can't lead it to a pod")
    return ip


def with_listeners(table: HostPortTable, listeners: Collection[Listener], inner: Sequence[IPNetwork]) -> HostPortTable:
    """The table, which says of which sockets of the node a port takes the clients. Those on addresses in `inner` keep theirs."""
    by_port: dict[tuple[str, int], list[IPAddress]] = {}
    for protocol, port, ip in listeners:
        if not any(ip in network for network in inner):
            by_port.setdefault((protocol, port), []).append(ip)
    found: dict[tuple[str, int], set[IPAddress]] = {}
    for claim in table.targets:
        for ip in by_port.get((claim.protocol, claim.port), ()):
            if _takes(claim, ip):
                found.setdefault((claim.protocol, claim.port), set()).add(ip)
    doubts = (
        f"host port {port}/{protocol} leads to the pod: what listens on it on the node ({_words(ips)}) is not reached by it any more"
        for (protocol, port), ips in found.items()
    )
    return msgspec.structs.replace(table, doubts=(*table.doubts, *doubts)) if found else table


def _takes(claim: HostPortClaim, ip: IPAddress) -> bool:
    """Has a socket of this address clients that the pod gets? One of :: may be for IPv4, too; clients on ::1 stay."""
    if ip.version != claim.version and not (ip.version == 6 and ip.is_unspecified):
        return False
    if LOOPBACK6 in (ip, claim.ip):
        return False
    return claim.ip is None or ip.is_unspecified or ip == claim.ip


def _words(ips: Collection[IPAddress]) -> str:
    return ", ".join(map(str, sorted(ips, key=lambda ip: (ip.version, ip))))


def without(table: HostPortTable, taken: frozenset[object]) -> HostPortTable:
    """The table without the claims that other pods have; everything else of it is served."""
    if not taken:
        return table
    return msgspec.structs.replace(table, targets={c: t for c, t in table.targets.items() if c not in taken})
