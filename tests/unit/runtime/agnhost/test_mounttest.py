"""mounttest: what it makes, and what it says of files."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from podplane.runtime.agnhost.mounttest import file_system, written_mode
from tests.unit.runtime.agnhost.programs import Agnhost, agnhost

__all__ = ["agnhost"]


def test_a_new_file_and_what_it_is(agnhost: Agnhost, tmp_path: Path) -> None:
    file = tmp_path / "test-file"
    done = agnhost.run("mounttest", f"--new_file_0666={file}", f"--file_perm={file}", f"--file_owner={file}")
    assert done.stdout.splitlines() == [
        f'content of file "{file}": mount-tester new file',
        "",
        f'perms of file "{file}": -rw-rw-rw-',
        f'owner UID of "{file}": {os.getuid()}',
        f'owner GID of "{file}": {os.getgid()}',
    ]
    assert done.returncode == 0


@pytest.mark.parametrize(("flag", "mode"), [("0644", 0o644), ("0660", 0o660), ("0777", 0o777)])
def test_modes_of_new_files(agnhost: Agnhost, tmp_path: Path, flag: str, mode: int) -> None:
    file = tmp_path / "f"
    assert agnhost.run("mounttest", f"--new_file_{flag}={file}").returncode == 0
    assert stat.S_IMODE(file.stat().st_mode) == mode


def test_what_is_missing_is_said(agnhost: Agnhost, tmp_path: Path) -> None:
    done = agnhost.run("mounttest", f"--file_content={tmp_path}/none", f"--file_mode={tmp_path}")
    assert done.stdout.splitlines()[0].startswith(f'mode of file "{tmp_path}": d')
    assert done.stdout.splitlines()[1] == f'error of --file_content "{tmp_path}/none": no such file or directory'
    assert done.returncode == 1


def test_content_is_waited_for(agnhost: Agnhost, tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.write_text("mount-tester new file\n")
    assert agnhost.run("mounttest", f"--file_content_in_loop={file}").returncode == 0
    done = agnhost.run("mounttest", f"--file_content_in_loop={tmp_path}/none", "--retry_time=1")
    assert (done.returncode, "no such file or directory, retrying" in done.stdout) == (1, True)


@pytest.mark.parametrize(
    ("mode", "text"),
    [
        (stat.S_IFREG | 0o644, "-rw-r--r--"),
        (stat.S_IFDIR | 0o777, "drwxrwxrwx"),
        (stat.S_IFDIR | stat.S_ISVTX | 0o777, "dtrwxrwxrwx"),
        (stat.S_IFREG | stat.S_ISUID | 0o755, "urwxr-xr-x"),
        (stat.S_IFDIR | stat.S_ISGID | 0o750, "dgrwxr-x---"),
        (stat.S_IFCHR | 0o666, "Dcrw-rw-rw-"),
        (stat.S_IFIFO | 0o600, "prw-------"),
        (stat.S_IFSOCK | 0o700, "Srwx------"),
    ],
)
def test_a_mode_is_written_as_go_does(mode: int, text: str) -> None:
    assert written_mode(mode) == text


def test_the_file_system_is_that_of_the_last_mount_above() -> None:
    assert file_system("/proc/self/status") == "proc"
    assert file_system("/sys/kernel") == "sysfs"
    with pytest.raises(OSError, match="No such file"):
        file_system("/no/such/place")
