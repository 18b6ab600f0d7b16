"""The state of the nodes' name servers, asked of them through the API."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from podplane.cli.names import some
from podplane.cli.nodes import PATIENCE_SECONDS, Question, ask, why_silent
from podplane.cli.waiting import Waiting
from podplane.kubeapi.errors import ApiError
from podplane.model.config import NAME_SERVER_PORT
from podplane.model.name_server import NameServerStatus

Object = dict[str, Any]
START_SECONDS, POLL_SECONDS = 3.0, 0.05
"""For so long a server that has just begun may wait for what it needs, and nothing is wrong; from one look at it to the next."""


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
    asked = questions(by_name)
    return of_answers(ask(client, asked, seconds), asked, by_name, undo)


def questions(nodes: Iterable[str]) -> list[Question]:
    """What is asked of the server of each node."""
    return [Question(name, NAME_SERVER_PORT, "status", NameServerStatus) for name in nodes]


def of_answers(
    answers: Mapping[Question, Any], asked: Iterable[Question], nodes: Mapping[str, Object], undo: Callable[[str], str]
) -> list[Object]:
    """The states that `of_nodes` gives, by what was answered."""
    return [
        {"node": one.node, "error": why_silent(nodes[one.node], answer, undo(one.node))}
        if isinstance(answer := answers[one], ApiError)
        else answer
        for one in asked
    ]


def once_started(look: Callable[[], list[Object]], sleep: Callable[[float], None] = time.sleep) -> list[Object]:
    """What `look` finds once no server is about to start; it looks again for START_SECONDS at most."""
    waiting, found = Waiting(), look()
    for _ in range(round(START_SECONDS / POLL_SECONDS)):
        starting = [one["node"] for one in found if _starts(one)]
        if not starting:
            break
        waiting.look(lambda: f"the name server of {some(starting)}")  # noqa: B023
        sleep(POLL_SECONDS)
        found = look()
    return found


def _starts(one: Object) -> bool:
    return "error" not in one and bool(one["missing"]) and not one["restarts"] and one["age"] < START_SECONDS
