"""From the command to PID 1 of a lab: two forks, and new user, mount and PID namespaces.

    podplane up ──fork──> enters the namespaces ──fork──> PID 1 of the lab
         └────────────── socket: progress, then ready ──────────┘

The first fork exists because only a process with one thread may enter a user namespace and because a new PID namespace
begins with the next child. It ends at once. PID 1 belongs to nobody's terminal, and everything in the lab ends with it,
whatever kills it. Until the lab is ready it lives only as long as `up` does: an interrupted start leaves nothing.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NoReturn

import msgspec

from podplane.kernel import rootfs, syscalls
from podplane.lab import user_ids
from podplane.lab.errors import LabError, lacks_processes, no_processes
from podplane.lab.folder import LOG, Folder
from podplane.lab.silence import SILENT_SECONDS, heard

PROCESSES = "the processes and threads of a lab"


class Progress(msgspec.Struct, omit_defaults=True):
    """One line from the starting lab: a step that began, what is to be known, or the end: ready, or an error."""

    step: str = ""
    note: str = ""
    done: int = 0
    total: int = 0
    ready: bool = False
    error: str = ""


class Reporter:
    """The lab's end of the progress socket."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection

    def send(self, progress: Progress) -> None:
        """Send it to `up`; that `up` has ended is no error."""
        with contextlib.suppress(OSError):
            self.connection.sendall(msgspec.json.encode(progress) + b"\n")

    def step(self, text: str, done: int = 0, total: int = 0) -> None:
        """A step begins, or goes on."""
        self.send(Progress(step=text, done=done, total=total))


def launch(
    folder: Folder, body: Callable[[Reporter], None], keep: int, *, shows_homes: bool, host_paths: Sequence[str] = ()
) -> Iterator[Progress]:
    """Start a lab whose PID 1 runs `body`; yields its progress until it is ready. LabError when it doesn't get there.

    `shows_homes`: its pods may see homes, and the machine's own `host_paths`. Of this process' descriptors it inherits only standard ones
    and `keep`: locks that are held here must not live on there.
    """
    ours, theirs = socket.socketpair()
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        pid = os.fork()
    except BlockingIOError:
        raise no_processes(PROCESSES) from None
    if pid == 0:
        _close_others(theirs.fileno(), keep)
        _leave(_enter, folder, Reporter(theirs), body, shows_homes, host_paths)
    theirs.close()
    _await_child(pid)
    step, rest = "processes", b""
    with ours:
        while said := heard(ours, folder, step):
            *lines, rest = (rest + said).split(b"\n")
            for line in lines:
                progress = msgspec.json.decode(line, type=Progress)
                if progress.error:
                    raise LabError(progress.error)
                step = progress.step or step
                yield progress
                if progress.ready:
                    return
    raise LabError(f"the lab ended while it started: {_last_log_line(folder) or 'somebody killed it'}")


def _await_child(pid: int) -> None:
    """Wait for the first child, which ends at once. LabError when it does not."""
    pidfd = os.pidfd_open(pid)
    try:
        if not select.select([pidfd], [], [], SILENT_SECONDS)[0]:
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            raise LabError(
                f"process {pid}, which starts the lab, did not end within {SILENT_SECONDS:g} s: was it stopped by a signal?"
            )
    finally:
        os.close(pidfd)
        os.waitpid(pid, 0)


def _last_log_line(folder: Folder) -> str:
    """The last line of the lab's log, "" when it said nothing."""
    try:
        lines = (folder.path / LOG).read_text(errors="replace").split("\n")
    except OSError:
        return ""
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def _close_others(*keep: int) -> None:
    """Close all descriptors but the standard ones and these."""
    first = 3
    for fd in sorted(keep):
        os.closerange(first, fd)
        first = fd + 1
    os.closerange(first, 1 << 20)


