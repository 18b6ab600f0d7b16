"""The lab's physical network, as values: a switch with a gateway, an `outside` host behind it, and each node's uplink.

    node1 eth0 ─┐
    node2 eth0 ─┤ switch0 (bridge, 192.168.1.1) ─ gateway ─ out0 (203.0.113.1) ── eth0 (203.0.113.10) outside
    node3 eth0 ─┘

Gateway and switch share one namespace. It knows the nodes and the network outside, but nothing of pods or Services: a
packet that leaves the cluster with a pod's address finds no way back, as on a real network. All neighbours are permanent.

With several subnets there is a switch for each, and the gateway is the router between them.

With a second network interface (`second_nic`) a node's default route is there, and eth0 leads to other nodes and the API alone.
"""

from __future__ import annotations

import msgspec

from podplane.ipam.plan import Plan
from podplane.model.config import ROUTE_PROTOCOL
from podplane.pods.plan import DEFAULT, QUIET_IPV6
from podplane.state.mac import mac_of
from podplane.state.network import Address, Link, Neighbour, Peer, Route, Sysctl
from podplane.state.value import IPAddress, IPNetwork, Value

UPLINK, OUT, OUTSIDE = "eth0", "out0", "outside"
OUTSIDE_HOST_OFFSET = 10
MTU = 1500
"""Of the network between machines, unless a fault changes that of one of them."""


def switch_name(subnet: int) -> str:
    """The switch of a subnet, which is its gateway's interface, too."""
    return f"switch{subnet}"


def outside_ips(plan: Plan) -> tuple[IPAddress, ...]:
    """Addresses of the host `outside`, one a family."""
    return tuple(n.network_address + OUTSIDE_HOST_OFFSET for n in _families(plan, plan.outside))


def _families(plan: Plan, networks: tuple[IPNetwork, ...]) -> list[IPNetwork]:
    """One network for each family of the cluster, in its order."""
    return [n for version in plan.versions for n in networks if n.version == version]


def _quiet(netns: str = "") -> list[Value]:
    return [Sysctl(netns=netns, name=f"net.ipv6.conf.default.{name}", value=value) for name, value in QUIET_IPV6.items()]


def asks_nobody(link: str, plan: Plan, netns: str = "") -> list[Value]:
    """A link on which all neighbours are permanent asks for no others.

    All namespaces of a machine share one table of neighbours for each IP version, of 1,024 entries (arp(7), gc_thresh3), and one that
    is asked for is kept for three seconds: whoever sends to many addresses of a link (RFC 6583) would keep all from reaching anybody new.
    """
    return [Sysctl(netns=netns, name=f"net.ipv{v}.neigh.{link}.mcast_solicit", value="0") for v in plan.versions]


def switch(plan: Plan) -> list[Value]:
    """The namespace of switch and gateway, and the host behind it."""
    near, far = _router_ips(plan), outside_ips(plan)
    values: list[Value] = [
        *_quiet(),
        *_quiet(OUTSIDE),
        Sysctl(name="net.ipv4.ip_forward", value="1"),
        Sysctl(name="net.ipv6.conf.all.forwarding", value="1"),
        Link(name="lo"),
        Link(
            name=OUT,
            kind="veth",
            mac=mac_of(near[0]),
            peer=Peer(netns=OUTSIDE, name=UPLINK, mac=mac_of(far[0])),
        ),
        Link(netns=OUTSIDE, name="lo"),
        Link(netns=OUTSIDE, name=UPLINK),
        *asks_nobody(OUT, plan),
        *asks_nobody(UPLINK, plan, OUTSIDE),
    ]
    for subnet in range(plan.subnets):
        gateways = plan.underlay_gateways(subnet)
        values.append(Link(name=switch_name(subnet), kind="bridge", mac=mac_of(gateways[0])))
        for network, gateway in zip(plan.subnet(subnet), gateways, strict=True):
            values.append(Address(link=switch_name(subnet), ip=gateway, prefix_length=network.prefixlen))
    for network, router, host in zip(_families(plan, plan.outside), near, far, strict=True):
        values += [
            Address(link=OUT, ip=router, prefix_length=network.prefixlen),
            Neighbour(link=OUT, ip=host, mac=mac_of(far[0]), protocol=BOOT_PROTOCOL),
            Address(netns=OUTSIDE, link=UPLINK, ip=host, prefix_length=network.prefixlen),
            Neighbour(netns=OUTSIDE, link=UPLINK, ip=router, mac=mac_of(near[0]), protocol=BOOT_PROTOCOL),
            Route(
                netns=OUTSIDE,
                destination=DEFAULT[host.version],
                gateway=router,
                link=UPLINK,
                protocol=ROUTE_PROTOCOL,
            ),
        ]
    return values


