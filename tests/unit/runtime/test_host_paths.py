"""A hostPath is what its type says, or the pod does not start."""

from __future__ import annotations

import errno
import socket
from pathlib import Path

import pytest

from podplane.kernel.rootfs import Bind
from podplane.lab.host_paths import allowed_folders
from podplane.model.pod import HostPath
from podplane.runtime import host_paths
from podplane.runtime.environment import ConfigError
from podplane.runtime.host_paths import HostPaths
from podplane.runtime.volumes import HOST_PATH_TYPES, check_host_path

RIGHT = {
    "folder": {"Directory", "DirectoryOrCreate"},
    "file": {"File", "FileOrCreate"},
    "socket": {"Socket"},
    "null": {"CharDevice"},
    "missing": {"DirectoryOrCreate"},
}


@pytest.mark.parametrize("kind", RIGHT)
def test_each_type_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    monkeypatch.chdir(tmp_path)  # the path of a socket is short
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind("socket")
        path = "/dev/null" if kind == "null" else str(tmp_path / kind)
        assert {name for name in HOST_PATH_TYPES if _is_taken(path, name)} == RIGHT[kind]
        check_host_path(HostPath(path=path))


def _is_taken(path: str, name: str) -> bool:
    try:
        check_host_path(HostPath(path=path, type=name))
    except ConfigError as error:
        assert str(error).startswith(f"hostPath type check failed: {path} is not a ")
        return False
    return True


@pytest.mark.parametrize("name", HOST_PATH_TYPES)
def test_what_this_user_may_not_look_at_is_named(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "stat", refuse)
    with pytest.raises(ConfigError, match="hostPath type check failed: /root/x: Permission denied"):
        check_host_path(HostPath(path="/root/x", type=name))


@pytest.mark.parametrize(
    "path", ["/var/log", "/var/log/", "/tmp", "/root", "/var/../root", "/run", "/dev/kmsg-none", "/dev/loop-control"]
)
def test_what_pods_do_not_see_is_refused(monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    monkeypatch.setattr(host_paths, "_exists", lambda _: True)
    with pytest.raises(ConfigError, match="--allow-host-paths"):
        HostPaths().check(HostPath(path=path))


@pytest.mark.parametrize(
    "path", ["/", "/etc", "/usr/lib", "/proc", "/sys/fs", "/dev", "/dev/null", "/dev/shm/x", "/var/log-of-others"]
)
def test_what_pods_see_is_taken(path: str) -> None:
    HostPaths().check(HostPath(path=path))
    assert HostPaths().bind(path, "", "/seen", read_only=False) == Bind(path, "/seen", inside=True)


def test_what_is_not_there_is_the_pods_own(tmp_path: Path) -> None:
    hidden = HostPaths(hidden=(str(tmp_path),))
    hidden.check(HostPath(path=str(tmp_path / "new"), type="DirectoryOrCreate"))
    assert not (tmp_path / "new").exists()
    with pytest.raises(ConfigError, match="do not see this folder"):
        hidden.check(HostPath(path=str(tmp_path)))
    link = tmp_path.with_name("link-to-it")
    link.symlink_to(tmp_path)
    with pytest.raises(ConfigError, match="do not see this folder"):
        hidden.check(HostPath(path=str(link)))


def test_what_up_allowed_is_the_machines_and_made_there(tmp_path: Path) -> None:
    allowed = HostPaths(allowed=(str(tmp_path),), hidden=(str(tmp_path),))
    for name, kind in {"a/b": "", "c": "DirectoryOrCreate", "d/file": "FileOrCreate"}.items():
        allowed.check(HostPath(path=str(tmp_path / name), type=kind))
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == ["a", "a/b", "c", "d", "d/file"]
    with pytest.raises(ConfigError, match="is not a directory"):
        allowed.check(HostPath(path=str(tmp_path / "none"), type="Directory"))
    assert allowed.bind(f"{tmp_path}/a", "b", "/seen", read_only=True) == Bind(
        str(tmp_path), "/seen", read_only=True, below="a/b"
    )
    assert allowed.bind(str(tmp_path), "", "/seen", read_only=False) == Bind(str(tmp_path), "/seen", below=".")


def test_what_leads_out_of_an_allowed_folder_is_not_made(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "out").symlink_to("..")
    allowed = HostPaths(allowed=(str(tmp_path / "folder"),))
    with pytest.raises(ConfigError, match="leads out"):
        allowed.check(HostPath(path=str(tmp_path / "folder" / "out" / "new")))
    assert not (tmp_path / "new").exists()
    assert allowed.bind(f"{tmp_path}/folder/../new", "", "/seen", read_only=False).inside


@pytest.mark.parametrize("text", ["/", "relative", "/none/here", "{labs}", "{labs}/lab", "{above}"])
def test_folders_that_can_not_be_allowed(tmp_path: Path, text: str) -> None:
    labs = tmp_path / "labs"
    (labs / "lab").mkdir(parents=True)
    with pytest.raises(ValueError, match="give "):
        allowed_folders(text.format(labs=labs, above=tmp_path), str(labs))


def test_folders_that_can_be_allowed(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "real").mkdir()
    assert allowed_folders(f"{tmp_path}/link, /etc,", "/labs") == (str(tmp_path / "real"), "/etc")
    assert allowed_folders("", "/labs") == ()
