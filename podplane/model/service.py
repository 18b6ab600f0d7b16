"""Service and EndpointSlice (core/v1, discovery.k8s.io/v1), with the fields that planners read."""

from __future__ import annotations

import msgspec

from podplane.model.objects import Metadata, Model

CLUSTER, LOCAL = "Cluster", "Local"
"""Traffic policies."""
SERVICE_NAME = "kubernetes.io/service-name"
"""The label of a slice that names its Service."""
LEFT_TO_OTHERS = frozenset({"service.kubernetes.io/service-proxy-name", "service.kubernetes.io/headless"})
"""Labels of Services and slices that another proxy serves, or none. Source: k8s.io/kubernetes, cmd/kube-proxy (its informers leave
both out)."""


class ServicePort(Model, frozen=True):
    """One port of a Service."""

    port: int
    name: str = ""
    protocol: str = "TCP"
    node_port: int = 0


class ClientIPConfig(Model, frozen=True):
    """How long a client keeps its endpoint, in seconds."""

    timeout_seconds: int = 10800


class SessionAffinityConfig(Model, frozen=True):
    """Settings of session affinity."""

    client_ip: ClientIPConfig = msgspec.field(default=ClientIPConfig(), name="clientIP")


class Selector(Model, frozen=True):
    """That a Service selects pods: which ones, its endpoints tell."""


class ServiceSpec(Model, frozen=True):
    """Service.spec."""

    type: str = "ClusterIP"
    cluster_ip: str = msgspec.field(default="", name="clusterIP")
    cluster_ips: tuple[str, ...] = msgspec.field(default=(), name="clusterIPs")
    external_ips: tuple[str, ...] = msgspec.field(default=(), name="externalIPs")
    ports: tuple[ServicePort, ...] = ()
    session_affinity: str = "None"
    session_affinity_config: SessionAffinityConfig | None = None
    internal_traffic_policy: str = CLUSTER
    external_traffic_policy: str = CLUSTER
    load_balancer_class: str = ""
    load_balancer_source_ranges: tuple[str, ...] = ()
    health_check_node_port: int = 0
    selector: Selector | None = None

    @property
    def affinity_seconds(self) -> int:
        """How long a client keeps its endpoint; 0 when each connection chooses anew."""
        if self.session_affinity != "ClientIP":
            return 0
        return (self.session_affinity_config or SessionAffinityConfig()).client_ip.timeout_seconds


class Ingress(Model, frozen=True):
    """An address of a load balancer."""

    ip: str = ""
    ip_mode: str = "VIP"


class LoadBalancerStatus(Model, frozen=True):
    """Where a load balancer can be reached."""

    ingress: tuple[Ingress, ...] = ()


class ServiceStatus(Model, frozen=True):
    """Service.status."""

    load_balancer: LoadBalancerStatus = LoadBalancerStatus()


class Service(Model, frozen=True):
    """core/v1 Service."""

    metadata: Metadata = Metadata()
    spec: ServiceSpec = ServiceSpec()
    status: ServiceStatus = ServiceStatus()

    @property
    def load_balancer_ips(self) -> tuple[str, ...]:
        """The addresses of its load balancer at which packets arrive as they were sent (ipMode VIP, KEP-1860)."""
        return tuple(one.ip for one in self.status.load_balancer.ingress if one.ip and one.ip_mode == "VIP")

    @property
    def has_addresses(self) -> bool:
        """Is it reached by an address of its own? A headless one, and one that is a name for another, are not."""
        return self.spec.type != "ExternalName" and self.spec.cluster_ip not in ("", "None")


class Conditions(Model, frozen=True):
    """What is known of an endpoint; of one that says nothing, it is ready."""

    ready: bool | None = None
    serving: bool | None = None
    terminating: bool | None = None


class Zone(Model, frozen=True):
    """A zone, or a node, for whose clients an endpoint is meant."""

    name: str = ""


class Hints(Model, frozen=True):
    """Whose clients an endpoint is meant for (KEP-2433, KEP-4444)."""

    for_zones: tuple[Zone, ...] = ()
    for_nodes: tuple[Zone, ...] = ()


class Endpoint(Model, frozen=True):
    """One endpoint: all its addresses are those of one pod, and the first is used."""

    addresses: tuple[str, ...] = ()
    conditions: Conditions = Conditions()
    node_name: str = ""
    hints: Hints | None = None

    @property
    def is_ready(self) -> bool:
        """Does it take new connections?"""
        return self.conditions.ready is not False

    @property
    def serves(self) -> bool:
        """Does it answer, be it ready for new connections or not?"""
        return self.is_ready if self.conditions.serving is None else self.conditions.serving

    @property
    def is_serving_terminating(self) -> bool:
        """Does it end, and serve while it does? It is used when there is no ready one (KEP-1669)."""
        return self.conditions.serving is not False and self.conditions.terminating is True


class EndpointPort(Model, frozen=True):
    """A port of all endpoints of a slice."""

    name: str = ""
    protocol: str = "TCP"
    port: int | None = None


class EndpointSlice(Model, frozen=True):
    """discovery.k8s.io/v1 EndpointSlice."""

    metadata: Metadata = Metadata()
    address_type: str = msgspec.field(default="IPv4", name="addressType")
    endpoints: tuple[Endpoint, ...] | None = ()
    ports: tuple[EndpointPort, ...] | None = ()

    @property
    def service(self) -> str:
        """`namespace/name` of the Service that is served with it; "" when there is none, or when its labels leave it to others."""
        labels = self.metadata.labels
        name = labels.get(SERVICE_NAME, "") if LEFT_TO_OTHERS.isdisjoint(labels) else ""
        return f"{self.metadata.namespace}/{name}" if name else ""
