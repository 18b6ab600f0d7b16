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

The child reports on the same socket (messages are whole, whoever sends them): `started` when its program runs, or `error`. A built-in
program runs on in the fork, and imports of the pod's files what a pod may have put there: before it begins it gives the lab a pipe to hear
from, and lets go of the socket.
"""

from __future__ import annotations

import array
import contextlib
import errno
import gc
import os
import selectors
import shutil
import signal
import socket
import stat
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, NoReturn, Protocol

import msgspec

from podplane.kernel import cgroups, ids, process_title, rights, rootfs, sandbox, seccomp, syscalls, terminals, volumes
from podplane.kernel.cgroups import Group
from podplane.kernel.ids import Ids
from podplane.kernel.rights import Rights
from podplane.kernel.rootfs import Root
from podplane.kernel.sandbox import Sandbox
from podplane.kernel.volumes import Tmpfs, VolumeError

MESSAGE_BYTES = 200 * 1024
"""The longest message, and the most bytes of a command's arguments and environment."""
MAX_DESCRIPTORS = 7
MAX_WORD_BYTES = 128 * 1024
"""MAX_ARG_STRLEN of Linux."""
SHORT_OF = frozenset((errno.ENOBUFS, errno.ENOMEM, errno.ETOOMANYREFS))
"""This machine, of what a message needs (unix(7))."""
SHORT_TRIES, SHORT_PAUSE = 200, 0.05
"""How often, and after how many seconds again, the zygote sends its news then."""
STARTED, WHY_BYTES = b"\0", 1024
"""What a built-in program says on its pipe, or so much of why it can't be started."""
IGNORED_BY_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGHUP, signal.SIGINT)
NOT_FOUND, NOT_EXECUTABLE = 127, 126
"""Exit codes of a command that could not be started, as shells have them."""
ENTRY = "import gc, sys; gc.disable(); sys.path[:] = sys.argv[3:]; __import__(sys.argv[1], fromlist=['main']).main(int(sys.argv[2]))"

Ready = Callable[[], None]
Program = Callable[[list[str], Mapping[str, str], Ready], int]
"""A built-in program: arguments (its name first), environment (`os.environ` is the zygote's), and what to call when it serves;
returns the exit code."""


class MakeSandbox(msgspec.Struct, tag="sandbox"):
    """Make a sandbox; the answer comes with its descriptors, of which none stays here: each fork would copy and close them all. `user` and
    `group` are the numbers of those that it has, where pods have one."""

    id: int
    user: int = 0
    group: int = 0


class MakeMounts(msgspec.Struct, tag="mounts"):
    """Make file systems for volumes of a pod, in a mount namespace that its containers begin with: what is mounted in the lab's own is
    copied for each container of all pods."""

    id: int
    tmpfs: Sequence[Tmpfs]


class Release(msgspec.Struct, tag="release"):
    """Let go of mounts: what runs and sees them keeps them, nothing else can be started with them."""

    id: int


class Spawn(msgspec.Struct, tag="spawn", omit_defaults=True):
    """Start a process. With it come descriptors: its Words, those of its sandbox or the network namespace (not when joining), then stdin,
    stdout, stderr. With `tty` these are a new terminal of its own instead, and do not come. `name` is the first of its words.

    `join` is the id of a container that the process joins (all its namespaces); 0 makes new mount and PID namespaces, in those of
    `sandbox`, with a file system of its own made of `root`, whose sources may lie in `mounts`; without a sandbox a UTS namespace too, and
    the process stays in the lab's user namespace. With `pids`, the id of a container, it has the PID namespace of that, and no new one.
    `program` names the built-in program; without it the first word does, or is a command.
    `group` are its control groups, `oom` how much rather than others it is killed for want of memory (`oom_score_adj` of proc(5)): both are
    also those of what joins it.
    """

    id: int
    name: str
    hostname: str = ""
    directory: str = "/"
    join: int = 0
    tty: bool = False
    root: Root | None = None
    program: str = ""
    sandbox: bool = False
    rights: Rights = Rights()
    mounts: int = 0
    group: Group | None = None
    oom: int = 0
    pids: int = 0


class Words(msgspec.Struct):
    """Arguments and environment of a process, in a file (memfd_create(2)) that only the process itself reads: what the zygote reads may
    stay in its memory, of which all that is forked later has a copy."""

    argv: list[str]
    env: dict[str, str]


class Signal(msgspec.Struct, tag="signal"):
    """Send a signal to the process that was started as `id`; of one that ended, nothing happens."""

    id: int
    signal: int


