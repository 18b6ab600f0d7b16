"""Values of rtnetlink's world as `ip` and `tc` write them.

Addresses, routes, neighbours and rules are lines of `ip address|route|neighbour|rule show`; links, shapers, filters and
sysctls are lines as one would type them (`ip link add …`, `tc qdisc add …`, `sysctl …`): what `ip link show` prints is mostly not ours.
"""

from __future__ import annotations

from collections.abc import Iterable

from podplane.state.network import (
    FILTER_PRIORITY,
    MAIN_TABLE,
    Address,
    Encap,
    Fdb,
    Link,
    Neighbour,
    Proxy,
    Qdisc,
    Redirect,
    Route,
    Rule,
    SoftwareChecksum,
    Sysctl,
    Vxlan,
)
from podplane.state.value import Value

ORDER: tuple[type[Value], ...] = (Sysctl, Link, SoftwareChecksum, Address, Neighbour, Proxy, Fdb, Qdisc, Redirect, Route, Rule)
MAIN = "main"
TUNNEL_FLAGS = {"key": 0x4, "csum": 0x1, "seq": 0x8}
"""TUNNEL_KEY, TUNNEL_CSUM and TUNNEL_SEQ, as the kernel has them in network order (linux/if_tunnel.h)."""


def lines(values: Iterable[Value]) -> list[str]:
    """A line for each value that is not of nf_tables, by kind, and sorted within one."""
    kinds: dict[type[Value], list[str]] = {kind: [] for kind in ORDER}
    for value in values:
        if type(value) in kinds:
            kinds[type(value)].append(line(value))
    return [text for kind in ORDER for text in sorted(kinds[kind])]


def line(value: Value) -> str:
    """One value."""
    match value:
        case Sysctl():
            return f"sysctl {value.name} = {value.value}"
        case Link():
            return link(value)
        case SoftwareChecksum():
            return f"ethtool -K {value.link} tx off"
        case Address():
            return address(value)
        case Neighbour():
            marked = f" proto {value.protocol}" if value.protocol else ""
            lladdr = f" lladdr {value.mac}" if value.mac else ""
            return f"{value.ip} dev {value.link}{lladdr} PERMANENT{marked}"
        case Proxy():
            return f"{value.ip} dev {value.link} proxy proto {value.protocol}"
        case Fdb():
            return fdb(value)
        case Qdisc():
            return qdisc(value)
        case Redirect():
            return redirect(value)
        case Route():
            return route(value)
        case Rule():
            return rule(value)
    raise TypeError(f"{type(value).__name__} is not written by ip")


def link(value: Link) -> str:
    """`ip link add …` for what has a kind, `ip link set …` for what was there."""
    words = ["ip link add" if value.kind else "ip link set", value.name]
    words += ["up" if value.up else "down"]
    words += [f"mtu {value.mtu}"] if value.mtu else []
    words += [f"address {value.mac}"] if value.mac else []
    words += [f"master {value.master}"] if value.master else []
    words += [f'alias "{value.alias}"'] if value.alias else []
    words += [f"type {value.kind}"] if value.kind else []
    if value.peer is not None:
        words.append(f"peer name {value.peer.name}" + (f" address {value.peer.mac}" if value.peer.mac else ""))
    if value.vxlan is not None:
        words += _vxlan(value.vxlan)
    words += ["external"] if value.gre is not None and value.gre.external else []
    words += ["hairpin on"] if value.hairpin else []
    words += ["learning off"] if value.master and not value.learning else []
    words += ["flood off"] if value.master and not value.flood else []
    words += ["isolated on"] if value.isolated else []
    words += ["locked on"] if value.locked else []
    words += ["mcast_flood off"] if value.master and not value.multicast_flood else []
    words += ["bcast_flood off"] if value.master and not value.broadcast_flood else []
    words += [f"group_fwd_mask {value.group_forward:#x}"] if value.group_forward else []
    words += ["mcast_snooping 0"] if value.kind == "bridge" and not value.snooping else []
    return " ".join(words)