def _leave(function: Callable[..., None], *arguments: object) -> NoReturn:
    """Run the function and end this process, whatever happens."""
    status = 1
    try:
        function(*arguments)
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def _enter(
    folder: Folder, reporter: Reporter, body: Callable[[Reporter], None], shows_homes: bool, host_paths: Sequence[str]
) -> None:
    """The first child: into the namespaces, then fork PID 1."""
    try:
        os.setsid()
        for note in enter_namespaces(folder.layers, shows_homes=shows_homes, host_paths=host_paths):
            reporter.send(Progress(note=note))
        if os.fork() == 0:
            _leave(_first_process, folder, reporter, body)
    except LabError as error:
        reporter.send(Progress(error=str(error)))
    except BlockingIOError:
        reporter.send(Progress(error=str(no_processes(PROCESSES))))


def _first_process(folder: Folder, reporter: Reporter, body: Callable[[Reporter], None]) -> None:
    """PID 1 of the lab: its own mounts, its lock, its log, and then the lab itself."""
    try:
        with folder.writing():
            lock = folder.hold()
            _detach_from_terminal(folder)
            _mounts(folder.run)
            body(reporter)
            os.close(lock)
    except LabError as error:
        reporter.send(Progress(error=str(error)))
    except (BlockingIOError, RuntimeError) as error:
        if lacks_processes(error):
            reporter.send(Progress(error=str(no_processes(PROCESSES))))
        raise


def enter_namespaces(layers: Path, *, shows_homes: bool, host_paths: Sequence[str] = ()) -> list[str]:
    """New user, mount and PID namespaces; in the user namespace this user is root. Sentences about what pods don't get here.
    LabError says what forbids it."""
    users = user_ids.find(shows_homes=shows_homes)
    fixed = user_ids.mount_layers(layers, users, host_paths) if users.is_root else []
    try:
        why = user_ids.enter(users)
        syscalls.unshare(syscalls.CLONE_NEWNS | syscalls.CLONE_NEWPID)
    except OSError as error:
        raise LabError(f"user namespaces can't be used here ({error.strerror}): {_why_forbidden()}") from None
    if why:
        return [f"Processes of pods are this user to the machine: {why}."]
    return (
        [f"Pods can't change what root owns in {', '.join(fixed)}: no idmapped mounts are possible there, or others are in it."]
        if fixed
        else []
    )


def _why_forbidden() -> str:
    """What to do, by the switch that forbids user namespaces."""
    switches = (
        ("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1", "sysctl -w {}=0"),
        ("/proc/sys/kernel/unprivileged_userns_clone", "0", "sysctl -w {}=1"),
        ("/proc/sys/user/max_user_namespaces", "0", "sysctl -w {}=10000"),
    )
    for path, forbidding, command in switches:
        with contextlib.suppress(OSError):
            if Path(path).read_text().strip() == forbidding:
                key = path.removeprefix("/proc/sys/").replace("/", ".")
                return f"{key} is {forbidding}; as root, run `{command.format(key)}`"
    return "in a container, allow them (docker run --security-opt seccomp=unconfined --cap-add SYS_ADMIN), or use the machine itself"


def _detach_from_terminal(folder: Folder) -> None:
    """Standard input is nothing; output, if a bug or a warning makes any, goes to lab.log."""
    null = os.open(os.devnull, os.O_RDONLY)
    log = os.open(folder.path / LOG, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    for target, source in ((0, null), (1, log), (2, log)):
        os.dup2(source, target)
    os.close(null)
    os.close(log)
    os.umask(0o022)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


def _mounts(run: Path) -> None:
    """Mounts that only the lab sees, and that go with it: /proc of its PID namespace, and a tmpfs for its files."""
    try:
        syscalls.mount("none", "/", None, syscalls.MS_REC | syscalls.MS_PRIVATE)
        syscalls.mount("proc", "/proc", "proc", 0)
        syscalls.mount("tmpfs", str(run), "tmpfs", 0)
        rootfs.protect_devices()
        rootfs.protect_interpreter()
    except OSError as error:
        raise LabError(
            f"the lab can't mount its own /proc ({error.strerror}): a container hides parts of /proc; "
            "allow it (docker run --security-opt systempaths=unconfined), or use the machine itself"
        ) from None
