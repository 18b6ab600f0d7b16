"""What planners see: the objects of the cluster as one node's agent knows them, and the pods attached to that node."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import msgspec

from podplane.model.objects import Node
from podplane.model.service import EndpointSlice, Service


class Sandbox(msgspec.Struct, frozen=True):
    """A pod's network as it was asked for: `netns` is the name under which the kernel door knows its namespace."""

    namespace: str
    name: str
    uid: str
    netns: str
    ips: tuple[str, ...]
    ifname: str = "eth0"

    @property
    def key(self) -> str:
        """`pod/namespace/name/uid`: what owns the pod's fragment (two pods of one name may overlap in time)."""
        return f"pod/{self.namespace}/{self.name}/{self.uid}"


@dataclass(slots=True)
class View:
    """The agent's picture, kept current by it; planners only read."""

    node_name: str
    nodes: Mapping[str, Node] = field(default_factory=dict)
    sandboxes: Mapping[str, Sandbox] = field(default_factory=dict)
    services: Mapping[str, Service] = field(default_factory=dict)
    slices: Mapping[str, Mapping[str, EndpointSlice]] = field(default_factory=dict)
    """By the path of their Service, and their own name."""
    announced: Collection[str] = ()
    """Paths of the Services for whose load balancer addresses this node answers."""

    @property
    def node(self) -> Node | None:
        """This node's own object, once it is known."""
        return self.nodes.get(self.node_name)

    @property
    def versions(self) -> tuple[int, ...]:
        """IP versions of this node's blocks."""
        return tuple(6 if ":" in block else 4 for block in self.node.spec.pod_cidrs) if self.node else ()

    def slices_of(self, path: str) -> list[EndpointSlice]:
        """The slices of a Service, by name."""
        return [slice_ for _, slice_ in sorted(self.slices.get(path, {}).items())]
