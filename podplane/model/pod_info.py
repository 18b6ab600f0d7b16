"""Pods and namespaces as planners see them in a large cluster: only what is matched or forwarded to, at most 1 KB a pod.

`from_json` decodes the JSON of an object straight into these classes. Texts that many pods share (label keys and values, namespaces,
node names) are in memory once, and so are whole label sets and port lists, as replicas of one workload have the same ones.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from sys import intern
from typing import NamedTuple, TypeVar, overload

import msgspec

from podplane.model.objects import Model
from podplane.model.phases import ENDED

NETWORKS = "k8s.v1.cni.cncf.io/networks"
STATIC_UID = "kubernetes.io/config.hash"
"""The uid by which a kubelet and its runtime know a static pod; the pod that stands for it in the API has another one (kubelet,
ConfigHashAnnotationKey)."""
SHARED_SETS, SHARED_TEXTS = 4096, 16384
"""The last used label sets (and port lists), and label values, that pods share: what a cluster has too many of is not kept."""
RESTARTABLE = "Always"
"""`restartPolicy` of an init container that is a sidecar, which serves as long as the pod does (KEP-753)."""


T = TypeVar("T")


class Labels(Mapping[str, str]):
    """Labels of one object: a mapping that can't be written, half the size of a dict, as equal keys are in memory once."""

    __slots__ = ("_positions", "_values")

    def __init__(self, labels: Mapping[str, str]) -> None:
        self._positions = _positions(tuple(labels))
        self._values = tuple(map(_shared, labels.values()))

    def __getitem__(self, key: str) -> str:
        return self._values[self._positions[key]]

    @overload
    def get(self, key: str) -> str | None: ...
    @overload
    def get(self, key: str, default: str | T) -> str | T: ...
    def get(self, key: str, default: str | T | None = None) -> str | T | None:
        """The value of a label; matching calls this for every selector and pod, so it is no slower than it must be."""
        position = self._positions.get(key)
        return default if position is None else self._values[position]

    def pairs(self) -> Iterator[tuple[str, str]]:
        """What `items` has, in a third of the time: an index asks for them with each change of a pod."""
        return zip(self._positions, self._values, strict=True)

    def __contains__(self, key: object) -> bool:
        return key in self._positions

    def __iter__(self) -> Iterator[str]:
        return iter(self._positions)

    def __len__(self) -> int:
        return len(self._values)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Labels) and self._positions is other._positions:
            return self._values == other._values
        return isinstance(other, Mapping) and dict(self) == dict(other)

    def __hash__(self) -> int:
        return hash(frozenset(self.pairs()))

    def __repr__(self) -> str:
        return f"Labels({dict(self)})"


@functools.lru_cache(SHARED_SETS)
def _positions(keys: tuple[str, ...]) -> Mapping[str, int]:
    return {intern(key): position for position, key in enumerate(keys)}


@functools.lru_cache(SHARED_TEXTS)
def _shared(text: str) -> str:
    """The same object for equal texts (not `sys.intern`: a text of one pod only would cost a place in its table)."""
    return text


@functools.lru_cache(SHARED_SETS)
def _labels(keys: tuple[str, ...], values: tuple[str, ...]) -> Labels:
    return Labels(dict(zip(keys, values, strict=True)))


NO_LABELS = Labels({})


class SlimMetadata(Model, frozen=True):
    """ObjectMeta without annotations and times."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    labels: Labels = NO_LABELS

    @property
    def path(self) -> str:
        """`namespace/name`, or the name alone of a cluster-scoped object."""
        return f"{self.namespace}/{self.name}" if self.namespace else self.name


class NamedPort(NamedTuple):
    """A container port that has a name, to which Services and NetworkPolicies refer by it."""

    name: str
    protocol: str
    port: int


class HostPort(NamedTuple):
    """A port of the node that leads to a port of the pod; `ip` is "" for all of the node's addresses."""

    ip: str
    protocol: str
    host_port: int
    port: int


class Ports(NamedTuple):
    """What the containers of a pod declare, in the order of the containers (sidecars last); `nameless` are protocols and ports."""

    named: tuple[NamedPort, ...] = ()
    host: tuple[HostPort, ...] = ()
    nameless: tuple[tuple[str, int], ...] = ()


NO_PORTS = Ports()


