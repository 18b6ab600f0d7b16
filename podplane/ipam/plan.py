"""The address plan of a cluster: its CIDRs, that they do not overlap, and how much fits in them."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping
from itertools import combinations

import msgspec

from podplane.model.words import counted
from podplane.state.value import IPAddress, IPNetwork

NODE_BLOCK_LENGTH: Mapping[int, int] = {4: 24, 6: 64}
"""Prefix length of a node's block by IP version, as kube-controller-manager has them."""
FIRST_NODE_OFFSET = 10
"""node1 is at .10 of the node CIDR; below it is room for gateways."""
UNDERLAY_GATEWAY_OFFSET = 1
SUBNET_BITS = 4
"""A subnet has room for gateways and at least five nodes."""
SECOND = "second NIC's CIDR"
BALANCERS, IPV6_BALANCERS = 16, range(0xF000, 0xF100)
"""How many addresses of an IPv4 node CIDR, and which of an IPv6 one, are for load balancers."""


class PlanError(ValueError):
    """The CIDRs don't make a plan; the text says why and what would."""


def parse_cidrs(text: str, what: str) -> tuple[IPNetwork, ...]:
    """The networks of a comma-separated list, at most one a family. PlanError names what is wrong with `what`."""
    networks: list[IPNetwork] = []
    for part in filter(None, (p.strip() for p in text.split(","))):
        try:
            networks.append(ipaddress.ip_network(part))
        except ValueError as error:
            raise PlanError(f"{what} {part}: {error}; write it as 10.244.0.0/16") from None
    if not networks:
        raise PlanError(f"{what} is empty: give one CIDR, or one IPv4 and one IPv6 CIDR")
    if len({n.version for n in networks}) != len(networks):
        raise PlanError(f"{what} {text}: one CIDR for each IP family at most")
    return tuple(networks)


