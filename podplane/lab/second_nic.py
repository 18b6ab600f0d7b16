"""The nodes' second network interfaces, as values: a network of their own, behind another interface of the gateway.

    node1 eth1 (172.30.0.10) ─┐
    node2 eth1 (172.30.0.11) ─┴ second (bridge, 172.30.0.1) ─ gateway ─ out0 … outside

eth0 has the InternalIP and leads to other nodes and the API; eth1 has the ExternalIP and the default route. The gateway has an interface
on both networks, so what the world outside sends to an InternalIP comes in by eth0, and the answer leaves by eth1. As on networks of
clouds each address is alone on its link (/32, /128) and all packets go by the gateway: a node has one neighbour there, and asks nobody.
"""

from __future__ import annotations

from collections.abc import Sequence

from podplane.ipam.plan import Plan
from podplane.lab.underlay import BOOT_PROTOCOL, asks_nobody
from podplane.pods.plan import DEFAULT
from podplane.state.mac import mac_of
from podplane.state.network import Address, Link, Neighbour, Peer, Route, Sysctl
from podplane.state.value import IPAddress, Value

NIC, SWITCH = "eth1", "second"


def switch(plan: Plan) -> list[Value]:
    """The switch, which is the gateway's interface, too. The gateway tells nobody of a shorter way (ICMP redirects): there is none."""
    if not plan.second_networks:
        return []
    gateways = plan.second_gateways()
    return [
        *(Sysctl(name=f"net.ipv4.conf.{name}.send_redirects", value="0") for name in ("all", "default")),
        Link(name=SWITCH, kind="bridge", mac=_mac(gateways)),
        *asks_nobody(SWITCH, plan),
        *(
            Address(link=SWITCH, ip=ip, prefix_length=network.prefixlen)
            for network, ip in zip(plan.second_networks, gateways, strict=True)
        ),
    ]


def port_name(number: int) -> str:
    """The switch's port of node `number`."""
    return f"{SWITCH}{number}"


def port(plan: Plan, number: int, netns: str) -> list[Value]:
    """The cable from the switch to node `number`, whose far end is the node's eth1 in `netns`."""
    if not (ips := plan.second_ips(number)):
        return []
    peer = Peer(netns=netns, name=NIC, mac=_mac(ips))
    return [
        Link(name=port_name(number), kind="veth", master=SWITCH, alias=f"node/node{number}", peer=peer),
        *(Neighbour(link=SWITCH, ip=ip, mac=_mac(ips), protocol=BOOT_PROTOCOL) for ip in ips),
    ]


def machine(plan: Plan, number: int) -> list[Value]:
    """What the machine's own network configuration does with eth1: address and default route."""
    if not plan.second_networks:
        return []
    gateways = plan.second_gateways()
    values: list[Value] = [Link(name=NIC), *asks_nobody(NIC, plan)]
    for ip, gateway in zip(plan.second_ips(number), gateways, strict=True):
        values += [
            Address(link=NIC, ip=ip, prefix_length=ip.max_prefixlen),
            Neighbour(link=NIC, ip=gateway, mac=_mac(gateways), protocol=BOOT_PROTOCOL),
            Route(destination=DEFAULT[ip.version], gateway=gateway, link=NIC, onlink=True, protocol=BOOT_PROTOCOL),
        ]
    return values


def _mac(ips: Sequence[IPAddress]) -> str:
    """The MAC of an interface with these addresses: none of eth0's network, though addresses may end alike there."""
    return "0a:59" + mac_of(ips[0]).removeprefix("0a:58")