def _router_ips(plan: Plan) -> tuple[IPAddress, ...]:
    return tuple(n.network_address + 1 for n in _families(plan, plan.outside))


def port_name(number: int) -> str:
    """The switch's port of node `number`."""
    return f"port{number}"


class Place(msgspec.Struct, frozen=True):
    """Where the machine of node `number` is in the network: the addresses of its uplink, one a family, and its MAC."""

    number: int
    ips: tuple[IPAddress, ...]
    mac: str


def usual_place(plan: Plan, number: int) -> Place:
    """Where it is unless a fault has moved it."""
    ips = plan.node_ips(number)
    return Place(number, ips, mac_of(ips[0]))


def port(plan: Plan, place: Place, netns: str) -> list[Value]:
    """The cable from the switch to a node, whose far end is the node's eth0 in `netns`."""
    switch_ = switch_name(plan.subnet_of(place.number))
    cable = Link(
        name=port_name(place.number),
        kind="veth",
        master=switch_,
        alias=f"node/node{place.number}",
        peer=Peer(netns=netns, name=UPLINK, mac=place.mac),
    )
    return [cable, *(Neighbour(link=switch_, ip=ip, mac=place.mac, protocol=BOOT_PROTOCOL) for ip in place.ips)]


def uplink(plan: Plan, place: Place, *, asks: bool = False) -> list[Value]:
    """What a machine's own network configuration does before Kubernetes comes: address and default route of eth0; with an eth1, the
    default route is there, and eth0 has the way to other subnets.

    `asks`: other nodes are found by ARP and neighbour discovery, as on a real machine; nobody makes permanent neighbours of them.
    """
    values: list[Value] = [Link(name="lo"), Link(name=UPLINK), *(() if asks else asks_nobody(UPLINK, plan))]
    subnet = plan.subnet_of(place.number)
    gateways = plan.underlay_gateways(subnet)
    for network, ip, gateway in zip(plan.subnet(subnet), place.ips, gateways, strict=True):
        values += [
            Address(link=UPLINK, ip=ip, prefix_length=network.prefixlen),
            Neighbour(link=UPLINK, ip=gateway, mac=mac_of(gateways[0]), protocol=BOOT_PROTOCOL),
            *(
                Route(destination=there, gateway=gateway, link=UPLINK, protocol=BOOT_PROTOCOL)
                for there in _through_uplink(plan, ip.version)
            ),
        ]
    return values


def _through_uplink(plan: Plan, version: int) -> tuple[IPNetwork, ...]:
    """What the gateway at eth0 leads to: everything; with an eth1, other subnets alone."""
    if not plan.second:
        return (DEFAULT[version],)
    return tuple(network for network in plan.node if network.version == version and plan.subnets > 1)


def boot_sysctls() -> list[Value]:
    """The sysctls of a node's namespace, set before its uplink is created."""
    return _quiet()


BOOT_PROTOCOL = 3
"""RTPROT_BOOT: routes and neighbours of the machine itself, which the agent leaves alone."""
