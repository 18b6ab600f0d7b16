"""The cluster's settings of routes in a lab: what `podplane up --backend` says, until somebody changes the ConfigMap."""

from __future__ import annotations

from collections.abc import Mapping

from podplane.kubeapi.client import Client
from podplane.kubeapi.errors import NotFound
from podplane.model.config import NetworkConfig
from podplane.routes.cluster_settings import BACKEND, CROSS_SUBNET, NAME, NAMESPACE, ClusterSettingsError, applied

SAID = "podplane.dev/up-backend"
"""Annotation of the ConfigMap: what `up` said last. When it says something else, that counts."""
CONFIGMAPS = "configmaps"


async def ensure(client: Client, backend: str, cross_subnet: str = "") -> str:
    """Have the ConfigMap say what `up` says, unless it was changed since `up` said the same; the name of the backend that it comes to.
    ApiError."""
    said = f"{backend} {cross_subnet}".strip()
    annotations, data = {SAID: said}, {BACKEND: backend, CROSS_SUBNET: cross_subnet or None}
    try:
        found = await client.get(CONFIGMAPS, NAMESPACE, NAME)
    except NotFound:
        own = {key: value for key, value in data.items() if value is not None}
        found = await client.create(
            CONFIGMAPS, NAMESPACE, {"metadata": {"name": NAME, "annotations": annotations}, "data": own}
        )
    if found["metadata"].get("annotations", {}).get(SAID) != said:
        found = await client.patch(
            CONFIGMAPS, NAMESPACE, NAME, {"metadata": {"annotations": annotations}, "data": data}, uid=found["metadata"]["uid"]
        )
    return _backend_of(found.get("data") or {}, backend)


def _backend_of(data: Mapping[str, str], otherwise: str) -> str:
    """What nodes have by the ConfigMap; where that makes no sense, what `up` says."""
    try:
        return applied(data, NetworkConfig(cluster_cidrs=(), backend=otherwise)).backend
    except ClusterSettingsError:
        return otherwise
