"""The Leases by which nodes elect the advertiser of each load balancer: what they say, and how a node writes them.

    load-balancer-<Service>, beside the Service   its holder: the node that advertises it; written when the holder changes
    load-balancers-<node>, in kube-node-lease     the heartbeat of a node, renewed each second while it holds a Lease

Rights: a node creates, reads, patches and watches both.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping
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
"""The label of all these Leases, by which they are watched: the Leases that kubelets renew are not needed here."""
LABELS = dict((MANAGED.split("="),))
TERM = "podplane.dev/lease-term"
"""Annotation of a Service's Lease: in which lease term its holder acquired it (`acquireTime` of the holder's heartbeat Lease)."""
RENEWED = "podplane.dev/renewed-at"
"""Annotation of a heartbeat: when it was sent, by a clock of the node that nobody sets (`liveness.Moment`). `renewTime` is for people."""
NODE_NAMESPACE, NODE_PREFIX = "kube-node-lease", "load-balancers-"
DURATION_SECONDS = 3
"""When the last heartbeat of a node is older than this, other nodes may acquire what it held (client-go: LeaseDuration)."""


def service_of(lease: Lease) -> str:
    """The path of the Service that a Lease is about; "" when it is about none."""
    name = lease.metadata.labels.get(LABEL, "")
    return f"{lease.metadata.namespace}/{name}" if name else ""


def node_of(lease: Lease) -> str:
    """The node whose heartbeat a Lease is; "" when it is none."""
    metadata = lease.metadata
    is_heartbeat = metadata.namespace == NODE_NAMESPACE and metadata.name.startswith(NODE_PREFIX)
    return metadata.name.removeprefix(NODE_PREFIX) if is_heartbeat else ""


class LeaseWriter(msgspec.Struct, frozen=True):
    """Writes Leases for one node. ApiError when the API refuses for another reason than that somebody wrote meanwhile."""

    client: Client
    node: str
    now: Callable[[], datetime.datetime]

    async def acquire(self, service: Service, lease: Lease | None, term: str) -> Lease | None:
        """Make this node, in this lease term, the holder of a Service's Lease; None when `lease` is not its newest version."""
        spec, annotations = {"holderIdentity": self.node, "acquireTime": self.timestamp()}, {"annotations": {TERM: term}}
        about = service.metadata
        try:
            if lease is not None:
                return await self._patch(lease, spec, annotations)
            metadata = {"name": PREFIX + about.name, "labels": {**LABELS, LABEL: about.name}, **annotations}
            return await self._create(about.namespace, metadata, spec, ("v1", "Service", about.name, about.uid))
        except (AlreadyExists, Conflict, NotFound):
            return None

    async def release(self, lease: Lease) -> Lease | None:
        """Leave a Service's Lease without a holder; None when `lease` is not its newest version."""
        try:
            return await self._patch(lease, {"holderIdentity": ""})
        except (Conflict, NotFound):
            return None

    async def renew(self, node: Node, known: Lease | None, term: str, sent: str) -> Lease:
        """Renew this node's heartbeat Lease in this lease term, by a request that is `sent` then. One that arrives late is refused, as its
        version is old."""
        about = node.metadata
        spec = {
            "holderIdentity": self.node,
            "leaseDurationSeconds": DURATION_SECONDS,
            "acquireTime": term,
            "renewTime": self.timestamp(),
        }
        annotations = {"annotations": {RENEWED: sent}}
        try:
            if known is not None:
                return await self._patch(known, spec, annotations)
        except (Conflict, NotFound):
            pass  # a former renewal arrived late, or somebody deleted the Lease
        if (found := await self.read(about.name)) is not None:
            return await self._patch(found, spec, annotations)
        metadata = {"name": NODE_PREFIX + about.name, "labels": LABELS, **annotations}
        return await self._create(NODE_NAMESPACE, metadata, spec, ("v1", "Node", about.name, about.uid))

    async def read(self, node: str) -> Lease | None:
        """The heartbeat Lease of a node as the API has it now; None when there is none."""
        try:
            return msgspec.convert(await self.client.get(LEASES, NODE_NAMESPACE, NODE_PREFIX + node), Lease)
        except NotFound:
            return None

    async def _patch(self, lease: Lease, spec: Mapping[str, Any], annotations: Mapping[str, Any] | None = None) -> Lease:
        """Merge into this version of a Lease. Conflict or NotFound when there is a newer one, or none any more."""
        metadata = lease.metadata
        body = {
            "metadata": {"resourceVersion": metadata.resource_version, "labels": LABELS, **(annotations or {})},
            "spec": spec,
        }
        written = await self.client.patch(LEASES, metadata.namespace, metadata.name, body, uid=metadata.uid)
        return msgspec.convert(written, Lease)

    async def _create(
        self, namespace: str, metadata: Mapping[str, Any], spec: Mapping[str, Any], owner: tuple[str, str, str, str]
    ) -> Lease:
        """Create a Lease that the garbage collector deletes with its owner."""
        reference = dict(zip(("apiVersion", "kind", "name", "uid"), owner, strict=True))
        body = {"metadata": {**metadata, "ownerReferences": [reference]}, "spec": spec}
        return msgspec.convert(await self.client.create(LEASES, namespace, body), Lease)

    def timestamp(self) -> str:
        """The present time as MicroTime."""
        return self.now().strftime("%Y-%m-%dT%H:%M:%S.%fZ")
