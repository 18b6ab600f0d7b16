"""A container's file system: this machine's own, where every change is the container's alone, and with what its pod mounts.

There are no images in a lab, so a container sees what the machine has. Each folder of / is the lower layer of an overlay (overlayfs in
a user namespace, Linux 5.11) whose upper layer lies on a tmpfs that goes with the container's mount namespace: nothing is to be cleaned
up, and `rm -rf /` in a pod removes nothing. A folder that an overlay can't take, because something is mounted below it, is bound
read-only. /tmp, /run, /mnt and /media are empty.

All that a container writes outside of its volumes lies on this one tmpfs, which has a size: / itself, the upper layers, /dev, what is over
hidden folders, its termination message.

Where pods have ids of their own (`kernel.ids`), the lower layers are those of `kernel.layers`, if there are any; else a pod is nobody's to
the machine's folders, and changes only what everybody may.

The upper layer's own folders belong to the container, so a mount point can be made wherever it is wanted, whoever owns the folder
below: what leads to it is made in the upper layer before the overlay is mounted.

A hostPath shows what the container sees of the machine anyhow, at one more place: writing there changes nothing for others either.
A file that each pod has in another form (/etc/hosts) is the machine's there, and no other is: a pod chooses where it mounts things.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import shutil
import stat
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from podplane.kernel import ids, layers, releases, syscalls
from podplane.kernel.syscalls import (
    MOUNT_ATTR_NODEV,
    MOUNT_ATTR_NOEXEC,
    MOUNT_ATTR_NOSUID,
    MOUNT_ATTR_RDONLY,
    MS_BIND,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_RDONLY,
    MS_REC,
)
from podplane.kernel.volumes import beneath, mount_point, tmpfs_options

FRESH = {"tmp": 0o1777, "run": 0o755, "mnt": 0o755, "media": 0o755, "proc": 0o555, "sys": 0o555}
"""Folders that are empty at first, with their modes; so is one that this user may not read."""
HOMES = {"home": 0o755, "root": 0o700}
"""Folders that are empty too, unless the container may see homes (`Root.homes`)."""
TEMPORARY = {"var": "tmp"}
"""A folder in one of / in which everybody may make files."""
HIDDEN_FOLDERS = (
    "/etc/kubernetes",
    "/var/backups",
    "/var/lib/containerd",
    "/var/lib/docker",
    "/var/lib/kubelet",
    "/var/lib/rancher",
    "/var/log",
    "/var/mail",
    "/var/spool",
)
"""Folders further down that are empty: state and secrets of other programs, and what people and programs wrote to each other."""
OWN = {sys.prefix, sys.base_prefix, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))}
"""Where the interpreter and this package are: the built-in programs need them, also below a folder that is empty else."""
SAMPLES = (__file__, msgspec.__file__, os.__file__, sys.executable)
"""A file of each, whose mode is that of the others."""
LEFT_OUT = ("boot", "lost+found", "snap")
DEVICES = ("null", "zero", "full", "random", "urandom", "tty", "net/tun")
DEVICE_LINKS = {"fd": "/proc/self/fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2", "ptmx": "pts/ptmx"}
MACHINE_WIDE = ("sys", "irq", "bus", "fs", "sysrq-trigger")
"""Files and folders of /proc that change the machine: read-only in a container, those of the pod's network too."""
HIDDEN = ("interrupts", "kcore", "keys", "latency_stats", "sched_debug", "timer_list", "timer_stats")
"""Files of /proc that tell of the machine and of others: empty in a container."""
HIDDEN_KERNEL = ("/proc/acpi", "/proc/asound", "/proc/scsi", "/sys/devices/virtual/powercap", "/sys/firmware")
"""Folders that do (containerd, pkg/oci/spec.go, defaultMaskedPaths): empty too."""
POD_FILES = {"/etc/hosts", "/etc/hostname", "/etc/resolv.conf"}
"""What a kubelet makes for each pod: of these alone a hostPath shows the machine's own."""
LATE = frozenset({"etc"})
"""Folders of / in which nearly every pod has something of its own: made when it is known for which pod."""
KEPT = ".kept"
NEW, EMPTY, DEVICES_FOLDER = ".new", ".empty", ".dev"
"""Folders on a container's tmpfs beside the upper layers, which have the names of folders of /: the new root, what is over hidden
folders, and /dev."""
CLOSED_TO_NOBODY = stat.S_IROTH | stat.S_IXOTH
UMASK = 0o022
"""While the file system is made, whatever the lab was started with."""
NO_DEVICES = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV
ROOT, SCRATCH = "root", "scratch"
"""Mount points in the lab's own folder: that of the new root, and that of all that the container writes."""
MOST_AT_ONCE = 1 << 20
"""Of a file that is copied."""
LAST_WORDS = ".last-words"
"""The file there of the container's termination message."""


