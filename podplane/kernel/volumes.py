"""Volumes of pods as the kernel has them: file systems in memory that have a size, and what a path in a volume leads to."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Sequence

import msgspec

from podplane.kernel import syscalls
from podplane.kernel.syscalls import MS_NODEV, MS_NOSUID

BYTES_PER_FILE = 4096
"""A tmpfs holds one file for so many bytes of its size: each costs the kernel some 1 KiB beside it."""
FEWEST_FILES = 16
MODE = 0o755
"""Of folders that lead to a mount point."""
LOOKUPS = 32
"""How often a path in a volume is looked up while something moves there."""


class Tmpfs(msgspec.Struct, frozen=True):
    """A file system in memory for volumes of a pod: it holds `size` bytes, at `path`, which is made if it is missing.

    All may write to it, or to these `folders` in it if there are any. What is made there belongs to this `group` of the pod, if any.
    """

    path: str
    size: int
    folders: Sequence[str] = ()
    group: int | None = None


def mount(one: Tmpfs, owner: int = 0) -> None:
    """Have the file system there, for user 0 of pods, which is `owner` of the lab. OSError when that can't be."""
    os.makedirs(one.path, exist_ok=True)
    mode, group = (0o777, owner) if one.group is None else (0o2777, owner + one.group)
    options = f"{tmpfs_options(one.size, '755' if one.folders else f'{mode:o}')},uid={owner},gid={group}"
    syscalls.mount("tmpfs", one.path, "tmpfs", MS_NOSUID | MS_NODEV, options)
    for name in one.folders:
        path = f"{one.path}/{name}"
        os.mkdir(path)
        os.chown(path, owner, group)
        os.chmod(path, mode)


def tmpfs_options(size: int, mode: str) -> str:
    """Those of a tmpfs that holds so many bytes, 0 for half of the machine's memory; `mode` is that of its folder."""
    return f"mode={mode},size={size},nr_inodes={max(FEWEST_FILES, size // BYTES_PER_FILE)}" if size else f"mode={mode}"


class VolumeError(Exception):
    """What a volume shall give is not there, or leads out of it; one line that says so. It may be another time. `why` is its end."""

    def __init__(self, path: str, why: str) -> None:
        super().__init__(f"subPath {path!r}: {why}")
        self.why = why


def beneath(volume: str, path: str, *, make: bool = False) -> int:
    """A descriptor (O_PATH) of what the path leads to in the volume, links in there followed; folders that are missing are made if that is
    wanted. VolumeError where there is nothing, or it leads elsewhere.

    It is looked up once, by the kernel: whatever containers do in the volume meanwhile, nothing else can be mounted.
    """
    folder = os.open(volume, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return _look_up(folder, path, _Making(stat.S_IMODE(os.fstat(folder).st_mode)) if make else None)
    except FileNotFoundError:
        raise VolumeError(path, "there is nothing in the volume") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        if isinstance(error, OSError) and error.errno == errno.EXDEV:
            raise VolumeError(path, "it leads out of its volume") from None
        raise VolumeError(path, reason) from None
    finally:
        os.close(folder)


def mount_point(path: str, *, is_folder: bool) -> int:
    """A descriptor (O_PATH) of a folder or file in this process' root, made if it is missing. OSError when that can't be.

    No link of /proc leads there: those of descriptors lead out of a container whose mounts are being made, to the machine.
    """
    root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return _look_up(root, path, _Making(MODE, is_folder, as_root=True))
    finally:
        os.close(root)


class _Making(msgspec.Struct, frozen=True):
    """What is made where something is missing: folders of a mode, and at the end a folder or a file."""

    mode: int
    is_folder: bool = True
    as_root: bool = False


def _look_up(folder: int, path: str, making: _Making | None) -> int:
    as_root = making is not None and making.as_root
    try:
        return _open(folder, path, as_root)
    except FileNotFoundError:
        if making is None:
            raise
    parts = [part for part in path.split("/") if part]
    above = os.dup(folder)
    for number, name in enumerate(parts, 1):
        try:
            with contextlib.suppress(FileExistsError):
                if making.is_folder or number < len(parts):
                    _make_folder(name, making.mode, above)
                else:
                    os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o644, dir_fd=above))
            found = _open(folder, "/".join(parts[:number]), as_root)
        finally:
            os.close(above)
        above = found
    return above


def _open(folder: int, path: str, as_root: bool) -> int:
    """EAGAIN means that something was moved while the kernel looked whether a `..` leads out (openat2(2))."""
    for _ in range(LOOKUPS):
        with contextlib.suppress(BlockingIOError):
            return syscalls.open_within(folder, path, os.O_PATH, as_root=as_root)
    raise OSError(errno.EAGAIN, "its volume changes all the time")


def _make_folder(name: str, mode: int, above: int) -> None:
    """A folder with the mode of its volume."""
    umask = os.umask(0)
    try:
        os.mkdir(name, mode, dir_fd=above)
    finally:
        os.umask(umask)
