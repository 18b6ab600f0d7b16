"""All controllers of a cluster. A literal list."""

from __future__ import annotations

from podplane.apiserver.controllers import deployment, endpoint_slices, endpoints, event_ttl, namespaces, replica_set
from podplane.apiserver.controllers.decision import Controller


def controllers(authority: str) -> tuple[Controller, ...]:
    """The controllers; `authority` (PEM) is what pods are told to trust."""
    return (
        namespaces.service_accounts(),
        namespaces.root_ca(authority),
        replica_set.CONTROLLER,
        deployment.CONTROLLER,
        endpoint_slices.CONTROLLER,
        endpoints.CONTROLLER,
        endpoints.MIRRORING,
        event_ttl.CONTROLLER,
    )
