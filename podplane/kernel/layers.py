"""The machine's folders as pods of other ids see them: theirs to change, and no more to be read than by anybody.

A pod whose ids are nobody's on the machine could change nothing below /etc, /usr and /var, whose folders are root's. So each folder of /
is mounted once more with the owners moved into the range of the pods (an idmapped mount): a pod's root owns there what root owns, and
copies it up into its own overlay when it changes it. It would also read all that root reads. Therefore an overlay without an upper layer
lies between, made by a process that is nobody and may do nothing: who reads through an overlay must be allowed to by its own ids and also
by those of the process that mounted it (Documentation/filesystems/overlayfs.rst, "Permission model"). For some files that are closed so,
programs get others (`kernel.stand_ins`).
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import re
from collections.abc import Collection, Iterable, Iterator, Sequence

from podplane.kernel import ids, rights, stand_ins, syscalls
from podplane.kernel.syscalls import MOUNT_ATTR_NODEV, MOUNT_ATTR_RDONLY, MS_NODEV, MS_RDONLY

NOBODY = 65534
"""Whose files are moved away with all others, so that it owns nothing."""
MOUNTS = "/proc/self/mountinfo"
MOVED, OWN, STAND_INS, HOST = ".moved", ".own", ".instead", ".host"
_libc = ctypes.CDLL(None)


def prepare(
    place: str,
    names: Iterable[str],
    whole: Collection[str],
    own: Iterable[str],
    subordinate: int,
    host: Iterable[str] = (),
    unseen: Sequence[str] = (),
) -> None:
    """Mount these folders of / below `place` (an empty folder), for pods whose ids begin at `subordinate`. Pods read what root reads in
    those that are `whole`, and in the paths that are podplane's `own`; they do what root does in the `host` paths.

    The caller is root of the user namespace that mounted them, and has a mount namespace of its own. What can't be mounted so (file
    systems without idmapped mounts, a kernel older than 5.19, a folder with other mounts in it, but below `unseen` ones) is not there.
    """
    with contextlib.suppress(OSError):
        syscalls.mount("tmpfs", place, "tmpfs", 0, "mode=755")
        for folder in (MOVED, OWN, STAND_INS, HOST):
            os.mkdir(f"{place}/{folder}")
        fd = ids.user_namespace(f"0 {subordinate} {ids.COUNT}")
        try:
            with _inside(place):
                stand_ins.write(f"{place}/{STAND_INS}", subordinate)
                _mount_all(names, whole, fd, unseen)
                for path in sorted(own):  # one within another comes after it: its folder would hide that one
                    with contextlib.suppress(OSError):
                        _mount_moved(path, OWN + path, fd)
                for number, path in enumerate(host):
                    with contextlib.suppress(OSError):
                        _mount_moved(path, f"{HOST}/{number}", fd, read_only=False)
                        os.symlink(str(number), f"{HOST}/{_name(path)}")
        finally:
            os.close(fd)
            syscalls.set_dumpable(is_dumpable=True)  # changes of ids took that


@contextlib.contextmanager
def _inside(folder: str) -> Iterator[None]:
    """Work in a folder: what is there is found also by who may not search the folders above."""
    before = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    os.chdir(folder)
    try:
        yield
    finally:
        os.fchdir(before)
        os.close(before)


def _mount_all(names: Iterable[str], whole: Collection[str], user_namespace: int, unseen: Sequence[str]) -> None:
    covered = [point for point in _mount_points() if not f"{point}/".startswith(tuple(f"{path}/" for path in unseen))]
    for name in names:
        moved = f"{MOVED}/{name}"
        with contextlib.suppress(OSError):
            if not any(point.startswith(f"/{name}/") for point in covered):
                _mount_moved(f"/{name}", moved, user_namespace)
                _mount_as_nobody(moved, name, is_whole=name in whole)


def _name(path: str) -> str:
    """A path as the name of a link."""
    return path.replace("%", "%25").replace("/", "%2F")


def _mount_moved(source: str, target: str, user_namespace: int, *, read_only: bool = True) -> None:
    os.makedirs(target, exist_ok=True)
    try:
        syscalls.bind_with_ids(source, target, user_namespace, MOUNT_ATTR_NODEV | (MOUNT_ATTR_RDONLY if read_only else 0))
    except OSError:
        os.rmdir(target)
        raise


def _mount_as_nobody(source: str, target: str, *, is_whole: bool) -> None:
    if is_whole:
        os.symlink(source, target)
        return
    above = f"{STAND_INS}/{target}"
    os.makedirs(above, exist_ok=True)
    os.mkdir(target)
    try:
        with _nobody():
            syscalls.mount("overlay", target, "overlay", MS_RDONLY | MS_NODEV, f"lowerdir={above}:{source},userxattr")
    except OSError:
        os.rmdir(target)
        raise


@contextlib.contextmanager
def _nobody() -> Iterator[None]:
    """Be a user who owns nothing, and have no right but to mount."""
    own_user, own_group = os.geteuid(), os.getegid()
    _libc.setfsgid(NOBODY)
    _libc.setfsuid(NOBODY)
    try:
        with rights.only("SYS_ADMIN"):
            yield
    finally:
        _libc.setfsuid(own_user)
        _libc.setfsgid(own_group)


def _mount_points() -> list[str]:
    with open(MOUNTS) as file:
        return [re.sub(r"\\(\d{3})", lambda found: chr(int(found[1], 8)), line.split(" ")[4]) for line in file]


@functools.cache
def prepared(place: str) -> frozenset[str]:
    """The folders that are there; none where nothing was prepared."""
    try:
        return frozenset(os.listdir(place))
    except OSError:
        return frozenset()


def own(place: str, path: str) -> str:
    """Where a path of podplane's own is, for pods; "" where it wasn't prepared."""
    return f"{place}/{OWN}{path}" if place and os.path.isdir(f"{place}/{OWN}{path}") else ""


def host(place: str, path: str) -> str:
    """Where a host path is, for pods; "" where it wasn't prepared."""
    return os.path.realpath(f"{place}/{HOST}/{_name(path)}") if place and os.path.isdir(f"{place}/{HOST}/{_name(path)}") else ""