class Bind(msgspec.Struct, frozen=True):
    """A folder or file of the lab that a container sees at `target`; or, if it is `inside`, one of the container's own file system.

    A file that is `copied` is the container's own, as an image's files are: it can be changed, moved and removed; where nothing can be
    written, it is bound read-only. `below` is a path in the source that leads to what is bound, and never out of the source (`beneath`);
    with `makes_below` there is a folder if there was nothing.
    """

    source: str
    target: str
    read_only: bool = False
    inside: bool = False
    copied: bool = False
    below: str = ""
    makes_below: bool = False


class Root(msgspec.Struct, frozen=True):
    """What a container's file system is made of: `folder` has the two mount points; it may have `pids` processes, and write `size` bytes,
    0 for no limit of its own. `last_words` is where it has a file for its termination message, "" for none.

    Folders of the machine that are `hidden` are empty, and those of HIDDEN_FOLDERS; so are homes, unless it may see these. `read_only`:
    nothing can be written but in what its pod mounts, and in /dev. `layers`: where `kernel.layers` has lower layers, if anywhere.
    `sysctls`: those of the pod's namespaces, by name.
    """

    folder: str
    binds: Sequence[Bind] = ()
    pids: int = 0
    hidden: Sequence[str] = ()
    homes: bool = False
    read_only: bool = False
    size: int = 0
    last_words: str = ""
    layers: str = ""
    sysctls: Mapping[str, str] = {}


def learn(root: Root) -> None:
    """Find out what is the same for all file systems like this one: the zygote does, so that no fork does it once more."""
    own_binds(root.hidden, root.layers)
    layers.prepared(root.layers)


def try_out(root: Root) -> None:
    """Begin with such a file system, in a mount namespace that the caller leaves for good: folders that the kernel refuses to an overlay
    are bound at once from then on. It writes each refusal to its log and to consoles: 3 ms for each container with a serial one."""
    with contextlib.suppress(OSError):  # whoever needs it is told
        begin(root)


def own_binds(hidden: Sequence[str], place: str = "") -> Sequence[Bind]:
    """The interpreter and this package, where a folder above them is empty in containers, or not everybody may read them."""
    return _own_binds(tuple(hidden), place, machine())


@functools.lru_cache(1)
def _own_binds(hidden: tuple[str, ...], place: str, there: Machine) -> Sequence[Bind]:
    above = (*(f"/{name}" for name in (*FRESH, *HOMES)), *(f"/{name}" for name, _ in there.empty), *hidden)
    is_lab = ids.of_pods().are_the_labs
    wanted = [p for p in sorted(OWN) if any(is_below(p, folder) for folder in above) or not (is_lab or everybody_reads(p))]
    return [Bind(layers.own(place, path) or path, path, read_only=True) for path in wanted]


@functools.cache
def everybody_reads(path: str) -> bool:
    """May everybody read what is of this package or its interpreter there?"""
    return all(
        os.stat(sample).st_mode & stat.S_IROTH and _is_reached(sample)
        for sample in map(os.path.realpath, SAMPLES)
        if is_below(sample, path)
    )


@functools.cache
def _is_reached(path: str) -> bool:
    """May everybody search all folders above it?"""
    return all(os.stat(folder).st_mode & stat.S_IXOTH for folder in Path(path).parents)


def is_below(path: str, folder: str) -> bool:
    """Is it that folder, or something in there?"""
    return path == folder or path.startswith(f"{folder}/")


def prepare(folder: str) -> None:
    """Make the mount points in the lab's folder."""
    for name in (ROOT, SCRATCH):
        os.makedirs(f"{folder}/{name}", exist_ok=True)


class Machine(NamedTuple):
    """The entries of this machine's / that a container sees: links (name, target), folders that are empty (name, mode), those that are the
    lower layer of an overlay, and the devices of /dev (name, is it a folder?). HOMES that can be read are among the latter folders."""

    links: tuple[tuple[str, str], ...]
    empty: tuple[tuple[str, int], ...]
    layers: tuple[str, ...]
    devices: tuple[tuple[str, bool], ...]


