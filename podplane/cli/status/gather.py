"""The state of nodes' agents, asked of them through the API."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from podplane.cli.nodes import Question, ask, why_silent
from podplane.kubeapi.errors import ApiError
from podplane.model.answers import NodeStatus, Summary
from podplane.model.config import AGENT_PORT

Object = dict[str, Any]


def summary_questions(nodes: Iterable[str]) -> dict[str, Question]:
    """How much is wrong, to be asked of each node."""
    return {node: Question(node, AGENT_PORT, "status/summary", Summary) for node in nodes}


def statuses(client: Any, nodes: Iterable[Object], undo: Callable[[str], str]) -> list[Object]:
    """The state of each node's agent; of one that does not give it, only the node's name and `error`: why.

    `undo` is the command that ends a node's faults.
    """
    by_name = {node["metadata"]["name"]: node for node in nodes}
    answers = ask(client, [Question(name, AGENT_PORT, "status", NodeStatus) for name in by_name])
    return [
        {"node": one.node, "error": why_silent(by_name[one.node], answer, undo(one.node))}
        if isinstance(answer, ApiError)
        else answer
        for one, answer in answers.items()
    ]


def is_as_wanted(status: Object) -> bool:
    """Does the node answer, is nothing refused, blocked or done without, and does it reach its peers? One that is not ready is no fault of
    this one."""
    return not (
        status.get("error")
        or status["refused"]
        or status["blocked"]
        or status.get("unmet")
        or any(one["loss"] == 1 and not one["is_not_ready"] for one in status.get("unreached", ()))
    )


def summaries(answers: Mapping[Question, Any], questions: Mapping[str, Question]) -> Mapping[str, Object | None]:
    """How much is wrong on each node, by their answers; None for one that did not answer."""
    return {node: None if isinstance(answer := answers[one], ApiError) else answer for node, one in questions.items()}
