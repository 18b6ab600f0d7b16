"""Who the pods of a lab are to the machine: a range of ids that are nobody's, where there is one.

Root takes the subordinate ids that /etc/subuid and /etc/subgid give it, or some that nobody uses; others have subordinate ids or none, and
newuidmap(1) and newgidmap(1) to use them. Who writes the map of a user namespace that has more than its maker's own id is a process
that stays outside (user_namespaces(7)).
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import socket
from collections.abc import Sequence
from pathlib import Path

import msgspec

from podplane.kernel import ids, layers, rootfs, syscalls, user_limits

UNUSED = 0x7000_0000
"""For root without subordinate ids: above those that systemd-nspawn takes, below those that systemd keeps for files of others
(systemd, docs/UIDS-GIDS.md)."""
MESSAGE_BYTES = 1024
CHANGED = ("etc", "usr", "var")
"""Folders that programs in pods may have to change: what installs them, and what keeps data."""
OWN_MAP = Path("/proc/self/uid_map")
SUBORDINATE_USERS, SUBORDINATE_GROUPS = Path("/etc/subuid"), Path("/etc/subgid")


class Users(msgspec.Struct, frozen=True):
    """The first of the `ids.COUNT` users and groups that are the pods', 0 for none; with `shares_own`, their user 0 is the lab's."""

    user: int = 0
    group: int = 0
    is_root: bool = False
    shares_own: bool = False

    @property
    def maps(self) -> tuple[str, str]:
        """The lab's uid_map and gid_map."""
        own = (os.getuid(), self.user), (os.getgid(), self.group)
        first, second = (ids.lab_map(*pair, shares_own=self.shares_own) for pair in own)
        return first, second


def find(*, shows_homes: bool) -> Users:
    """Those that this user may give away. Pods of an ordinary user are that user where they are to read what nobody else may: homes, or
    podplane itself."""
    uid = os.getuid()
    names = _names(uid)
    user, group = (first_of(_read(path), names) for path in (SUBORDINATE_USERS, SUBORDINATE_GROUPS))
    if uid == 0:
        first = user if user == group and user else UNUSED
        return Users(first, first, is_root=True) if is_mapped(_read(OWN_MAP), first) else Users()
    if not user or not group or not (shutil.which("newuidmap") and shutil.which("newgidmap")):
        return Users()
    return Users(user, group, shares_own=shows_homes or not all(map(rootfs.everybody_reads, rootfs.OWN)))


def first_of(text: str, names: tuple[str, ...]) -> int:
    """The first id of the first range of `ids.COUNT` or more that one of these names (or the number of a user) has in the text of a
    subuid(5); 0 without."""
    for line in text.splitlines():
        name, _, numbers = line.partition(":")
        first, _, count = numbers.partition(":")
        if name in names and first.isdecimal() and count.isdecimal() and int(count) >= ids.COUNT:
            return int(first)
    return 0


def is_mapped(uid_map: str, first: int) -> bool:
    """Are there `ids.COUNT` ids from `first` on in the user namespace with this map? In that of a container often not."""
    ranges = [(int(inside), int(count)) for inside, _, count in map(str.split, uid_map.splitlines())]
    return any(inside <= first and first + ids.COUNT <= inside + count for inside, count in ranges)


def _names(uid: int) -> tuple[str, ...]:
    try:
        return str(uid), pwd.getpwuid(uid).pw_name
    except KeyError:
        return (str(uid),)


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def mount_layers(place: Path, users: Users, host: Sequence[str] = ()) -> list[str]:
    """Have the machine's folders, and host paths that are allowed, for pods of these ids below `place`, in a mount namespace of this
    process' own; where that can't be, there is nothing. Those of `CHANGED` that are not there."""
    with contextlib.suppress(OSError):
        place.mkdir(mode=0o700, exist_ok=True)
        syscalls.unshare(syscalls.CLONE_NEWNS)
        syscalls.mount("none", "/", None, syscalls.MS_REC | syscalls.MS_PRIVATE)
        names = [name for name in rootfs.folders() if name not in rootfs.FRESH]
        layers.prepare(os.fspath(place), names, rootfs.HOMES, rootfs.OWN, users.user, host, rootfs.HIDDEN_FOLDERS)
    return [f"/{name}" for name in CHANGED if os.path.isdir(f"/{name}") and name not in layers.prepared(os.fspath(place))]


def enter(users: Users) -> str:
    """Enter a new user namespace, in which this user is root; "", or why the pods get no ids of their own. OSError: there can be none."""
    own = [f"0 {number} 1" for number in (os.getuid(), os.getgid())]
    outside = user_limits.here()
    user_limits.of_lab(has_own_user=users.is_root)
    why = _enter(users, own)
    user_limits.in_lab(outside, has_own_user=users.is_root)
    return why


def _enter(users: Users, own: Sequence[str]) -> str:
    if not users.user:
        syscalls.unshare(syscalls.CLONE_NEWUSER)
        _map_own(*own)
        return ""
    ours, theirs = socket.socketpair()
    helper = _fork_helper(os.getpid(), users, ours, theirs)
    try:
        with ours:
            _make_namespace(users)
            ours.send(b"entered")
            why = ours.recv(MESSAGE_BYTES).decode()
    finally:
        os.waitpid(helper, 0)
    _map_own(*own)
    if users.is_root:
        os.seteuid(0)
        syscalls.set_dumpable(is_dumpable=True)
    return why.strip() if why else "the process that maps them ended before it did"


def _make_namespace(users: Users) -> None:
    """Root makes it as the first of the pods' users: for whoever makes it counts what is used up in there (`kernel.user_limits`)."""
    if users.is_root:
        with contextlib.suppress(OSError):  # it is said later why it can't be that user
            syscalls.keep_capabilities()
            os.seteuid(users.user)
    syscalls.unshare(syscalls.CLONE_NEWUSER)


def _map_own(uid_map: str, gid_map: str) -> None:
    """Map this user alone, where there is no map yet."""
    for name, text in (("uid_map", uid_map), ("gid_map", gid_map)):
        if not Path("/proc/self", name).read_text():
            if name == "gid_map":
                Path("/proc/self/setgroups").write_text("deny")
            Path("/proc/self", name).write_text(text)


def _fork_helper(target: int, users: Users, ours: socket.socket, theirs: socket.socket) -> int:
    """A process outside, which writes the maps of `target` when it is told to, and says "" (a blank) or why it couldn't."""
    pid = os.fork()
    if pid:
        theirs.close()
        return pid
    try:
        ours.close()
        if theirs.recv(MESSAGE_BYTES):
            theirs.send((_write(target, users) or " ").encode())
    finally:
        os._exit(0)


def _write(target: int, users: Users) -> str:
    try:
        if users.is_root:
            ids.write_maps(target, *users.maps)
            return ""
    except OSError as error:
        with contextlib.suppress(OSError):  # else it maps itself, if it may
            ids.write_maps(target, "0 0 1", "0 0 1")
        return f"ids from {users.user} on can't be mapped here ({error.strerror})"
    for program, text in zip(("newuidmap", "newgidmap"), users.maps, strict=True):
        pid = os.posix_spawnp(program, [program, str(target), *text.split()], os.environ)
        if os.waitpid(pid, 0)[1]:
            return f"{program} refuses the ids that {SUBORDINATE_USERS} and {SUBORDINATE_GROUPS} give this user"
    return ""
