"""A hostPath is what its type says, or the pod does not start."""

from __future__ import annotations

import errno
import socket
from pathlib import Path

import pytest

from podplane.kernel import ids
from podplane.kernel.rootfs import Bind
from podplane.lab.host_paths import allowed_folders
from podplane.model.pod import HostPath
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
def test_what_pods_do_not_see_is_refused(path: str) -> None:
    with pytest.raises(ConfigError, match="--allow-host-paths"):
        HostPaths().check(HostPath(path=path))


@pytest.mark.parametrize(
    "path", ["/", "/etc", "/usr/lib", "/proc", "/sys/fs", "/dev", "/dev/null", "/dev/shm/x", "/var/log-of-others"]
)
def test_what_pods_see_is_taken(path: str) -> None:
    HostPaths().check(HostPath(path=path))
    assert HostPaths().bind(path, "", "/seen", read_only=False) == Bind(path, "/seen", inside=True)


@pytest.mark.parametrize("kind", ["", *HOST_PATH_TYPES])
def test_what_is_in_a_folder_that_pods_do_not_see_is_not_told(tmp_path: Path, kind: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("/etc")
    (tmp_path / "closed").mkdir(0)
    hidden = HostPaths(hidden=(str(tmp_path),))
    said = set()
    for name in ("folder", "file", "link", "none", "link/none", "closed/none", "none/none", "file/none"):
        path = str(tmp_path / name)
        with pytest.raises(ConfigError) as refused:
            hidden.check(HostPath(path=path, type=kind))
        said.add(str(refused.value).replace(path, "PATH").replace(str(Path(path).parent), "FOLDER"))
        with pytest.raises(ConfigError, match="do not see"):
            hidden.bind("/", path, "/seen", read_only=True)
    assert len(said) == 1


def test_a_link_to_what_pods_do_not_see_is_refused(tmp_path: Path) -> None:
    hidden = HostPaths(hidden=(str(tmp_path),))
    link = tmp_path.with_name("link-to-it")
    link.symlink_to(tmp_path)
    with pytest.raises(ConfigError, match="do not see this folder"):
        hidden.check(HostPath(path=str(link)))


def test_what_up_allowed_is_the_machines_and_made_there(tmp_path: Path) -> None:
    allowed = HostPaths(allowed=(str(tmp_path),), hidden=(str(tmp_path),))
    for name, kind in {"a/b": "", "c": "DirectoryOrCreate", "d/file": "FileOrCreate"}.items():
        allowed.check(HostPath(path=str(tmp_path / name), type=kind))
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == ["a", "a/b", "c", "d", "d/file"]
    with pytest.raises(ConfigError, match="there is nothing in the volume"):
        allowed.check(HostPath(path=str(tmp_path / "none"), type="Directory"))
    with pytest.raises(ConfigError, match="c is not a socket file"):
        allowed.check(HostPath(path=str(tmp_path / "c"), type="Socket"))
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


@pytest.mark.parametrize("kind", ["", *HOST_PATH_TYPES])
def test_a_link_in_an_allowed_folder_does_not_tell_what_is_elsewhere(tmp_path: Path, kind: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "secret").touch()
    (tmp_path / "secrets").mkdir()
    allowed = HostPaths(allowed=(str(tmp_path / "folder"),))
    said = set()
    for name in ("secret", "secrets", "none", "none/none", "secrets/none"):
        (tmp_path / "folder" / "link").symlink_to(tmp_path / name)
        with pytest.raises(ConfigError) as refused:
            allowed.check(HostPath(path=str(tmp_path / "folder" / "link"), type=kind))
        said.add(str(refused.value))
        (tmp_path / "folder" / "link").unlink()
    assert len(said) == 1 and "leads out" in said.pop()


def test_what_pods_of_other_ids_may_not_search_is_not_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ids, "of_pods", lambda: ids.Ids(65536, 65536))
    monkeypatch.setattr(HostPaths, "_hides", lambda *_: "")
    for folder in (tmp_path, *tmp_path.parents[:-2]):
        folder.chmod(0o755)
    closed = tmp_path / "closed"
    closed.mkdir(0o700)
    (closed / "file").touch()
    (closed / "link").symlink_to("/etc")
    (tmp_path / "way").symlink_to("closed")
    for path in (closed / "file", closed / "none", closed / "link", closed / "link" / "x", tmp_path / "way" / "file"):
        with pytest.raises(ConfigError, match=f"pods may not look into {closed} of the machine"):
            HostPaths().check(HostPath(path=str(path), type="File"))
    HostPaths().check(HostPath(path=str(tmp_path / "way"), type="Directory"))
    (tmp_path / "round").symlink_to("round/x")
    with pytest.raises(ConfigError):
        HostPaths().check(HostPath(path=str(tmp_path / "round"), type="File"))


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