class Plan(msgspec.Struct, frozen=True):
    """All CIDRs of a cluster, one a family each; the first family is the primary one."""

    cluster: tuple[IPNetwork, ...]
    service: tuple[IPNetwork, ...]
    node: tuple[IPNetwork, ...]
    outside: tuple[IPNetwork, ...] = ()
    subnets: int = 1
    """The node CIDRs are divided among so many networks, with a router between. Nodes are placed in them in turns."""
    second: tuple[IPNetwork, ...] = ()
    """Of the nodes' second network interfaces; empty where they have none."""

    @property
    def versions(self) -> tuple[int, ...]:
        """4, 6 or both, in the order of the cluster CIDRs."""
        return tuple(n.version for n in self.cluster)

    def block_length(self, version: int) -> int:
        """Prefix length of node blocks: the usual one, or the whole cluster CIDR where that is smaller."""
        return max(NODE_BLOCK_LENGTH[version], next(n for n in self.cluster if n.version == version).prefixlen)

    @property
    def node_capacity(self) -> int:
        """How many nodes fit: by blocks of the cluster CIDRs and by addresses of the node CIDRs."""
        blocks = (1 << (self.block_length(n.version) - n.prefixlen) for n in self.cluster)
        addresses = (self.subnets * _hosts(network) for network in self.subnet(0))
        return max(0, min((*blocks, *addresses, *map(_hosts, self.second_networks))))

    @property
    def pod_capacity(self) -> int:
        """How many pods fit on a node by its blocks."""
        return max(0, min((1 << (n.max_prefixlen - self.block_length(n.version))) - 3 for n in self.cluster))

    def node_ips(self, number: int) -> tuple[IPAddress, ...]:
        """The addresses of node `number` (from 1 on), one a family."""
        place = (number - 1) // self.subnets
        return tuple(n.network_address + FIRST_NODE_OFFSET + place for n in self.subnet(self.subnet_of(number)))

    @property
    def second_networks(self) -> tuple[IPNetwork, ...]:
        """Those of the second network interfaces, one a family of the cluster, in its order; none where there are no such interfaces."""
        return tuple(self._of(self.second)) if self.second else ()

    def second_ips(self, number: int) -> tuple[IPAddress, ...]:
        """The addresses of the second network interface of node `number`, one a family."""
        return tuple(n.network_address + FIRST_NODE_OFFSET + number - 1 for n in self.second_networks)

    def second_gateways(self) -> tuple[IPAddress, ...]:
        """The routers of the network of the second network interfaces, one a family."""
        return tuple(n.network_address + UNDERLAY_GATEWAY_OFFSET for n in self.second_networks)

    def subnet_of(self, number: int) -> int:
        """Which subnet node `number` is in, from 0 on."""
        return (number - 1) % self.subnets

    def subnet(self, index: int) -> tuple[IPNetwork, ...]:
        """The networks of a subnet, one a family: as many equal parts of the node CIDR as there are subnets, or the next power of two."""
        bits = (self.subnets - 1).bit_length()
        return tuple(_part(network, bits, index) for network in self._of(self.node))

    def load_balancer_addresses(self) -> tuple[str, ...]:
        """`first-last` of the addresses for load balancers, one a family: the last ones of the last subnet, and in a large IPv6 one a range
        that is easy to recognize.
        """
        found = []
        for network in self.subnet(self.subnets - 1):
            is_large = network.num_addresses > IPV6_BALANCERS.stop
            size = min(BALANCERS, network.num_addresses // 8)
            end = network.num_addresses - (network.version == 4)
            offsets = IPV6_BALANCERS if network.version == 6 and is_large else range(end - size, end)
            if offsets:
                found.append(f"{network[offsets[0]]}-{network[offsets[-1]]}")
        return tuple(found)

    def kubernetes_ips(self) -> tuple[IPAddress, ...]:
        """Cluster IPs of the Service `kubernetes`: the first address of each Service CIDR, in the order of the cluster's families."""
        networks = (network for version in self.versions for network in self.service if network.version == version)
        return tuple(network.network_address + 1 for network in networks)

    def links(self) -> tuple[IPNetwork, ...]:
        """The networks on each of which nodes reach each other without a router."""
        return tuple(network for index in range(self.subnets) for network in self.subnet(index))

    def underlay_gateways(self, subnet: int = 0) -> tuple[IPAddress, ...]:
        """The default routers of the nodes of a subnet, one a family."""
        return tuple(n.network_address + UNDERLAY_GATEWAY_OFFSET for n in self.subnet(subnet))

    def _of(self, networks: Iterable[IPNetwork]) -> Iterator[IPNetwork]:
        by_version: dict[int, IPNetwork] = {n.version: n for n in networks}
        return (by_version[v] for v in self.versions)

    def check(self, nodes: int, pods_per_node: int = 0) -> None:
        """PlanError unless the CIDRs do not overlap and so many nodes with so many pods fit."""
        self._check_usable()
        self._check_families()
        self._check_subnets()
        self._check_overlaps()
        if self.pod_capacity < 1:
            raise PlanError(f"cluster CIDR {_join(self.cluster)} has no room for a pod: give a larger CIDR")
        if nodes > self.node_capacity or pods_per_node > self.pod_capacity:
            wanted = f"{counted(nodes, 'node')} with {counted(pods_per_node, 'pod')} each"
            room = f"{counted(self.node_capacity, 'node')} with {counted(self.pod_capacity, 'pod')} each"
            cidrs = " and ".join(f"{what} {_join(n)}" for what, n in (("cluster CIDR", self.cluster), *self._of_nodes()))
            raise PlanError(f"{wanted} don't fit: {cidrs} have room for {room}; give larger CIDRs")

    def _of_nodes(self) -> Iterator[tuple[str, tuple[IPNetwork, ...]]]:
        """The networks of nodes, with what they are called."""
        yield "node CIDR", self.node
        if self.second:
            yield SECOND, self.second

    def _check_families(self) -> None:
        for what, networks in (("service CIDR", self.service), *self._of_nodes()):
            missing = set(self.versions) - {n.version for n in networks}
            if missing:
                families = " and ".join(f"IPv{v}" for v in sorted(missing))
                raise PlanError(f"the cluster CIDR has {families}, the {what} {_join(networks)} has not: add one")

    def _check_subnets(self) -> None:
        bits = (self.subnets - 1).bit_length()
        for network in self._of(self.node):
            if network.prefixlen + bits > network.max_prefixlen - SUBNET_BITS:
                raise PlanError(
                    f"node CIDR {network} has no room for {self.subnets} subnets: give a larger CIDR, or fewer --subnets"
                )

    def _check_usable(self) -> None:
        for what, networks in (("cluster CIDR", self.cluster), ("service CIDR", self.service), *self._of_nodes()):
            for network in networks:
                special = [name for name in ("loopback", "multicast", "link_local") if getattr(network, f"is_{name}")]
                if special:
                    raise PlanError(f"{what} {network} is {special[0].replace('_', '-')}: choose one of private addresses")

    def _check_overlaps(self) -> None:
        named = [("cluster CIDR", n) for n in self.cluster] + [("service CIDR", n) for n in self.service]
        named += [(what, n) for what, networks in self._of_nodes() for n in networks]
        named += [("network outside", n) for n in self.outside]
        for (what, network), (other_what, other) in combinations(named, 2):
            if network.version == other.version and network.overlaps(other):
                raise PlanError(f"{what} {network} overlaps {other_what} {other}: choose one apart from it")


def _hosts(network: IPNetwork) -> int:
    """How many nodes it has addresses for."""
    return network.num_addresses - FIRST_NODE_OFFSET - (network.version == 4)


def _part(network: IPNetwork, bits: int, index: int) -> IPNetwork:
    """One of the equal parts that a network is divided into by so many bits more of its prefix."""
    length = network.prefixlen + bits
    start = int(network.network_address) + (index << (network.max_prefixlen - length))
    return type(network)((start, length))


def _join(networks: Iterable[IPNetwork]) -> str:
    return ",".join(map(str, networks))
