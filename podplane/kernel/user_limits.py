"""Limits that count for a user of the machine, or of a user namespace, and not for a process: what one pod has used up, nobody else of that
user can have. So a lab may use a part of what its user may, and a pod a part of that.

What is counted by user is counted in each user namespace that leads to it, for whoever made it (kernel/ucount.c): in the pod's for the
pod's users, in the lab's for the lab, outside for the user who runs the lab. In a lab of root with ids to give away, which is made by the
first of these, each pod's is made by another of them: in the lab's all that users of a pod have is counted for that one. Each user
namespace has limits of its own for what is counted in it (/proc/sys/user, namespaces(7)), and one of what its maker's limits (setrlimit(2))
were for what is counted in the one outside.

A pod has limits for System V IPC, too, which holds memory that belongs to no process.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import resource
import struct
from collections.abc import Iterator, Mapping
from fractions import Fraction

from podplane.kernel import releases, syscalls
from podplane.kernel.cgroups import MEMORY
from podplane.kernel.ids import Ids

NAMESPACES = tuple(f"max_{kind}_namespaces" for kind in ("cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"))
WATCHES = ("max_fanotify_groups", "max_fanotify_marks", "max_inotify_instances", "max_inotify_watches")
"""Files of /proc/sys/user."""
OF_LAB = Fraction(3, 4)
"""A lab's part of what its user may have; with a user of its own it has all."""
OF_POD, NAMESPACES_OF_POD = Fraction(1, 4), Fraction(1, 16)
"""A pod's part of what the lab may have."""
THE_LABS = frozenset({"max_mnt_namespaces", "max_pid_namespaces"})
"""Of which the lab itself has some for each container."""
NS_GET_OWNER_UID = 0xB704
"""ioctl_ns(2): the user who made a user namespace."""
RESOURCES_OF_LAB = (resource.RLIMIT_SIGPENDING, resource.RLIMIT_MSGQUEUE, resource.RLIMIT_NPROC)
RESOURCES_OF_POD = {
    resource.RLIMIT_SIGPENDING: OF_POD,
    resource.RLIMIT_MSGQUEUE: Fraction(1, 2),
    resource.RLIMIT_NOFILE: OF_LAB,
}
"""Of descriptors the lab has more, because those that are in messages on their way count for the user (unix(7), ETOOMANYREFS)."""
QUEUES = "kernel/msgmni"
IPC = {
    "kernel/shmall": str(MEMORY // 8 // os.sysconf("SC_PAGE_SIZE")),
    QUEUES: "1024",
    "kernel/sem": f"32000 {1 << 18} 500 1024",
}
"""Of System V, in a pod: an eighth of the memory, as for its emptyDirs, and 16 MiB each in messages and semaphores."""
MAX_PROCESSES = 4096
"""Of a container, or where the kernel does not bound those, of each user of a pod."""
NO_DUMP = 1
"""A limit of core dumps with which not even a program gets one (fs/coredump.c)."""
PROCESSES_PER_NAMESPACE = (5, 14)
"""The version of Linux since which processes are counted in each user namespace."""


def of_lab(*, has_own_user: bool) -> None:
    """Before the caller makes the lab's user namespace: what all in there may have together. `has_own_user`: it counts for nobody else."""
    for kind in RESOURCES_OF_LAB:
        soft, hard = resource.getrlimit(kind)
        if has_own_user and kind == resource.RLIMIT_MSGQUEUE and hard != resource.RLIM_INFINITY:
            with contextlib.suppress(ValueError, OSError):  # root of a container may not raise it
                resource.setrlimit(kind, (2 * hard, 2 * hard))  # each pod has what a user has
        elif not has_own_user:
            resource.setrlimit(kind, (part(soft, OF_LAB), part(hard, OF_LAB)))


def in_lab(outside: Mapping[str, int], *, has_own_user: bool) -> None:
    """In the lab's user namespace: what all pods may have together, of what there is `outside`; or each of them, where it is counted for
    each."""
    for name, most in outside.items():
        whole = most if has_own_user else part(most, OF_LAB)
        _write(f"/proc/sys/user/{name}", str(_of_pod(name, whole) if has_own_user and name not in THE_LABS else whole))


def _of_pod(name: str, whole: int) -> int:
    return part(whole, NAMESPACES_OF_POD if name in NAMESPACES else OF_POD)


def here() -> dict[str, int]:
    """The limits of the caller's user namespace; none of what the kernel does not have."""
    found = {}
    for name in (*NAMESPACES, *WATCHES):
        with contextlib.suppress(OSError), open(f"/proc/sys/user/{name}") as file:
            found[name] = int(file.read())
    return found


def of_pods(users: Ids) -> dict[str, str]:
    """In the lab's user namespace: sysctls of each pod, and their values."""
    of_lab = {name: most for name, most in here().items() if not are_counted(users) or name in THE_LABS}
    return {**{f"user/{name}": str(_of_pod(name, most)) for name, most in of_lab.items()}, **IPC}


def are_counted(users: Ids) -> bool:
    """Is it counted for each pod what all of its users have? It is where the first of them made the lab's user namespace."""
    return users.first > 0 and _maker() == users.first


def _maker() -> int:
    fd = os.open("/proc/self/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    try:
        found: int = struct.unpack("=I", fcntl.ioctl(fd, NS_GET_OWNER_UID, bytes(4)))[0]
    except OSError:  # Linux before 4.11
        return 0
    finally:
        os.close(fd)
    return found


@contextlib.contextmanager
def as_maker(user: int) -> Iterator[None]:
    """Be somebody else, for whom it counts what a pod has whose user namespace is made meanwhile; 0 is the caller. Limits of that namespace
    are the pod's."""
    before = {kind: resource.getrlimit(kind) for kind in RESOURCES_OF_POD if user}
    for kind, (soft, hard) in before.items():
        resource.setrlimit(kind, (_least(soft, part(hard, RESOURCES_OF_POD[kind])), hard))
    if user:
        syscalls.keep_capabilities()
        os.seteuid(user)
    try:
        yield
    finally:
        if user:
            os.seteuid(0)
            syscalls.set_dumpable(is_dumpable=True)  # a change of ids takes that
        for kind, both in before.items():
            resource.setrlimit(kind, both)


def of_pod(sysctls: int, wanted: Mapping[str, str]) -> None:
    """In a pod's user and IPC namespaces, as its root: have these sysctls (`of_pods`) unless they are there. `sysctls` is a descriptor of
    /proc/sys where that can be written, of a /proc of its own (`rootfs`)."""
    if _read_at(sysctls, QUEUES) != IPC[QUEUES]:
        for name, text in wanted.items():
            _write(name, text, sysctls)


def of_process() -> None:
    """What a process of a pod, and all that it starts, may have: it can't raise that. Where the kernel does not bound the processes of a
    namespace, those of a user in the pod are bounded."""
    for kind, share in RESOURCES_OF_POD.items():
        soft, hard = resource.getrlimit(kind)
        most = part(hard, share)
        resource.setrlimit(kind, (_least(soft, most), most))
    if dumps_go_to_a_program():
        resource.setrlimit(resource.RLIMIT_CORE, (NO_DUMP, NO_DUMP))
    if not releases.limits_processes() and releases.is_linux(PROCESSES_PER_NAMESPACE):
        bound_processes()


def bound_processes() -> None:
    """Let each user in the pod have so many processes, of this one and all that it starts: it can't raise that."""
    _, hard = resource.getrlimit(resource.RLIMIT_NPROC)
    most = _least(MAX_PROCESSES, hard)
    resource.setrlimit(resource.RLIMIT_NPROC, (most, most))


@functools.cache
def dumps_go_to_a_program() -> bool:
    """Does the kernel give core dumps to a program of the machine, run by its root, whoever crashes (core(5))?"""
    try:
        with open("/proc/sys/kernel/core_pattern") as file:
            return file.read(1) == "|"
    except OSError:
        return False


def part(whole: int, share: Fraction) -> int:
    """A share of a limit, one at least; there is none of what is unlimited."""
    return whole if whole == resource.RLIM_INFINITY else max(min(whole, 1), int(whole * share))


def _least(one: int, other: int) -> int:
    return max(one, other) if resource.RLIM_INFINITY in (one, other) else min(one, other)


def _read_at(folder: int, name: str) -> str:
    try:
        fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=folder)
    except OSError:
        return ""
    try:
        return os.read(fd, 64).decode().strip()
    finally:
        os.close(fd)


def _write(name: str, text: str, folder: int | None = None) -> None:
    """Of a sysctl that the kernel does not have, or that may not be changed here, the limit outside remains."""
    with contextlib.suppress(OSError):
        fd = os.open(name, os.O_WRONLY | os.O_CLOEXEC, dir_fd=folder)
        try:
            os.write(fd, text.encode())
        finally:
            os.close(fd)
