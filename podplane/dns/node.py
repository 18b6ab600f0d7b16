"""The way from pods to the name server of their own node, without connection tracking.

The cluster IPs of the cluster's DNS are addresses of the node itself, on the pods' bridge, and what goes there and comes back is exempt
from connection tracking. So a question passes no translation, leaves no entry, and can't be lost in a race of two questions that are sent
at once from one socket (kubernetes/kubernetes#56903).

While the node's own server does not answer, and another node's does, the addresses are not there: then the cluster IP is that of a Service
like any other, `kube-system/kube-dns`, and leads to the servers of other nodes. The exemption of questions asks whether the address is
there (`fib daddr type local`), so both go and come in one moment, and no question falls between them. That of answers holds always: a
late one leaves no entry, which would take the client's next question for an answer.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

from podplane.dns.settings import DnsSettings
from podplane.model.config import NetworkConfig
from podplane.model.service import EndpointSlice
from podplane.model.view import View
from podplane.state.network import Address
from podplane.state.nft import DROP, Chain, Hook, Notrack, Rule, Table
from podplane.state.nft_nat import destination_is_local, port_is, protocol
from podplane.state.nft_rules import Row, counter, destination_in, family, input_is, rule, source_in, verdict
from podplane.state.value import Fragment, IPAddress, Value, fragment

TABLE = ("inet", "podplane-dns")
FAMILY, NAME = TABLE
RAW_PRIORITY = -300
"""NF_IP_PRI_RAW: before connection tracking (-200)."""
SERVICE = "kube-system/kube-dns"
PORT = 53
MANAGED_BY, PODPLANE = "endpointslice.kubernetes.io/managed-by", "podplane"
"""A label of EndpointSlices, and its value where podplane wrote one."""
PROTOCOLS = ("udp", "tcp")


def plan(view: View, config: NetworkConfig, own: DnsSettings) -> Fragment:
    """What this node has, so that its pods reach its own name server; the rules alone while others are to answer, and nothing where the
    cluster's DNS is not podplane's."""
    if view.node is None or not view.node.spec.pod_cidrs or not view.may_answer_names:
        return {}
    ips = [ip for ip in map(ipaddress.ip_address, own.ips) if ip.version in view.versions]
    if not ips:
        return {}
    values: list[Value] = [Table(family=FAMILY, table=NAME)]
    if view.has_name_server or not others_answer(view):
        values += [Address(link=config.bridge, ip=ip, prefix_length=ip.max_prefixlen) for ip in ips]
    asked = [one for ip in ips for one in _exempt(ip, "destination")]
    answered = [one for ip in ips for one in _exempt(ip, "source")]
    forged = [_drop_forged(ip, config.bridge) for ip in ips]
    values.append(
        _chain(
            "prerouting", [*forged, *asked, *(rule(input_is("lo"), one.expressions, comment=one.comment) for one in answered)]
        )
    )
    values.append(_chain("output", [*asked, *answered]))
    return fragment(values)


def others_answer(view: View) -> bool:
    """Does the name server of another node answer, or one of others behind the same Service?"""
    return bool(others(view))


def others(view: View) -> tuple[str, ...]:
    """The addresses of all name servers behind the cluster's DNS that answer, but for podplane's of this node."""
    return tuple(
        address
        for slice_ in view.slices_of(SERVICE)
        for endpoint in slice_.endpoints or ()
        if endpoint.is_ready and not (is_own(slice_) and endpoint.node_name == view.node_name)
        for address in endpoint.addresses
    )


def is_own(found: EndpointSlice) -> bool:
    """Did podplane write this slice?"""
    return found.metadata.labels.get(MANAGED_BY) == PODPLANE


def _exempt(ip: IPAddress, end: str) -> Iterator[Rule]:
    """Rules that keep questions ("destination") or answers ("source") from connection tracking."""
    network = ipaddress.ip_network(ip)
    match = destination_in(network) if end == "destination" else source_in(network)
    is_here = destination_is_local() if end == "destination" else ()
    for name in PROTOCOLS:
        row: Row = (*family(ip.version), *match, *protocol(name), *port_is(PORT, end), *is_here)
        yield rule(row, (Notrack(),), comment=f"svc/{SERVICE}")


def _drop_forged(ip: IPAddress, bridge: str) -> Rule:
    """No pod has this address: what one sends from it would be taken for an answer."""
    own = (*family(ip.version), *input_is(bridge), *source_in(ipaddress.ip_network(ip)))
    return rule(own, counter(), verdict(DROP), comment=f"svc/{SERVICE}: forged")


def _chain(name: str, rules: list[Rule]) -> Chain:
    return Chain(family=FAMILY, table=NAME, name=name, hook=Hook("filter", name, RAW_PRIORITY), rules=tuple(rules))
