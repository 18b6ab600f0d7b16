"""Sysctls of a network namespace: written, and read back, since a value may be refused without an error.

/proc/sys/net shows the namespace of the thread that opens a file. Names are those of sysctl(8): `net.ipv4.ip_forward`; a
dot within an interface name is written as `/`.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import threading
from collections.abc import Callable, Iterable, Mapping

from podplane.kernel import syscalls
from podplane.kernel.errors import KernelError, NotFound, from_errno
from podplane.kernel.namespace import Namespace

ROOT = "/proc/sys/"
NET = f"{ROOT}net"
VALUE_BYTES = 4096
LINKS = "net.ipv6.conf."
"""What the names of sysctls of links begin with."""
SEPARATORS = str.maketrans("./", "/.")
OPENED_IN_ONE = 256
"""After so many files of one mount of procfs a thread goes on with a new one, of its own."""
HARMLESS = syscalls.MOUNT_ATTR_NOSUID | syscalls.MOUNT_ATTR_NODEV | syscalls.MOUNT_ATTR_NOEXEC
OF_A_LINK = re.compile(r"net\.ipv[46]\.(conf|neigh)\.(?!all\.|default\.)")
"""A sysctl of one link."""
MODULES = {"net.bridge": "br_netfilter"}
"""Sysctls that appear with a kernel module."""


class _Place:
    """Where this process finds the sysctls of the network; a container finds /proc/sys/net read-only, and another mount of it elsewhere."""

    net = NET


def use_folder(net: str) -> None:
    """Have this process find the sysctls of the network there, from now on: at another mount of /proc/sys/net."""
    _Place.net = net


def problem_of(net: str) -> str:
    """Why sysctls of the network can't be set there; "" when they can."""
    if not os.path.exists(f"{net}/ipv4/ip_forward"):
        return "is no mount of /proc/sys/net"
    return "is read-only" if os.statvfs(net).f_flag & os.ST_RDONLY else ""


def path_of(name: str) -> str:
    """The file of a sysctl."""
    path = ROOT + name.translate(SEPARATORS)
    return path if _Place.net == NET or not path.startswith(f"{NET}/") else _Place.net + path.removeprefix(NET)


class _OwnProc:
    """A procfs that is mounted nowhere; -1 where there can be none."""

    def __init__(self) -> None:
        try:
            self.folder = syscalls.new_mount("proc", HARMLESS)
        except OSError:
            self.folder = -1

    def __del__(self) -> None:
        if self.folder >= 0:
            os.close(self.folder)


class _Opener(threading.local):
    """Opens the files of sysctls for one thread.

    /proc/sys/net has a folder of each name for each namespace that looked there, and one of them is found by going through those of all
    (proc_sys_compare): with a thousand namespaces that takes a millisecond. In a new procfs there are none yet.
    """

    def __init__(self) -> None:
        self._left = OPENED_IN_ONE
        self._own: _OwnProc | None = None

    def open(self, name: str, flags: int) -> int:
        """A descriptor, in the namespace that the thread is in."""
        if self._left == 0:
            self._left, self._own = OPENED_IN_ONE, _OwnProc()
        self._left -= 1
        if self._own is None or self._own.folder < 0:
            return os.open(path_of(name), flags | os.O_CLOEXEC)
        return os.open(path_of(name).removeprefix("/proc/"), flags | os.O_CLOEXEC, dir_fd=self._own.folder)


_files = _Opener()


Open = Callable[[str, int], int]
"""Opens a sysctl's file: its name, flags of open(2)."""


def set_here(values: Mapping[str, str]) -> dict[str, KernelError]:
    """Set each in the calling thread's namespace and read it back; the refused ones with the reason."""
    return _set_by(_files.open, values)


def _set_by(opened: Open, values: Mapping[str, str]) -> dict[str, KernelError]:
    errors: dict[str, KernelError] = {}
    for name, value in values.items():
        try:
            _set(opened, name, value)
        except KernelError as error:
            errors[name] = error
    return errors


