"""A hostPath is what its type says, or the pod does not start."""

from __future__ import annotations

import errno
import socket
from pathlib import Path

import pytest

from podplane.model.pod import HostPath
from podplane.runtime.environment import ConfigError
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
