"""The query log: the questions that the configuration names, a line each, in the process's log and in a memory of the last ones.

Questions that are logged are answered by the resolver each time, so that the line says who decided and how long that took; all others
pass as if there were no log.
"""

from __future__ import annotations

import datetime
import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from podplane.dns import message as m
from podplane.dns.config import Log
from podplane.dns.message import Answer, Name, Question
from podplane.dns.response_text import rcode_text, type_text
from podplane.model.name_server import QueryLine, QueryLines
from podplane.nameserver.resolver import Client

log = logging.getLogger(__name__)
REMEMBERED = 5000
"""Lines that are kept."""
MAX_LINES = 1000
"""Lines that are told at once."""


class QueryLog:
    """Lines of all nodes of the process. `wall` gives Unix times, `clock` seconds for durations."""

    def __init__(self, wall: Callable[[], float] = time.time, clock: Callable[[], float] = time.perf_counter) -> None:
        self._wall, self._clock = wall, clock
        self._lines: deque[QueryLine] = deque(maxlen=REMEMBERED)
        self._number = 0
        self.configure(Log())

    def configure(self, wanted: Log) -> None:
        """Log other questions from now on."""
        self._wanted = wanted
        self._pods = frozenset(pod for pod in wanted.pods if not pod.endswith("*"))
        self._beginnings = tuple(pod.removesuffix("*") for pod in wanted.pods if pod.endswith("*"))
        self._names = frozenset(wanted.names)

    @property
    def is_on(self) -> bool:
        """Is anything logged?"""
        return bool(self._wanted.pods or self._wanted.names)

    def is_about(self, client: Client) -> bool:
        """Are all questions of this client logged?"""
        pod = f"{client.namespace}/{client.pod}" if client.pod else ""
        return bool(pod) and (pod in self._pods or pod.startswith(self._beginnings))

    def begin(self, question: Question, client: Client, node: str) -> Asked | None:
        """A question comes in, at this node; None when it is not logged."""
        if self._has(question.name) or self.is_about(client):
            return Asked(self, question, client, node, self._clock())
        return None

    def _has(self, name: Name) -> bool:
        return bool(self._names) and any(name[i:] in self._names for i in range(len(name) + 1))

    def end(self, asked: Asked, answer: Answer) -> None:
        """A question is answered."""
        self._number += 1
        client, question = asked.client, asked.question
        line = QueryLine(
            number=self._number,
            time=self._wall(),
            node=asked.node,
            client=client.ip,
            pod=f"{client.namespace}/{client.pod}" if client.pod else "",
            name=m.text_of(question.name),
            type=type_text(question.type),
            rcode=rcode_text(answer.rcode),
            source=answer.source,
            microseconds=round(1e6 * (self._clock() - asked.at)),
        )
        self._lines.append(line)
        log.info("%s", text(line))

    def after(self, number: int, node: str) -> QueryLines:
        """The lines of a node after this one, the last ones of many."""
        wanted: deque[QueryLine] = deque(maxlen=MAX_LINES)
        for line in reversed(self._lines):
            if line.number <= number or len(wanted) == MAX_LINES:
                break
            if line.node == node:
                wanted.appendleft(line)
        names = [m.text_of(name) for name in self._wanted.names]
        return QueryLines(number=self._number, pods=list(self._wanted.pods), names=names, lines=list(wanted))


@dataclass(frozen=True, slots=True)
class Asked:
    """A question that is logged once it is answered."""

    log: QueryLog
    question: Question
    client: Client
    node: str
    at: float

    def done(self, answer: Answer) -> None:
        """It is answered."""
        self.log.end(self, answer)


def text(line: QueryLine) -> str:
    """A line as people and programs read it."""
    at = datetime.datetime.fromtimestamp(line.time, datetime.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return (
        f"time={at} node={line.node} client={line.client} pod={line.pod or '-'} name={line.name} type={line.type}"
        f" rcode={line.rcode} us={line.microseconds} source={msgspec.json.encode(line.source).decode()}"
    )