class Event(msgspec.Struct, omit_defaults=True):
    """News of the process that was started as `id`: its pid, that it runs, that it couldn't start (`refused`: what its volumes shall give
    is not there), its exit code.

    With the news that it runs comes a descriptor of its termination message, if it has a file for one, and then one of the other end of its
    `terminal`, if it has one. With `hears` these come before it runs, and then one of a pipe, on which it says STARTED or why it can't.
    """

    id: int
    pid: int = 0
    started: bool = False
    error: str = ""
    code: int | None = None
    refused: bool = False
    terminal: bool = False
    hears: bool = False
    trace: str = ""
    """Where in podplane an error was that nobody thought of, for its log."""


Command = Spawn | Signal | MakeSandbox | MakeMounts | Release


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
        self._own_mounts = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        self._users = ids.of_pods()
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
        process_title.layout_of_process()  # here once, as the next one
        rootfs.limits_processes()
        with contextlib.suppress(OSError):  # a kernel without keys
            syscalls.join_new_session_keyring(is_closed=True)
        gc.collect()
        gc.freeze()
        gc.disable()  # in the children too: those that serve keep no cycles
        with selectors.DefaultSelector() as selector:
            selector.register(self._connection, selectors.EVENT_READ)
            selector.register(self._wake, selectors.EVENT_READ)
            while True:
                for key, _ in selector.select():
                    if key.fileobj is self._wake:
                        self._reap()
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
            else:
                self._spawn(command, descriptors)
        except Exception as error:
            failed = f"podplane failed ({type(error).__name__})"
            self._tell(Event(command.id, error=failed, code=NOT_EXECUTABLE, trace=traceback.format_exc()))

    def _signal(self, command: Signal) -> None:
        pid = self._children.get(command.id)
        if pid is not None:
            os.kill(pid, command.signal)

    def _make_sandbox(self, command: MakeSandbox) -> None:
        try:
            made = sandbox.make(self._users, command.user, command.group)
        except OSError as error:
            self._tell(Event(command.id, error=error.strerror or str(error), code=error.errno))
            return
        try:
            socket.send_fds(self._connection, [msgspec.json.encode(Event(command.id, started=True))], made)
        finally:
            made.close()

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
                rootfs.machine()
            if command.rights.is_filtered:
                seccomp.program(command.rights.kept)  # here once, and not in every child
            container = self._container(command.join or command.pids)
            place = self._place(command, descriptors[1:], container)
            self._move_to(command.group.common if command.group is not None else ())
            share = self._shares.get(command.join) if command.join else Share(command.group, command.oom)
            if container >= 0:
                syscalls.setns(container, syscalls.CLONE_NEWPID)
            else:
                syscalls.unshare(syscalls.CLONE_NEWPID)
            try:
                syscalls.set_dumpable(is_dumpable=False)
                pid = os.fork()
                if pid == 0:
                    Child(command, descriptors, place, share, self._connection, self._programs).become()
            finally:
                syscalls.setns(self._own_pids, syscalls.CLONE_NEWPID)
                syscalls.set_dumpable(is_dumpable=True)
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

    def _move_to(self, common: Sequence[str]) -> None:
        """Be in these groups, as the containers are that it starts from now on."""
        for folder in common:
            if folder not in self._common:
                cgroups.move_to(folder)
                self._common.add(folder)

    def _container(self, number: int) -> int:
        """The pidfd of a container; -1 for none."""
        if not number:
            return -1
        pid = self._children.get(number)
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
        return InSandbox(Sandbox(*descriptors[: len(sandbox.KINDS)]), self._mounts.get(command.mounts, -1), self._users)


