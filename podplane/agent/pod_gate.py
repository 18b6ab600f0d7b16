"""Before a pod is attached: what policies say of it is known, as of a time not before it was created.

Agents, kubelets and controllers read the API by watches of their own, and one may be ahead of another. So an attachment waits until the
agents' caches have its pod, and the policies that the API has by then of its namespace and of the whole cluster. If there are any of
those, the namespace's labels matter, too. Where the API can't be reached, what was known
last counts: policies that came since are not known to anybody here.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from podplane.agent.caches import CLUSTER_POLICIES, NAMESPACES, PODS, POLICIES, Caches
from podplane.cni.network import Attachment, NetworkError
from podplane.kubeapi.errors import ApiError
from podplane.kubeapi.requests import ALL, Selection

log = logging.getLogger(__name__)
KNOWN_SECONDS, LOOK_SECONDS = 10.0, 0.002
"""So long an attachment waits until its pod and policies are known; between two looks."""


async def until_known(caches: Caches, request: Attachment, node: str) -> None:
    """Wait. NetworkError when the watches don't bring it in time."""
    if not caches.informers:
        return
    path = f"{request.namespace}/{request.name}"
    for _ in range(round(KNOWN_SECONDS / LOOK_SECONDS)):
        if _is_known(caches, path, request.pod_uid):
            break
        await asyncio.sleep(LOOK_SECONDS)
    else:
        raise NetworkError(_why(path, node, PODS))
    try:
        behind = await _behind(caches, ((POLICIES, Selection(request.namespace)), (CLUSTER_POLICIES, ALL)))
        if not behind and caches.cluster_policies.objects:
            behind = await _behind(caches, ((NAMESPACES, Selection(fields=f"metadata.name={request.namespace}")),))
    except ApiError as error:
        log.warning("attach node=%s pod=%s policies are those known last: %s", node, path, error)
        return
    if behind:
        raise NetworkError(_why(path, node, behind))


async def _behind(caches: Caches, wanted: Sequence[tuple[str, Selection]]) -> str:
    """The first of these whose watch does not bring what the API has; "" when all do."""
    current = await asyncio.gather(*(caches.informers[resource].catch_up(which, KNOWN_SECONDS) for resource, which in wanted))
    return next((resource for (resource, _), is_current in zip(wanted, current, strict=True) if not is_current), "")


def _is_known(caches: Caches, path: str, uid: str) -> bool:
    pod = caches.pods.objects.get(path)
    return pod is not None and uid in ("", pod.metadata.uid)


def _why(path: str, node: str, resource: str) -> str:
    return f"pod {path}: the agent of {node} does not know which policies select it: its watch of {resource} is {KNOWN_SECONDS:g} s behind"
