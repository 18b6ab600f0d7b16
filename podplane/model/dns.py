"""Services, their slices, and pods, with the fields that names are made of; others decode what they read (`service`, `pod`).

There are many of them, and each name server holds all: a slice is kept as addresses with what matters of their endpoints, and of its labels
the Service alone; annotations and labels of none are kept. So 100,000 endpoints take some 12 MB.
"""

from __future__ import annotations

import ipaddress
import re
import sys
from collections.abc import Iterator

import msgspec

from podplane.model.objects import Model
from podplane.model.phases import ENDED
from podplane.model.pod import DnsConfig
from podplane.model.service import SERVICE_NAME

_BYTE, _GROUP = "(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])", "[1-9a-f][0-9a-f]{0,3}"
SHORT = re.compile(rf"{_BYTE}(?:\.{_BYTE}){{3}}|(?:{_GROUP}(?::{_GROUP})*)?::(?:{_GROUP}(?::{_GROUP})*)?")
"""Nearly all addresses there are, in their shortest form: `ipaddress` takes 20 times as long to say so."""
HEADLESS = "None"
"""The cluster IP of a Service whose names are those of its endpoints."""


class Identity(Model, frozen=True):
    """What is kept of an ObjectMeta."""

    name: str = ""
    namespace: str = ""
    uid: str = ""

    @property
    def path(self) -> str:
        """`namespace/name`."""
        return f"{self.namespace}/{self.name}" if self.namespace else self.name


class NamedPort(Model, frozen=True):
    """A port of a Service, or of all endpoints of a slice."""

    name: str = ""
    protocol: str = "TCP"
    port: int | None = None


class NamedServiceSpec(Model, frozen=True):
    """Service.spec."""

    type: str = "ClusterIP"
    cluster_ip: str = msgspec.field(default="", name="clusterIP")
    cluster_ips: tuple[str, ...] | None = msgspec.field(default=(), name="clusterIPs")
    external_name: str = ""
    publish_not_ready_addresses: bool = False
    ports: tuple[NamedPort, ...] | None = ()


class NamedService(Model, frozen=True):
    """core/v1 Service."""

    metadata: Identity = Identity()
    spec: NamedServiceSpec = NamedServiceSpec()

    @property
    def is_external(self) -> bool:
        """Is it a name for another name?"""
        return self.spec.type == "ExternalName"

    @property
    def is_headless(self) -> bool:
        """Are its names those of its endpoints?"""
        return not self.is_external and self.spec.cluster_ip == HEADLESS

    @property
    def ips(self) -> tuple[str, ...]:
        """Its cluster IPs; none when it is headless, external, or has none yet."""
        spec = self.spec
        if self.is_external or spec.cluster_ip in ("", HEADLESS):
            return ()
        return tuple(filter(None, map(canonical, spec.cluster_ips or (spec.cluster_ip,))))

    @property
    def ports(self) -> tuple[NamedPort, ...]:
        """Its ports."""
        return self.spec.ports or ()


class NamedEndpoint(Model, frozen=True):
    """One address of an endpoint, in its shortest form."""

    ip: str
    hostname: str = ""
    is_ready: bool = True


class NamedSlice(Model, frozen=True):
    """discovery.k8s.io/v1 EndpointSlice. `service` is `namespace/name` of its Service; "" when it has none."""

    metadata: Identity = Identity()
    service: str = ""
    endpoints: tuple[NamedEndpoint, ...] = ()
    ports: tuple[NamedPort, ...] = ()

    @classmethod
    def from_json(cls, data: bytes | msgspec.Raw) -> NamedSlice:
        """The slice in a JSON object. msgspec.MsgspecError when it is none."""
        read = _slices.decode(data)
        metadata, service = read.metadata, read.metadata.labels.get(SERVICE_NAME, "")
        return cls(
            Identity(metadata.name, sys.intern(metadata.namespace), metadata.uid),
            f"{metadata.namespace}/{service}" if service else "",
            tuple(_endpoints(read)),
            read.ports or (),
        )


class NamedPod(Model, frozen=True):
    """core/v1 Pod. `ips` are its addresses, on a host network those of the node."""

    metadata: Identity = Identity()
    ips: tuple[str, ...] = ()
    node: str = ""
    phase: str = ""
    is_ending: bool = False
    is_on_host: bool = False
    dns_policy: str = "ClusterFirst"
    dns_config: DnsConfig = DnsConfig()

    @property
    def is_ended(self) -> bool:
        """Have its containers ended for good? Its addresses may be those of another pod by now."""
        return self.phase in ENDED

    @classmethod
    def from_json(cls, data: bytes | msgspec.Raw) -> NamedPod:
        """The pod in a JSON object. msgspec.MsgspecError when it is none."""
        read = _pods.decode(data)
        metadata, spec, status = read.metadata, read.spec, read.status
        ips = [one.ip for one in status.pod_ips or ()] or [status.pod_ip]
        return cls(
            Identity(metadata.name, sys.intern(metadata.namespace), metadata.uid),
            tuple(filter(None, map(canonical, ips))),
            sys.intern(spec.node_name),
            sys.intern(status.phase),
            metadata.deletion_timestamp is not None,
            spec.host_network,
            sys.intern(spec.dns_policy),
            spec.dns_config or NO_CONFIG,
        )


NO_CONFIG = DnsConfig()


def canonical(ip: str) -> str:
    """An address in its shortest form (RFC 5952), by which it is looked up; "" for what is none."""
    if SHORT.fullmatch(ip) and ip.count(":") < 7:
        return ip
    try:
        return "" if "%" in ip else str(ipaddress.ip_address(ip))
    except ValueError:
        return ""


# What of the JSON is read.


class _Metadata(Model, frozen=True):
    name: str = ""
    namespace: str = ""
    uid: str = ""
    labels: dict[str, str] = {}
    deletion_timestamp: str | None = None


class _Conditions(Model, frozen=True):
    ready: bool | None = None


class _Endpoint(Model, frozen=True):
    addresses: tuple[str, ...] = ()
    hostname: str | None = ""
    conditions: _Conditions = _Conditions()


class _Slice(Model, frozen=True):
    metadata: _Metadata = _Metadata()
    endpoints: tuple[_Endpoint, ...] | None = ()
    ports: tuple[NamedPort, ...] | None = ()


class _PodIp(Model, frozen=True):
    ip: str = ""


class _PodSpec(Model, frozen=True):
    node_name: str = ""
    host_network: bool = False
    dns_policy: str = "ClusterFirst"
    dns_config: DnsConfig | None = None


class _PodStatus(Model, frozen=True):
    phase: str = ""
    pod_ip: str = msgspec.field(default="", name="podIP")
    pod_ips: tuple[_PodIp, ...] | None = msgspec.field(default=(), name="podIPs")


class _Pod(Model, frozen=True):
    metadata: _Metadata = _Metadata()
    spec: _PodSpec = _PodSpec()
    status: _PodStatus = _PodStatus()


_slices = msgspec.json.Decoder(_Slice)
_pods = msgspec.json.Decoder(_Pod)


def _endpoints(read: _Slice) -> Iterator[NamedEndpoint]:
    """Each address of each endpoint. One that says nothing about it is ready; names (addressType FQDN) are no addresses."""
    for endpoint in read.endpoints or ():
        is_ready = endpoint.conditions.ready is not False
        hostname = (endpoint.hostname or "").lower()
        for address in endpoint.addresses:
            if ip := canonical(address):
                yield NamedEndpoint(ip, hostname, is_ready)
