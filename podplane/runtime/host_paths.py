"""hostPath volumes: the machine's own folder where `up` allowed that, else what the container sees of the machine anyhow, or a refusal.

Where containers see nothing of the machine, an empty folder would stand for one that may be there: that is refused, whatever is there, and
nobody learns what that is.
"""

from __future__ import annotations

import os
import stat

import msgspec

from podplane.kernel import ids, layers, rootfs, volumes
from podplane.kernel.rootfs import Bind
from podplane.model.pod import HostPath
from podplane.runtime.environment import ConfigError
from podplane.runtime.volumes import check_host_path

MADE_FOLDERS, MADE_FILES = ("", "DirectoryOrCreate"), ("FileOrCreate",)
FOLDERS = (*MADE_FOLDERS, "Directory")
OWN_IN_CONTAINERS = ("proc", "sys")
"""Folders that containers have in a form of their own, which serves."""
OPTION = "--allow-host-paths"
MAX_STEPS = 4096
"""Names on the way to a path, with those of links."""


class HostPaths(msgspec.Struct, frozen=True):
    """What `up` allowed, which are real paths of folders, and what containers do not see beside `rootfs.HIDDEN_FOLDERS`; `layers`: where
    `kernel.layers` has the allowed folders for pods of other ids, if anywhere. `up` is the command line that starts the lab."""

    allowed: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()
    shows_homes: bool = False
    layers: str = ""
    up: str = "podplane up"

    def check(self, volume: HostPath) -> None:
        """Make what is to be made of an allowed one. ConfigError unless the machine has what its type wants, and containers see it."""
        path = _plain(volume.path)
        if (root := self._root_of(path)) is not None:
            self._make(root, path, volume.type)
            _check_within(root, path, volume)
            return
        self._see(path, volume.type)
        check_host_path(volume)

    def _see(self, path: str, kind: str = "") -> None:
        """ConfigError when containers do not see what the machine has there; it does not depend on whether there is anything."""
        if why := self._hides(path) or self._hides(os.path.realpath(path)):
            folder = path if kind in FOLDERS else os.path.dirname(path)
            raise ConfigError(f"hostPath {path}: {why}; `{self.up} {OPTION} {folder}` gives what is there")
        if not ids.of_pods().are_the_labs and (closed := _closed_above(path)):
            raise ConfigError(f"hostPath {path}: pods may not look into {closed} of the machine")

    def bind(self, path: str, below: str, target: str, *, read_only: bool) -> Bind:
        """How a container gets it, or what is `below`. ConfigError when containers do not see that."""
        whole = _plain(f"{path}/{below}")
        root = self._root_of(whole)
        if root is None:
            if below:
                self._see(whole)
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
        except volumes.VolumeError as error:
            raise ConfigError(f"hostPath {path} can't be made: {error.why}") from None
        except OSError as error:
            raise ConfigError(f"hostPath {path} can't be made: {error.strerror}") from None

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


def _check_within(root: str, path: str, volume: HostPath) -> None:
    """ConfigError unless there is in this folder what the volume's type wants: no link there tells what the machine has elsewhere."""
    try:
        fd = volumes.beneath(root, os.path.relpath(path, root))
    except volumes.VolumeError as error:
        raise ConfigError(f"hostPath {path}: {error.why}") from None
    try:
        check_host_path(volume, f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)


def _closed_above(path: str) -> str:
    """The first folder on the way to what a path leads to that not everybody may search, "" for none. In there nothing is looked at."""
    here, names = "/", path.split("/")[::-1]
    for _ in range(MAX_STEPS):
        if not names:
            return ""
        place = os.path.normpath(f"{here}/{names.pop()}")
        try:
            if not os.stat(here).st_mode & stat.S_IXOTH:
                return here
            if os.path.islink(place):
                target = os.readlink(place)
                names += target.split("/")[::-1]
                here = "/" if target.startswith("/") else here
                continue
        except OSError:  # nothing is there, and nothing below
            return ""
        here = place
    return path


def _exists(path: str) -> bool:
    """Is something there, or may this user not know?"""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True