class Share(msgspec.Struct, frozen=True):
    """What a container may have of the machine."""

    group: Group | None
    oom: int

    def take(self) -> None:
        """Make the limits count for this process and all its children."""
        if self.group is not None:
            cgroups.enter(self.group)
        if self.oom:
            fd = os.open("/proc/self/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.write(fd, str(self.oom).encode())
            finally:
                os.close(fd)


class Place(Protocol):
    """Where a process belongs."""

    @property
    def users(self) -> Ids:
        """The ids of its users."""

    def enter(self, command: Spawn) -> list[int]:
        """Enter its namespaces, and make those that it has alone. A descriptor of its termination message, if it has a file for one."""


class InLab(msgspec.Struct, frozen=True):
    """In the lab's user namespace, and this network namespace."""

    netns: int
    users: Ids = Ids()  # it is immutable

    def enter(self, command: Spawn) -> list[int]:
        """Its mounts and its host name are its own."""
        syscalls.setns(self.netns, syscalls.CLONE_NEWNET)
        syscalls.unshare(syscalls.CLONE_NEWNS | syscalls.CLONE_NEWUTS)
        rootfs.mount_kernel()
        if command.hostname:
            syscalls.sethostname(command.hostname)
        return []


class InSandbox(msgspec.Struct, frozen=True):
    """A new container of a pod; `mounts` is its pod's mount namespace, -1 for that of the lab."""

    sandbox: Sandbox
    mounts: int
    users: Ids

    def enter(self, command: Spawn) -> list[int]:
        """Its mounts are made before it enters the pod's user namespace, which locks them."""
        last_words: list[int] = []
        ids.create_as_first(self.users)
        sandbox.enter_before_mounts(self.sandbox)
        if self.mounts >= 0:
            syscalls.setns(self.mounts, syscalls.CLONE_NEWNS)
        syscalls.unshare(syscalls.CLONE_NEWNS)
        if command.root is not None:
            last_words = rootfs.enter(command.root)
        else:
            rootfs.mount_kernel()
        if command.hostname:
            syscalls.sethostname(command.hostname)
        sandbox.enter(self.sandbox, self.users)
        if command.root is not None:
            rootfs.finish()
        return last_words


class InContainer(msgspec.Struct, frozen=True):
    """In all namespaces of a container; `container` is its pidfd."""

    container: int
    users: Ids
    is_contained: bool

    def enter(self, command: Spawn) -> list[int]:
        """All at once, the user namespace first (setns(2))."""
        kinds = syscalls.CLONE_NEWNS | syscalls.CLONE_NEWUTS | syscalls.CLONE_NEWNET
        if self.is_contained:
            kinds |= syscalls.CLONE_NEWUSER | syscalls.CLONE_NEWIPC | syscalls.CLONE_NEWCGROUP
        syscalls.setns(self.container, kinds)
        if self.is_contained and self.users.size > 1:
            ids.become(0, 0)
        return []


class NoSuchCommand(Exception):
    """This machine has no program of that name."""


class Child:
    """The fork, on its way to being the program. Nothing here returns to the zygote's loop."""

    def __init__(
        self,
        command: Spawn,
        descriptors: list[int],
        place: Place,
        share: Share | None,
        connection: socket.socket,
        programs: Mapping[str, Program],
    ) -> None:
        self._command = command
        self._words, self._streams = descriptors[0], [] if command.tty else descriptors[-3:]
        self._place = place
        self._share = share
        self._connection = connection
        self._program = programs.get(command.program or command.name)
        self._finders = sys.meta_path[:]
        self._pipe = -1
        self._given: list[int] = []
        """Descriptors that the lab gets."""

    def become(self) -> NoReturn:
        """Enter the namespaces, arrange descriptors, and run the program."""
        code = NOT_EXECUTABLE
        try:
            self._prepare()
            code = self._run()
        except SystemExit as done:
            code = done.code if isinstance(done.code, int) else int(done.code is not None)
        except NoSuchCommand:
            code = NOT_FOUND
            self._fail(f"{self._command.name}: no such command on this machine")
        except VolumeError as error:
            self._fail(str(error), refused=True)
        except OSError as error:  # what it was done with may be a path of the machine
            self._fail(f"{self._command.name}: {error.strerror or type(error).__name__}")
        except ValueError as error:  # a NUL in a word
            self._fail(f"{self._command.name}: {error}")
        except BaseException as error:
            self._fail(f"{self._command.name}: podplane failed ({type(error).__name__})", traceback.format_exc())
        finally:
            os._exit(code)

    def _prepare(self) -> None:
        signal.set_wakeup_fd(-1)
        os.setsid()
        if self._share is not None:
            self._share.take()
        self._give_streams()
        self._given = self._place.enter(self._command)
        self._finders, sys.meta_path[:] = sys.meta_path[:], []  # what could be imported here is the pod's
        if not self._command.rights.is_filtered:  # else it can't use keys anyhow, and keyrings of all pods count for one user
            with contextlib.suppress(
                OSError
            ):  # without keys, or beyond that user's number: the zygote's stays, which is closed
                syscalls.join_new_session_keyring()
        syscalls.set_dumpable(is_dumpable=False)  # a change of ids may have set it (commit_creds)
        if self._command.tty:
            self._streams = [self._open_terminal()] * 3
        for target, fd in enumerate(self._streams):
            os.dup2(fd, target)
        if self._command.tty:
            syscalls.set_controlling_terminal(0)
        try:
            os.chdir(self._command.directory)
        except OSError as error:
            raise OSError(error.errno, f"working directory {self._command.directory}: {error.strerror}") from None
        rights.apply(self._command.rights)

    def _give_streams(self) -> None:
        """Have pipes belong to the user that is going to use them, who may open them again (/dev/stdout)."""
        users, who = self._place.users, self._command.rights
        for fd in set(self._streams) if users.size > 1 else ():
            if stat.S_ISFIFO(os.fstat(fd).st_mode):
                os.fchown(fd, users.first + who.user, users.first + who.group)

    def _open_terminal(self) -> int:
        """A new terminal of the container, for the user that is going to use it: a descriptor of the program's end."""
        try:
            master, own = terminals.make()
        except OSError as error:
            raise OSError(error.errno, f"no terminal: {error.strerror}") from None
        self._given.append(master)
        if self._place.users.size > 1:
            os.fchown(own, self._command.rights.user, self._command.rights.group)
        return own

    def _run(self) -> int:
        words = msgspec.json.decode(os.pread(self._words, MESSAGE_BYTES, 0), type=Words)
        if self._program is None:
            self._check(words)
            self._ready()
            os.execvpe(words.argv[0], words.argv, words.env)
        self._leave()
        process_title.show(words.argv, words.env)
        return self._program(words.argv, words.env, self._runs)

    @staticmethod
    def _check(words: Words) -> None:
        """NoSuchCommand, or OSError, for what execve(2) is going to refuse, as far as that can be told before."""
        name = words.argv[0]
        if shutil.which(name, path=words.env.get("PATH", os.defpath)) is None:
            raise PermissionError(errno.EACCES, "it is no program") if os.path.isfile(name) else NoSuchCommand
        longest = max(len(os.fsencode(word)) for word in [*words.argv, *words.env.values()])
        if longest >= MAX_WORD_BYTES:
            raise OSError(errno.E2BIG, os.strerror(errno.E2BIG))

    def _ready(self) -> None:
        """The last word: what it is going to be has no descriptor of the lab's."""
        news = msgspec.json.encode(Event(self._command.id, started=True, terminal=self._command.tty))
        socket.send_fds(self._connection, [news], self._given)

    def _leave(self) -> None:
        """From now on nobody but the zygote holds its end of the socket, so that its death is seen, and nothing of the lab is open."""
        hears, self._pipe = os.pipe2(os.O_CLOEXEC)
        news = msgspec.json.encode(Event(self._command.id, terminal=self._command.tty, hears=True))
        socket.send_fds(self._connection, [news], [*self._given, hears])
        os.closerange(3, self._pipe)
        os.closerange(self._pipe + 1, 1 << 20)
        sys.meta_path[:] = self._finders
        syscalls.set_dumpable(is_dumpable=True)  # and `/proc/PID/environ` is as usual

    def _runs(self) -> None:
        """The built-in program serves."""
        if self._pipe >= 0:
            self._say(STARTED)

    def _say(self, text: bytes) -> None:
        with contextlib.suppress(OSError):  # nobody hears any more
            os.write(self._pipe, text)
        os.close(self._pipe)
        self._pipe = -1

    def _fail(self, why: str, trace: str = "", *, refused: bool = False) -> None:
        why = why[:WHY_BYTES]  # it may have a path or a value of the pod in it
        if self._pipe >= 0:
            self._say(why.encode(errors="replace")[:WHY_BYTES])
            return
        with contextlib.suppress(OSError):
            self._connection.send(msgspec.json.encode(Event(self._command.id, error=why, refused=refused, trace=trace)))


def receive(connection: socket.socket) -> tuple[bytes, list[int]]:
    """One message and the descriptors that came with it, close-on-exec; no bytes when the other end is closed."""
    descriptors = array.array("i")
    data, ancillary, _, _ = connection.recvmsg(MESSAGE_BYTES, socket.CMSG_LEN(MAX_DESCRIPTORS * 4), socket.MSG_CMSG_CLOEXEC)
    for level, kind, content in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            descriptors.frombytes(content[: len(content) - len(content) % 4])
    return data, list(descriptors)


def exit_code(status: int) -> int:
    """The exit code for a wait status: 128 and the signal's number for what a signal ended, as shells have it."""
    code = os.waitstatus_to_exitcode(status)
    return 128 - code if code < 0 else code
