"""The Leases by which nodes agree who answers for load balancers: what they say, and how a node writes its own word into them.

    load-balancer-<Service>, beside the Service   the node that answers; written when that changes
    load-balancers-<node>, in kube-node-lease     the node's sign of life, for all that it holds; renewed each second while it needs one

Rights: a node creates, reads, patches and watches both.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from podplane.kubeapi.client import Client
from podplane.kubeapi.errors import AlreadyExists, Conflict, NotFound
from podplane.model.lease import Lease
from podplane.model.objects import Node
from podplane.model.service import Service

LEASES, LABEL, PREFIX = "leases.coordination.k8s.io", "podplane.dev/load-balancer", "load-balancer-"
"""The label of a Service's Lease says the name of the Service, in whose namespace it is."""
MANAGED = "app.kubernetes.io/managed-by=podplane"
"""The label of all these Leases, by which they are watched: each kubelet renews a Lease of its own, which nobody here reads."""
LABELS = dict((MANAGED.split("="),))
LIFE = "podplane.dev/life"
"""The annotation of a Service's Lease that says in which life its holder took it: `acquireTime` of the holder's own Lease."""
NODE_NAMESPACE, NODE_PREFIX = "kube-node-lease", "load-balancers-"
DURATION_SECONDS = 3
"""A node that was not seen to live for so long lost what it held."""


def service_of(lease: Lease) -> str:
    """The path of the Service that a Lease is about; "" when it is about none."""
    name = lease.metadata.labels.get(LABEL, "")
    return f"{lease.metadata.namespace}/{name}" if name else ""


def node_of(lease: Lease) -> str:
    """The node whose sign of life a Lease is; "" when it is nobody's."""
    metadata = lease.metadata
    is_sign = metadata.namespace == NODE_NAMESPACE and metadata.name.startswith(NODE_PREFIX)
    return metadata.name.removeprefix(NODE_PREFIX) if is_sign else ""


@dataclass(frozen=True, slots=True)
class Writer:
    """One node's pen. Each method raises ApiError when the API refuses for another reason than what is written there meanwhile."""

    client: Client
    node: str
    now: Callable[[], datetime.datetime]

    async def take(self, service: Service, lease: Lease | None, life: str) -> Lease | None:
        """Write this node's name, in this life, into a Service's Lease; None when it is not as it was seen last."""
        spec, noted = {"holderIdentity": self.node, "acquireTime": self.stamp()}, {"annotations": {LIFE: life}}
        about = service.metadata
        try:
            if lease is not None:
                return await self._patch(lease, spec, noted)
            metadata = {"name": PREFIX + about.name, "labels": {**LABELS, LABEL: about.name}, **noted}
            return await self._create(about.namespace, metadata, spec, ("v1", "Service", about.name, about.uid))
        except (AlreadyExists, Conflict, NotFound):
            return None

    async def give_back(self, lease: Lease) -> Lease | None:
        """Take this node's name out of a Service's Lease; None when it is not as it was seen last."""
        try:
            return await self._patch(lease, {"holderIdentity": ""})
        except (Conflict, NotFound):
            return None

    async def renew(self, node: Node, known: Lease | None, life: str) -> Lease:
        """Give a sign of this life. One that arrives late changes nothing: it is not the next version any more."""
        about = node.metadata
        spec = {
            "holderIdentity": self.node,
            "leaseDurationSeconds": DURATION_SECONDS,
            "acquireTime": life,
            "renewTime": self.stamp(),
        }
        try:
            if known is not None:
                return await self._patch(known, spec)
        except (Conflict, NotFound):
            pass  # another one arrived late, or somebody deleted it
        if (found := await self.read(about.name)) is not None:
            return await self._patch(found, spec)
        return await self._create(
            NODE_NAMESPACE, {"name": NODE_PREFIX + about.name, "labels": LABELS}, spec, ("v1", "Node", about.name, about.uid)
        )

    async def read(self, node: str) -> Lease | None:
        """A node's sign of life as it is now, whatever a watch told; None when there is none."""
        try:
            return msgspec.convert(await self.client.get(LEASES, NODE_NAMESPACE, NODE_PREFIX + node), Lease)
        except NotFound:
            return None

    async def _patch(self, lease: Lease, spec: Mapping[str, Any], noted: Mapping[str, Any] | None = None) -> Lease:
        """Merge into a Lease that is as it was seen last. Conflict or NotFound when it isn't."""
        metadata = lease.metadata
        body = {"metadata": {"resourceVersion": metadata.resource_version, "labels": LABELS, **(noted or {})}, "spec": spec}
        written = await self.client.patch(LEASES, metadata.namespace, metadata.name, body, uid=metadata.uid)
        return msgspec.convert(written, Lease)

    async def _create(
        self, namespace: str, metadata: Mapping[str, Any], spec: Mapping[str, Any], owner: tuple[str, str, str, str]
    ) -> Lease:
        """A Lease that goes with its owner."""
        reference = dict(zip(("apiVersion", "kind", "name", "uid"), owner, strict=True))
        body = {"metadata": {**metadata, "ownerReferences": [reference]}, "spec": spec}
        return msgspec.convert(await self.client.create(LEASES, namespace, body), Lease)

    def stamp(self) -> str:
        """The time as Leases say it."""
        return self.now().strftime("%Y-%m-%dT%H:%M:%S.%fZ")
