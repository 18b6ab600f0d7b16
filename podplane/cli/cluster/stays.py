"""What `podplane cluster uninstall` leaves in the API because somebody else's words are in it, and how that goes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from podplane.cli.cluster.parsed import is_podplanes
from podplane.cli.cluster.reads import paged
from podplane.dns.node import MANAGED_BY, PODPLANE
from podplane.kubeapi.errors import ApiError, NotFound
from podplane.machine.removal import NAMESPACE
from podplane.model.words import counted
from podplane.services.pools import POOLS

DEFINITIONS, SERVICES = "customresourcedefinitions.apiextensions.k8s.io", "services"
SLICES = "endpointslices.discovery.k8s.io"
SERVICE = "kube-dns"


def stays(client: Any) -> Iterator[str]:
    """Each in words, with the command that removes it. What can't be read is passed over: it is not podplane's to guess."""
    with contextlib.suppress(ApiError):
        client.get(DEFINITIONS, "", POOLS)
        pools = counted(len(client.objects(POOLS)), "pool")
        yield f"the custom resource {POOLS} with {pools} (kubectl delete customresourcedefinition {POOLS})"
    with contextlib.suppress(ApiError):
        yield from _names(client)


def _names(client: Any) -> Iterator[str]:
    """What is left of the cluster's names. Endpoints that somebody else wrote are a name server of theirs, and so is the Service then."""
    slices = paged(client, SLICES, NAMESPACE, labelSelector=f"kubernetes.io/service-name={SERVICE}")
    if own := sum(map(is_podplanes, slices)):
        how = f"kubectl -n {NAMESPACE} delete endpointslices -l {MANAGED_BY}={PODPLANE}"
        yield f"{counted(own, 'EndpointSlice')} of the Service {SERVICE}, of nodes' name servers that are gone ({how})"
    with contextlib.suppress(NotFound):
        has_selector = (client.get(SERVICES, NAMESPACE, SERVICE).get("spec") or {}).get("selector")
        if not has_selector and not any(one.get("endpoints") for one in slices if not is_podplanes(one)):
            yield f"the Service {SERVICE}, which leads to no pods now (kubectl -n {NAMESPACE} delete service {SERVICE})"
