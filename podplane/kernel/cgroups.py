"""Control groups: how much memory, processor time and how many processes containers may have (Documentation/admin-guide/cgroup-v2.rst).

A lab has a folder of its own in each hierarchy that it can use, and makes one there for each container:

    LAB                     all pods together
    LAB/CONTAINER           limits of a container that has some, and its share of the processors
    LAB/CONTAINER/inner     its processes; the root of its cgroup namespace, so that it can't reach the limits
    LAB/rest                processes of containers without, of a lab that root runs: nobody in them may write there
    LAB/rest/CONTAINER      of another: no controller looks at it, so it costs little

All of `rest` have the smallest share together, as a kubelet's pods that ask for nothing.

A hierarchy of version 2 can be used by root, and by a user to whom one was delegated: then a process that is alone in its group makes
groups below it, and moves to one of them itself. Hierarchies of version 1 can be used by root.

A lab holds a lock on its groups from when they are made. Those that nobody holds were left by one that was killed together with its folder.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import time
from collections.abc import Iterable, Iterator, Sequence

import msgspec

CONTROLLERS = ("memory", "cpu", "pids")
PROCESSES, BELOW, AVAILABLE = "cgroup.procs", "cgroup.subtree_control", "cgroup.controllers"
THREADS_OF_FIRST = "tasks"
"""Only version 1 has this file."""
INNER, REST, OWN = "inner", "rest", "up-of-podplane"
"""Folders: of a container's processes, of containers without limits, of the process that makes the groups."""
PERIOD = 100_000
"""Microseconds in which a container may use its share of the processors."""
SMALLEST_QUOTA = 1000
NO_LIMIT = -1
TCP = "memory.kmem.tcp.limit_in_bytes"
"""In version 1: buffers of TCP and UDP sockets, which count for no other limit there, and only in groups that have this one."""
OPTIONAL = frozenset({"memory.swap.max", "memory.oom.group", "memory.memsw.limit_in_bytes", "cgroup.max.descendants", TCP})
"""Files that not every kernel has."""
MAX_GROUPS = "64"
"""Groups that a container may make below its own."""
SHARES, LEAST_SHARES, MOST_SHARES = 1024, 2, 262_144
"""Of one processor, in version 1; of a container that asks for none; and the most that there are (kubelet, MilliCPUToShares)."""
NOBODY = 65534
PREFIX = "podplane-"
"""How the names of labs' groups begin."""
NAME = re.compile(rf"{PREFIX}.+-[0-9a-f]{{8}}")
"""Those of labs."""
HOLD_TRIES, HOLD_PAUSE = 500, 0.02
"""How often, and after how many seconds again, a new group is locked that somebody else has locked or removed meanwhile: to remove the
groups of many containers takes seconds."""


class Limits(msgspec.Struct, frozen=True):
    """What a container may have: bytes of memory, thousandths of a processor, processes, each 0 for no limit; what it asks for of the
    processors beside others (thousandths); and bytes in buffers of sockets, 0 for as much as memory."""

    memory: int = 0
    cpu: int = 0
    processes: int = 0
    asked_cpu: int = 0
    tcp: int = 0


MEMORY = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
"""Bytes of this machine."""


class Group(msgspec.Struct, frozen=True):
    """The groups of a container: files to write, each with its text, and the folders that its processes belong to; `common` are those of
    all containers, where no controller looks: who starts the processes may be there too, and spares them the way."""

    files: tuple[tuple[str, str], ...] = ()
    folders: tuple[str, ...] = ()
    common: tuple[str, ...] = ()


class Unusable(Exception):
    """No groups can be made; one line that says why."""


class Hierarchy(msgspec.Struct, frozen=True):
    """A hierarchy of a version, the lab's folder there, and the controllers that it has. Do containers without limits share a group?"""

    version: int
    folder: str
    controllers: frozenset[str]
    is_shared: bool = False

    @property
    def counts_tcp(self) -> bool:
        """Have buffers of sockets a limit of their own?"""
        return self.version == 1 and "memory" in self.controllers

    @property
    def is_common(self) -> bool:
        """Is the one group of containers without limits that of all?"""
        return self.is_shared and not self.controllers