def _set(opened: Open, name: str, value: str) -> None:
    wanted = value.split()
    try:
        fd = opened(name, os.O_RDWR)
        try:
            if os.pread(fd, VALUE_BYTES, 0).decode().split() == wanted:
                return
            os.pwrite(fd, value.encode(), 0)
            found = os.pread(fd, VALUE_BYTES, 0).decode().split()
        finally:
            os.close(fd)
    except FileNotFoundError:
        raise NotFound(f"sysctl {name} = {value}", "there is no such sysctl here", hint=_hint(name)) from None
    except OSError as error:
        raise from_errno(f"sysctl {name} = {value}", error.errno or 0) from None
    if found != wanted:
        raise KernelError(f"sysctl {name} = {value}", f"it is {' '.join(found)} after it was set")


def _hint(name: str) -> str:
    if OF_A_LINK.match(name):
        return "its link is not there"
    module = next((module for prefix, module in MODULES.items() if name.startswith(prefix)), "")
    return f"load the kernel module {module} (modprobe {module})" if module else "this kernel lacks the feature"


def read_here(names: Iterable[str]) -> dict[str, str]:
    """The values of those that exist, words separated by one space."""
    return _read_by(_files.open, names)


def _read_by(opened: Open, names: Iterable[str]) -> dict[str, str]:
    found = {}
    for name in names:
        try:
            fd = opened(name, os.O_RDONLY)
            try:
                found[name] = " ".join(os.pread(fd, VALUE_BYTES, 0).decode().split())
            finally:
                os.close(fd)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise from_errno(f"sysctl {name}", error.errno or 0) from None
    return found


class FormerSysctls:
    """What sysctls were before podplane set them, as long as this process knows it."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}
        """By name."""

    def note(self, name: str, was: str, wanted: str) -> None:
        """It is about to be set, and nothing was known of it. OSError when that can't be kept: it is not set then."""
        self.values[name] = was

    def take(self, name: str, default: str) -> str:
        """What it was; it is not podplane's any more."""
        return self.values.pop(name, default)


class Sysctls:
    """The sysctls of one namespace."""

    def __init__(self, namespace: Namespace) -> None:
        self._namespace = namespace

    def set(self, values: Mapping[str, str]) -> dict[str, KernelError]:
        """Set each and read it back; the refused ones with the reason."""
        return self._namespace.run(set_here, values)

    def read(self, names: Iterable[str]) -> dict[str, str]:
        """The values of those that exist."""
        return self._namespace.run(read_here, list(names))


class SysctlFolder:
    """The sysctls of one namespace below one folder of /proc/sys, which was opened in it: nobody enters it.

    A folder below /proc/sys/net is that of the namespace of the thread that opened it, and so is what is opened through it, whoever does
    that (proc_sys_lookup).
    """

    def __init__(self, folder: int, prefix: str) -> None:
        """`folder` is the descriptor, and `prefix` what the names of its sysctls begin with: `net.ipv6.`."""
        self._folder, self._prefix = folder, prefix

    def _open(self, name: str, flags: int) -> int:
        if not name.startswith(self._prefix):
            raise PermissionError(errno.EPERM, f"only sysctls of {self._prefix} can be set there")
        return os.open(name.removeprefix(self._prefix).translate(SEPARATORS), flags | os.O_CLOEXEC, dir_fd=self._folder)

    def set(self, values: Mapping[str, str]) -> dict[str, KernelError]:
        """Set each and read it back; the refused ones with the reason."""
        return _set_by(self._open, values)

    def read(self, names: Iterable[str]) -> dict[str, str]:
        """The values of those that exist."""
        return _read_by(self._open, names)

    def files(self, names: Iterable[str]) -> dict[str, int]:
        """Descriptors of those that exist; whoever calls closes them. KernelError when they can't be opened."""
        return _open_by(self._open, names)

    def fileno(self) -> int:
        """The descriptor."""
        return self._folder

    def close(self) -> None:
        """Let go of the folder; idempotent."""
        if self._folder >= 0:
            os.close(self._folder)
            self._folder = -1


