"""Building the C program: with whatever compiler there is, or a reason why not."""

from __future__ import annotations

from pathlib import Path

import pytest

from podplane.cni.plugin import build


def test_what_fails_with_one_compiler_is_tried_with_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", str(tools))
    for name, script in (
        ("musl-gcc", 'echo "no musl here" >&2; exit 1'),
        ("cc", 'case "$*" in *-static*) exit 1;; esac; while [ "$1" != -o ]; do shift; done; echo made > "$2"'),
    ):
        (tools / name).write_text(f"#!/bin/sh\n{script}\n")
        (tools / name).chmod(0o755)
    target = tmp_path / "podplane-cni"
    assert build.build(target) == ""
    assert target.read_text() == "made\n" and target.stat().st_mode & 0o777 == 0o755


def test_without_a_compiler_there_is_a_reason_and_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "podplane-cni"
    monkeypatch.setenv("CC", "no-such-compiler")
    assert "there is no C compiler" in build.build(target)
    monkeypatch.setenv("CC", "false")
    assert build.build(target) == "false: exit status 1"
    assert not list(tmp_path.iterdir())
