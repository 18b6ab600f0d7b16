"""Results of ADD (CNI specification, section 5), in each version that callers may ask for. Pure.

before 1.0.0   an address says its IP version
before 1.1.0   interfaces have no MTU, socket path or PCI device; routes no more than destination and gateway
"""

from __future__ import annotations

import ipaddress
from typing import Any

import msgspec

from podplane.cni.network import Attached

VERSIONS = ("0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
"""Those that are spoken, oldest first."""
NEWEST = VERSIONS[-1]
INTERFACE_1_1_0 = ("mtu", "socketPath", "pciID")
ROUTE_1_1_0 = ("mtu", "advmss", "priority", "table", "scope")


def is_before(version: str, other: str) -> bool:
    """Is this version of `VERSIONS` older than the other one?"""
    return VERSIONS.index(version) < VERSIONS.index(other)


class Interface(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """`sandbox` is the path of the network namespace that it is in; "" for the node's."""

    name: str
    mac: str = ""
    mtu: int = 0
    sandbox: str = ""
    socket_path: str = ""
    pci_id: str = msgspec.field(default="", name="pciID")


class Address(msgspec.Struct, frozen=True, omit_defaults=True):
    """An address with its prefix length; `interface` is an index of the result's interfaces."""

    address: str
    gateway: str = ""
    interface: int | None = None

    def __post_init__(self) -> None:
        ipaddress.ip_interface(self.address)
        if self.gateway:
            ipaddress.ip_address(self.gateway)

    @property
    def ip(self) -> str:
        """Without the prefix length, as the kernel prints it."""
        return str(ipaddress.ip_interface(self.address).ip)


class Route(msgspec.Struct, frozen=True, omit_defaults=True):
    """A destination in CIDR notation, and how to get there."""

    dst: str
    gw: str = ""
    mtu: int = 0
    advmss: int = 0
    priority: int = 0
    table: int | None = None
    scope: int | None = None

    def __post_init__(self) -> None:
        ipaddress.ip_network(self.dst, strict=False)
        if self.gw:
            ipaddress.ip_address(self.gw)


class Dns(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a network says of name servers; podplane passes it on."""

    nameservers: tuple[str, ...] = ()
    domain: str = ""
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


class Result(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """What an ADD made, with what plugins before it had made."""

    cni_version: str = ""
    interfaces: tuple[Interface, ...] = ()
    ips: tuple[Address, ...] = ()
    routes: tuple[Route, ...] = ()
    dns: Dns = Dns()

    def __post_init__(self) -> None:
        for one in self.ips:
            if one.interface is not None and not 0 <= one.interface < len(self.interfaces):
                raise ValueError(f"address {one.address} is on interface {one.interface} of {len(self.interfaces)}")

    def of_interface(self, name: str) -> tuple[Address, ...]:
        """The addresses of the container's interface of this name."""
        indices = {i for i, one in enumerate(self.interfaces) if one.name == name and one.sandbox}
        return tuple(one for one in self.ips if one.interface in indices)

    def has_interface(self, name: str) -> bool:
        """Is there an interface of this name in the container?"""
        return any(one.name == name and one.sandbox for one in self.interfaces)


def attached_by(result: Result, ifname: str) -> Attached:
    """What an ADD got. StopIteration when its result does not name the interface."""
    own = next(one for one in result.interfaces if one.name == ifname and one.sandbox)
    addresses = result.of_interface(ifname)
    return Attached(
        ips=tuple(one.ip for one in addresses),
        interface=ifname,
        mac=own.mac,
        gateways=tuple(one.gateway for one in addresses),
        has_default_routes=bool(result.routes),
        host_interface=next((one.name for one in result.interfaces if not one.sandbox), ""),
        mtu=own.mtu,
    )


def merged(before: Result, own: Result) -> Result:
    """A former plugin's result with one's own after it."""
    shift = len(before.interfaces)
    ips = (msgspec.structs.replace(one, interface=None if one.interface is None else one.interface + shift) for one in own.ips)
    return Result(
        interfaces=(*before.interfaces, *own.interfaces),
        ips=(*before.ips, *ips),
        routes=(*before.routes, *own.routes),
        dns=own.dns if own.dns != Dns() else before.dns,
    )


def render(result: Result, version: str) -> bytes:
    """The result as JSON, as this version has it."""
    fields: dict[str, Any] = msgspec.to_builtins(result)
    fields["cniVersion"] = version
    if result.dns == Dns():
        fields.pop("dns", None)
    if is_before(version, "1.1.0"):
        _drop(fields.get("interfaces", ()), INTERFACE_1_1_0)
        _drop(fields.get("routes", ()), ROUTE_1_1_0)
    if is_before(version, "1.0.0"):
        for address in fields.get("ips", ()):
            address["version"] = str(ipaddress.ip_interface(address["address"]).version)
    return msgspec.json.encode(fields)


def render_versions(version: str) -> bytes:
    """The answer to VERSION, asked by a caller that speaks this version."""
    return msgspec.json.encode({"cniVersion": version, "supportedVersions": VERSIONS})


def _drop(objects: Any, names: tuple[str, ...]) -> None:
    for one in objects:
        for name in names:
            one.pop(name, None)
