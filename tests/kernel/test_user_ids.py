"""What a lab does where it has no ids to give away, or may not move the owners of files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from podplane.kernel import ids, layers, syscalls
from podplane.kernel.ids import COUNT, FIRST, Ids
from podplane.lab import user_ids
from podplane.lab.user_ids import Users

pytestmark = pytest.mark.kernel


def programs(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Have programs of these names there."""
    for name in ("newuidmap", "newgidmap"):
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def test_ids_that_are_refused_leave_a_user_his_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs(tmp_path, monkeypatch, f'echo "$0 $@" >>{tmp_path}/said; exit 1')
    assert user_ids.enter(Users(100000, 200000)) == (
        "newuidmap refuses the ids that /etc/subuid and /etc/subgid give this user"
    )
    assert ids.given(Path("/proc/self/uid_map").read_text()) == Ids()
    assert Path("/proc/self/gid_map").read_text().split() == ["0", "0", "1"]
    syscalls.unshare(syscalls.CLONE_NEWNS)  # it is root there
    own = f"newuidmap {os.getpid()} 0 0 1 {FIRST} 100000 {COUNT}\n"
    assert (tmp_path / "said").read_text().endswith(own)


def test_root_that_may_not_map_ids_says_so() -> None:
    why = user_ids.enter(Users(user_ids.UNUSED, user_ids.UNUSED, is_root=True))
    assert why == f"ids from {user_ids.UNUSED} on can't be mapped here (Operation not permitted)"
    assert Path("/proc/self/uid_map").read_text().split() == ["0", "0", "1"]


def test_a_process_that_ends_before_it_maps_ids_leaves_a_user_his_own(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(target: int, users: Users) -> str:
        raise PermissionError(target, users)

    monkeypatch.setattr(user_ids, "_write", broken)
    assert user_ids.enter(Users(100000, 200000)) == "the process that maps them ended before it did"
    assert Path("/proc/self/uid_map").read_text().split() == ["0", "0", "1"]


def test_who_has_one_id_and_no_others_is_told_nothing() -> None:
    assert user_ids.enter(Users()) == ""
    assert Path("/proc/self/uid_map").read_text().split() == ["0", "0", "1"]


def test_folders_that_pods_can_not_change_are_named(tmp_path: Path) -> None:
    (tmp_path / "layers").mkdir()
    assert user_ids.mount_layers(tmp_path / "layers", Users(1, 1, is_root=True)) == ["/etc", "/usr", "/var"]


def test_folders_whose_owners_can_not_be_moved_are_not_there(tmp_path: Path) -> None:
    before = os.getcwd()
    place, program = tmp_path / "layers", tmp_path / "program"
    for folder in (place, program):
        folder.mkdir()
    layers.prepare(str(place), ["usr", "etc"], ["usr"], [str(program)], 1)
    assert not {"usr", "etc"} & layers.prepared(str(place))
    assert layers.own(str(place), str(program)) == ""
    assert os.getcwd() == before


@pytest.mark.parametrize(
    ("text", "there", "expected"),
    [("7:100000:65536\n", True, Users(100000, 100000)), ("", True, Users()), ("7:100000:65536\n", False, Users())],
)
def test_who_gives_what_away(text: str, there: bool, expected: Users, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "given").write_text(text)
    for name in ("SUBORDINATE_USERS", "SUBORDINATE_GROUPS"):
        monkeypatch.setattr(user_ids, name, tmp_path / "given")
    monkeypatch.setattr(os, "getuid", lambda: 7)
    monkeypatch.setattr(user_ids.rootfs, "OWN", set())
    monkeypatch.setenv("PATH", str(tmp_path))
    if there:
        programs(tmp_path, monkeypatch, "exit 0")
    assert user_ids.find(shows_homes=False) == expected
    if expected.user:
        assert user_ids.find(shows_homes=True).shares_own, "pods that are to see homes are the user"
