"""The cluster's settings of routes in a lab: what `podplane up --backend` says, until somebody changes the ConfigMap."""

from __future__ import annotations

from podplane.kubeapi.client import Client
from podplane.kubeapi.errors import NotFound
from podplane.routes.cluster_settings import BACKEND, NAME, NAMESPACE

SAID = "podplane.dev/up-backend"
"""Annotation of the ConfigMap: what `up` said last. When it says something else, that counts."""
CONFIGMAPS = "configmaps"


async def ensure(client: Client, backend: str) -> str:
    """Have the ConfigMap say what `up` says, unless it was changed since `up` said the same; the backend in it. ApiError."""
    annotations, data = {SAID: backend}, {BACKEND: backend}
    try:
        found = await client.get(CONFIGMAPS, NAMESPACE, NAME)
    except NotFound:
        found = await client.create(
            CONFIGMAPS, NAMESPACE, {"metadata": {"name": NAME, "annotations": annotations}, "data": data}
        )
    if found["metadata"].get("annotations", {}).get(SAID) != backend:
        found = await client.patch(
            CONFIGMAPS, NAMESPACE, NAME, {"metadata": {"annotations": annotations}, "data": data}, uid=found["metadata"]["uid"]
        )
    return str((found.get("data") or {}).get(BACKEND, backend))