def machine() -> Machine:
    """What is there now. The zygote asks before it forks, so that it is read again only after / or /dev changed."""
    return _machine(os.stat("/").st_mtime_ns, os.stat("/dev").st_mtime_ns, ids.of_pods().are_the_labs)


@functools.lru_cache(1)
def _machine(root_changed: int, devices_changed: int, are_the_labs: bool) -> Machine:
    names = [name for name in os.listdir("/") if name not in LEFT_OUT]
    links = tuple((name, os.readlink(f"/{name}")) for name in names if os.path.islink(f"/{name}"))
    there = folders()
    shown = tuple(name for name in there if name not in FRESH and (_lab_reads(name) if are_the_labs else _pods_read(name)))
    empty = tuple((name, FRESH.get(name, 0o755)) for name in there if name not in shown)
    devices = tuple((name, os.path.isdir(f"/dev/{name}")) for name in DEVICES if os.path.exists(f"/dev/{name}"))
    return Machine(links, empty, shown, devices)


def folders() -> list[str]:
    """The names of this machine's folders in /, but /dev."""
    names = [name for name in os.listdir("/") if name not in LEFT_OUT and name != "dev"]
    return [name for name in names if not os.path.islink(f"/{name}") and os.path.isdir(f"/{name}")]


def _lab_reads(name: str) -> bool:
    return os.access(f"/{name}", os.R_OK | os.X_OK)


def _pods_read(name: str) -> bool:
    """May pods of other ids read it? Not where what they need of this package lies below a folder that is closed to them: that is
    mounted in an empty one."""
    if name in HOMES:
        return _lab_reads(name)
    is_open = os.stat(f"/{name}").st_mode & CLOSED_TO_NOBODY == CLOSED_TO_NOBODY
    return is_open and all(_is_reached(path) for path in OWN if is_below(path, f"/{name}"))


class Entered(NamedTuple):
    """Descriptors: of /proc/sys where it can be written, and for reading the termination message, if there is a file for one."""

    sysctls: int
    last_words: list[int]


class Begun(NamedTuple):
    """A part of a file system that is the same for many: what they have in common, and the machine of which it was made."""

    alike: tuple[object, ...]
    there: Machine

    def fits(self, root: Root, places: Iterable[str]) -> bool:
        """Is this the beginning of that file system, in which something is to be mounted at these places?"""
        closed = [f"/{name}" for name in self.there.layers if name not in LATE and (root.homes or name not in HOMES)]
        is_open = not any(is_below(path, folder) for path in places for folder in closed)
        return is_open and self == Begun(_alike(root), machine())


def _alike(root: Root) -> tuple[object, ...]:
    return root.folder, root.homes, root.size, root.layers


def begin(root: Root) -> Begun:
    """Make what file systems like this one have in common, while it is not known yet for whom: the caller has a mount namespace of its own,
    which is that of the container later. OSError says what can't be had."""
    with _umask():
        _begin(root)
        _overlays(root, (), lambda name: name not in LATE)
    return Begun(_alike(root), machine())


def enter(root: Root, begun: Begun | None = None) -> Entered:
    """Make the file system and enter it; the caller has a mount namespace of its own, and the network namespace of the pod. `begun`: what
    it has made of it.

    It is not yet in the pod's user namespace, which is going to lock these mounts. OSError says what can't be had.
    """
    with _umask():
        return _enter(root, begun)


@contextlib.contextmanager
def _umask() -> Iterator[None]:
    before = os.umask(UMASK)
    try:
        yield
    finally:
        os.umask(before)


def _begin(root: Root) -> None:
    """What the container writes on, its root, and what is in there but for the machine's folders."""
    base, scratch = f"{root.folder}/{ROOT}", f"{root.folder}/{SCRATCH}"
    syscalls.mount("tmpfs", scratch, "tmpfs", MS_NOSUID | MS_NODEV, tmpfs_options(root.size, "755"))
    os.mkdir(f"{scratch}/{NEW}", 0o755)
    syscalls.mount(f"{scratch}/{NEW}", base, None, MS_BIND)
    _fill(base, scratch)


