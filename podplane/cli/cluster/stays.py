"""What `podplane cluster uninstall` leaves in the API because somebody else's words are in it, and how that goes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from podplane.kubeapi.errors import ApiError, NotFound
from podplane.machine.removal import NAMESPACE
from podplane.model.words import counted
from podplane.services.pools import POOLS

DEFINITIONS, SERVICES = "customresourcedefinitions.apiextensions.k8s.io", "services"
SERVICE = "kube-dns"


def stays(client: Any) -> Iterator[str]:
    """Each in words, with the command that removes it. What can't be read is passed over: it is not podplane's to guess."""
    with contextlib.suppress(ApiError):
        client.get(DEFINITIONS, "", POOLS)
        pools = counted(len(client.objects(POOLS)), "pool")
        yield f"the custom resource {POOLS} with {pools} (kubectl delete customresourcedefinition {POOLS})"
    with contextlib.suppress(NotFound, ApiError):
        if not (client.get(SERVICES, NAMESPACE, SERVICE).get("spec") or {}).get("selector"):
            yield f"the Service {SERVICE}, which leads to no pods now (kubectl -n {NAMESPACE} delete service {SERVICE})"
