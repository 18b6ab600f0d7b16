"""The configuration file of controllers: YAML, and so JSON, too. A key that is unknown is refused.

log_level: warning                     debug, info, warning or error
lease_seconds: 10                      the duration of the Lease by which one of several processes leads
health_port: 10266                     of 127.0.0.1; 0: none
load_balancers: true                   addresses for Services of type LoadBalancer, from LoadBalancerPools
node_blocks:                           blocks for Nodes without one; left out: they are kube-controller-manager's to give
  cidrs: [10.244.0.0/16, "fd00:10:244::/48"]
  mask_size_ipv4: 24
  mask_size_ipv6: 64
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from podplane.controllers.leadership import DURATION_SECONDS, LONGEST_SECONDS
from podplane.controllers.node_blocks import BlockRange
from podplane.ipam.plan import NODE_BLOCK_LENGTH, PlanError, parse_cidrs
from podplane.machine.configuration import LEVELS, content_of
from podplane.machine.errors import MachineError
from podplane.state.value import IPNetwork

HEALTH_PORT = 10266
DURATIONS, PORTS = range(3, LONGEST_SECONDS + 1), range(65536)
LEAST_PODS_BITS, MOST_BLOCKS_BITS = 2, 24
"""A block has room for a gateway and a pod at least; a range, for so many blocks at most."""


class NodeBlocksConfiguration(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """From which networks Nodes get blocks, and of which length these are (kube-controller-manager, --node-cidr-mask-size-ipv4)."""

    cidrs: tuple[str, ...]
    mask_size_ipv4: int = NODE_BLOCK_LENGTH[4]
    mask_size_ipv6: int = NODE_BLOCK_LENGTH[6]

    @property
    def ranges(self) -> tuple[BlockRange, ...]:
        """The ranges. MachineError when they can't be that."""
        try:
            networks = parse_cidrs(",".join(self.cidrs), "node_blocks.cidrs")
        except PlanError as error:
            raise MachineError(str(error)) from None
        return tuple(self._range(network) for network in networks)

    def _range(self, network: IPNetwork) -> BlockRange:
        name = f"mask_size_ipv{network.version}"
        length: int = getattr(self, name)
        longest = min(network.max_prefixlen - LEAST_PODS_BITS, network.prefixlen + MOST_BLOCKS_BITS)
        if not network.prefixlen <= length <= longest:
            raise MachineError(f"node_blocks.{name}: {length} is not within {network.prefixlen} and {longest}, for {network}")
        if network.is_loopback or network.is_multicast or network.is_link_local or network.is_unspecified:
            raise MachineError(f"node_blocks.cidrs: {network} is no network that pods can have addresses of")
        return BlockRange(network, length)


class ControllersConfiguration(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a file says."""

    log_level: str = "warning"
    lease_seconds: int = DURATION_SECONDS
    health_port: int = HEALTH_PORT
    load_balancers: bool = True
    node_blocks: NodeBlocksConfiguration | None = None


def read(path: str) -> ControllersConfiguration:
    """The configuration in a file; the defaults without one ("" as `path`). MachineError when it can't be that."""
    try:
        return parsed(content_of(Path(path)) if path else {})
    except MachineError as error:
        raise MachineError(f"{path}: {error}" if path else str(error)) from None


def parsed(content: object) -> ControllersConfiguration:
    """The configuration that this is. MachineError names what is wrong with it."""
    if not isinstance(content, Mapping):
        raise MachineError("it is to be a mapping")
    try:
        found = msgspec.convert(content, ControllersConfiguration)
    except msgspec.ValidationError as error:
        raise MachineError(str(error)) from None
    if found.log_level not in LEVELS:
        raise MachineError(f"log_level: {found.log_level!r} is none of {', '.join(LEVELS)}")
    for name, value, allowed in (("lease_seconds", found.lease_seconds, DURATIONS), ("health_port", found.health_port, PORTS)):
        if value not in allowed:
            raise MachineError(f"{name}: {value} is not within {allowed[0]} and {allowed[-1]}")
    if found.node_blocks is not None:
        _ = found.node_blocks.ranges
    return found
