"""Users and groups of pods: which ids of the lab's user namespace they are.

A lab whose user namespace has a second range of ids gives all of it to its pods: user 0 of a pod is then nobody to the machine, and no
file of the lab is a pod's. A lab that has one id only, as ordinary users may make them, has pods with that one user.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from podplane.kernel import syscalls

FIRST, COUNT = 65536, 65536
"""Where in the lab's user namespace the pods' ids begin, and how many those are: one for each 16-bit number, as containers expect."""
SLEEP_SECONDS = 10
"""So long a process is there at most that was made for the sake of its namespaces; as a rule it is killed at once."""
_libc = ctypes.CDLL(None)


class Ids(NamedTuple):
    """Users and groups 0 to `size` - 1 of a pod are `first` and following in the lab's user namespace."""

    first: int = 0
    size: int = 1

    @property
    def map(self) -> str:
        """What /proc/PID/uid_map and gid_map of a pod's user namespace get (user_namespaces(7))."""
        if self.first or self.size == 1:
            return f"0 {self.first} {self.size}"
        return f"0 0 1\n1 1 {self.size - 1}"  # each line lies within one of the parent's

    def map_of(self, only: int) -> str:
        """The same; `only` is the number of the user of a pod that has one."""
        return f"{only} {self.first} 1" if self.size == 1 else self.map

    @property
    def are_the_labs(self) -> bool:
        """Is user 0 of a pod the lab's own user?"""
        return self.first == 0

    def __contains__(self, number: object) -> bool:
        return isinstance(number, int) and 0 <= number < self.size


def lab_map(own: int, subordinate: int, *, shares_own: bool) -> str:
    """The map of a lab's user namespace: `own` is the id of who runs it, `subordinate` the first one of COUNT for pods.

    With `shares_own`, user 0 of pods is that user too, and the range is for the others.
    """
    return f"0 {own} 1\n1 {subordinate} {COUNT - 1}" if shares_own else f"0 {own} 1\n{FIRST} {subordinate} {COUNT}"


def given(uid_map: str) -> Ids:
    """The ids of pods in a user namespace with this map, as /proc/PID/uid_map shows it."""
    extents = {int(inside): int(count) for inside, _, count in (line.split() for line in uid_map.splitlines())}
    if extents.get(FIRST, 0) >= COUNT:
        return Ids(FIRST, COUNT)
    if extents.get(0) == 1 and extents.get(1, 0) >= COUNT - 1:
        return Ids(0, COUNT)
    return Ids()


@functools.cache
def of_pods() -> Ids:
    """Those of this process' user namespace, which must not change any more."""
    return min(given(Path(f"/proc/self/{name}").read_text()) for name in ("uid_map", "gid_map"))


def create_as_first(users: Ids) -> None:
    """Have all that the caller creates belong to user and group 0 of pods, while it can do what it could before."""
    if users.first:
        syscalls.keep_capabilities()
        _libc.setfsgid(users.first)
        _libc.setfsuid(users.first)


@contextlib.contextmanager
def as_first(users: Ids) -> Iterator[None]:
    """Be user 0 of pods for a while, after `create_as_first`."""
    own = os.geteuid()
    os.seteuid(users.first)
    try:
        yield
    finally:
        os.seteuid(own)
        create_as_first(users)


def become(user: int, group: int, groups: Sequence[int] = ()) -> None:
    """Be a user of the user namespace that the caller just entered; it has more than one."""
    os.setgroups(groups)
    os.setresgid(group, group, group)
    os.setresuid(user, user, user)


def user_namespace(ids: str) -> int:
    """A descriptor of a new user namespace with this map. OSError when there can be none; the caller reaps its children."""
    pid = syscalls.sleep_in(syscalls.CLONE_NEWUSER, SLEEP_SECONDS)
    try:
        write_maps(pid, ids, ids)
        return os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.kill(pid, signal.SIGKILL)


def write_maps(pid: int, users: str, groups: str) -> None:
    """Say which users and groups there are in the user namespace of a process. OSError when the caller may not."""
    no_others = (("setgroups", "deny"),) if "\n" not in groups and groups.endswith(" 1") else ()
    for name, text in (*no_others, ("uid_map", users), ("gid_map", groups)):
        fd = os.open(f"/proc/{pid}/{name}", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, text.encode())
        finally:
            os.close(fd)
