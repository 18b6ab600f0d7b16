"""The nf_tables objects that Services share: the table, sets and maps, base chains, and load-balancing chains.

    prerouting, output (nat)   frontends4: (address, protocol, port) → mark       the numbers of the group and of a load-balancing chain
                               choice4:    number of the chain → goto lb4-<n>
    lb4-<n>                    endpoints4: (group, random number below n) → (address, port)      destination NAT
    refuse (filter)            reject what is addressed to a Service still, after translation
    invalid                    drop what connection tracking calls invalid and would be translated, to a Service or from an endpoint
    postrouting (nat)          masquerade where replies would not pass this node otherwise

With session affinity, lb4-<n>-<seconds> looks up the client's endpoint of the group in affinity4, or chooses one (ids4);
kept4-<seconds> stores it in affinity4 and translates the destination (targets4).

So a new connection costs three lookups, whatever the number of Services; a Service costs an element for each frontend and endpoint. Only
the first packet of a connection passes the nat hooks; connection tracking translates the others. The mark is cleared again.

Sources: nft(8); k8s.io/kubernetes, pkg/proxy/nftables (what is masqueraded, what is refused).
"""

from __future__ import annotations

import functools
import hashlib
import ipaddress
from collections.abc import Iterable, Iterator, Sequence

from podplane.model.config import ROUTE_PROTOCOL, NetworkConfig
from podplane.model.objects import Node
from podplane.services import rules as r
from podplane.state.network import Route, Sysctl
from podplane.state.nft import GOTO, JUMP, Chain, Element, Hook, Lookup, Rule, Set, Table, Verdict, label
from podplane.state.nft_nat import PROTOCOLS, destination_is_local, is_invalid, pair_in, protocol, was_translated
from podplane.state.nft_rules import Row, counter, family, masquerade, rule, source_in
from podplane.state.value import Fragment, IPAddress, IPNetwork, Value, fragment

TABLE = ("inet", "podplane-services")
TYPE = {4: "ipv4_addr", 6: "ipv6_addr"}
GUARD_PRIORITY, DNAT_PRIORITY, REFUSE_PRIORITY, SNAT_PRIORITY = -120, -100, -90, 100
"""Before NF_IP_PRI_NAT_DST; that; after it; NF_IP_PRI_NAT_SRC."""
FAMILY, NAME = TABLE
COUNTS = "net.netfilter.nf_conntrack_acct"
"""With this sysctl the kernel counts packets and bytes of each tracked connection, so the tables need no counters."""
ORDER = (
    *("ports", "remote", "endpoints", "targets", "ids", "sticky", "choice", "hairpin", "local"),
    *("guarded", "owned", "addresses", "refused", "inside", "frontends"),
)
"""The order in which sets are filled; they are emptied in reverse. An element is added after those that it leads to, and a guard before
the frontend that it protects."""
RANK = {kind: rank for rank, kind in enumerate(ORDER, 1)}
MAX_CLIENTS = 65535
"""The most clients of each IP version whose endpoint is stored for session affinity."""
NO_CONNECTION = "of no connection: nothing would translate it"
CACHED = 1024
"""The most chains and elements of each kind that are kept to be shared: they depend on what users write."""


def name(kind: str, version: int) -> str:
    """The name of a set or chain of one IP version."""
    return f"{kind}{version}"


def _set(
    kind: str, version: int, key: tuple[str, ...], data: tuple[str, ...] = (), *, interval: bool = False, size: int = 0
) -> Set:
    """A set of the table, with its rank in ORDER; sets that rules fill have none."""
    return Set(
        family=FAMILY,
        table=NAME,
        name=name(kind, version),
        key=key,
        data=data,
        interval=interval,
        size=size,
        rank=RANK.get(kind, 0),
    )


def element(kind: str, version: int, key: tuple[object, ...], data: object = None, comment: str = "") -> Element:
    """An element of a set of the table."""
    return Element(family=FAMILY, table=NAME, set=name(kind, version), key=key, data=data, comment=comment)  # type: ignore[arg-type]  # parts


def chain_suffix(count: int, seconds: int) -> str:
    """What follows `lb4-` in the name of the chain that chooses among `count` endpoints, with session affinity for `seconds`."""
    return f"{count}-{seconds}" if seconds else str(count)


