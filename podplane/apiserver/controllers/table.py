"""All controllers of a cluster. A literal list."""

from __future__ import annotations

from collections.abc import Collection

from podplane.apiserver.controllers import (
    daemon_set,
    deployment,
    endpoint_slices,
    endpoint_warnings,
    endpoints,
    event_ttl,
    ip_addresses,
    job,
    kubernetes_service,
    namespaces,
    node_lifecycle,
    pod_gc,
    replica_set,
    scheduler,
    stateful_set,
    taint_eviction,
)
from podplane.apiserver.controllers.decision import Controller
from podplane.apiserver.controllers.kubernetes_service import Published
from podplane.controllers import load_balancer


def controllers(authority: str, machines: Collection[str] = (), published: Published | None = None) -> tuple[Controller, ...]:
    """The controllers; `authority` (PEM) is what pods are told to trust, `machines` are no nodes and may have pods all the same,
    `published` is how pods reach the API, where they do."""
    return (
        *((kubernetes_service.controller(published),) if published is not None else ()),
        namespaces.service_accounts(),
        namespaces.root_ca(authority),
        namespaces.CONDITIONS,
        scheduler.CONTROLLER,
        node_lifecycle.CONTROLLER,
        taint_eviction.CONTROLLER,
        pod_gc.controller(machines),
        replica_set.CONTROLLER,
        deployment.CONTROLLER,
        daemon_set.CONTROLLER,
        stateful_set.CONTROLLER,
        job.controller(),
        endpoint_slices.CONTROLLER,
        endpoint_warnings.CONTROLLER,
        endpoints.CONTROLLER,
        endpoints.MIRRORING,
        ip_addresses.CONTROLLER,
        ip_addresses.RANGE_CONTROLLER,
        load_balancer.CONTROLLER,
        load_balancer.POOL_CONTROLLER,
        event_ttl.CONTROLLER,
    )
