"""What a caller may ask for beside the network itself: CNI_ARGS, `args` and `runtimeConfig` (CONVENTIONS.md of the CNI project). Pure."""

from __future__ import annotations

import ipaddress
from typing import Annotated, Any

import msgspec

from podplane.cni.errors import CniError, Code
from podplane.model.host_ports import why_refused
from podplane.model.view import Bandwidth, HostPort
from podplane.state.nft_nat import PROTOCOLS

IGNORE = {"1": True, "true": True, "TRUE": True, "True": True, "t": True, "T": True}
IGNORE |= dict.fromkeys(("0", "false", "FALSE", "False", "f", "F", ""), False)
"""What IgnoreUnknown may be, as Go's strconv.ParseBool reads it."""
Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]
Rate = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]


class Arguments(msgspec.Struct, frozen=True):
    """CNI_ARGS: the Kubernetes pod, where there is one, and an address with or without a prefix length, a MAC."""

    namespace: str = ""
    pod: str = ""
    pod_uid: str = ""
    ip: str = ""
    mac: str = ""


KEYS = {"K8S_POD_NAMESPACE": "namespace", "K8S_POD_NAME": "pod", "K8S_POD_UID": "pod_uid", "IP": "ip", "MAC": "mac"}
OTHER_KEYS = frozenset(("IgnoreUnknown", "K8S_POD_INFRA_CONTAINER_ID"))


def parse_arguments(text: str) -> Arguments:
    """CNI_ARGS. A key that nobody knows is refused unless IgnoreUnknown says otherwise, as by the reference plugins."""
    pairs: dict[str, str] = {}
    for pair in filter(None, text.split(";")):
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise CniError(Code.INVALID_ENVIRONMENT, f"CNI_ARGS: {pair!r} is not KEY=VALUE")
        pairs[key] = value
    ignore = IGNORE.get(pairs.get("IgnoreUnknown", ""))
    if ignore is None:
        raise CniError(
            Code.INVALID_ENVIRONMENT, f"CNI_ARGS: IgnoreUnknown={pairs['IgnoreUnknown']!r} is neither true nor false"
        )
    unknown = pairs.keys() - KEYS - OTHER_KEYS
    if unknown and not ignore:
        names = ", ".join(sorted(unknown))
        raise CniError(Code.INVALID_ENVIRONMENT, f"CNI_ARGS: unknown keys {names}: take them out, or add IgnoreUnknown=1")
    return Arguments(**{field: pairs[key] for key, field in KEYS.items() if key in pairs})


class PortMapping(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """An entry of the capability `portMappings`."""

    host_port: Port
    container_port: Port
    protocol: str = "tcp"
    host_ip: str = msgspec.field(default="", name="hostIP")

    def __post_init__(self) -> None:
        if self.protocol.lower() not in PROTOCOLS:
            raise ValueError(f"protocol {self.protocol!r} is none of {', '.join(PROTOCOLS)}")
        if why := why_refused((self.asked,)):
            raise ValueError(why)

    @classmethod
    def of(cls, port: HostPort) -> PortMapping:
        """What asks for this port."""
        return cls(port.host_port, port.container_port, port.protocol.lower(), port.host_ip)

    @property
    def asked(self) -> HostPort:
        """As the agent knows it."""
        return HostPort(self.host_port, self.container_port, self.protocol.upper(), self.host_ip)


class BandwidthLimits(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """The capability `bandwidth`: bit/s and bit."""

    ingress_rate: Rate = 0
    ingress_burst: Rate = 0
    egress_rate: Rate = 0
    egress_burst: Rate = 0

    @classmethod
    def of(cls, limits: Bandwidth) -> BandwidthLimits:
        """What asks for these limits."""
        return cls(limits.ingress_rate, limits.ingress_burst, limits.egress_rate, limits.egress_burst)

    @property
    def asked(self) -> Bandwidth:
        """As the agent knows it."""
        return Bandwidth(self.ingress_rate, self.ingress_burst, self.egress_rate, self.egress_burst)


class RuntimeConfig(msgspec.Struct, frozen=True, rename="camel"):
    """The capabilities that podplane has."""

    port_mappings: tuple[PortMapping, ...] = ()
    bandwidth: BandwidthLimits = BandwidthLimits()
    ips: tuple[str, ...] = ()
    mac: str = ""

    def __post_init__(self) -> None:
        if why := why_refused(one.asked for one in self.port_mappings):
            raise ValueError(f"portMappings: {why}")


KINDS: dict[str, type[msgspec.Struct]] = {"portMappings": PortMapping, "bandwidth": BandwidthLimits}
"""What the values of capabilities are, or those in their lists."""


def as_named(capability: str, value: Any) -> Any:
    """The value of a capability, with its fields named as CONVENTIONS.md names them.

    Plugins in Go take names in any case (encoding/json), and so engines send others: containerd says `HostPort` and `IngressRate`.
    """
    if isinstance(value, list):
        return [as_named(capability, one) for one in value]
    if not isinstance(value, dict) or capability not in KINDS:
        return value
    names = {field.encode_name.lower(): field.encode_name for field in msgspec.structs.fields(KINDS[capability])}
    return {names.get(key.lower(), key): one for key, one in value.items()}


def addresses(asked: tuple[str, ...], where: str) -> tuple[str, ...]:
    """Addresses that are asked for, without the prefix lengths that some have. CniError names where they are."""
    try:
        return tuple(str(ipaddress.ip_interface(one).ip) for one in asked)
    except ValueError as error:
        raise CniError(Code.INVALID_CONFIGURATION, f"{where}: {error}") from None