@functools.lru_cache(maxsize=CACHED)
def chain_element(version: int, number: int, count: int, seconds: int = 0) -> Element:
    """The element that leads from a chain's number to the chain; all groups with this count and affinity share it."""
    return element("choice", version, (number,), Verdict(GOTO, f"lb{version}-{chain_suffix(count, seconds)}"), f"among {count}")


@functools.lru_cache(maxsize=CACHED)
def source_element(version: int, protocol_name: str, port: int, ip: IPAddress | None) -> Element:
    """The element that says from where answers of endpoints come: a port of pods, or an address and port."""
    if ip is None:
        return element("ports", version, (protocol_name, port), None, "pods answer from here")
    return element("remote", version, (ip, protocol_name, port), None, "an endpoint answers from here")


@functools.lru_cache(maxsize=CACHED)
def load_balancing_chains(version: int, count: int, seconds: int = 0) -> tuple[Chain, ...]:
    """The chains that choose one of `count` endpoints at random; with session affinity, for clients without a stored endpoint."""
    name, why = f"lb{version}-{chain_suffix(count, seconds)}", f"one of {count}"
    if seconds:
        return _affinity_chains(name, version, count, seconds)
    choices = (rule(*r.dnat_to_random_endpoint(version, one, count), comment=why) for one in PROTOCOLS)
    return (_chain(name, (rule(r.clear_chain()), *choices)),)


def _affinity_chains(name: str, version: int, count: int, seconds: int) -> tuple[Chain, ...]:
    """The same with session affinity. A client's mark (group number and member id) is stored, and is valid while `sticky` has it."""
    kept = f"kept{version}-{seconds}"
    go = r.verdict(Verdict(GOTO, kept))
    rules = (
        rule(r.clear_chain()),
        rule(family(version), *r.load_affinity(version), go, comment="the endpoint that the client had"),
        rule(r.clear_chain()),
        rule(family(version), r.delete_affinity(version), comment="that is gone"),
        rule(family(version), r.random_member(version, count), go, comment=f"one of {count}"),
    )
    keep = (
        rule(family(version), r.update_affinity(version, seconds), comment=f"the client keeps its endpoint for {seconds} s"),
        *(rule(*r.dnat_to_member(version, one)) for one in PROTOCOLS),
    )
    return _chain(kept, keep), _chain(name, rules)


@functools.lru_cache(maxsize=CACHED)
def affinity_sets(version: int) -> tuple[Set, ...]:
    """The sets of session affinity. They come with the first Service that needs them: the kernel allocates `affinity` at once."""
    address = TYPE[version]
    shapes: dict[str, tuple[tuple[str, ...], tuple[str, ...], int]] = {
        "targets": (("mark",), (address, "inet_service"), 0),
        "ids": (("mark", "mark"), ("mark",), 0),
        "sticky": (("mark",), (), 0),
        "affinity": ((address, "mark"), ("mark",), MAX_CLIENTS),
    }
    return tuple(_set(kind, version, key, data, size=size) for kind, (key, data, size) in shapes.items())


@functools.lru_cache(maxsize=CACHED)
def guard_chains(version: int) -> tuple[Set | Chain, ...]:
    """The set and chains that check the source of connections to load balancers. They come with the first Service that has ranges."""
    address = TYPE[version]
    guarded = _set("guarded", version, (address, "inet_proto", "inet_service"), ("verdict",))
    jump = rule(family(version), r.is_new(), r.by_frontend(version, guarded.name))
    hooks = ("prerouting", "output")
    chains = (_chain(f"guard{version}-{hook}", (jump,), Hook("filter", hook, GUARD_PRIORITY)) for hook in hooks)
    return guarded, *chains


@functools.lru_cache(maxsize=CACHED)
def source_ranges_chain(version: int, ranges: tuple[IPNetwork, ...]) -> Chain:
    """The chain that accepts connections from these networks only. Services with the same ranges share it."""
    rules = [rule(family(version), source_in(network), r.accept()) for network in ranges]
    digest = hashlib.blake2s(" ".join(map(str, ranges)).encode(), digest_size=6).hexdigest()
    return _chain(f"from{version}-{digest}", (*rules, rule(counter(), r.drop(), comment="not in loadBalancerSourceRanges")))