def _enter(root: Root, begun: Begun | None) -> Entered:
    base, scratch = f"{root.folder}/{ROOT}", f"{root.folder}/{SCRATCH}"
    made = {"/", *(f"/{name}" for name in machine().layers if root.homes or name not in HOMES)}
    own = [_Target(bind) for bind in own_binds(root.hidden, root.layers)]
    targets = [_Target(bind) for bind in root.binds]
    last_words = os.path.realpath(root.last_words or "/")
    is_begun = begun is not None and begun.fits(root, (*(target.path for target in (*own, *targets)), last_words))
    if begun is not None and not is_begun:
        for place in (base, scratch):
            syscalls.unmount(place)
    if not is_begun:
        _begin(root)
    words = []
    if root.last_words:
        words = [os.open(f"{scratch}/{LAST_WORDS}", os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)]
        os.fchmod(words[0], 0o666)  # whoever a container's processes are
        targets.append(_Target(Bind(f"{scratch}/{LAST_WORDS}", root.last_words)))
    _overlays(root, [*own, *targets], lambda name: name in LATE or not is_begun)
    old = f".{os.urandom(8).hex()}"  # no mount path of a pod, and no link in its volumes, can lead there
    os.mkdir(f"{base}/{old}")
    os.chdir(base)
    syscalls.pivot_root(".", old)
    os.chdir("/")
    mount_kernel()
    if root.pids and releases.limits_processes():
        _set("kernel.pid_max", str(root.pids))
    with ids.as_first(ids.of_pods()):  # who alone sets what belongs to the pod's IPC namespace
        for name, value in root.sysctls.items():
            _set(name, value)
    sysctls = open_sysctls()
    _protect_kernel()
    empties = f"/{old}{scratch}"
    made |= _hide((*HIDDEN_FOLDERS, *HIDDEN_KERNEL), empties)
    covered = POD_FILES.intersection(target.path for target in targets if not target.bind.inside)
    for number, target in enumerate(targets):
        if target.bind.inside and not target.is_folder and os.path.realpath(target.bind.source) in covered:
            target.keep(f"/{old}", f"/{KEPT}{number}")
    empty = [f"/{name}" for name in (*FRESH, *(() if root.homes else HOMES))]
    made |= _hide([path for path in root.hidden if not any(is_below(path, folder) for folder in empty)], empties)
    for target in own:
        target.mount(f"/{old}")
    made |= _hide([path for path in root.hidden if any(is_below(path, target.path) for target in own)], empties)
    for target in targets:
        if not target.bind.inside:
            target.mount(f"/{old}")
    syscalls.unmount(f"/{old}")
    os.rmdir(f"/{old}")
    for target in targets:
        if target.bind.inside:
            os.close(mount_point(target.bind.source, is_folder=target.is_folder))
            target.mount()
    if root.read_only:
        for path in sorted(made - {target.path for target in targets}):
            try:
                syscalls.set_attributes(path, MOUNT_ATTR_RDONLY, recursive=False)
            except OSError as error:
                if error.errno not in (errno.EINVAL, errno.ENOENT, errno.ENOTDIR):
                    raise  # else a volume of the pod is above it
    return Entered(sysctls, words)


