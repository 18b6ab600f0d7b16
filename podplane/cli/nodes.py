"""Nodes asked over HTTP, all at once: one that doesn't answer holds up no other, and no command for longer than `PATIENCE_SECONDS`."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from podplane.cli.names import some
from podplane.cli.waiting import Waiting
from podplane.kubeapi.errors import ApiError
from podplane.model.answers import STARTING

if TYPE_CHECKING:
    from podplane.lab.faults.messages import Active

PATIENCE_SECONDS = 3.0
START_SECONDS, AGAIN_SECONDS = 10.0, 0.1
"""An agent that is starting is asked again for so long in all; between two questions."""
NOT_YET = (STARTING, "connection refused", "closed the connection without an answer")
"""In the text of status 503 of a node whose agent is starting."""
AT_ONCE = 16
"""So many questions are on their way at one time, each on a connection of its own."""
Object = dict[str, Any]
Answer = Any


class Question(NamedTuple):
    """A path on a port of a node; `shape` is what its agent answers there."""

    node: str
    port: int
    path: str
    shape: Any = Any


def ask(client: Any, questions: Iterable[Question], seconds: float = PATIENCE_SECONDS) -> dict[Question, Answer | ApiError]:
    """The answer to each question, or why there is none; after so many seconds at the latest.

    Agents that are starting, after an upgrade or a crash, are asked again.
    """
    found = _ask(client, questions, seconds)
    end = time.monotonic() + START_SECONDS
    while (again := [one for one, answer in found.items() if _is_not_yet(answer)]) and time.monotonic() < end:
        time.sleep(AGAIN_SECONDS)
        found |= _ask(client, again, seconds)
    return found


def _is_not_yet(answer: Answer | ApiError) -> bool:
    return isinstance(answer, ApiError) and answer.code == 503 and any(one in str(answer) for one in NOT_YET)


def _ask(client: Any, questions: Iterable[Question], seconds: float) -> dict[Question, Answer | ApiError]:
    todo: queue.SimpleQueue[Question] = queue.SimpleQueue()
    done: queue.SimpleQueue[tuple[Question, Answer | ApiError]] = queue.SimpleQueue()
    asked, end = list(dict.fromkeys(questions)), time.monotonic() + seconds
    for question in asked:
        todo.put(question)
    for _ in range(min(AT_ONCE, len(asked))):
        threading.Thread(target=_answer, args=(client, todo, done, end), daemon=True).start()
    found = _collected(asked, done, end)
    return {one: found.get(one, ApiError(504, "Timeout", f"no answer within {seconds:.0f} s")) for one in asked}


def _collected(
    asked: Sequence[Question], done: queue.SimpleQueue[tuple[Question, Answer | ApiError]], end: float
) -> dict[Question, Answer | ApiError]:
    found: dict[Question, Answer | ApiError] = {}
    waiting = Waiting()
    while len(found) < len(asked) and (left := end - time.monotonic()) > 0:
        with contextlib.suppress(queue.Empty):
            question, answer = done.get(timeout=min(left, waiting.silent_for + 0.001))
            found[question] = _of_its_shape(question, answer)
        waiting.look(lambda: f"an answer of {some(list(dict.fromkeys(one.node for one in asked if one not in found)))}")
    return found


def _answer(client: Any, todo: queue.SimpleQueue[Question], done: queue.SimpleQueue[Any], end: float) -> None:
    """In a thread: one question after another, until none is left or the time is over."""
    with client.another(max(0.1, end - time.monotonic())) as own:
        while time.monotonic() < end:
            try:
                question = todo.get_nowait()
            except queue.Empty:
                return
            done.put((question, _of_one(own, question)))


def _of_one(client: Any, question: Question) -> Answer | ApiError:
    try:
        return client.of_node(question.node, question.port, question.path)
    except ApiError as error:
        return error


def _of_its_shape(question: Question, answer: Answer | ApiError) -> Answer | ApiError:
    """Anybody may listen at a node's port, and a Service may lead it elsewhere: what has another shape is no answer.

    Not in the threads: when two of them need msgspec's knowledge of a type for the first time, the process may end in a segmentation fault.
    """
    if isinstance(answer, ApiError):
        return answer
    try:
        msgspec.convert(answer, question.shape)
    except msgspec.ValidationError as error:
        where = f"port {question.port} of node {question.node}"
        return ApiError(502, "BadGateway", f"{where} does not answer {question.path} as its agent does: {error}")
    return answer


def active_names(node: Mapping[str, Any]) -> list[str]:
    """The faults that are active on a node."""
    return [one.fault for one in _active(node)]


def _active(node: Mapping[str, Any]) -> list[Active]:
    from podplane.lab.faults import messages

    return messages.active_of(node["metadata"].get("annotations") or {})


def why_silent(node: Mapping[str, Any], error: ApiError | str, command: str) -> str:
    """Why a node gives no answer: what is known of it beside the error. `command` undoes its active faults."""
    active = ", ".join(map(str, _active(node)))
    if active:
        return f"{error} (the fault {active} is active: `{command}` undoes it)"
    conditions = node.get("status", {}).get("conditions", ())
    network = [one.get("message", "") for one in conditions if (one["type"], one["status"]) == ("NetworkUnavailable", "True")]
    return f"{error} ({network[0]})" if network else str(error)