def plan(node: Node, config: NetworkConfig) -> Fragment:
    """What the node needs for Services before there is one; nothing while the node has no pod CIDRs."""
    blocks = [ipaddress.ip_network(block) for block in node.spec.pod_cidrs]
    if not blocks or not config.service_cidrs:
        return {}
    versions = [block.version for block in blocks]
    values: list[Value] = [Table(family=FAMILY, table=NAME), Sysctl(name=COUNTS, value="1")]
    for version in versions:
        values += sets(version)
        values += _local(version, blocks, node)
    return fragment([*values, *_routes(node, versions, config), *_base_chains(blocks, config)])


def _routes(node: Node, versions: Iterable[int], config: NetworkConfig) -> Iterator[Route]:
    """Routes to the Service CIDRs: without a route, the node's own packets to a cluster IP fail before they can be translated."""
    ips = {ip.version: ip for ip in reversed([ipaddress.ip_address(ip) for ip in node.internal_ips])}
    for cidr in map(ipaddress.ip_network, config.service_cidrs):
        if cidr.version in versions and cidr.version in ips:
            yield Route(destination=cidr, link=config.bridge, source=ips[cidr.version], protocol=ROUTE_PROTOCOL)


def sets(version: int) -> Iterator[Set]:
    """The sets and maps of an IP version."""
    address = TYPE[version]
    frontend = (address, "inet_proto", "inet_service")
    shapes: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
        "endpoints": (("mark", "mark"), (address, "inet_service")),
        "choice": (("mark",), ("verdict",)),
        "frontends": (frontend, ("mark",)),
        "inside": (frontend, ("mark",)),
        "refused": (frontend, ()),
        "owned": ((address,), ()),
        "addresses": ((address,), ()),
        "hairpin": ((address, address), ()),
        "ports": (("inet_proto", "inet_service"), ()),
        "remote": (frontend, ()),
    }
    for kind, (key, data) in shapes.items():
        yield _set(kind, version, key, data)
    yield _set("local", version, (address,), interval=True)


def _local(version: int, blocks: Iterable[IPNetwork], node: Node) -> Iterator[Element]:
    """The clients whose replies pass this node anyway: its pods and itself."""
    for block in blocks:
        if block.version == version:
            yield element("local", version, (block,), comment="pods of this node")
    for ip in map(ipaddress.ip_address, node.internal_ips):
        if ip.version == version:
            yield element("local", version, (ipaddress.ip_network(ip),), comment=label("node", node.metadata.name))


def _base_chains(blocks: Sequence[IPNetwork], config: NetworkConfig) -> Iterator[Chain]:
    versions = [block.version for block in blocks]
    cidrs = [cidr for cidr in map(ipaddress.ip_network, config.service_cidrs) if cidr.version in versions]
    translate = [rule(family(v), r.to_group(v), r.to_chain(name("choice", v)), comment="to Services") for v in versions]
    from_pods, from_here = _shortcuts(blocks)
    invalid = r.verdict(Verdict(GOTO, "invalid"))
    refuse = [rule(r.is_established(), r.accept()), rule(is_invalid(), invalid)]
    refuse.append(
        rule(r.is_untracked(), destination_is_local(), r.accept(), comment="what the node itself answers, untranslated")
    )
    refuse += [
        rule(family(v), was_translated(), r.went_to(v, name("addresses", v)), r.clear_mark(), r.accept()) for v in versions
    ]
    for cidr in cidrs:
        went = (family(cidr.version), was_translated(), r.went_into(cidr))
        refuse.append(rule(*went, r.clear_mark(), r.accept()))
        goes = (family(cidr.version), r.goes_into(cidr), counter())
        refuse += _rejections(goes, "no endpoint, or no Service, at this address and port")
    for v in versions:
        refuse += _rejections((family(v), r.is_frontend(v, name("refused", v))), "no endpoint")
        refuse += _rejections((family(v), r.destination_in_set(v, name("owned", v))), "a load balancer serves its ports only")
    yield _chain("invalid", tuple(_drop_invalid(blocks, cidrs, config)))
    yield _chain("refuse", tuple(refuse))
    for hook, shortcuts in (("prerouting", from_pods), ("output", from_here)):
        yield _chain(hook, (*shortcuts, *translate), Hook("nat", hook, DNAT_PRIORITY))
        jump = (Rule(r.verdict(Verdict(JUMP, "refuse"))),)
        yield _chain(f"refuse-{hook}", jump, Hook("filter", hook, REFUSE_PRIORITY))
    yield _chain("postrouting", tuple(_masquerades(versions, cidrs, config)), Hook("nat", "postrouting", SNAT_PRIORITY))


