"""Folders for pods with ids of their own: one within another does not hide that."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from podplane.kernel import layers


@pytest.mark.parametrize("own", [("/clone", "/clone/.venv"), ("/clone/.venv", "/clone")])
def test_a_folder_within_another_is_mounted_after_it(
    own: Sequence[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sets of texts have another order in each process."""
    mounted = list[str]()
    monkeypatch.setattr(layers.syscalls, "mount", lambda *_: None)
    monkeypatch.setattr(layers.syscalls, "set_dumpable", lambda **_: None)
    monkeypatch.setattr(layers.syscalls, "bind_with_ids", lambda source, target, *_: mounted.append(target))
    monkeypatch.setattr(layers.stand_ins, "write", lambda *_: None)
    monkeypatch.setattr(layers.ids, "user_namespace", lambda _: os.open(os.devnull, os.O_RDONLY))
    layers.prepare(str(tmp_path), [], [], own, 100000)
    assert mounted == [f"{layers.OWN}/clone", f"{layers.OWN}/clone/.venv"]
    assert layers.own(str(tmp_path), "/clone") == f"{tmp_path}/{layers.OWN}/clone"
