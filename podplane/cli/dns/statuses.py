"""The state of the nodes' name servers, asked of them through the API."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from podplane.cli.nodes import PATIENCE_SECONDS, Question, ask, why_silent
from podplane.kubeapi.errors import ApiError
from podplane.model.config import NAME_SERVER_PORT
from podplane.model.name_server import NameServerStatus

Object = dict[str, Any]


def nodes(client: Any) -> dict[str, Object]:
    """By name, in the order of their numbers."""
    found = {node["metadata"]["name"]: node for node in client.objects("nodes")}
    return {name: found[name] for name in sorted(found, key=lambda name: (len(name), name))}


def of_nodes(
    client: Any, chosen: Iterable[Object], undo: Callable[[str], str], seconds: float = PATIENCE_SECONDS
) -> list[Object]:
    """The state of each node's server; of one that does not give it, only the node's name and `error`: why.

    `undo` is the command that ends a node's faults.
    """
    by_name = {node["metadata"]["name"]: node for node in chosen}
    answers = ask(client, [Question(name, NAME_SERVER_PORT, "status", NameServerStatus) for name in by_name], seconds)
    return [
        {"node": one.node, "error": why_silent(by_name[one.node], answer, undo(one.node))}
        if isinstance(answer, ApiError)
        else answer
        for one, answer in answers.items()
    ]
