"""Services, their slices, and pods, with the fields that names are made of; others decode what they read (`service`, `pod`)."""

from __future__ import annotations

import msgspec

from podplane.model.objects import Metadata, Model
from podplane.model.service import SERVICE_NAME


class NamedPort(Model, frozen=True):
    """A port of a Service, or of all endpoints of a slice."""

    name: str = ""
    protocol: str = "TCP"
    port: int | None = None


class NamedServiceSpec(Model, frozen=True):
    """Service.spec."""

    type: str = "ClusterIP"
    cluster_ip: str = msgspec.field(default="", name="clusterIP")
    cluster_ips: tuple[str, ...] = msgspec.field(default=(), name="clusterIPs")
    external_name: str = ""
    publish_not_ready_addresses: bool = False
    ports: tuple[NamedPort, ...] = ()


class NamedService(Model, frozen=True):
    """core/v1 Service."""

    metadata: Metadata = Metadata()
    spec: NamedServiceSpec = NamedServiceSpec()

    @property
    def is_external(self) -> bool:
        """Is it a name for another name?"""
        return self.spec.type == "ExternalName"

    @property
    def is_headless(self) -> bool:
        """Are its names those of its endpoints?"""
        return not self.is_external and self.spec.cluster_ip in ("", "None")

    @property
    def ips(self) -> tuple[str, ...]:
        """Its cluster IPs."""
        spec = self.spec
        return () if self.is_headless or self.is_external else spec.cluster_ips or (spec.cluster_ip,)


class Readiness(Model, frozen=True):
    """Whether an endpoint is ready; of one that says nothing, it is."""

    ready: bool | None = None


class NamedEndpoint(Model, frozen=True):
    """One endpoint."""

    addresses: tuple[str, ...] = ()
    hostname: str = ""
    conditions: Readiness = Readiness()


class NamedSlice(Model, frozen=True):
    """discovery.k8s.io/v1 EndpointSlice."""

    metadata: Metadata = Metadata()
    address_type: str = msgspec.field(default="IPv4", name="addressType")
    endpoints: tuple[NamedEndpoint, ...] | None = ()
    ports: tuple[NamedPort, ...] | None = ()

    @property
    def service(self) -> str:
        """`namespace/name` of its Service; "" when it has none."""
        name = self.metadata.labels.get(SERVICE_NAME, "")
        return f"{self.metadata.namespace}/{name}" if name else ""
