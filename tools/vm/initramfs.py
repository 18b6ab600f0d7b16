"""What a virtual machine boots from: an archive with busybox, the modules by which it reaches the machine's files, and a script. Pure, but
for reading modules."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

MODULES = ("virtio_pci", "virtiofs")
"""With all that they depend on."""
LOADED = ("br_netfilter", "overlay", "tun")
"""What the kernel does not load by itself, and whoever sets up a node does."""
EMPTY = ("tmp", "run", "mnt", "media")
"""Folders that are the virtual machine's own: empty ones in containers too, for which there is no overlay over what has mounts in it."""
FOLDER, PROGRAM, CHARACTER_DEVICE = 0o040755, 0o100755, 0o020600
HOST, NEW, OWN = "/host", "/new", "/run/vm"
BUSYBOX = "bin/busybox"
DEPENDS = re.compile(rb"\0depends=([^\0]*)\0")
"""In the section .modinfo of a module."""


class Entry(msgspec.Struct, frozen=True):
    """A file, folder or device (its major and minor number) of the archive."""

    name: str
    mode: int
    data: bytes = b""
    device: tuple[int, int] = (0, 0)


def archive(entries: Sequence[Entry]) -> bytes:
    """As the kernel unpacks it (Documentation/driver-api/early-userspace/buffer-format.rst, "newc")."""
    parts = []
    for number, one in enumerate((*entries, Entry("TRAILER!!!", 0)), 1):
        name = one.name.encode() + b"\0"
        fields = (number, one.mode, 0, 0, 1, 0, len(one.data), 0, 0, *one.device, len(name), 0)
        parts += [_padded(b"070701" + b"".join(b"%08X" % field for field in fields) + name), _padded(one.data)]
    return b"".join(parts)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def in_order(names: Sequence[str], places: Mapping[str, Path]) -> list[str]:
    """Modules by name, each after those that it depends on. KeyError for one that is not there: it may be part of the kernel."""
    found: list[str] = []

    def add(name: str) -> None:
        if name not in found:
            for other in depends(places[name].read_bytes()):
                add(other)
            found.append(name)

    for name in names:
        add(name)
    return found


def depends(module: bytes) -> list[str]:
    """The modules that a module needs."""
    said = DEPENDS.search(module)
    return [word.decode() for word in said[1].split(b",") if word] if said is not None else []


def modules(folder: Path) -> dict[str, Path]:
    """All of a kernel's, by name."""
    return {path.stem.replace("-", "_"): path for path in folder.rglob("*.ko")}


def entries(busybox: bytes, places: Mapping[str, Path], scripts: Mapping[str, str]) -> list[Entry]:
    """The archive's."""
    loaded = in_order(MODULES, places)
    return [
        *(Entry(name, FOLDER) for name in ("bin", "dev", "proc", "modules", HOST[1:], NEW[1:])),
        Entry("dev/console", CHARACTER_DEVICE, device=(5, 1)),
        Entry(BUSYBOX, PROGRAM, busybox),
        *(Entry(f"modules/{number:02}", PROGRAM, places[name].read_bytes()) for number, name in enumerate(loaded)),
        *(Entry(name, PROGRAM, text.encode()) for name, text in scripts.items()),
    ]


def scripts(command: Sequence[str], *, folder: str, module_folder: str, needed: Sequence[str], mark: str) -> dict[str, str]:
    """What runs at first, and then, in the machine's files, the command: in this folder, with the modules of that one. `needed` are files
    that it needs wherever they are; `mark` stands before its exit code."""
    return {
        "init": "\n".join(("#!/bin/busybox sh", *_first(module_folder, needed), "")),
        "next": "\n".join(("#!/bin/sh", *_next(command, folder, mark), "")),
        "modprobe": f'#!{OWN}/busybox sh\nexec {OWN}/busybox chroot {OWN}/root /bin/busybox modprobe "$@"\n',
    }


def _first(module_folder: str, needed: Sequence[str]) -> Iterator[str]:
    yield "export PATH=/bin; for name in $(/bin/busybox --list); do /bin/busybox ln -s busybox /bin/$name 2>/dev/null; done"
    yield "mount -t proc proc /proc; for module in /modules/*; do insmod $module; done"
    yield f"mount -t virtiofs -o ro files {HOST} || {{ echo 'the files of this machine are not there'; poweroff -f; }}"
    yield f"mount -o bind {HOST} {NEW}"
    yield from (f"mount -t tmpfs -o mode={'755' if name == 'run' else '1777'} none {NEW}/{name}" for name in EMPTY)
    for path in needed:
        if any(path.startswith(f"/{name}/") for name in EMPTY):
            yield f"mkdir -p {shlex.quote(NEW + path)}; mount -o bind {shlex.quote(HOST + path)} {shlex.quote(NEW + path)}"
    own = NEW + OWN
    yield f"mkdir -p {own}/root/bin {own}/root/lib/modules {own}/root/proc {own}/home"
    yield f"cp /bin/busybox {own}; cp /bin/busybox {own}/root/bin; cp /next /modprobe {own}"
    yield f"mount -o bind {shlex.quote(HOST + module_folder)} {own}/root/lib/modules; mount -t proc proc {own}/root/proc"
    for kind, name in (("proc", "proc"), ("sysfs", "sys"), ("devtmpfs", "dev")):
        yield f"mount -t {kind} {kind} {NEW}/{name}"
    yield f"mkdir -p {NEW}/dev/pts {NEW}/dev/shm {NEW}/dev/mqueue; mount -t devpts -o ptmxmode=0666 devpts {NEW}/dev/pts"
    yield f"mount -t tmpfs -o mode=1777 none {NEW}/dev/shm; mount -t mqueue mqueue {NEW}/dev/mqueue"
    yield f"mount -t cgroup2 -o nsdelegate cgroup2 {NEW}/sys/fs/cgroup; echo {OWN}/modprobe >/proc/sys/kernel/modprobe"
    yield f"umount {HOST} 2>/dev/null; umount /proc; exec switch_root {NEW} {OWN}/next"


def _next(command: Sequence[str], folder: str, mark: str) -> Iterator[str]:
    yield f"export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME={OWN}/home TMPDIR=/tmp LANG=C.UTF-8 TERM=dumb"
    yield "export PODPLANE_TEST_PATIENCE=20  # it is so many times slower than a machine"
    yield f"{OWN}/busybox ip link set lo up; cd {shlex.quote(folder)}"
    yield f"for module in {' '.join(LOADED)}; do {OWN}/modprobe $module; done"
    yield f"{shlex.join(command)} </dev/null"
    yield f'echo; echo "{mark} $?"; {OWN}/busybox sync; {OWN}/busybox poweroff -f'