class Groups(msgspec.Struct, frozen=True):
    """The groups of a lab."""

    hierarchies: Sequence[Hierarchy] = ()

    @property
    def controllers(self) -> frozenset[str]:
        """What can be limited."""
        return frozenset().union(*(one.controllers for one in self.hierarchies))

    @property
    def common(self) -> tuple[str, ...]:
        """The groups that all containers are in (`Group`)."""
        return tuple(f"{one.folder}/{REST}" for one in self.hierarchies if one.is_common)

    def of_container(self, name: str, limits: Limits) -> Group | None:
        """Those of a container; None when the lab has none."""
        files: list[tuple[str, str]] = []
        folders = []
        for one in self.hierarchies:
            if one.is_common:
                continue
            wanted = [pair for controller in one.controllers for pair in _files(one.version, controller, limits)]
            if wanted:
                if "cpu" in one.controllers and not limits.cpu and not limits.asked_cpu:
                    wanted.append(_share_of(one.version, 0))
                files += ((f"{one.folder}/{name}/{file}", text) for file, text in wanted)
                folders.append(f"{one.folder}/{name}/{INNER}")
            else:
                folders.append(f"{one.folder}/{REST}" if one.is_shared else f"{one.folder}/{REST}/{name}")
            if one.counts_tcp and (wanted or not one.is_shared):
                files.append((f"{folders[-1]}/{TCP}", str(limits.memory or NO_LIMIT)))
            if one.version == 2 and (wanted or not one.is_shared):
                files.append((f"{folders[-1]}/cgroup.max.descendants", MAX_GROUPS))
        return Group(tuple(files), tuple(folders), self.common) if folders or self.common else None

    def bound(self, limits: Limits) -> None:
        """What all pods together may have. OSError when that can't be."""
        for one in self.hierarchies:
            for controller in one.controllers:
                for file, text in _files(one.version, controller, limits):
                    write(f"{one.folder}/{file}", text)
            if "cpu" in one.controllers:
                file, text = _share_of(one.version, 0)
                write(f"{one.folder}/{REST}/{file}", text)
            if one.counts_tcp:
                for folder in (one.folder, f"{one.folder}/{REST}"):
                    write(f"{folder}/{TCP}", str(limits.tcp or limits.memory))