class NodeSysctls(Sysctls):
    """Those of a namespace that is there for long. Sysctls of its links are found through a folder that stays open: nobody enters the
    namespace for them, and they are not looked up among those of all namespaces (`_Opener`)."""

    def __init__(self, namespace: Namespace) -> None:
        super().__init__(namespace)
        self._links: SysctlFolder | None = None

    def set(self, values: Mapping[str, str]) -> dict[str, KernelError]:
        """Set each and read it back; the refused ones with the reason."""
        is_of_links = bool(values) and all(name.startswith(LINKS) for name in values)
        folder = self._folder() if is_of_links else None
        return super().set(values) if folder is None else folder.set(values)

    def watch(self, names: Iterable[str]) -> OpenSysctls:
        """Those of these that exist, with their files open. KernelError when they can't be opened."""
        wanted = list(names)
        of_links = [name for name in wanted if name.startswith(LINKS)]
        folder = self._folder() if of_links else None
        others = wanted if folder is None else [name for name in wanted if not name.startswith(LINKS)]
        files = self._namespace.run(_open_here, others) if others else {}
        if folder is not None:
            files |= folder.files(of_links)
        return OpenSysctls(files, set(wanted) - files.keys())

    def _folder(self) -> SysctlFolder | None:
        """That of the sysctls of links; None where there is none, as without IPv6."""
        if self._links is None:
            with contextlib.suppress(OSError):
                self._links = SysctlFolder(self._namespace.run(_open_folder, LINKS), LINKS)
        return self._links

    def close(self) -> None:
        """Let go of the folder; idempotent."""
        if self._links is not None:
            self._links.close()
            self._links = None


def _open_folder(prefix: str) -> int:
    """The folder of the sysctls whose names begin so, in the calling thread's namespace."""
    return os.open(path_of(prefix.rstrip(".")), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


class OpenSysctls:
    """Sysctls of one namespace whose files stay open, so that reading them again costs one read each, without entering the namespace.

    A file of /proc/sys/net shows the namespace of the thread that opened it, whoever reads it. One that goes with its interface
    is not watched any more.
    """

    def __init__(self, files: dict[str, int], unwatched: Iterable[str]) -> None:
        self._files = files
        self._unwatched = set(unwatched)
        self._matching: dict[str, tuple[str, bytes]] = {}
        """Name → (expected, found) where what was found last is as expected: the next look compares bytes."""
        self._settled: tuple[Mapping[str, str], list[tuple[int, bytes]]] = ({}, [])
        """What was expected when everything was found so, and the file and bytes of each: another look for the same compares only these."""

    @property
    def unwatched(self) -> frozenset[str]:
        """Those that do not exist, or do not any more."""
        return frozenset(self._unwatched)

    def changed(self, expected: Mapping[str, str]) -> dict[str, str]:
        """Name → value now (words separated by one space), of those that have another value than expected.

        `expected` must not be written to later on."""
        settled, files = self._settled
        if settled is expected and self._are(files):
            return {}
        changed = self._compared(expected)
        if not changed and not self._unwatched:
            files = [(self._files[name], self._matching[name][1]) for name in expected]
            self._settled = expected, files
        return changed

    @staticmethod
    def _are(files: list[tuple[int, bytes]]) -> bool:
        try:
            return [os.pread(fd, VALUE_BYTES, 0) for fd, _ in files] == [found for _, found in files]
        except OSError:  # an interface is gone
            return False

    def _compared(self, expected: Mapping[str, str]) -> dict[str, str]:
        changed = {}
        for name, value in expected.items():
            fd = self._files.get(name)
            if fd is None:
                self._unwatched.add(name)
                continue
            try:
                found = os.pread(fd, VALUE_BYTES, 0)
            except OSError:  # its interface is gone
                self._drop(name)
                continue
            if self._matching.get(name) == (value, found):
                continue
            text = found.decode().rstrip("\n")
            if text == value or text.split() == value.split():
                self._matching[name] = value, found
            else:
                changed[name] = " ".join(text.split())
        return changed

    def _drop(self, name: str) -> None:
        os.close(self._files.pop(name))
        self._unwatched.add(name)

    def close(self) -> None:
        """Close the files; idempotent."""
        for fd in self._files.values():
            os.close(fd)
        self._files = {}


def _open_here(names: Iterable[str]) -> dict[str, int]:
    """Descriptors of those that exist, in the calling thread's namespace."""
    return _open_by(_files.open, names)


def _open_by(opened: Open, names: Iterable[str]) -> dict[str, int]:
    files: dict[str, int] = {}
    try:
        for name in names:
            try:
                files[name] = opened(name, os.O_RDONLY)
            except FileNotFoundError:
                continue
    except OSError as error:
        for fd in files.values():
            os.close(fd)
        raise from_errno("open a sysctl", error.errno or 0) from None
    return files