def _shortcuts(blocks: Iterable[IPNetwork]) -> tuple[list[Rule], list[Rule]]:
    """Rules for clients on this node (its pods, itself): with externalTrafficPolicy Local they still reach all endpoints.

    A pod of another node has that at its own node, for the addresses that are served there; at this node's port it comes from outside.
    """
    why = "externalTrafficPolicy is for clients from outside"
    rows = {
        block: (r.to_group(block.version, r.CLUSTER_FRONTENDS), r.to_chain(name("choice", block.version))) for block in blocks
    }
    from_pods = [rule(family(block.version), source_in(block), *row, comment=why) for block, row in rows.items()]
    return from_pods, [rule(family(block.version), *row, comment=why) for block, row in rows.items()]


def _drop_invalid(blocks: Iterable[IPNetwork], cidrs: Iterable[IPNetwork], config: NetworkConfig) -> Iterator[Rule]:
    """Rules that drop what is of no connection, and would be translated if it was: to a frontend, from an endpoint, and errors about
    such packets. Whoever got it as it is would answer with a reset."""
    drop = (counter(), r.drop())
    for v in (block.version for block in blocks):
        for kind in (r.FRONTENDS, r.CLUSTER_FRONTENDS):
            yield rule(family(v), r.to_group(v, kind), *drop, comment=NO_CONNECTION)
            yield rule(r.is_icmp(v), r.to_group(v, kind, r.error_about(v, "source")), *drop, comment=NO_CONNECTION)
        yield rule(family(v), r.is_frontend(v, name("refused", v)), *drop, comment=NO_CONNECTION)
        yield rule(family(v), r.destination_in_set(v, name("owned", v)), *drop, comment=NO_CONNECTION)
        remote = Lookup(set=name("remote", v))
        yield rule(family(v), r.source_served(v, name("remote", v)), *drop, comment=NO_CONNECTION)
        yield rule(r.is_icmp(v), (*r.error_about(v, "destination"), remote), *drop, comment=NO_CONNECTION)
        for pods in (cidr for cidr in map(ipaddress.ip_network, config.cluster_cidrs) if cidr.version == v):
            ports = name("ports", v)
            yield rule(family(v), source_in(pods), r.source_port_served(ports), *drop, comment=NO_CONNECTION)
            yield rule(r.is_icmp(v), r.error_about_packet_into(pods, ports), *drop, comment=NO_CONNECTION)
    for cidr in cidrs:
        yield rule(family(cidr.version), r.goes_into(cidr), *drop, comment=NO_CONNECTION)


def _rejections(match: tuple[Row, ...], why: str) -> list[Rule]:
    """Rules that reject: a reset for TCP, ICMP "port unreachable" for other protocols."""
    return [rule(*match, protocol("tcp"), r.reject_with_reset(), comment=why), rule(*match, r.reject(), comment=why)]


def _masquerades(versions: Iterable[int], cidrs: Iterable[IPNetwork], config: NetworkConfig) -> Iterator[Rule]:
    """Rules that masquerade translated connections: of a pod to itself, and from another machine on to another node."""
    for v in versions:
        itself = (family(v), was_translated(), pair_in(v, name("hairpin", v)))
        yield rule(*itself, masquerade(), comment="a pod that reaches itself through its Service")
        comes = (family(v), was_translated(), r.source_not_in_set(v, name("local", v)), r.leaves_not_by(config.bridge))
        why = "the answer must come back through this node"
        yield rule(*comes, r.went_to(v, name("addresses", v)), masquerade(), comment=why)
        for cidr in cidrs:
            if cidr.version == v:
                yield rule(*comes, r.went_into(cidr), masquerade(), comment=why)


def _chain(chain: str, rules: tuple[Rule, ...], hook: Hook | None = None) -> Chain:
    return Chain(family=FAMILY, table=NAME, name=chain, hook=hook, rules=rules)