def _share_of(version: int, asked: int) -> tuple[str, str]:
    """The file of a share of the processors, and its text, by the thousandths of a processor that are asked for."""
    shares = min(max(LEAST_SHARES, asked * SHARES // 1000), MOST_SHARES)
    if version == 1:
        return "cpu.shares", str(shares)
    return "cpu.weight", str(
        1 + (shares - LEAST_SHARES) * 9999 // (MOST_SHARES - LEAST_SHARES)
    )  # kubelet, cpuSharesToCPUWeight


def _files(version: int, controller: str, limits: Limits) -> Iterator[tuple[str, str]]:
    """The files of a controller, and what is written there."""
    quota = max(SMALLEST_QUOTA, limits.cpu * PERIOD // 1000)
    if controller == "pids" and limits.processes:
        yield "pids.max", str(limits.processes)
    elif controller == "memory" and limits.memory:
        names = ("memory.max", "memory.swap.max") if version == 2 else ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes")
        yield names[0], str(limits.memory)
        yield names[1], "0" if version == 2 else str(limits.memory)  # no swap, as for a kubelet's pods
        if version == 1:
            yield TCP, str(limits.memory)
        if version == 2:
            yield "memory.oom.group", "1"
    elif controller == "cpu" and (limits.cpu or limits.asked_cpu):
        if limits.cpu and version == 2:
            yield "cpu.max", f"{quota} {PERIOD}"
        elif limits.cpu:
            yield "cpu.cfs_period_us", str(PERIOD)
            yield "cpu.cfs_quota_us", str(quota)
        yield _share_of(version, limits.asked_cpu)


def write(path: str, text: str) -> None:
    """Write a file of a group. OSError that names the file, unless not every kernel has it."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, text.encode())
        finally:
            os.close(fd)
    except OSError as error:
        if os.path.basename(path) not in OPTIONAL:
            raise OSError(error.errno, f"cgroup file {os.path.basename(path)}: {error.strerror}", path) from None


def enter(group: Group) -> None:
    """Make the groups that are missing, and move this process there. OSError when that can't be."""
    for folder in group.folders:
        if not folder.endswith(f"/{REST}"):
            os.makedirs(folder, exist_ok=True)
    for path, text in group.files:
        write(path, text)
    for folder in group.folders:
        move_to(folder)


def move_to(folder: str) -> None:
    """Move this process, which has one thread, to a group. OSError when that can't be.

    A thread that moves itself in version 1 waits for nobody; where a process is moved, the kernel waits for all that may fork
    (cgroup_procs_write_start), some 10 ms when nobody was moved just before.
    """
    try:
        write(f"{folder}/{THREADS_OF_FIRST}", "0")
    except FileNotFoundError:
        write(f"{folder}/{PROCESSES}", "0")


def end(group: Group) -> bool:
    """Remove the groups of a container that has ended; was one of its processes killed for want of memory?"""
    killed = False
    for folder in group.folders:
        if folder.endswith(f"/{REST}"):
            continue
        top = os.path.dirname(folder) if os.path.basename(folder) == INNER else folder
        killed = killed or _has_killed(f"{top}/memory.events") or _has_killed(f"{folder}/memory.oom_control")
        remove(top)
    return killed


def _has_killed(path: str) -> bool:
    return any(line.startswith("oom_kill ") and line.split()[1] != "0" for line in _read(path).splitlines())


def remove(folder: str) -> None:
    """Remove a group and all below it; one in which there is a process stays."""
    for place, _, _ in os.walk(folder, topdown=False):
        with contextlib.suppress(OSError):
            os.rmdir(place)


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except OSError:
        return ""


ESCAPED = re.compile(r"\\([0-7]{3})")
"""A character of a path in mountinfo, as proc(5) writes those that separate."""


class _Mount(msgspec.Struct, frozen=True):
    """Where a hierarchy is mounted, the folder of this process there, its version, and its controllers if that is 1."""

    point: str
    own: str
    version: int
    controllers: frozenset[str] = frozenset()


def mounts(mountinfo: str, own: str) -> list[_Mount]:
    """All hierarchies, from /proc/self/mountinfo and /proc/self/cgroup."""
    paths = {names: path for _, names, path in (line.split(":", 2) for line in own.splitlines() if line.count(":") > 1)}
    found: dict[str, _Mount] = {}
    for line in mountinfo.splitlines():
        front, _, back = line.partition(" - ")
        if len(front.split()) < 5 or back.count(" ") < 2:
            continue
        root, point = (ESCAPED.sub(lambda found: chr(int(found[1], 8)), word) for word in front.split()[3:5])
        kind, _, options = back.split(" ", 2)
        names = (
            "" if kind == "cgroup2" else next((n for n in paths if n and set(n.split(",")) <= set(options.split(","))), None)
        )
        if not kind.startswith("cgroup") or names is None or names not in paths or names in found:
            continue
        path = paths[names]
        below = path.removeprefix(root.rstrip("/")) if path.startswith(root) else None
        if below is None or "/../" in f"{path}/":
            continue  # a part of the hierarchy in which this process is not
        folder = f"{point}/{below.strip('/')}".rstrip("/")
        found[names] = _Mount(point, folder, 1 if names else 2, frozenset(names.split(",")) if names else frozenset())
    return list(found.values())


def prepare(name: str, held: list[int], *, is_root: bool) -> Groups:
    """The groups of a lab of this name, new, and `held` by descriptors that are added there. Unusable when there can be none; those that
    were left of a former one are removed."""
    made: list[Hierarchy] = []
    reasons: list[str] = []
    for mount in sorted(_mounts(), key=lambda mount: -mount.version):
        known = frozenset().union(*(one.controllers for one in made))
        try:
            if mount.version == 2:
                made.append(_second(mount, name, held, is_root=is_root))
            elif is_root and (wanted := mount.controllers.intersection(CONTROLLERS) - known):
                made.append(_first(mount, name, wanted, held))
        except (OSError, Unusable) as error:
            reasons.append(getattr(error, "strerror", None) or str(error))
            for parent in (mount.point, mount.own):
                remove(f"{parent}/{name}")
    groups = Groups(made)
    if not groups.controllers:
        for one in made:
            remove(one.folder)
        raise Unusable(reasons[0] if reasons else "there are no control groups (version 2) here")
    return groups


def _mounts() -> list[_Mount]:
    return mounts(_read("/proc/self/mountinfo"), _read("/proc/self/cgroup"))


def hold(folders: Iterable[str]) -> list[int]:
    """Mark groups as those of a lab that runs, or starts: as long as the descriptors are open. OSError when one is gone."""
    held: list[int] = []
    try:
        for folder in folders:
            held.append(os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
            fcntl.flock(held[-1], fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        for fd in held:
            os.close(fd)
        raise
    return held


def _make_held(folder: str) -> int:
    """A new group, and a descriptor that holds it: it is made again where it was removed before it was held. OSError when it can't be."""
    for _ in range(HOLD_TRIES):
        with contextlib.suppress(BlockingIOError, FileNotFoundError):
            os.makedirs(folder, exist_ok=True)
            (held,) = hold([folder])
            if _is_there(folder, held):
                return held
            os.close(held)
        time.sleep(HOLD_PAUSE)
    raise OSError(errno.EBUSY, "somebody else has locked the control group of this lab, or removes it")


def _is_there(folder: str, fd: int) -> bool:
    try:
        return os.path.samestat(os.stat(folder), os.fstat(fd))
    except OSError:
        return False


def tidy() -> None:
    """Remove the groups of labs that nobody holds any more: beside those that this process could make, and in groups beside its own."""
    parents: set[str] = set()
    for mount in _mounts():
        beside = os.path.dirname(mount.own) if mount.own != mount.point else mount.point
        with contextlib.suppress(OSError):
            parents.update(f"{beside}/{name}" for name in os.listdir(beside))
        parents |= {mount.point, mount.own, beside}
    for parent in parents:
        remove_stale(parent)


def remove_stale(parent: str) -> None:
    """Remove groups of labs that nobody holds any more: what killed such a lab took the folder with it in which they were noted. One in
    which there is a process stays."""
    with contextlib.suppress(OSError):
        for name in filter(NAME.fullmatch, os.listdir(parent)):
            _remove_unheld(f"{parent}/{name}")


def _remove_unheld(folder: str) -> None:
    """Nobody else removes what is locked here, so no other one can be in its place."""
    with contextlib.suppress(OSError):
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_there(folder, fd):
                remove(folder)
        finally:
            os.close(fd)


def _first(mount: _Mount, name: str, controllers: frozenset[str], held: list[int]) -> Hierarchy:
    folder = f"{mount.own}/{name}"
    _remove_unheld(folder)
    held.append(_make_held(folder))
    return Hierarchy(1, folder, controllers, is_shared=_share(f"{folder}/{REST}"))


def _share(folder: str) -> bool:
    """Make a group that processes can be put into, and in which root of a pod, who may be root to the kernel, can change nothing.

    False where that can't be had: root of a user namespace may give files to nobody else.
    """
    os.makedirs(folder, exist_ok=True)
    try:
        for name in os.listdir(folder):
            if name not in (PROCESSES, THREADS_OF_FIRST):
                os.chown(f"{folder}/{name}", NOBODY, NOBODY)
        os.chown(folder, NOBODY, NOBODY)
    except OSError:
        return False
    return True


def _second(mount: _Mount, name: str, held: list[int], *, is_root: bool) -> Hierarchy:
    """Root's groups are below the root of the hierarchy, others' below their own. OSError or Unusable when that can't be."""
    parent = mount.point if is_root else mount.own
    if not all(os.access(path, os.W_OK) for path in (parent, f"{parent}/{BELOW}", f"{parent}/{PROCESSES}")):
        raise Unusable("no control group is delegated to this user")
    there = frozenset(_read(f"{parent}/{AVAILABLE}").split()).intersection(CONTROLLERS)
    if not there and not is_root:
        raise Unusable("no controller is delegated to this user")
    if missing := there.difference(_read(f"{parent}/{BELOW}").split()):
        if os.path.exists(f"{parent}/cgroup.type"):  # all but the root of all
            _leave(parent)
        write(f"{parent}/{BELOW}", _enabling(missing))
    folder = f"{parent}/{name}"
    _remove_unheld(folder)
    held.append(_make_held(folder))
    write(f"{folder}/{BELOW}", _enabling(there))
    return Hierarchy(2, folder, there, is_shared=_share(f"{folder}/{REST}"))


def _enabling(controllers: frozenset[str]) -> str:
    return " ".join(f"+{name}" for name in sorted(controllers))


def _leave(parent: str) -> None:
    """Move this process from its group to one below: a group with controllers for groups below has no processes."""
    processes = _read(f"{parent}/{PROCESSES}").split()
    if others := [one for one in processes if one != str(os.getpid())]:
        raise Unusable(f"there are other processes in the control group of this one ({len(others)})")
    if processes:
        os.makedirs(f"{parent}/{OWN}", exist_ok=True)
        write(f"{parent}/{OWN}/{PROCESSES}", "0")
