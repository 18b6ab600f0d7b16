"""Which link leads to the other nodes."""

from __future__ import annotations

import ipaddress

import pytest

from podplane.machine import uplink
from podplane.machine.errors import MachineError
from podplane.machine.uplink import Uplink
from podplane.state.network import Address, Link, Route
from podplane.state.value import Value

LINKS: list[Value] = [Link(name="lo", mtu=65536), Link(name="eth0", mtu=1500), Link(name="eth1", mtu=9000)]


def address(link: str, ip: str) -> Address:
    return Address(link=link, ip=ipaddress.ip_address(ip), prefix_length=24)


def default(link: str, network: str = "0.0.0.0/0") -> Route:
    return Route(destination=ipaddress.ip_network(network), link=link, protocol=3)


@pytest.mark.parametrize("ip", ["192.168.1.11", "fd00::11"])
def test_it_is_the_link_that_has_the_address_of_the_node(ip: str) -> None:
    values = [*LINKS, default("eth0"), address("eth0", "10.0.0.1"), address("eth1", ip)]
    found = uplink.find(values, (ip,))
    assert (found.name, found.mtu) == ("eth1", 9000)


def test_its_subnets_are_the_networks_of_all_its_addresses_but_link_local_ones() -> None:
    ips = [address("eth1", ip) for ip in ("192.168.1.11", "10.9.8.7", "fe80::1", "fd00::11")]
    found = uplink.find([*LINKS, *ips, address("eth0", "172.16.0.1")], ("192.168.1.11",))
    assert found.subnets == ("192.168.1.0/24", "10.9.8.0/24", "fd00::/24")


def test_the_first_address_of_the_node_counts() -> None:
    values = [*LINKS, address("eth0", "fd00::11"), address("eth1", "192.168.1.11")]
    assert uplink.find(values, ("192.168.1.11", "fd00::11")).name == "eth1"
    assert uplink.find(values, ("192.168.1.99", "fd00::11")).name == "eth0", "one that no link has is passed over"


def test_a_link_that_is_named_is_taken() -> None:
    assert uplink.find([*LINKS, address("eth0", "192.168.1.11")], ("192.168.1.11",), "eth1") == Uplink("eth1", 9000)
    with pytest.raises(MachineError, match="there is no link eth7"):
        uplink.find(LINKS, (), "eth7")


def test_without_a_node_it_is_the_link_of_a_default_route() -> None:
    assert uplink.find([*LINKS, default("eth1", "::/0")], ()) == Uplink("eth1", 9000)
    with pytest.raises(MachineError, match="no default route"):
        uplink.find([*LINKS, default("eth1", "10.0.0.0/8")], ())


def test_what_is_not_clear_is_said() -> None:
    with pytest.raises(MachineError, match=r"no link of this machine has an address of its Node \(192\.168\.1\.11\)"):
        uplink.find([*LINKS, default("eth0")], ("192.168.1.11",))
    with pytest.raises(MachineError, match=r"192\.168\.1\.11 of this node is on eth0 and eth1: name one"):
        uplink.find([*LINKS, address("eth0", "192.168.1.11"), address("eth1", "192.168.1.11")], ("192.168.1.11",))
