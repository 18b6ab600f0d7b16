"""hostPath volumes: the machine's own folder where `up` allowed that, else what the container sees of the machine anyhow, or a refusal.

Where containers see nothing of the machine, an empty folder would stand for one that is there: that is refused.
"""

from __future__ import annotations

import os

import msgspec

from podplane.kernel import layers, rootfs, volumes
from podplane.kernel.rootfs import Bind
from podplane.model.pod import HostPath
from podplane.runtime.environment import ConfigError
from podplane.runtime.volumes import check_host_path

MADE_FOLDERS, MADE_FILES = ("", "DirectoryOrCreate"), ("FileOrCreate",)
OWN_IN_CONTAINERS = ("proc", "sys")
"""Folders that containers have in a form of their own, which serves."""
OPTION = "--allow-host-paths"


class HostPaths(msgspec.Struct, frozen=True):
    """What `up` allowed, which are real paths of folders, and what containers do not see beside `rootfs.HIDDEN_FOLDERS`; `layers`: where
    `kernel.layers` has the allowed folders for pods of other ids, if anywhere."""

    allowed: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()
    shows_homes: bool = False
    layers: str = ""

    def check(self, volume: HostPath) -> None:
        """Make what is to be made of an allowed one. ConfigError unless the machine has what its type wants, and containers see it."""
        path = _plain(volume.path)
        if (root := self._root_of(path)) is not None:
            self._make(root, path, volume.type)
            check_host_path(volume)
            return
        check_host_path(volume)
        real = os.path.realpath(path)
        if (is_hidden := self._hides(path) or self._hides(real)) and _exists(path):
            folder = path if os.path.isdir(path) else os.path.dirname(path)
            raise ConfigError(f"hostPath {path}: {is_hidden}; `podplane up {OPTION} {folder}` gives what is there")

    def bind(self, path: str, below: str, target: str, *, read_only: bool) -> Bind:
        """How a container gets it, or what is `below`."""
        whole = _plain(f"{path}/{below}")
        root = self._root_of(whole)
        if root is None:
            return Bind(whole, target, read_only, inside=True)
        return Bind(layers.host(self.layers, root) or root, target, read_only, below=os.path.relpath(whole, root))

    def _root_of(self, path: str) -> str | None:
        """The allowed folder in which it lies."""
        return next((root for root in self.allowed if rootfs.is_below(path, root)), None)

    def _make(self, root: str, path: str, kind: str) -> None:
        if kind not in (*MADE_FOLDERS, *MADE_FILES) or _exists(path):
            return
        folder = path if kind in MADE_FOLDERS else os.path.dirname(path)
        try:
            fd = volumes.beneath(root, os.path.relpath(folder, root), make=True)
            try:
                if kind in MADE_FILES:
                    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
                    os.close(os.open(os.path.basename(path), flags, 0o644, dir_fd=fd))
            finally:
                os.close(fd)
        except (OSError, volumes.VolumeError) as error:
            raise ConfigError(f"hostPath {path} can't be made: {error}") from None

    def _hides(self, path: str) -> str:
        """Why containers do not see what the machine has there, "" when they do."""
        name, _, rest = path.strip("/").partition("/")
        if name == "dev":
            known = (*rootfs.DEVICES, *rootfs.DEVICE_LINKS, "", "shm", "pts", "mqueue")
            return "" if rest.startswith(("shm/", "pts/", "fd/")) or rest in known else "pods have no devices but the usual"
        homes = () if self.shows_homes else rootfs.HOMES
        empty = {*rootfs.FRESH, *rootfs.LEFT_OUT, *homes, *(folder for folder, _ in rootfs.machine().empty)} - {
            *OWN_IN_CONTAINERS
        }
        if name in empty or any(rootfs.is_below(path, folder) for folder in (*rootfs.HIDDEN_FOLDERS, *self.hidden)):
            return "pods do not see this folder of the machine (docs/security.md)"
        return ""


def _plain(path: str) -> str:
    return os.path.normpath(f"/{path.lstrip('/')}")


def _exists(path: str) -> bool:
    """Is something there, or may this user not know?"""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True
