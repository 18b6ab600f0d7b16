"""The zygote: a small process with one thread that starts all containers.

A fork costs what the forking process has mapped, and a process that is to enter namespaces must have one thread. So a small
process forks, and the large one asks it to, over a SEQPACKET socket that also carries the descriptors a container gets
(SCM_RIGHTS). Every container is the zygote's own child: it is process 1 of a new PID namespace (unshare(2) makes that for the next child;
the zygote then returns to its own by setns(2)), and its end is known by waitpid(2) before its number is free for
another process. A command that joins a container is forked straight into that one's PID namespace.

A container belongs to a sandbox (`kernel.sandbox`): its mounts are made by the lab's power, and locked when it enters the pod's user
namespace. No process of a pod can look into one that is on its way into a container (PR_SET_DUMPABLE): its memory belongs to the lab's
user namespace, where a pod has no capabilities, so `/proc/PID/root` there leads nobody to the lab's files. As long as one
holds the zygote's socket it imports nothing from when it sees the pod's files.
"""

from __future__ import annotations

import contextlib
import gc
import os
import selectors
import signal
import socket
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec

from podplane.kernel import (
    cgroups,
    ids,
    leftovers,
    process_title,
    releases,
    rootfs,
    sandbox,
    seccomp,
    syscalls,
    user_limits,
    volumes,
    zygote_spare,
)
from podplane.kernel.rootfs import Root
from podplane.kernel.sandbox import Sandbox
from podplane.kernel.zygote_child import Child, InContainer, InLab, InSandbox, Place, Program, Share
from podplane.kernel.zygote_messages import (
    LAB,
    MESSAGE_BYTES,
    NOT_EXECUTABLE,
    SHORT_OF,
    WHY_BYTES,
    Ahead,
    Command,
    EndLeft,
    Event,
    MakeMounts,
    MakeSandbox,
    Release,
    Signal,
    Spawn,
    Words,
    receive,
)
from podplane.kernel.zygote_spare import Spare, Spares

SHORT_TRIES, SHORT_PAUSE = 200, 0.05
"""How often, and after how many seconds again, the zygote sends its news where the machine is short of what a message needs."""
IGNORED_BY_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGHUP, signal.SIGINT)
ENTRY = "import gc, sys; gc.disable(); sys.path[:] = sys.argv[3:]; __import__(sys.argv[1], fromlist=['main']).main(int(sys.argv[2]))"


class Began(NamedTuple):
    """A zygote that was started: this end of the socket to it, and its process id."""

    connection: socket.socket
    pid: int


