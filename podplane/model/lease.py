"""Lease (coordination.k8s.io/v1), with the fields that elections read."""

from __future__ import annotations

from podplane.model.objects import Metadata, Model


class LeaseSpec(Model, frozen=True):
    """Lease.spec. Only the node that wrote its times reads them as times: clocks of machines differ."""

    holder_identity: str | None = None
    lease_duration_seconds: int | None = None
    acquire_time: str | None = None
    renew_time: str | None = None


class LeaseMetadata(Metadata, frozen=True):
    """ObjectMeta with the version, which each write names (optimistic concurrency)."""

    resource_version: str = ""


class Lease(Model, frozen=True):
    """coordination.k8s.io/v1 Lease."""

    metadata: LeaseMetadata = LeaseMetadata()
    spec: LeaseSpec = LeaseSpec()

    @property
    def holder(self) -> str:
        """The holder; "" when there is none."""
        return self.spec.holder_identity or ""

    def is_newer(self, other: Lease) -> bool:
        """Was it written later? Versions of one resource are numbers that grow (KEP-5504); what can't be compared counts as newer."""
        versions = self.metadata.resource_version, other.metadata.resource_version
        return not all(map(str.isdecimal, versions)) or int(versions[0]) > int(versions[1])