class PodInfo(Model, frozen=True):
    """core/v1 Pod, as far as planners of policies, egress, DNS, host ports and bandwidth match by it."""

    metadata: SlimMetadata = SlimMetadata()
    node: str = ""
    ips: tuple[str, ...] = ()
    phase: str = "Pending"
    is_terminating: bool = False
    host_network: bool = False
    ports: Ports = NO_PORTS
    networks: str = ""
    """The annotation that asks for further interfaces."""
    static_uid: str = ""
    """Of a static pod: how its kubelet knows it."""

    def is_of(self, uid: str) -> bool:
        """Is this the pod that a runtime knows by this uid? Some runtimes don't say it: then any is."""
        return uid in ("", self.metadata.uid) or (uid == self.static_uid)

    @property
    def has_ended(self) -> bool:
        """Have all containers ended for good? Its addresses may be another pod's by now."""
        return self.phase in ENDED

    @classmethod
    def from_json(cls, raw: bytes | msgspec.Raw) -> PodInfo:
        """Decode a Pod. msgspec.MsgspecError when it is none."""
        return cls._of(_pods.decode(raw))

    @classmethod
    def with_json(cls, raw: bytes | msgspec.Raw) -> tuple[PodInfo, bytes]:
        """The same, and the JSON of what was read of it, which `from_json` reads alike."""
        pod = _pods.decode(raw)
        return cls._of(pod), msgspec.json.encode(pod)

    @classmethod
    def _of(cls, pod: _Pod) -> PodInfo:
        spec, status = pod.spec, pod.status
        annotations = pod.metadata.annotations or NO_ANNOTATIONS
        return cls(
            metadata=pod.metadata.slim(),
            node=intern(spec.node_name),
            ips=tuple([one.ip for one in status.pod_ips or ()]),
            phase=intern(status.phase),
            is_terminating=pod.metadata.deletion_timestamp is not None,
            host_network=spec.host_network,
            ports=_ports(spec.containers or (), spec.init_containers or ()),
            networks=annotations.networks,
            static_uid=annotations.static_uid,
        )


class NamespaceInfo(Model, frozen=True):
    """core/v1 Namespace, as far as selectors match it."""

    metadata: SlimMetadata = SlimMetadata()

    @classmethod
    def from_json(cls, raw: bytes | msgspec.Raw) -> NamespaceInfo:
        """Decode a Namespace. msgspec.MsgspecError when it is none."""
        return cls(_namespaces.decode(raw).metadata.slim())

    @classmethod
    def with_json(cls, raw: bytes | msgspec.Raw) -> tuple[NamespaceInfo, bytes]:
        """The same, and the JSON of what was read of it."""
        namespace = _namespaces.decode(raw)
        return cls(namespace.metadata.slim()), msgspec.json.encode(namespace)


# What is read of the JSON; none of it is kept.


class _Annotations(msgspec.Struct, frozen=True, omit_defaults=True):
    networks: str = msgspec.field(default="", name=NETWORKS)
    static_uid: str = msgspec.field(default="", name=STATIC_UID)


NO_ANNOTATIONS = _Annotations()


class _Metadata(Model, frozen=True):
    name: str = ""
    namespace: str = ""
    uid: str = ""
    labels: dict[str, str] | None = None
    annotations: _Annotations | None = None
    deletion_timestamp: str | None = None

    def slim(self) -> SlimMetadata:
        labels = self.labels or {}
        return SlimMetadata(self.name, intern(self.namespace), self.uid, _labels((*labels,), (*labels.values(),)))


class _Port(Model, frozen=True):
    container_port: int
    name: str = ""
    protocol: str = "TCP"
    host_port: int = 0
    host_ip: str = msgspec.field(default="", name="hostIP")


class _Container(Model, frozen=True):
    ports: tuple[_Port, ...] | None = None
    restart_policy: str = ""


class _Spec(Model, frozen=True):
    node_name: str = ""
    host_network: bool = False
    containers: tuple[_Container, ...] | None = None
    init_containers: tuple[_Container, ...] | None = None


class _PodIP(Model, frozen=True):
    ip: str = ""


class _Status(Model, frozen=True):
    phase: str = "Pending"
    pod_ips: tuple[_PodIP, ...] | None = msgspec.field(default=None, name="podIPs")


class _Pod(Model, frozen=True):
    metadata: _Metadata
    spec: _Spec = _Spec()
    status: _Status = _Status()


class _Namespace(Model, frozen=True):
    metadata: _Metadata


_pods = msgspec.json.Decoder(_Pod)
_namespaces = msgspec.json.Decoder(_Namespace)


@functools.lru_cache(SHARED_SETS)
def _ports(containers: tuple[_Container, ...], init_containers: tuple[_Container, ...]) -> Ports:
    """The ports of all containers that serve as long as the pod does."""
    sidecars = [one for one in init_containers if one.restart_policy == RESTARTABLE]
    declared = [port for container in (*containers, *sidecars) for port in container.ports or ()]
    return Ports(
        tuple(NamedPort(port.name, port.protocol, port.container_port) for port in declared if port.name),
        tuple(
            HostPort(port.host_ip, port.protocol, port.host_port, port.container_port) for port in declared if port.host_port
        ),
        tuple((port.protocol, port.container_port) for port in declared if not port.name),
    )
