"""The nf_tables objects of host ports.

    prerouting, output (nat)   addressed4: (address, protocol, port) → (pod address, port)     destination NAT
                               ports4:     (protocol, port)          → (pod address, port)     the same, of all addresses of the node
    postrouting (nat)          masquerade what a pod sends to itself (hairpin4), and what the node sends from 127.0.0.1
    localnet (filter)          drop what pods send to or from 127.0.0.0/8

A new connection costs two lookups, whatever the number of host ports; only its first packet passes the nat hooks. Only packets to an
address of the node are looked at, so a hostIP that the node does not have captures nothing that is forwarded; and not those to addresses
that the node has for pods and Services, where its name server is.

The chains come after those of Services, so a node port of a Service keeps its port; a host port takes precedence over a socket of the node.
The client keeps its address, because the pod's answer comes back through this node in any case.

127.0.0.1 needs the sysctl route_localnet on the bridge: without it the kernel sends no packet with that source to a pod, and takes no
answer. It would also let pods reach what listens on the node's 127.0.0.1 (CVE-2020-8558), which the chain `localnet` prevents. Table
and sysctl are there while a pod of the node has a host port. IPv6 has no such sysctl: what comes from ::1 is left alone, and a port of
::1 is for clients of the node with another address (an answer to ::1 has a route by lo alone: rt6_need_strict).

Sources: nft(8); Documentation/networking/ip-sysctl.rst; containernetworking/plugins, portmap.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Sequence

from podplane.hostports.model import HostPortTable, others
from podplane.model.config import NetworkConfig
from podplane.model.objects import Node
from podplane.state.network import Sysctl
from podplane.state.nft import DROP, Chain, Element, Hook, Rule, Set, Table
from podplane.state.nft_nat import (
    destination_is_local,
    dnat_by,
    frontend,
    pair_in,
    protocol_and_port,
    was_translated,
)
from podplane.state.nft_rules import (
    counter,
    destination_in,
    destination_not_in,
    family,
    input_is,
    masquerade,
    output_is,
    rule,
    source_in,
    source_not_in,
    verdict,
)
from podplane.state.value import Fragment, IPNetwork, Value, fragment

TABLE = ("inet", "podplane-hostports")
FAMILY, NAME = TABLE
TYPE = {4: "ipv4_addr", 6: "ipv6_addr"}
GUARD_PRIORITY, DNAT_PRIORITY, SNAT_PRIORITY = -150, -99, 100
"""Before any translation; after NF_IP_PRI_NAT_DST, where Services translate; NF_IP_PRI_NAT_SRC."""
LOOPBACK, LOOPBACK6 = ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1")


def on_node(node: Node, config: NetworkConfig, *, is_used: bool) -> Fragment:
    """What the node has for host ports: the table while a pod has one (`is_used`), and route_localnet off otherwise."""
    versions = [ipaddress.ip_network(block).version for block in node.spec.pod_cidrs]
    if not versions:
        return {}
    name = f"net.ipv4.conf.{config.bridge}.route_localnet"
    values: list[Value] = [Sysctl(name=name, value="1" if is_used and 4 in versions else "0", link=config.bridge)]
    if is_used:
        values += [Table(family=FAMILY, table=NAME), *_base_chains(versions, others(node, config), config.bridge)]
        for version in versions:
            values += _sets(version)
    return fragment(values)


def elements(table: HostPortTable) -> Fragment:
    """What one pod interface adds."""
    values: list[Value] = []
    for claim, target in table.targets.items():
        key = (claim.protocol, claim.port)
        if claim.ip is None:
            values.append(_element(f"ports{claim.version}", key, target, table.name))
        else:
            values.append(_element(f"addressed{claim.version}", (claim.ip, *key), target, table.name))
    ips = {target.ip for target in table.targets.values()}
    return fragment([*values, *(_element(f"hairpin{ip.version}", (ip, ip), None, table.name) for ip in ips)])


def _element(name: str, key: tuple[object, ...], data: object, comment: str) -> Element:
    return Element(family=FAMILY, table=NAME, set=name, key=key, data=data, comment=comment)  # type: ignore[arg-type]  # parts


def _sets(version: int) -> Iterator[Set]:
    address, port = TYPE[version], ("inet_proto", "inet_service")
    shapes: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
        "hairpin": ((address, address), ()),
        "addressed": ((address, *port), (address, "inet_service")),
        "ports": (port, (address, "inet_service")),
    }
    for rank, (kind, (key, data)) in enumerate(shapes.items(), 1):
        yield Set(family=FAMILY, table=NAME, name=f"{kind}{version}", key=key, data=data, rank=rank)


def _base_chains(versions: Sequence[int], inner: tuple[IPNetwork, ...], bridge: str) -> Iterator[Chain]:
    translate = tuple(one for version in versions for one in _translations(version, inner))
    for hook in ("prerouting", "output"):
        yield _chain(hook, translate, Hook("nat", hook, DNAT_PRIORITY))
    yield _chain("postrouting", tuple(_masquerades(versions, bridge)), Hook("nat", "postrouting", SNAT_PRIORITY))
    if 4 in versions:
        yield _chain("localnet", tuple(_guards(bridge)), Hook("filter", "prerouting", GUARD_PRIORITY))


def _translations(version: int, inner: Iterable[IPNetwork]) -> Iterator[Rule]:
    rows = [expression for network in inner if network.version == version for expression in destination_not_in(network)]
    sent = source_not_in(LOOPBACK6) if version == 6 else ()
    local = (*family(version), *rows, *sent, *destination_is_local())
    yield rule(local, dnat_by(version, frontend(version), f"addressed{version}"), comment="host ports of one address")
    yield rule(local, dnat_by(version, protocol_and_port(), f"ports{version}"), comment="host ports of all addresses")


def _masquerades(versions: Iterable[int], bridge: str) -> Iterator[Rule]:
    for version in versions:
        itself = (family(version), was_translated(), pair_in(version, f"hairpin{version}"))
        yield rule(*itself, masquerade(), comment="a pod that reaches itself through its host port")
        if version == 4:
            from_loopback = (family(4), was_translated(), source_in(LOOPBACK), output_is(bridge))
            yield rule(*from_loopback, masquerade(), comment="from 127.0.0.1 to a host port")


def _guards(bridge: str) -> Iterator[Rule]:
    for match in (source_in(LOOPBACK), destination_in(LOOPBACK)):
        yield rule(family(4), input_is(bridge), match, counter(), verdict(DROP), comment="pods don't reach the node's loopback")


def _chain(name: str, rules: tuple[Rule, ...], hook: Hook) -> Chain:
    return Chain(family=FAMILY, table=NAME, name=name, hook=hook, rules=rules)
