"""Which files root may read without a capability for it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from podplane.machine.reach import unreadable


@pytest.mark.skipif(os.geteuid() != 0, reason="files of others need root")
def test_files_of_others_are_named_with_what_keeps_root_out(tmp_path: Path) -> None:
    for one in tmp_path.parents:
        if one.stat().st_uid:
            pytest.skip("the folder for tests is somebody else's")
    home, key, shared = tmp_path / "home", tmp_path / "key", tmp_path / "shared"
    home.mkdir(mode=0o700)
    for path in (home / "config", key, shared):
        path.touch(0o600)
    os.chown(key, 1000, 1000)
    os.chown(home, 1000, 1000)
    os.chown(shared, 1000, 0)
    shared.chmod(0o640)
    own = tmp_path / "own"
    own.touch(0o400)
    (tmp_path / "link").symlink_to(key)
    asked = [home / "config", key, tmp_path / "link", shared, own, tmp_path / "none"]
    assert list(unreadable(map(str, asked))) == [
        f"{home}/config: {home} is user 1000's alone",
        f"{key}: {key} is user 1000's alone",
        f"{tmp_path}/link: {key} is user 1000's alone",
        f"{tmp_path}/none: No such file or directory",
    ]


def test_what_everybody_may_read_is_readable() -> None:
    assert list(unreadable(["/", "/proc/version"])) == []