def open_sysctls() -> int:
    """A descriptor of /proc/sys."""
    return os.open("/proc/sys", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


def finish() -> None:
    """Mount what belongs to the pod's user namespace, in which the caller is now: its terminals and message queues."""
    syscalls.mount("devpts", "/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620")
    try:
        syscalls.mount("mqueue", "/dev/mqueue", "mqueue", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    except OSError:
        pass  # a kernel without POSIX message queues


def _protect_kernel() -> None:
    """Let nobody change the machine by /proc, or read there what is not the container's."""
    for name in MACHINE_WIDE:
        path = f"/proc/{name}"
        if os.path.exists(path):
            syscalls.mount(path, path, None, MS_BIND | MS_REC)
            syscalls.set_attributes(path, MOUNT_ATTR_RDONLY | NO_DEVICES | MOUNT_ATTR_NOEXEC)
    for name in HIDDEN:
        if os.path.exists(f"/proc/{name}"):
            syscalls.mount("/dev/null", f"/proc/{name}", None, MS_BIND)


def _hide(paths: Sequence[str], place: str) -> set[str]:
    """Have an empty folder over each that is there, and say which these are; it is one of those at this place, the container's own."""
    found = set()
    for path in sorted(paths):
        if os.path.isdir(path) and os.path.realpath(path) == path:  # it may be in one that is empty now
            own = f"{place}/{EMPTY}{path.replace('/', '-')}"
            os.makedirs(own, 0o755, exist_ok=True)
            syscalls.mount(own, path, None, MS_BIND)
            found.add(path)
    return found


class _Target:
    """A bind on its way: where it goes, with all symbolic links followed, so that it stays inside."""

    def __init__(self, bind: Bind) -> None:
        self.bind = bind
        self.path = os.path.realpath(bind.target)
        self.top = self.path.split("/")[1]
        self.fd = -1
        if bind.below:
            self.fd = beneath(bind.source, bind.below, make=bind.makes_below)
            self.is_folder = stat.S_ISDIR(os.fstat(self.fd).st_mode)
        else:
            self.is_folder = os.path.isdir(bind.source) or (bind.inside and not os.path.exists(bind.source))
        self.is_there = False
        self._kept = ""

    def make(self, base: str = "") -> None:
        """Make the mount point, and what leads to it."""
        _make(base + self.path, self.is_folder)

    def make_in(self, upper: str) -> None:
        """Make the mount point in the upper layer of an overlay, or the copy itself."""
        if not self.bind.copied:
            self.make(upper)
            return
        os.makedirs(os.path.dirname(upper + self.path), exist_ok=True)
        _copy(self.bind.source, upper + self.path)
        self.is_there = True

    def keep(self, old: str, place: str) -> None:
        """Have a copy of the machine's file: at its place in the container there is going to be another one."""
        shutil.copy(old + os.path.realpath(self.bind.source), place)
        self._kept = place

    def mount(self, old: str = "") -> None:
        """Bind it, or copy it, in the new root; `old` leads to the machine's."""
        try:
            if not self.is_there:
                self._mount(old)
        except OSError as error:
            raise OSError(error.errno, f"mount {self.bind.target}: {os.strerror(error.errno or 0)}") from None
        finally:
            if self.fd >= 0:
                os.close(self.fd)

    def _mount(self, old: str) -> None:
        point = mount_point(self.path, is_folder=self.is_folder)
        try:
            place = f"/proc/self/fd/{point}"
            if self.bind.copied and os.access(place, os.W_OK):
                _copy(f"{old}{self.bind.source}", place)
                return
            source = f"/proc/self/fd/{self.fd}" if self.fd >= 0 else self._kept or f"{old}{self.bind.source}"
            read_only = MOUNT_ATTR_RDONLY if self.bind.read_only or self.bind.copied else 0
            syscalls.bind_to(source, point, read_only | NO_DEVICES)
        finally:
            os.close(point)
        if self._kept:
            os.unlink(self._kept)


def _copy(source: str, target: str) -> None:
    """Copy a small file with its mode: in less than half of the system calls of `shutil.copy`."""
    old = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
    try:
        new = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC)
        try:
            what = os.fstat(old)
            os.fchmod(new, stat.S_IMODE(what.st_mode))
            while data := os.read(old, min(what.st_size + 1, MOST_AT_ONCE)):  # a large buffer takes longer than the file
                while data:
                    data = data[os.write(new, data) :]
        finally:
            os.close(new)
    finally:
        os.close(old)


def _make(path: str, is_folder: bool) -> None:
    """Have a folder or a file there, and what leads to it."""
    if os.path.isdir(path) if is_folder else os.path.exists(path):
        return
    os.makedirs(path if is_folder else os.path.dirname(path), exist_ok=True)
    if not is_folder:
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o644))


def _fill(base: str, scratch: str) -> None:
    """Put the links and empty folders of the machine's / into the new root, and devices."""
    there = machine()
    for name, link in there.links:
        os.symlink(link, f"{base}/{name}")
    for name, mode in there.empty:
        _folder(f"{base}/{name}", mode)
    _devices(f"{base}/dev", f"{scratch}/{DEVICES_FOLDER}", there.devices)


def _overlays(root: Root, targets: Sequence[_Target], is_wanted: Callable[[str], bool]) -> None:
    """Put folders of the machine's / into the new root, and in their upper layers what these targets need there."""
    base, scratch, prepared = f"{root.folder}/{ROOT}", f"{root.folder}/{SCRATCH}", layers.prepared(root.layers)
    for name in filter(is_wanted, machine().layers):
        if name in HOMES and not root.homes:
            _folder(f"{base}/{name}", HOMES[name])
            continue
        os.mkdir(f"{base}/{name}", 0o755)
        lower = f"{root.layers}/{name}" if name in prepared else f"/{name}"
        _overlay(name, lower, f"{base}/{name}", scratch, [target for target in targets if target.top == name])