def start(module: str) -> Began:
    """Start the zygote: a new interpreter that calls `main(fd)` of this module.

    A fresh interpreter is smaller than any fork of this one, and starts beside what this one does next. It finds modules where
    this one does.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in (ours, theirs):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * MESSAGE_BYTES)
    pid = os.fork()
    if pid == 0:
        try:
            keep = theirs.fileno()
            os.closerange(3, keep)
            os.closerange(keep + 1, 1 << 20)
            os.set_inheritable(keep, True)
            os.execv(sys.executable, [sys.executable, "-I", "-S", "-c", ENTRY, module, str(keep), *sys.path])
        except OSError as error:
            os.write(2, f"the zygote can't be started: {sys.executable}: {error.strerror}\n".encode())
        finally:
            os._exit(1)
    theirs.close()
    return Began(ours, pid)


class Zygote:
    """The loop of the zygote's process."""

    def __init__(self, connection: socket.socket, programs: Mapping[str, Program]) -> None:
        connection.set_inheritable(False)
        self._connection = connection
        self._programs = programs
        self._children: dict[int, int] = {}
        self._ids: dict[int, int] = {}
        self._mounts: dict[int, int] = {}
        self._common: set[str] = set()
        """The groups that it is in, with all that it starts."""
        self._contained: set[int] = set()
        self._shares: dict[int, Share] = {}
        self._selector = selectors.DefaultSelector()
        self._spares = Spares(self._make_spare, self._selector)
        self._alike: Root | None = None
        """What the file systems of most containers are like."""
        self._own_mounts = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        self._users = ids.of_pods()
        self._limits = user_limits.of_pods(self._users)
        self._are_counted, self._pods = user_limits.are_counted(self._users), 0
        self._own_pids = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
        self._wake, wake = socket.socketpair()
        for end in (self._wake, wake):
            end.setblocking(False)
        self._wake_writer = wake

    def run(self) -> None:
        """Serve until the other end is closed."""
        for number in IGNORED_BY_PYTHON:  # here once, and not in every child: containers begin with what is usual
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._wake_writer.fileno(), warn_on_full_buffer=False)
        syscalls.reap_orphans()  # of containers among the lab's processes
        process_title.layout_of_process()  # here once, as the next one
        releases.limits_processes()
        for message in (Spawn(0, ""), Words([], {})):  # what children read: they need not find out how
            msgspec.json.decode(msgspec.json.encode(message), type=type(message))
        user_limits.dumps_go_to_a_program()
        with contextlib.suppress(OSError):  # a kernel without keys
            syscalls.join_new_session_keyring(is_closed=True)
        gc.collect()
        gc.freeze()
        gc.disable()  # in the children too: those that serve keep no cycles
        self._selector.register(self._connection, selectors.EVENT_READ)
        self._selector.register(self._wake, selectors.EVENT_READ)
        while True:
            ready = self._selector.select(self._spares.patience)
            if not ready:
                self._spares.add()
            for key, _ in ready:
                if key.fileobj is self._wake:
                    self._reap()
                elif key.fileobj is not self._connection:
                    self._spares.got_ready()
                elif not self._serve_one():
                    return

    def _reap(self) -> None:
        try:
            self._wake.recv(4096)
        except BlockingIOError:
            pass
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            number = self._ids.pop(pid, 0)
            if not number:
                self._spares.ended(pid)
                continue  # it was born in the namespaces of a sandbox, and had nothing else to do
            self._children.pop(number, None)
            self._contained.discard(number)
            self._shares.pop(number, None)
            self._tell(Event(number, code=exit_code(status)))

    def _serve_one(self) -> bool:
        data, descriptors = receive(self._connection)
        if not data:
            return False
        try:
            self._serve(msgspec.json.decode(data, type=Command), descriptors)
        except Exception:  # of one request: all others go on
            traceback.print_exc()
        finally:
            for fd in descriptors:
                os.close(fd)
        return True

    def _serve(self, command: Command, descriptors: list[int]) -> None:
        try:
            if isinstance(command, Signal):
                self._signal(command)
            elif isinstance(command, MakeSandbox):
                self._make_sandbox(command)
            elif isinstance(command, MakeMounts):
                self._make_mounts(command)
            elif isinstance(command, Release):
                self._release(command)
            elif isinstance(command, EndLeft):
                self._end_left(command)
            elif isinstance(command, Ahead):
                self._make_ahead(command)
            else:
                self._spawn(command, descriptors)
        except Exception as error:
            failed = f"podplane failed ({type(error).__name__})"
            self._tell(Event(command.id, error=failed, code=NOT_EXECUTABLE, trace=traceback.format_exc()))

    def _make_ahead(self, command: Ahead) -> None:
        self._move_to(command.common)
        if command.root is not None and command.root != self._alike:
            rootfs.learn(command.root)
            self._try_out(command.root)
        self._alike = command.root
        if command.rights.is_filtered:
            seccomp.program(command.rights.kept)
        self._spares.want(command.count)

    def _try_out(self, root: Root) -> None:
        syscalls.unshare(syscalls.CLONE_NEWNS)
        try:
            rootfs.try_out(root)
        finally:
            syscalls.setns(self._own_mounts, syscalls.CLONE_NEWNS)

    def _signal(self, command: Signal) -> None:
        pid = self._children.get(command.id)
        if pid is not None:
            os.kill(pid, command.signal)

    def _make_sandbox(self, command: MakeSandbox) -> None:
        try:
            made = sandbox.make(self._users, command.user, command.group, self._next_maker())
        except OSError as error:
            self._tell(Event(command.id, error=error.strerror or str(error), code=error.errno))
            return
        try:
            socket.send_fds(self._connection, [msgspec.json.encode(Event(command.id, started=True))], made)
        finally:
            made.close()

    def _next_maker(self) -> int:
        """For whom it counts what the next pod uses up: another one for each, as long as there are so many."""
        self._pods += 1
        return self._users.first + self._pods % self._users.size if self._are_counted else 0

    def _release(self, command: Release) -> None:
        mounts = self._mounts.pop(command.id, -1)
        if mounts >= 0:
            os.close(mounts)

    def _make_mounts(self, command: MakeMounts) -> None:
        try:
            syscalls.unshare(syscalls.CLONE_NEWNS)
            try:
                for one in command.tmpfs:
                    volumes.mount(one, self._users.first)
                self._mounts[command.id] = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
            finally:
                syscalls.setns(self._own_mounts, syscalls.CLONE_NEWNS)
        except OSError as error:
            self._tell(Event(command.id, error=error.strerror or str(error), code=error.errno))
            return
        self._tell(Event(command.id, started=True))

    def _tell(self, event: Event) -> None:
        news = msgspec.json.encode(event)
        for _ in range(SHORT_TRIES):
            try:
                self._connection.send(news)
                return
            except OSError as error:
                if error.errno not in SHORT_OF:
                    raise
            time.sleep(SHORT_PAUSE)

    def _spawn(self, command: Spawn, descriptors: list[int]) -> None:
        container = -1
        try:
            if command.root is not None and not command.sandbox:
                raise LookupError("a file system of its own needs a sandbox")
            if command.root is not None:
                rootfs.learn(command.root)
            if command.rights.is_filtered:
                seccomp.program(command.rights.kept)  # here once, and not in every child
            container = self._container(command.join or command.pids)
            place = self._place(command, descriptors[1:], container)
            self._move_to(command.group.common if command.group is not None else ())
            share = self._shares.get(command.join) if command.join else Share(command.group, command.oom, command.pids == LAB)
            pid = self._taken_by_spare(command, descriptors, place) or self._fork(container)
            if pid == 0:
                Child(command, descriptors, place, share, self._connection, self._programs).become()
        except (OSError, LookupError) as error:
            why = f"{command.name[:WHY_BYTES]}: can't be started: {getattr(error, 'strerror', None) or error}"
            self._tell(Event(command.id, error=why, code=NOT_EXECUTABLE))
            return
        finally:
            if container >= 0:
                os.close(container)
        self._children[command.id] = pid
        self._ids[pid] = command.id
        if share is not None:
            self._shares[command.id] = share
        if command.sandbox or command.join in self._contained:
            self._contained.add(command.id)
        self._tell(Event(command.id, pid=pid))

    def _taken_by_spare(self, command: Spawn, descriptors: list[int], place: Place) -> int:
        """The process id of the child that waited for this, 0 when none did; another one is made later."""
        if not isinstance(place, InSandbox) or place.mounts >= 0 or command.pids:
            return 0
        return self._spares.take(command, descriptors, self._common)

    def _make_spare(self) -> Spare | None:
        return zygote_spare.make(
            lambda: self._fork(-1),
            frozenset(self._common),
            self._connection,
            self._programs,
            lambda namespaces, begun: InSandbox(namespaces, -1, self._users, self._limits, begun),
            lambda: InSandbox.begin(self._users, self._alike) if self._alike is not None else None,
        )

    def _fork(self, container: int) -> int:
        """Fork into the PID namespace of a container (a pidfd), or into a new one with -1. What nobody may look into: OSError."""
        if container >= 0:
            syscalls.setns(container, syscalls.CLONE_NEWPID)
        else:
            syscalls.unshare(syscalls.CLONE_NEWPID)
        pid = -1
        try:
            syscalls.set_dumpable(is_dumpable=False)
            pid = os.fork()
        finally:
            if pid != 0:  # the child stays where it is
                syscalls.setns(self._own_pids, syscalls.CLONE_NEWPID)
                syscalls.set_dumpable(is_dumpable=True)
        return pid

    def _end_left(self, command: EndLeft) -> None:
        """A child looks for them, by the lab's power and in a /proc that no container has changed."""
        try:
            container = self._container(command.pids)
        except (OSError, LookupError):  # it has ended, and all of them with it
            self._tell(Event(command.id, code=0))
            return
        try:
            pid = self._fork(container)
            if pid == 0:
                leftovers.become(command.mounts)
        except OSError as error:
            self._tell(Event(command.id, error=error.strerror or str(error), code=NOT_EXECUTABLE))
            return
        finally:
            os.close(container)
        self._children[command.id], self._ids[pid] = pid, command.id

    def _move_to(self, common: Sequence[str]) -> None:
        """Be in these groups, as the containers are that it starts from now on."""
        for folder in common:
            if folder not in self._common:
                cgroups.move_to(folder)
                self._common.add(folder)

    def _container(self, number: int) -> int:
        """The pidfd of a container, of the zygote itself for LAB; -1 for none."""
        if not number:
            return -1
        pid = os.getpid() if number == LAB else self._children.get(number)
        if pid is None:
            raise LookupError("its container has ended")
        return os.pidfd_open(pid)

    def _place(self, command: Spawn, descriptors: Sequence[int], container: int) -> Place:
        if command.join:
            return InContainer(container, self._users, is_contained=command.join in self._contained)
        if not command.sandbox:
            return InLab(descriptors[0])
        if command.mounts and command.mounts not in self._mounts:
            raise LookupError("its volumes are gone")
        namespaces, mounts = Sandbox(*descriptors[: len(sandbox.KINDS)]), self._mounts.get(command.mounts, -1)
        return InSandbox(namespaces, mounts, self._users, self._limits)


def exit_code(status: int) -> int:
    """The exit code for a wait status: 128 and the signal's number for what a signal ended, as shells have it."""
    code = os.waitstatus_to_exitcode(status)
    return 128 - code if code < 0 else code
