"""A fork of the zygote on its way to being a process in a container: into its namespaces, and then a program.

The child reports on the same socket (messages are whole, whoever sends them): `started` when its program runs, or `error`. A built-in
program runs on in the fork, and imports of the pod's files what a pod may have put there: before it begins it gives the lab a pipe to hear
from, and lets go of the socket.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal
import socket
import stat
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import NoReturn, Protocol

import msgspec

from podplane.kernel import cgroups, ids, process_title, rights, rootfs, sandbox, syscalls, terminals, user_limits
from podplane.kernel.cgroups import Group
from podplane.kernel.ids import Ids
from podplane.kernel.rootfs import Begun, Root
from podplane.kernel.sandbox import Sandbox
from podplane.kernel.volumes import VolumeError
from podplane.kernel.zygote_messages import NOT_EXECUTABLE, NOT_FOUND, STARTED, WHY_BYTES, Event, Spawn, Words

MAX_WORD_BYTES = 128 * 1024
"""MAX_ARG_STRLEN of Linux."""

Ready = Callable[[], None]
Program = Callable[[list[str], Mapping[str, str], Ready], int]
"""A built-in program: arguments (its name first), environment (`os.environ` is the zygote's), and what to call when it serves;
returns the exit code."""


class Share(msgspec.Struct, frozen=True):
    """What a container may have of the machine. `in_lab`: its processes are among the lab's, so no PID namespace bounds their number."""

    group: Group | None
    oom: int
    in_lab: bool = False

    def take(self) -> None:
        """Make the limits count for this process and all its children."""
        if self.group is not None:
            cgroups.enter(self.group)
        if self.in_lab:
            user_limits.bound_processes()
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

    @property
    def is_contained(self) -> bool:
        """Is it in a pod's user namespace?"""

    def enter(self, command: Spawn) -> list[int]:
        """Enter its namespaces, and make those that it has alone. A descriptor of its termination message, if it has a file for one."""


class InLab(msgspec.Struct, frozen=True):
    """In the lab's user namespace, and this network namespace."""

    netns: int
    users: Ids = Ids()  # it is immutable
    is_contained: bool = False

    def enter(self, command: Spawn) -> list[int]:
        """Its mounts and its host name are its own."""
        syscalls.setns(self.netns, syscalls.CLONE_NEWNET)
        syscalls.unshare(syscalls.CLONE_NEWNS | syscalls.CLONE_NEWUTS)
        rootfs.mount_kernel()
        if command.hostname:
            syscalls.sethostname(command.hostname)
        return []


class InSandbox(msgspec.Struct, frozen=True):
    """A new container of a pod; `mounts` is its pod's mount namespace, -1 for that of the lab; `limits` are sysctls of each pod
    (`user_limits`); `begun` is what the process has made of its file system already, in a mount namespace of its own."""

    sandbox: Sandbox
    mounts: int
    users: Ids
    limits: Mapping[str, str]
    begun: Begun | None = None
    is_contained: bool = True

    @staticmethod
    def begin(users: Ids, root: Root) -> Begun:
        """Before it is known which container of which pod it is: have a mount namespace, with the beginning of a file system like this."""
        ids.create_as_first(users)
        syscalls.unshare(syscalls.CLONE_NEWNS)
        return rootfs.begin(root)

    def enter(self, command: Spawn) -> list[int]:
        """Its mounts are made before it enters the pod's user namespace, which locks them."""
        sandbox.enter_before_mounts(self.sandbox)
        if self.begun is None:
            ids.create_as_first(self.users)
            if self.mounts >= 0:
                syscalls.setns(self.mounts, syscalls.CLONE_NEWNS)
            syscalls.unshare(syscalls.CLONE_NEWNS)
        if command.root is not None:
            sysctls, last_words = rootfs.enter(command.root, self.begun)
        else:
            rootfs.mount_kernel()
            sysctls, last_words = rootfs.open_sysctls(), []
        if command.hostname:
            syscalls.sethostname(command.hostname)
        sandbox.enter(self.sandbox, self.users)
        user_limits.of_pod(sysctls, self.limits)
        os.close(sysctls)
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
        if self._command.pids:
            self._given.append(os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC))
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
        if self._place.is_contained:
            user_limits.of_process()
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
        size = os.fstat(self._words).st_size  # a buffer for the longest words would take longer than all else here
        words = msgspec.json.decode(os.pread(self._words, size, 0), type=Words)
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
        self._tell_with(Event(self._command.id, started=True), [])

    def _tell_with(self, event: Event, more: Sequence[int]) -> None:
        event.mounts, event.terminal = bool(self._command.pids), self._command.tty
        socket.send_fds(self._connection, [msgspec.json.encode(event)], [*self._given, *more])

    def _leave(self) -> None:
        """From now on nobody but the zygote holds its end of the socket, so that its death is seen, and nothing of the lab is open."""
        hears, self._pipe = os.pipe2(os.O_CLOEXEC)
        self._tell_with(Event(self._command.id, hears=True), [hears])
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