def _vxlan(value: Vxlan) -> list[str]:
    words = [f"id {value.vni}"]
    words += [f"local {value.local}"] if value.local else []
    words += [f"dev {value.device}"] if value.device else []
    return [*words, f"dstport {value.port}", "learning" if value.learning else "nolearning"]


def fdb(value: Fdb) -> str:
    """A line of `bridge fdb show`; that of a bridge's entry as one types it, since what is shown names the bridge."""
    if value.master:
        return f"{value.mac} dev {value.link} master static"
    return f"{value.mac} dev {value.link}" + (f" dst {value.remote}" if value.remote else "") + " self permanent"


def qdisc(value: Qdisc) -> str:
    """`tc qdisc add …`, and no more than that there is one of its kind, of another than ours."""
    known = f" rate {value.rate}bps burst {value.burst}b limit {value.limit}b" if value.kind == "tbf" else ""
    return f"tc qdisc add dev {value.link} root handle {value.handle:x}: {value.kind}{known}"


def redirect(value: Redirect) -> str:
    """`tc filter add …`; the qdisc clsact is not said."""
    what = f"protocol all pref {FILTER_PRIORITY} u32 match u32 0 0 action mirred egress redirect dev {value.to or '*'}"
    return f"tc filter add dev {value.link} ingress {what}"


def address(value: Address) -> str:
    """A line of `ip address show`, without what it says of lifetimes."""
    if value.ip.version == 6:
        return f"{value.link} inet6 {value.ip}/{value.prefix_length} scope global nodad"
    scope = "host" if value.ip.is_loopback else "global"
    return f"{value.link} inet {value.ip}/{value.prefix_length} scope {scope} {value.link}"


def route(value: Route) -> str:
    """A line of `ip route show`, or `ip -6 route show`."""
    is_unicast, version = value.kind == "unicast", value.destination.version
    words = [] if is_unicast else [value.kind]
    words += ["default" if value.destination.prefixlen == 0 else _network(value)]
    words += _encap(value.encap) if value.encap is not None else []
    words += [f"via {value.gateway}"] if value.gateway else []
    words += [f"dev {value.link}"] if value.link else []
    words += ["dev lo"] if version == 6 and not is_unicast else []
    words += [f"table {value.table}"] if value.table != MAIN_TABLE else []
    words += [f"proto {value.protocol}"]
    words += ["scope link"] if is_unicast and value.gateway is None and version == 4 else []
    words += [f"src {value.source}"] if value.source else []
    metric = value.metric or (1024 if version == 6 else 0)
    words += [f"metric {metric}"] if metric else []
    words += ["onlink"] if value.onlink else []
    words += [f"mtu {value.mtu}"] if value.mtu else []
    words += ["pref medium"] if version == 6 else []
    return " ".join(words)


def _encap(value: Encap) -> list[str]:
    version = value.remote.version
    kind, source, hops, rest = ("ip", "0.0.0.0", "ttl", "tos 0") if version == 4 else ("ip6", "::", "hoplimit", "tc 0")
    words = [f"encap {kind} id {value.id} src {value.local or source} dst {value.remote} {hops} {value.hops} {rest}"]
    return [*words, *(word for word, flag in TUNNEL_FLAGS.items() if value.flags & flag)]


def _network(value: Route) -> str:
    network = value.destination
    return str(network.network_address) if network.prefixlen == network.max_prefixlen else str(network)


def rule(value: Rule) -> str:
    """A line of `ip rule show`."""
    words = [f"{value.priority}:", f"from {value.source or 'all'}"]
    words += [f"to {value.destination}"] if value.destination else []
    if value.mark:
        words.append(f"fwmark {value.mark:#x}" + (f"/{value.mark_mask:#x}" if value.mark_mask else ""))
    words.append(f"lookup {MAIN if value.table == MAIN_TABLE else value.table}")
    words += [f"proto {value.protocol}"] if value.protocol else []
    return " ".join(words)
