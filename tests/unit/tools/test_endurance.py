"""The tool that looks whether a lab grows: its operations leave some dozen objects at most, and it sees what a process has."""

from __future__ import annotations

import os
import random
from collections import Counter
from typing import Any

import pytest

from podplane.kubeapi.errors import NotFound
from tools import endurance
from tools.endurance import Size, operate, size_of


class FakeClient:
    """What is there, and how often each verb was asked for."""

    def __init__(self) -> None:
        self.there = set[tuple[str, str]]()
        self.asked: Counter[str] = Counter()

    def create(self, kind: str, _: str, body: Any) -> None:
        self.asked["create"] += 1
        self.there.add((kind, body["metadata"]["name"]))

    def patch(self, kind: str, _: str, name: str, __: Any) -> None:
        self.asked["patch"] += 1
        assert (kind, name) in self.there

    def delete(self, kind: str, _: str, name: str) -> None:
        self.asked["delete"] += 1
        if (kind, name) not in self.there:
            raise NotFound(404, "NotFound", name)
        self.there.discard((kind, name))


def test_objects_of_all_kinds_come_and_go() -> None:
    client, chance, there = FakeClient(), random.Random(1), set[tuple[str, str]]()
    for _ in range(2000):
        operate(client, chance, there)  # type: ignore[arg-type]
    assert there == client.there
    assert {kind for kind, _ in there} == endurance.KINDS.keys()
    assert len(there) <= endurance.NAMES * len(endurance.KINDS)
    assert min(client.asked[verb] for verb in ("create", "patch", "delete")) > 400


def test_what_a_process_has() -> None:
    before = size_of(os.getpid())
    assert before.threads >= 1
    fd = os.dup(0)
    try:
        assert size_of(os.getpid()).descriptors == before.descriptors + 1
    finally:
        os.close(fd)


@pytest.mark.parametrize(
    ("end", "wrong"),
    [
        (Size(100 << 20, 50, 6), []),
        (Size(109 << 20, 50, 6), []),
        (
            Size(110 << 20, 51, 99),
            ["memory grows by 1138 KB a thousand operations", "descriptors: 50 became 51", "threads: 6 became 99"],
        ),
    ],
)
def test_what_grew_is_told(monkeypatch: pytest.MonkeyPatch, end: Size, wrong: list[str]) -> None:
    sizes = iter([Size(100 << 20, 50, 6), end])

    class Lab:
        api = FakeClient()

        class folder:
            holder = staticmethod(lambda: 1)

    monkeypatch.setattr(endurance, "quiet", lambda *_: next(sizes))
    monkeypatch.setattr(endurance, "operate", lambda *_: None)
    monkeypatch.setattr(endurance, "size_of", lambda _: Size(0, 0, 0))
    assert endurance.run(Lab(), 12_000, 1) == wrong  # type: ignore[arg-type]
