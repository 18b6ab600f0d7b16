"""Folders that the kernel refuses to an overlay are tried once."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from podplane.kernel import rootfs, syscalls

Mounts = list[tuple[str, str]]


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], Mounts]:
    """What is mounted from now on, as (type or "bind", target), where each overlay is refused with this error."""
    monkeypatch.setattr(rootfs, "_refused", set())

    def refusing(code: int) -> Mounts:
        asked: Mounts = []

        def mount(source: str, target: str, kind: str | None, flags: int, options: str = "") -> None:
            asked.append((kind or "bind", target))
            if kind == "overlay":
                raise OSError(code, os.strerror(code))

        monkeypatch.setattr(syscalls, "mount", mount)
        monkeypatch.setattr(syscalls, "set_attributes", lambda *_, **__: None)
        return asked

    return refusing


def over(name: str, lower: str, place: Path, number: int) -> str:
    """Put a folder into a new root; where that is."""
    scratch, new = place / str(number), str(place / str(number) / "new")
    scratch.mkdir()
    rootfs._overlay(name, lower, new, str(scratch), [])
    return new


def test_a_folder_with_mounts_below_is_refused_once_and_bound(tmp_path: Path, kernel: Callable[[int], Mounts]) -> None:
    mounted = kernel(errno.EINVAL)
    first, second, other = over("a", "/a", tmp_path, 1), over("a", "/a", tmp_path, 2), over("b", "/b", tmp_path, 3)
    assert mounted == [("overlay", first), ("bind", first), ("bind", second), ("overlay", other), ("bind", other)]


def test_what_is_lacking_for_a_moment_is_tried_again(tmp_path: Path, kernel: Callable[[int], Mounts]) -> None:
    mounted = kernel(errno.ENOMEM)
    first, second = over("a", "/a", tmp_path, 1), over("a", "/a", tmp_path, 2)
    assert mounted == [("overlay", first), ("bind", first), ("overlay", second), ("bind", second)]
