"""The state of nodes' agents, asked of them through the API."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

from podplane.kubeapi.errors import ApiError
from podplane.model.config import AGENT_PORT

Object = dict[str, Any]


def node_status(client: Any, node: str) -> Object:
    """The state of a node's agent; when it does not give it, only the node's name and `error`: why."""
    try:
        found: Object = client.of_node(node, AGENT_PORT, "status")
    except ApiError as error:
        return {"node": node, "error": str(error)}
    return found


def is_as_wanted(status: Object) -> bool:
    """Does the node answer, and is nothing refused or blocked?"""
    return not (status.get("error") or status["refused"] or status["blocked"])


def summaries(
    client: Any, nodes: Iterable[str], seconds: float, clock: Callable[[], float] = time.monotonic
) -> dict[str, Object | None]:
    """How much is wrong on each node; None for one that does not answer. Those that `seconds` don't suffice for are left out."""
    end, found = clock() + seconds, {}
    for node in nodes:
        if clock() > end:
            break
        try:
            found[node] = client.of_node(node, AGENT_PORT, "status/summary")
        except ApiError:
            found[node] = None
    return found
