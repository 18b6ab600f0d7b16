"""Node, Pod and Namespace as the planners see them.

Field names are Kubernetes' own (core/v1), so decoding is a plain JSON decode. Unknown fields are ignored: the API server
stores them, nobody here reads them. All of it is frozen and compared by value, so "did anything that I read change?" is `==`.
"""

from __future__ import annotations

import msgspec


class Model(msgspec.Struct, frozen=True, gc=False, rename="camel", omit_defaults=True):
    """Base of all models: frozen, camelCase on the wire, defaults left out."""


class Metadata(Model, frozen=True):
    """ObjectMeta; `resourceVersion` is left out on purpose, so that equal models mean equal plans."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    deletion_timestamp: str | None = None
    deletion_grace_period_seconds: int | None = None

    @property
    def path(self) -> str:
        """`namespace/name`, or the name alone of a cluster-scoped object."""
        return f"{self.namespace}/{self.name}" if self.namespace else self.name


class NodeSpec(Model, frozen=True):
    """Node.spec: the pod blocks of the node, one a family."""

    pod_cidrs: tuple[str, ...] = msgspec.field(default=(), name="podCIDRs")
    unschedulable: bool = False


class NodeAddress(Model, frozen=True):
    """One entry of Node.status.addresses."""

    type: str = ""
    address: str = ""


class NodeStatus(Model, frozen=True):
    """Node.status, as far as routes need it."""

    addresses: tuple[NodeAddress, ...] = ()


class Node(Model, frozen=True):
    """core/v1 Node."""

    metadata: Metadata = Metadata()
    spec: NodeSpec = NodeSpec()
    status: NodeStatus = NodeStatus()

    @property
    def internal_ips(self) -> tuple[str, ...]:
        """The node's own addresses, in the order of the object."""
        return tuple(a.address for a in self.status.addresses if a.type == "InternalIP")


class EnvVar(Model, frozen=True):
    """One literal environment variable of a container."""

    name: str
    value: str = ""


class ContainerPort(Model, frozen=True):
    """One declared port of a container."""

    container_port: int
    name: str = ""
    protocol: str = "TCP"


class Container(Model, frozen=True):
    """One container of a pod."""

    name: str
    image: str = ""
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    env: tuple[EnvVar, ...] = ()
    ports: tuple[ContainerPort, ...] = ()
    working_dir: str = ""


class PodSpec(Model, frozen=True):
    """Pod.spec, as far as the runtime and the planners read it."""

    node_name: str = ""
    host_network: bool = False
    restart_policy: str = "Always"
    termination_grace_period_seconds: int = 30
    hostname: str = ""
    containers: tuple[Container, ...] = ()


class PodIP(Model, frozen=True):
    """One entry of Pod.status.podIPs."""

    ip: str = ""


class PodStatus(Model, frozen=True):
    """Pod.status, as far as it comes back in: phase and addresses."""

    phase: str = "Pending"
    pod_ip: str = msgspec.field(default="", name="podIP")
    pod_ips: tuple[PodIP, ...] = msgspec.field(default=(), name="podIPs")


class Pod(Model, frozen=True):
    """core/v1 Pod."""

    metadata: Metadata = Metadata()
    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()

    @property
    def ips(self) -> tuple[str, ...]:
        """The pod's addresses, first family first; empty until it has a sandbox."""
        return tuple(p.ip for p in self.status.pod_ips)


class Namespace(Model, frozen=True):
    """core/v1 Namespace."""

    metadata: Metadata = Metadata()
