"""What `up` says of nodes and pods that are not ready."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from podplane.cli import labs

Object = dict[str, Any]


def one(name: str, *, ready: bool, phase: str = "Running") -> Object:
    conditions = [{"type": "Ready", "status": str(ready)}]
    return {"metadata": {"name": name}, "spec": {}, "status": {"phase": phase, "conditions": conditions}}


def said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], nodes: list[Object], pods: list[Object]
) -> list[str]:
    there = {"nodes": nodes, "pods": pods}
    client = SimpleNamespace(objects=there.__getitem__, access=SimpleNamespace(address="127.0.0.1:6443"))
    monkeypatch.setattr(labs, "connect", lambda folder: client)
    folder: Any = SimpleNamespace(name="x", spec=Path("/nonexistent"), command=lambda *words: " ".join(("podplane", *words)))
    labs._next_steps(folder, "is up")
    return capsys.readouterr().out.splitlines()


def test_all_ready(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pods = [one("a", ready=True), one("done", ready=False, phase="Succeeded")]
    lines = said(monkeypatch, capsys, [one("node1", ready=True)], pods)
    assert lines[0] == "Lab 'x' is up: 1 node, 1 pod. API: https://127.0.0.1:6443"
    assert not lines[1].startswith("  a:")


def test_what_is_not_ready_is_said_and_why(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    nodes, pods = (
        [one("node1", ready=True), one("node2", ready=False)],
        [one("a", ready=True), one("b", ready=False, phase="Pending")],
    )
    lines = said(monkeypatch, capsys, nodes, pods)
    assert lines[:2] == ["Lab 'x' is up: 1 of 2 nodes ready, 1 of 2 pods ready. API: https://127.0.0.1:6443", "  b: Pending"]
