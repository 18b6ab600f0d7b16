"""Whose name server explains what a pod gets."""

from __future__ import annotations

from typing import Any

import pytest

from podplane.cli.dns import answered
from podplane.lab.errors import LabError

READY: dict[str, Any] = {"missing": []}
WAITS: dict[str, Any] = {"missing": ["sockets"]}
SILENT: dict[str, Any] = {"error": "no answer within 3 s"}


def server(monkeypatch: pytest.MonkeyPatch, **states: dict[str, Any]) -> tuple[str, list[str]]:
    """Whose server is asked for a pod of node1, where the servers of nodes are like this; and what is said about it."""
    monkeypatch.setattr(answered.statuses, "nodes", lambda client: {name: {"name": name} for name in states})
    monkeypatch.setattr(
        answered.statuses, "of_nodes", lambda client, chosen, undo: [{"node": m["name"], **states[m["name"]]} for m in chosen]
    )
    return answered._server(None, "node1", lambda node: "")


def test_the_nodes_own_server_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    assert server(monkeypatch, node1=READY, node2=READY) == ("node1", [])


@pytest.mark.parametrize(("own", "why"), [(SILENT, "no answer within 3 s"), (WAITS, "it waits for sockets")])
def test_another_one_is_asked_while_it_answers_no_questions(
    own: dict[str, Any], why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, (note,) = server(monkeypatch, node1=own, node2=WAITS, node3=SILENT, node4=READY)
    assert name == "node4"
    assert note == f"the name server of node1 does not answer: that of node4 is asked in its place ({why})"


def test_nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(LabError, match="no name server answers; that of node1: no answer within 3 s"):
        server(monkeypatch, node1=SILENT, node2=WAITS)


def test_what_it_will_answer_is_told_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    name, (note,) = server(monkeypatch, node1=WAITS, node2=WAITS)
    assert name == "node1"
    assert note == "the name server of node1 answers no questions yet, and no other one does: it waits for sockets"
