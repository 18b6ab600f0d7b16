"""What controllers on a cluster read of each object; the rest is left out when it is decoded (core/v1, discovery.k8s.io/v1,
networking.k8s.io/v1, podplane.dev/v1)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from podplane.controllers.load_balancers import NAME_LABEL, NODES, RANGES, SERVICES, SLICES
from podplane.controllers.objects import Object
from podplane.kubeapi.cache import Named
from podplane.model.config import NO_NETWORK
from podplane.services.pools import POOLS, WANTED_IPS


class _Part(msgspec.Struct, rename="camel", omit_defaults=True):
    """A part of an object: what is not there stays away."""


class _Metadata(_Part):
    name: str
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    creation_timestamp: str = ""
    deletion_timestamp: str = ""

    @property
    def path(self) -> str:
        """As caches know it."""
        return f"{self.namespace}/{self.name}" if self.namespace else self.name


class _LabelledMetadata(_Metadata):
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None

    def __post_init__(self) -> None:
        wanted = (self.annotations or {}).get(WANTED_IPS)
        self.annotations = {WANTED_IPS: wanted} if wanted is not None else None


class _NodeSpec(_Part):
    pod_cidrs: list[str] = msgspec.field(default_factory=list, name="podCIDRs")


class _Address(_Part):
    type: str
    address: str


class _Condition(_Part):
    type: str
    status: str
    reason: str = ""


class _NodeStatus(_Part):
    addresses: list[_Address] = []
    conditions: list[_Condition] = []

    def __post_init__(self) -> None:
        self.conditions = [one for one in self.conditions if one.type == NO_NETWORK]


class _Node(_Part):
    metadata: _Metadata
    spec: _NodeSpec = msgspec.field(default_factory=_NodeSpec)
    status: _NodeStatus = msgspec.field(default_factory=_NodeStatus)


class _ServiceSpec(_Part):
    type: str
    load_balancer_class: str | None = None
    load_balancer_ip: str = msgspec.field(default="", name="loadBalancerIP")
    ip_families: list[str] = []


class _Ingress(_Part):
    ip: str = ""


class _LoadBalancer(_Part):
    ingress: list[_Ingress] = []


class _ServiceStatus(_Part):
    load_balancer: _LoadBalancer = msgspec.field(default_factory=_LoadBalancer)


class _Service(_Part):
    metadata: _LabelledMetadata
    spec: _ServiceSpec
    status: _ServiceStatus = msgspec.field(default_factory=_ServiceStatus)


class _Endpoint(_Part):
    addresses: list[str]


class _Slice(_Part):
    metadata: _LabelledMetadata
    endpoints: list[_Endpoint] | None = None


class _RangeSpec(_Part):
    cidrs: list[str] = []


class _Range(_Part):
    metadata: _Metadata
    spec: _RangeSpec = msgspec.field(default_factory=_RangeSpec)


class _Pool(_Part):
    metadata: _Metadata
    spec: dict[str, Any]
    status: dict[str, Any] = {}


class Seen(msgspec.Struct, frozen=True):
    """An object as an informer keeps it: two that differ in their version alone are different, too."""

    metadata: Named
    object: Object


class Part:
    """A model for informers: the part of an object of a resource that controllers read, as a mapping."""

    def __init__(self, resource: str, kind: str, type_: type[Any], **selection: Any) -> None:
        self.id, self.selection = resource, selection
        self._type, self._decoder = type_, msgspec.json.Decoder(type_)
        api_version, _, name = kind.rpartition("/")
        self._kind = {"apiVersion": api_version, "kind": name}

    def from_json(self, content: bytes | msgspec.Raw) -> Seen:
        """Of its JSON. An exception of msgspec when it can't be one."""
        found = self._decoder.decode(content)
        return Seen(found.metadata, self._kind | msgspec.to_builtins(found))

    def of(self, object_: Mapping[str, Any]) -> Object:
        """Of the whole object."""
        found: Object = msgspec.to_builtins(msgspec.convert(object_, self._type))
        return self._kind | found


KUBERNETES = {"namespace": "default", "labels": f"{NAME_LABEL}=kubernetes"}
PARTS: Mapping[str, Part] = {
    one.id: one
    for one in (
        Part(NODES, "v1/Node", _Node),
        Part(SERVICES, "v1/Service", _Service),
        Part(SLICES, "discovery.k8s.io/v1/EndpointSlice", _Slice, **KUBERNETES),
        Part(RANGES, "networking.k8s.io/v1/ServiceCIDR", _Range, may_be_unknown=True),
        Part(POOLS, "podplane.dev/v1/LoadBalancerPool", _Pool, may_be_unknown=True),
    )
}
"""What is watched: of EndpointSlices those of the API server alone. An older control plane has no ServiceCIDRs, and pools are known once
their definition is there."""