def _folder(path: str, mode: int) -> None:
    os.mkdir(path, mode)
    if mode & UMASK:
        os.chmod(path, mode)


def _devices(new: str, own: str, devices: Sequence[tuple[str, bool]]) -> None:
    """/dev with the usual devices: nothing can be made in the machine's own. As a mount it stays writable below a read-only /."""
    for path in (new, own):
        os.mkdir(path, 0o755)
    syscalls.mount(own, new, None, MS_BIND)
    for name, is_folder in devices:
        _make(f"{new}/{name}", is_folder)
        _bind_device(name, f"{new}/{name}")
    for name, link in DEVICE_LINKS.items():
        os.symlink(link, f"{new}/{name}")
    _folder(f"{new}/shm", 0o1777)
    for name in ("pts", "mqueue"):
        os.mkdir(f"{new}/{name}", 0o755)


def protect_devices() -> None:
    """Bind the devices that containers have over themselves, in the caller's mount namespace: a descriptor that is opened from now on
    can be handed to a container, which can't change the device's mode, owner or times by it (fchmod(2))."""
    for name, _ in machine().devices:
        _bind_device(name, f"/dev/{name}")


def protect_interpreter() -> None:
    """Bind the interpreter over itself read-only, in the caller's mount namespace: it may belong to the user of pods, and `/proc/PID/exe`
    of a built-in program whose zygote is started from now on leads there."""
    path = os.path.realpath(sys.executable)
    syscalls.mount(path, path, None, MS_BIND)
    syscalls.set_attributes(path, MOUNT_ATTR_RDONLY)


def _bind_device(name: str, target: str) -> None:
    """The machine's own, to be read and written; on a read-only mount its mode, owner and times can't be changed."""
    syscalls.mount(f"/dev/{name}", target, None, MS_BIND | MS_REC)
    syscalls.set_attributes(target, MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC)


def _overlay(name: str, lower: str, new: str, scratch: str, targets: Sequence[_Target]) -> None:
    upper, work = f"{scratch}/{name}", f"{scratch}/{name}.work"
    os.mkdir(upper)
    os.mkdir(work)
    if name in TEMPORARY:  # in the machine's, nobody's here, nothing could be made (ovl_copy_up_start, EOVERFLOW)
        _folder(f"{upper}/{TEMPORARY[name]}", 0o1777)
    for target in targets:
        target.make_in(scratch)
    if not _is_overlaid(lower, new, f"lowerdir={lower},upperdir={upper},workdir={work},userxattr"):
        syscalls.mount(lower, new, None, MS_BIND | MS_REC)
        syscalls.set_attributes(new, MOUNT_ATTR_RDONLY | NO_DEVICES)
        for target in targets:
            target.is_there = False


_refused: set[str] = set()
"""Folders in which something is mounted that an overlay can't do without (clone_private_mount, EINVAL)."""


def _is_overlaid(lower: str, new: str, options: str) -> bool:
    """Mount an overlay over this folder; False when it can't be."""
    if lower in _refused:
        return False
    try:
        syscalls.mount("overlay", new, "overlay", MS_NODEV, options)
    except OSError as error:
        if error.errno == errno.EINVAL:
            _refused.add(lower)
        return False
    return True


def mount_kernel() -> None:
    """/proc of this PID namespace, /sys of this network namespace, read-only; where the latter is refused, it is empty."""
    flags = MS_NOSUID | MS_NODEV | MS_NOEXEC
    syscalls.mount("proc", "/proc", "proc", flags)
    with contextlib.suppress(OSError):
        syscalls.mount("sysfs", "/sys", "sysfs", flags | MS_RDONLY)


def _set(name: str, value: str) -> None:
    """Set a sysctl of the namespaces that the caller is in. Through its own new /proc that takes as long with thousands of namespaces as
    with few: the machine's would look through all of theirs."""
    try:
        fd = os.open(f"/proc/sys/{name.replace('.', '/')}", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, value.encode())
        finally:
            os.close(fd)
    except OSError as error:
        raise OSError(error.errno, f"sysctl {name} = {value!r}: {error.strerror}") from None
