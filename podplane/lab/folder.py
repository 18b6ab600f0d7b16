"""The folder of a lab, and how it is known whether the lab runs.

A running lab holds a POSIX lock on its `lab.json`. The kernel says who holds it (F_GETLK) and drops it when that process ends, however it
ends: there is no pid file to go stale. Commands that start or stop a lab exclude each other by flock(2) on the folder.

    lab.json    settings; stays until the lab is deleted
    state.db    the API server's objects; stays too
    pki/        the lab's certificate authority and keys; stay
    kubeconfig  for kubectl and all other clients; its tokens stay good over stops
    audit.log   one JSON line a request
    logs/       logs of containers
    cgroups     where the running lab's control groups are
    run.json    address and token of the running lab; valid only while the lock is held
    run/        where the lab mounts its own tmpfs (in its mount namespace: empty for everybody else)
    layers/     where a lab of root mounts the machine's folders for its pods, likewise (`kernel.layers`)
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from podplane.lab.errors import LabError
from podplane.model.words import command_line

if TYPE_CHECKING:
    from podplane.kubeapi.access import Access

DEFAULT_NAME = "lab"
NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?")

EXCLUSIVE_SECONDS, LOCK_POLL_SECONDS = 180.0, 0.05
"""A start waits two minutes for pods at most."""
LOG = "lab.log"
"""The lab's log in its folder: warnings and errors."""
UNWRITABLE = {
    errno.ENOSPC: "free some there",
    errno.EDQUOT: "free some of your quota there",
    errno.EROFS: "it is mounted read-only: mount it for writing",
}
"""Errors of a disk that takes nothing, and what to do."""
FLOCK = struct.Struct("hh4xqqi4x")
"""struct flock of 64-bit Linux: type, whence, start, length, pid."""


class Endpoint(msgspec.Struct, frozen=True):
    """Where a running lab's API is: host, port, the administrator's bearer token, and the lab's certificate authority (PEM)."""

    host: str
    port: int
    token: str
    ca: str
    started: float = 0.0


def write_private(path: Path, data: bytes) -> None:
    """Write a file that only its owner may read; it is whole or not there (rename)."""
    draft = path.with_name(path.name + ".new")
    draft.unlink(missing_ok=True)
    draft.touch(0o600)
    draft.write_bytes(data)
    draft.rename(path)


def state_home() -> Path:
    """Where labs are kept: $XDG_STATE_HOME/podplane, or ~/.local/state/podplane (XDG base directories)."""
    base = os.environ.get("XDG_STATE_HOME") or os.path.join(os.path.expanduser("~"), ".local", "state")
    return Path(base) / "podplane"


SYSTEM_FOLDERS = frozenset({"/", "/bin", "/dev", "/etc", "/lib", "/nonexistent", "/opt", "/sbin", "/srv", "/usr", "/var"})
"""What a service has as its home that is none; nothing below /usr is one, either."""


HOMES = ("/home", "/root")
"""Folders of homes, which may be links to such folders."""


def hidden_folders(*, shows_home: bool) -> tuple[str, ...]:
    """Folders that are nobody's business in a pod: those of all labs; and the home of this user, and where links to homes lead, unless
    pods may see homes."""
    labs_folder = os.path.realpath(state_home())
    if shows_home:
        return (labs_folder,)
    home = os.path.realpath(os.path.expanduser("~"))
    is_home = home not in SYSTEM_FOLDERS and not home.startswith("/usr/")
    linked = [real for name in HOMES if (real := os.path.realpath(name)) != name and real not in SYSTEM_FOLDERS]
    return tuple(dict.fromkeys((*linked, *((home,) if is_home else ()), labs_folder)))


def labs() -> list[str]:
    """Names of all labs that have a folder."""
    try:
        return sorted(p.name for p in state_home().iterdir() if NAME.fullmatch(p.name) and p.is_dir())
    except OSError:
        return []


