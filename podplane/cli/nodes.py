"""Nodes asked over HTTP, all at once: those that don't answer hold up no other, and no command for longer than `PATIENCE_SECONDS`.

A few connections serve all questions, as each costs both ends a handshake. While nothing is answered and questions wait, there are more and
more of them: nodes that are silent keep theirs until the end.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from podplane.cli.names import some
from podplane.cli.waiting import Waiting
from podplane.kubeapi.errors import ApiError
from podplane.model.answers import STARTING
from podplane.model.config import AGENT_PORT, AGENT_PORT_SAID

if TYPE_CHECKING:
    from podplane.lab.faults.messages import Active

PATIENCE_SECONDS = 3.0
START_SECONDS, AGAIN_SECONDS = 10.0, 0.1
"""An agent that says that it is starting is asked again for so long in all; between two questions."""
NOT_YET = ("connection refused", "closed the connection without an answer")
"""In the text of status 503 of a node whose agent may be about to start: it is asked again as long as others may take to answer."""
AT_ONCE, STUCK_SECONDS, MOST_AT_ONCE = 16, 0.25, 256
"""So many questions are on their way at one time, each on a connection of its own; twice as many whenever nothing came for so long; no more
than this."""
LAST_PORT = 65535
NOT_ASKED = "NotAsked"
"""The reason of an error of a node that nobody had the time to ask."""
Object = dict[str, Any]
Answer = Any


class Question(NamedTuple):
    """A path on a port of a node; `shape` is what its agent answers there."""

    node: str
    port: int
    path: str
    shape: Any = Any


def ask(
    client: Any,
    questions: Iterable[Question],
    seconds: float = PATIENCE_SECONDS,
    start_seconds: float = START_SECONDS,
    each_seconds: float = PATIENCE_SECONDS,
) -> dict[Question, Answer | ApiError]:
    """The answer to each question, or why there is none; after so many seconds at the latest. One answer may take `each_seconds`.

    Agents that are starting, after an upgrade or a crash, are asked again, for `start_seconds` at most.
    """
    began = time.monotonic()
    found = _ask(client, questions, seconds, each_seconds)
    while again := [
        one for one, answer in found.items() if _may_answer(answer, time.monotonic() - began, seconds, start_seconds)
    ]:
        time.sleep(AGAIN_SECONDS)
        left = max(seconds, start_seconds) - (time.monotonic() - began)
        found |= _ask(client, again, max(AGAIN_SECONDS, min(seconds, left)), each_seconds)
    return found


def _may_answer(answer: Answer | ApiError, since: float, seconds: float, start_seconds: float) -> bool:
    """Is this a node whose agent is starting, and is it worth asking again so long after the first time?"""
    if not isinstance(answer, ApiError) or answer.code != 503:
        return False
    if STARTING in str(answer):
        return since < start_seconds
    return since < min(seconds, start_seconds) and any(one in str(answer) for one in NOT_YET)


def _ask(client: Any, questions: Iterable[Question], seconds: float, each: float) -> dict[Question, Answer | ApiError]:
    asked = list(dict.fromkeys(questions))
    asking = _Asking(client, asked, time.monotonic() + seconds, each)
    found, silent = asking.collected(), _silent(min(seconds, each))
    waiting = {*asking.todo_left()}
    never = ApiError(504, NOT_ASKED, f"not asked: too many others did not answer within {seconds:.0f} s")
    return {one: found.get(one, never if one in waiting else silent) for one in asked}


class _Asking:
    """Questions on their way until a time of the monotonic clock, each for so many seconds."""

    def __init__(self, client: Any, asked: Sequence[Question], end: float, each: float) -> None:
        self._client, self._asked, self._end, self._each = client, asked, end, each
        self._todo: queue.SimpleQueue[Question] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[tuple[Question, Answer | ApiError]] = queue.SimpleQueue()
        self._threads = 0
        for question in asked:
            self._todo.put(question)
        self._start_threads()

    def _start_threads(self) -> None:
        """As many more as it takes: AT_ONCE, or as many as there are."""
        for _ in range(min(max(AT_ONCE, self._threads), self._todo.qsize(), MOST_AT_ONCE - self._threads)):
            threading.Thread(
                target=_answer, args=(self._client, self._todo, self._done, self._end, self._each), daemon=True
            ).start()
            self._threads += 1

    def collected(self) -> dict[Question, Answer | ApiError]:
        """The answers that came in time."""
        found: dict[Question, Answer | ApiError] = {}
        waiting = Waiting()
        while len(found) < len(self._asked) and (left := self._end - time.monotonic()) > 0:
            try:
                question, answer = self._done.get(timeout=min(left, STUCK_SECONDS, waiting.silent_for + 0.001))
                found[question] = _of_its_shape(question, answer)
            except queue.Empty:
                self._start_threads()
            waiting.look(
                lambda: f"an answer of {some(list(dict.fromkeys(one.node for one in self._asked if one not in found)))}"
            )
        return found

    def todo_left(self) -> Iterator[Question]:
        """Those that were not sent to anybody."""
        with contextlib.suppress(queue.Empty):
            while True:
                yield self._todo.get_nowait()


def _answer(client: Any, todo: queue.SimpleQueue[Question], done: queue.SimpleQueue[Any], end: float, each: float) -> None:
    """In a thread: one question after another, until none is left or the time is over."""
    seconds = max(0.1, min(each, end - time.monotonic()))
    with client.another(seconds) as own:
        while time.monotonic() < end:
            try:
                question = todo.get_nowait()
            except queue.Empty:
                return
            done.put((question, _of_one(own, question, seconds)))


def _of_one(client: Any, question: Question, seconds: float) -> Answer | ApiError:
    """Where something else has the usual port of agents (kube-proxy say), the Node says where its agent answers."""
    began = time.monotonic()
    answer = _at(client, question, question.port)
    if isinstance(answer, ApiError) and time.monotonic() - began < seconds and (port := _said_port(client, question)):
        answer = _at(client, question, port)
    return answer if not isinstance(answer, ApiError) or time.monotonic() - began < seconds else _silent(seconds)


def _at(client: Any, question: Question, port: int) -> Answer | ApiError:
    try:
        return client.of_node(question.node, port, question.path)
    except ApiError as error:
        return error


def _silent(seconds: float) -> ApiError:
    return ApiError(504, "Timeout", f"no answer within {round(seconds, 1):g} s")


def _said_port(client: Any, question: Question) -> int:
    """Another port than was asked at; 0 for none."""
    if question.port != AGENT_PORT:
        return 0
    try:
        annotations = client.get("nodes", "", question.node)["metadata"].get("annotations") or {}
    except ApiError:
        return 0
    said = port_said(annotations)
    return said if said != AGENT_PORT else 0


def port_said(annotations: Mapping[str, Any]) -> int:
    """Where the agent of a Node with these annotations answers; 0 where they name no port that there can be."""
    said = str(annotations.get(AGENT_PORT_SAID, ""))
    port = int(said) if said.isdecimal() and len(said) <= len(str(LAST_PORT)) else 0
    return port if port <= LAST_PORT else 0


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
