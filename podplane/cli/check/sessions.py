"""Probers in pods, asked all at once: one a member, through the API's exec."""

from __future__ import annotations

import contextlib
import json
import selectors
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from podplane.cli.check.parties import Member
from podplane.cli.names import some
from podplane.cli.waiting import Waiting
from podplane.kubeapi import channels as ch
from podplane.kubeapi.errors import ApiError
from podplane.kubeapi.exec import ExecSession
from podplane.kubeapi.requests import execute

PROBE = ("podplane/probe",)
NEVER = float("inf")
Answer = Mapping[str, Any]


class Prober:
    """One member's prober; `failure` says why it is no more."""

    def __init__(self, client: Any, member: Member, command: Sequence[str]) -> None:
        call = execute(client.token, member.namespace, member.pod, command, container=member.container, stdin=True)
        self.session = ExecSession(client.access, call)
        self.failure = ""
        self._received = b""

    def ask(self, question: Mapping[str, Any]) -> None:
        """Send a question."""
        self.session.send(json.dumps(question).encode() + b"\n")

    def receive(self) -> list[Answer]:
        """The answers that have come whole."""
        for channel, data in self.session.receive_ready():
            if channel == ch.STDOUT:
                self._received += data
            elif channel == ch.STDERR:
                self.failure = data.decode(errors="replace").strip().rpartition("\n")[2]
            elif channel == ch.ERROR:
                code, error = ch.exit_code(data)
                self.failure = error or self.failure or f"its prober ended with exit code {code}"
        if self.session.over and not self.failure:
            self.failure = "its prober was lost"
        *lines, self._received = self._received.split(b"\n")
        return [json.loads(line) for line in lines]


@contextlib.contextmanager
def probers(
    client: Any, members: Sequence[Member], command: Sequence[str] = PROBE
) -> Iterator[tuple[dict[str, Prober], dict[str, str]]]:
    """A prober for each member by name, which is this command in its container; and of those that could not be started, why."""
    started: dict[str, Prober] = {}
    refused: dict[str, str] = {}
    try:
        for member in members:
            try:
                started[member.name] = Prober(client, member, command)
            except ApiError as error:
                refused[member.name] = str(error)
        yield started, refused
    finally:
        for prober in started.values():
            prober.session.close()


def ask_all(
    found: Mapping[str, Prober], questions: Mapping[str, Mapping[str, Any]], seconds: float, stalled: float = NEVER
) -> dict[str, Answer]:
    """Ask each its question; the answers of those that gave one in time, and not so many seconds after the last one."""
    answers: dict[str, Answer] = {}
    began = last = time.monotonic()
    waiting = Waiting()
    with selectors.DefaultSelector() as selector:
        for name, question in questions.items():
            found[name].ask(question)
            selector.register(found[name].session, selectors.EVENT_READ, name)
        while selector.get_map() and (left := min(began + seconds, last + stalled) - time.monotonic()) > 0:
            waiting.look(lambda: f"the answers of {some([str(key.data) for key in selector.get_map().values()])}")
            early = [key for key in list(selector.get_map().values()) if found[key.data].session.has_pending]
            for key in early or [key for key, _ in selector.select(min(left, waiting.silent_for + 0.001))]:
                prober = found[key.data]
                for answer in prober.receive():
                    answers[key.data], last = answer, time.monotonic()
                if key.data in answers or prober.failure:
                    selector.unregister(key.fileobj)
        for key in selector.get_map().values():  # an answer that comes later would be taken for that to the next question
            found[key.data].failure = f"no answer within {time.monotonic() - began:.0f} s"
    return answers
