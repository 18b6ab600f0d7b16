"""Control groups of a lab: one that can't have any starts without, and `up` says why in one line."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import pytest

from podplane.kernel import cgroups
from podplane.kernel.cgroups import Groups, Hierarchy
from podplane.lab import limits
from podplane.lab.folder import Folder


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    """That of a lab that does not run; groups are folders beside it."""

    def prepare(name: str, held: list[int], *, is_root: bool) -> Groups:
        place = tmp_path / "groups" / name
        (place / "rest").mkdir(parents=True)
        for file in ("memory.max", "memory.swap.max", "memory.oom.group", "pids.max", "rest/cpu.weight"):
            (place / file).touch()
        held += cgroups.hold([str(place)])
        return Groups([Hierarchy(2, str(place), frozenset({"memory", "cpu", "pids"}))])

    monkeypatch.setattr(cgroups, "prepare", prepare)
    monkeypatch.setattr(cgroups, "tidy", lambda: None)
    monkeypatch.setattr(cgroups, "remove", lambda path: removed.append(path))
    removed.clear()
    found = Folder(tmp_path / "lab")
    found.path.mkdir()
    return found


removed: list[str] = []


def test_groups_are_noted_held_and_bounded(folder: Folder) -> None:
    groups, said = limits.prepare(folder)
    assert said == "" and groups.controllers == {"memory", "cpu", "pids"}
    (one,) = groups.hierarchies
    assert folder.groups.read_text() == f'["{one.folder}"]'
    assert int(Path(one.folder, "memory.max").read_text()) < cgroups.MEMORY
    os.close(limits.HELD.pop())


@pytest.mark.parametrize("lacks", ["memory.max", "rest/cpu.weight", "note", "number"])
def test_a_lab_whose_groups_can_not_be_made_has_none(folder: Folder, monkeypatch: pytest.MonkeyPatch, lacks: str) -> None:
    right = cgroups.prepare

    def prepare(name: str, held: list[int], *, is_root: bool) -> Groups:
        made = right(name, held, is_root=is_root)
        if lacks == "note":
            folder.groups.mkdir()
        elif lacks == "number":
            monkeypatch.setattr(limits, "_processes", lambda: int("many"))
        else:
            Path(made.hierarchies[0].folder, lacks).unlink()
        return made

    monkeypatch.setattr(cgroups, "prepare", prepare)
    gc.collect()  # what tests before left open is closed now, not meanwhile
    before, held = os.listdir("/proc/self/fd"), list(limits.HELD)
    groups, said = limits.prepare(folder)
    assert groups == Groups()
    assert said.startswith("Limits of cpu and memory are not applied to containers: ")
    assert "[Errno" not in said and str(folder.path) not in said and said.count("\n") == 0
    assert len(removed) == 1
    assert (os.listdir("/proc/self/fd"), limits.HELD) == (before, held)
