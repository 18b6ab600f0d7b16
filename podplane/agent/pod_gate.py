"""Before a pod is attached: what policies say of it is known, as of a time not before it was created.

Agents, kubelets and controllers read the API by watches of their own, and one may be ahead of another. So an attachment waits until the
agents' caches have its pod, with it all labels that pods had before it, and what the API has by then: the policies of its namespace and of
the whole cluster, those that are deleted gone, and, if any of these reads labels of namespaces, these. Pods that start at one time share
the lists that say so, which are asked for as soon as the pods are known (`serve`): an attachment that comes later has not to wait for them.
Where the API can't be reached, what was known last counts: policies that came since are not known to anybody here.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence

from podplane.agent.caches import CLUSTER_POLICIES, NAMESPACES, PODS, POLICIES, Caches
from podplane.cni.network import Attachment, TryAgainError
from podplane.kubeapi.errors import ApiError
from podplane.kubeapi.requests import ALL, Selection
from podplane.model.policy import PodSelector

log = logging.getLogger(__name__)
KNOWN_SECONDS = 10.0
"""So long an attachment waits until its pod and policies are known."""


def serve(caches: Caches, node: str, is_attached: Callable[[str], bool]) -> None:
    """Ask ahead for pods of this node but for those that are attached (by their paths)."""
    if caches.informers:
        caches.ahead.serve(node, lambda namespace: _is_known_ahead(caches, namespace), is_attached)


async def _is_known_ahead(caches: Caches, namespace: str) -> bool:
    """What can't be had now is asked for again when a pod is attached."""
    try:
        return not await _behind(caches, namespace)
    except ApiError as error:
        log.debug("ahead namespace=%s error=%s", namespace, error)
        return False


async def until_known(caches: Caches, request: Attachment, node: str) -> None:
    """Wait; not for a container that is no pod. TryAgainError when the watches don't bring it in time."""
    if not caches.informers or not request.namespace:
        return
    path = f"{request.namespace}/{request.name}"
    if not await caches.arrivals.wait(path, request.pod_uid, KNOWN_SECONDS):
        raise TryAgainError(await _why_unknown(caches, request, node))
    if await caches.ahead.is_known(path):
        return
    try:
        behind = await _behind(caches, request.namespace)
    except ApiError as error:
        log.warning("attach node=%s pod=%s policies are those known last: %s", node, path, error)
        return
    if behind:
        raise TryAgainError(_why(path, node, behind))


async def _behind(caches: Caches, namespace: str) -> str:
    """The first resource whose watch does not bring what the API has by now of the policies of pods of a namespace; "" when all do."""
    behind = await _first_behind(caches, ((POLICIES, Selection(namespace)), (CLUSTER_POLICIES, ALL)))
    if not behind and (whose := _labels_read(caches, namespace)) is not None:
        behind = await _first_behind(caches, ((NAMESPACES, whose),))
    return behind


def _labels_read(caches: Caches, namespace: str) -> Selection | None:
    """The namespaces whose labels matter to pods of this one; None: of none."""
    across = caches.cluster_policies.objects.values()
    for policy in (*caches.informers[POLICIES].in_namespace(namespace).values(), *across):
        rules = (*(policy.ingress or ()), *(policy.egress or ()))
        if any(
            isinstance(peer, PodSelector) and not isinstance(peer.namespaces, str) for one in rules for peer in one.peers or ()
        ):
            return ALL
    return Selection(fields=f"metadata.name={namespace}") if across else None


async def _first_behind(caches: Caches, wanted: Sequence[tuple[str, Selection]]) -> str:
    """The first of these whose watch does not bring what the API has; "" when all do."""
    current = await asyncio.gather(*(caches.informers[resource].catch_up(which, KNOWN_SECONDS) for resource, which in wanted))
    return next((resource for (resource, _), is_current in zip(wanted, current, strict=True) if not is_current), "")


async def _why_unknown(caches: Caches, request: Attachment, node: str) -> str:
    """Why the pod is not known: the watch is behind, or nobody has created it, as when an engine is asked by hand."""
    path, this = f"{request.namespace}/{request.name}", Selection(request.namespace, fields=f"metadata.name={request.name}")
    with contextlib.suppress(ApiError):
        if not await _first_behind(caches, ((PODS, this),)):
            whose = f" with uid {request.pod_uid}" if request.pod_uid else ""
            return f"pod {path}: the API has no such pod{whose}: create it first, as policies go by what the API says of it"
    return _why(path, node, PODS)


def _why(path: str, node: str, resource: str) -> str:
    return f"pod {path}: the agent of {node} does not know which policies select it: its watch of {resource} is {KNOWN_SECONDS:g} s behind"