class Folder:
    """One lab's folder; nothing is made before `create`."""

    @classmethod
    def named(cls, name: str) -> Folder:
        """The folder of a lab. LabError when that can't be a lab's name."""
        if not NAME.fullmatch(name):
            raise LabError(f"lab name {name!r}: use up to 40 lower-case letters, digits and dashes")
        return cls(name)

    def __init__(self, name: str) -> None:
        self.name = name
        self.path = state_home() / name
        self.spec = self.path / "lab.json"
        self.store = self.path / "state.db"
        self.run = self.path / "run"
        self.layers = self.path / "layers"
        self.pki = self.path / "pki"
        self.kubeconfig = self.path / "kubeconfig"
        self.audit = self.path / "audit.log"
        self.logs = self.path / "logs"
        self.groups = self.path / "cgroups"
        self._endpoint = self.path / "run.json"
        self._held: os.stat_result | None = None

    def create(self) -> None:
        """Make the folder, for its owner only. LabError when that can't be."""
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.run.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise LabError(
                f"{self.path} can't be made ({error.strerror}): set HOME or XDG_STATE_HOME to a folder you can write to"
            ) from None

    @contextlib.contextmanager
    def exclusive(self, *, make: bool = False) -> Iterator[None]:
        """Hold off every other command that starts or stops this lab. LabError when there is no folder (`make`: it is made)."""
        while True:
            if make:
                self.create()
            elif not self.path.exists():
                raise LabError(f"lab {self.name!r} was deleted just now")
            try:
                fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
            try:
                self._lock(fd)
                if self.path.exists() and os.path.samestat(os.fstat(fd), os.stat(self.path)):
                    yield
                    return
            finally:
                os.close(fd)  # else somebody removed the folder meanwhile: this was the lock of another one

    def _lock(self, fd: int) -> None:
        """Lock the folder. LabError when another command keeps it locked for long."""
        until = time.monotonic() + EXCLUSIVE_SECONDS
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() >= until:
                    what = f"another command has been starting or stopping lab {self.name!r} for {EXCLUSIVE_SECONDS:g} s"
                    raise LabError(f"{what}{_holder_of(fd)}: wait for its end, or end it") from None
            time.sleep(LOCK_POLL_SECONDS)

    @contextlib.contextmanager
    def checking(self) -> Iterator[None]:
        """Hold off every other check of this lab. LabError when there is one."""
        fd = os.open(self.run, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        except BlockingIOError:
            raise LabError(f"lab {self.name!r} is being checked already: wait for the end of that") from None
        finally:
            os.close(fd)

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Files of the folder are written within. LabError says it when that fails for want of space, or of the right to."""
        try:
            yield
        except OSError as error:
            if error.errno not in UNWRITABLE:
                raise
            why = "no space is left on the disk of" if error.errno != errno.EROFS else "nothing can be written to the disk of"
            raise LabError(f"{why} {self.path}: {UNWRITABLE[error.errno]}, then `{self.command('up')}`") from None

    def hold(self) -> int:
        """Mark this process as the running lab: the locked descriptor, to be kept open and never opened again here.

        LabError when another lab process holds it.
        """
        fd = os.open(self.spec, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(fd)
            raise LabError(f"lab {self.name!r} runs already") from None
        self._held = os.fstat(fd)
        return fd

    def is_held(self) -> bool:
        """Is what `hold` has locked still where others look for it?"""
        try:
            return self._held is None or os.path.samestat(self._held, os.stat(self.spec))
        except FileNotFoundError:
            return False
        except OSError:
            return True  # it can't be known now

    def holder(self) -> int | None:
        """Process id of the running lab, as the kernel knows it; None when it doesn't run."""
        try:
            fd = os.open(self.spec, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            answer = fcntl.fcntl(fd, fcntl.F_GETLK, FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
        finally:
            os.close(fd)
        kind, _, _, _, pid = FLOCK.unpack(answer)
        return pid if kind != fcntl.F_UNLCK and pid > 0 else None

    def publish(self, endpoint: Endpoint) -> None:
        """Say where the API is; readable by the owner only."""
        write_private(self._endpoint, msgspec.json.encode(endpoint))

    @property
    def published(self) -> bool:
        """Has the lab been ready since `clear`?"""
        return self._endpoint.exists()

    def endpoint(self) -> Endpoint:
        """Where the running lab's API is. LabError when the lab doesn't run."""
        if self.holder() is None:
            raise LabError(f"lab {self.name!r} is not running: start it with `{self.command('up')}`")
        try:
            return msgspec.json.decode(self._endpoint.read_bytes(), type=Endpoint)
        except (OSError, msgspec.MsgspecError):
            raise LabError(f"lab {self.name!r} is still starting: try again in a second") from None

    def access(self) -> Access:
        """The administrator's way to the running lab's API. LabError when the lab doesn't run."""
        from podplane.kubeapi.access import Access  # brings TLS, which costs a command that doesn't connect something

        endpoint = self.endpoint()
        return Access(endpoint.host, endpoint.port, endpoint.token, endpoint.ca)

    def command(self, verb: str, rest: str = "") -> str:
        """The command line of a verb for this lab."""
        return command_line(verb, rest, self.name if self.name != DEFAULT_NAME else "")

    def undo_faults(self, node: str) -> str:
        """The command line that undoes the faults of a node."""
        return self.command("fault", f"{node} --clear")

    def clear(self) -> None:
        """Remove what only a running lab needs; it must not run."""
        self._endpoint.unlink(missing_ok=True)
        for draft in self.path.glob("*.new"):
            draft.unlink(missing_ok=True)
        for place in (self.run, self.layers):
            with contextlib.suppress(OSError):
                place.rmdir()

    def delete(self) -> None:
        """Remove the lab's state, and the folder of all labs when this was the last one; it must not run."""
        import shutil  # costs a command more than all else here

        shutil.rmtree(self.path, ignore_errors=True)
        with contextlib.suppress(OSError):
            state_home().rmdir()


def _holder_of(fd: int, locks: Path = Path("/proc/locks")) -> str:
    """ " (process N)" that holds the lock (flock(2)) of an open file, as proc_locks(5) has it; "" where that can't be known."""
    inode = os.fstat(fd).st_ino
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in locks.read_text().splitlines():
            words = line.split()
            if words[1] == "FLOCK" and int(words[5].rpartition(":")[2]) == inode:
                return f" (process {words[4]})"
    return ""
